"""Cedar: what a policy sees of a call, what it may not be fooled by, and what is refused when it is made."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import anyio
import pytest

from computeragent.errors import PolicyInvalidError, ValidationError
from computeragent.policy import PolicyAction, PolicyDecision, PolicyInput, PolicyJudge, PolicyPrincipal, PolicyResource
from computeragent.policy.cedar import CedarPolicyEngine
from computeragent.policy.cedar_policies import statements
from computeragent.protocol_types import PermissionRequest

pytestmark = pytest.mark.anyio

PERMIT_ALL = "permit(principal, action, resource);\n"
NO_RM = """@id("no-rm")
forbid(principal, action, resource)
when { context.tool_input has command && context.tool_input.command like "*rm -rf*" };
"""
SCHEMA = """
entity Group; entity User in [Group] { level?: Long }; entity Agent { model?: String };
action toolUse appliesTo { principal: [User], resource: [Agent],
  context: { tool_name: String, risk?: String, tool_input: { command?: String } } };
"""
AWKWARD: list[Any] = [
    {"a": None, "b": [None, {"c": None, "d": [[None]]}]},
    {"a": 1.5, "b": -0.00001, "c": 1e300, "d": math.nan, "e": math.inf, "f": 5.0},
    {"a": 2**63, "b": -(2**200)},
    {"a": [1, "x", [True, {}], {"y": []}]},
    {"a": "half \ud800 a pair", "\udfff": 1},
    {"__entity": {"type": "User", "id": "root"}},
    {"a": {"__extn": {"fn": "ip", "arg": "nonsense"}}, "b": {"__expr": "1"}},
    {"": "", "\x00": "\x00", 'quote"back\\slash\n': 1},
    {"a": {"b": (1, 2)}, "c": b"bytes"},
]


def call(tool: str = "Bash", user: str = "alice", **given: Any) -> PolicyInput:
    return PolicyInput(
        PolicyPrincipal(user, given.get("groups", []), given.get("attributes", {})),
        PolicyAction("tool_use", tool, given.get("tool_input", {})),
        given.get("resource", PolicyResource(agent_name="builder", model="m1")),
        given.get("context", {}),
    )


def deep(levels: int) -> dict[str, Any]:
    value: Any = "bottom"
    for _ in range(levels):
        value = {"a": [value]}
    return {"deep": value}


async def allowed(policies: str | list[str], question: PolicyInput, **given: Any) -> bool:
    result = await CedarPolicyEngine(policies=policies, **given).evaluate(question)
    assert result.code is None, result.reason
    return result.decision is PolicyDecision.ALLOW


def when(condition: str) -> str:
    return f"permit(principal, action, resource) when {{ {condition} }};"


# ── What a policy sees ──


async def test_the_tool_input_is_in_the_context():
    policies = PERMIT_ALL + NO_RM
    assert await allowed(policies, call(tool_input={"command": "ls"}))
    assert await allowed(policies, call("Read", tool_input={"file_path": "/a"}))
    assert not await allowed(policies, call(tool_input={"command": "cd /; rm -rf *"}))


@pytest.mark.parametrize(
    "condition",
    [
        'principal == User::"alice"',
        'principal in Group::"eng"',
        "principal.level == 3",
        'action == Action::"toolUse" && action.tool == "Bash"',
        'resource == Agent::"builder" && resource.model == "m1" && resource.engine == "scripted"',
        'context.risk == "read" && context.tool_name == "Bash"',
        'context.tool_input.list.contains("b")',
        'context.tool_input.ratio.lessThan(decimal("0.75"))',
        "context.tool_input.whole == 5",
    ],
)
async def test_a_policy_sees(condition: str):
    question = call(
        groups=["eng", "eng"],
        attributes={"level": 3},
        tool_input={"list": ["a", "b"], "ratio": 0.5, "whole": 5.0},
        resource=PolicyResource(agent_name="builder", model="m1", attributes={"engine": "scripted"}),
        context={"risk": "read"},
    )
    assert await allowed(when(condition), question)
    nobody = call("Read", "bob", resource=PolicyResource(agent_name="other"), context={"risk": "write"})
    result = await CedarPolicyEngine(policies=when(condition)).evaluate(nobody)
    assert result.decision is PolicyDecision.DENY


@pytest.mark.parametrize(
    ("resource", "agent"),
    [
        (PolicyResource(agent_name="a", session_id="s"), "a"),
        (PolicyResource(session_id="s"), "s"),
        (PolicyResource(), "anonymous"),
    ],
)
async def test_the_agent_is_named_after_what_is_known_of_it(resource: PolicyResource, agent: str):
    assert await allowed(when(f'resource == Agent::"{agent}"'), call(resource=resource))


async def test_a_resolver_cannot_put_another_tool_input_in_front_of_policies():
    question = call(tool_input={"command": "rm -rf /"}, context={"tool_input": {"command": "ls"}, "tool_name": "Read"})
    assert not await allowed(PERMIT_ALL + NO_RM, question)
    assert await allowed(when('context.tool_name == "Bash"'), question)


async def test_entities_place_groups_in_groups_and_say_more_of_users():
    entities = [
        {"uid": {"type": "Group", "id": "eng"}, "attrs": {}, "parents": [{"type": "Group", "id": "staff"}]},
        {"uid": {"type": "User", "id": "alice"}, "attrs": {"level": 9}, "parents": [{"type": "Group", "id": "board"}]},
    ]
    policies = when('principal in Group::"staff"')
    assert await allowed(policies, call(user="bob", groups=["eng"]), entities=entities)
    assert not await allowed(policies, call(user="bob"), entities=entities)
    both = when('principal in Group::"staff" && principal in Group::"board" && principal.level == 9')
    assert await allowed(both, call(groups=["eng"], attributes={"level": 1}), entities=entities)


# ── What it may not be fooled by ──


@pytest.mark.parametrize("user", ['al"ice', "back\\slash", "new\nline", "", "ünï \U0001f600", 'x" || true || "'])
async def test_ids_with_quotes_are_ids_like_others(user: str):
    policies = PERMIT_ALL + 'forbid(principal == User::"mallory", action, resource);'
    assert await allowed(policies, call(user=user, groups=[user], resource=PolicyResource(agent_name=user)))
    assert not await allowed(policies, call(user="mallory"))


@pytest.mark.parametrize("value", AWKWARD, ids=lambda value: next(iter(value)) or "empty")
async def test_awkward_json_is_judged_like_other_json(value: dict[str, Any]):
    question = call(tool_input=value | {"command": "ls"}, attributes=value, context={"more": value, **value})
    assert await allowed(PERMIT_ALL + NO_RM, question)
    worse = call(tool_input=value | {"command": "rm -rf /"}, attributes=value, context=value)
    assert not await allowed(PERMIT_ALL + NO_RM, worse)


async def test_deep_input_is_judged():
    assert await allowed(PERMIT_ALL, call(tool_input=deep(200)))


async def test_input_too_deep_for_json_denies():
    result = await CedarPolicyEngine(policies=PERMIT_ALL).evaluate(call(tool_input=deep(100_000)))
    assert (result.decision, result.code) == (PolicyDecision.DENY, "POLICY_ERROR")


async def test_a_tool_input_cannot_name_entities():
    forged = call(tool_input={"who": {"__entity": {"type": "User", "id": "root"}}})
    result = await CedarPolicyEngine(policies=when('context.tool_input.who == User::"root"')).evaluate(forged)
    assert result.decision is PolicyDecision.DENY


async def test_a_key_with_underscores_is_still_told_from_others():
    question = call(tool_input={"__entity": 1, "___entity": 2, "_x": 3})
    names = 'context.tool_input["___entity"] == 1 && context.tool_input["____entity"] == 2'
    assert await allowed(when(names + " && context.tool_input._x == 3"), question)


# ── Policies that fail ──


async def test_a_forbid_that_fails_denies_although_a_permit_matched():
    careless = '@id("careless") forbid(principal, action, resource) when { context.tool_input.command like "rm*" };'
    result = await CedarPolicyEngine(policies=[PERMIT_ALL, careless]).evaluate(call("Read", tool_input={"path": "x"}))
    assert (result.decision, result.code) == (PolicyDecision.DENY, "POLICY_ERROR")
    assert "careless: record does not have the attribute `command`" in result.reason
    assert "`has`" in result.reason


async def test_a_permit_that_fails_is_skipped_and_said():
    careless = '@id("careless") permit(principal, action, resource) when { context.nothing == 1 };'
    result = await CedarPolicyEngine(policies=[careless, '@id("all") ' + PERMIT_ALL]).evaluate(call())
    assert (result.decision, result.rule, result.code) == (PolicyDecision.ALLOW, "all", None)
    assert "careless" in result.reason
    alone = await CedarPolicyEngine(policies=careless).evaluate(call())
    assert (alone.decision, alone.code) == (PolicyDecision.DENY, "POLICY_ERROR")


async def test_a_forbid_that_matches_is_the_rule_although_another_fails():
    failing = "forbid(principal, action, resource) when { context.nothing == 1 };"
    result = await CedarPolicyEngine(policies=[PERMIT_ALL, failing, NO_RM]).evaluate(
        call(tool_input={"command": "rm -rf /"})
    )
    assert (result.decision, result.rule, result.code) == (PolicyDecision.DENY, "no-rm", None)


async def test_the_reason_names_what_decided():
    engine = CedarPolicyEngine(policies=['@id("b") ' + PERMIT_ALL, PERMIT_ALL, NO_RM])
    result = await engine.evaluate(call())
    assert (result.rule, result.reason, result.engine) == ("b, policy1", "permitted by b, policy1", "cedar")
    nothing = await CedarPolicyEngine(policies="// nobody may do anything").evaluate(call())
    assert (nothing.decision, nothing.reason) == (PolicyDecision.DENY, "no policy permits the call")


# ── Made wrongly ──


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"policies": PERMIT_ALL + "// fine\n\npermit(principal,\n action resource);"}, "policies:4: unexpected token"),
        ({"policies": [PERMIT_ALL, "\npermit(principal, action, resource)"]}, "policies[1]:2: unexpected end"),
        ({"policies": ["permit(principal,", "action, resource);"]}, "policies[0]:1: unexpected end"),
        ({"policies": PERMIT_ALL + "forbid(principal == ?principal, action, resource);"}, "policies:2: a template"),
        ({"policies": PERMIT_ALL, "schema": "entity User in ["}, "schema: error parsing schema"),
        ({"policies": PERMIT_ALL + when("context.nope == 1"), "schema": SCHEMA}, "policies:2: "),
        ({"policies": when('context.tool_input.command like "x"'), "schema": SCHEMA}, "policies:1: "),
        ({"policies": PERMIT_ALL, "entities": [{"uid": {"type": "User", "id": "a"}}, {"uid": "x"}]}, "entities[0]: "),
        (
            {
                "policies": PERMIT_ALL,
                "schema": SCHEMA,
                "entities": [{"uid": {"type": "User", "id": "a"}, "attrs": {"level": "high"}, "parents": []}],
            },
            "entities[0]: entity does not conform",
        ),
    ],
)
async def test_what_is_no_policy_is_refused_with_its_place(given: dict[str, Any], said: str):
    with pytest.raises(PolicyInvalidError) as caught:
        CedarPolicyEngine(**given)
    assert caught.value.message.startswith(said)
    assert isinstance(caught.value, ValueError)


async def test_a_schema_does_not_refuse_calls_that_it_does_not_describe():
    guarded = when("context.tool_input has command") + NO_RM
    question = call(tool_input={"command": "ls", "timeout": 5, "more": [1.5]}, attributes={"level": 3, "team": "x"})
    assert await allowed(guarded, question, schema=SCHEMA)


async def test_the_groups_of_actions_in_a_schema_hold():
    schema = SCHEMA.replace("action toolUse", "action anything; action toolUse in anything")
    policies = 'permit(principal, action in Action::"anything", resource) when { context.tool_name == "Bash" };'
    assert await allowed(policies, call(), schema=schema)


@pytest.mark.parametrize(
    "given", [{}, {"policies": "", "path": "x"}, {"policies": [1]}, {"policies": "", "fail_mode": "maybe"}]
)
async def test_arguments_that_make_no_sense_are_refused(given: dict[str, Any]):
    with pytest.raises(ValidationError):
        CedarPolicyEngine(**given)


def test_statements_know_strings_and_comments():
    text = '// a; b\npermit(principal, action, resource) when { "a;\\"b//" == "" }; // c\n\nforbid'
    assert [line for line, _ in statements(text)] == [2, 4]


# ── A file that changes ──


async def test_a_changed_file_judges_the_next_call(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "policy.cedar"
    path.write_text(PERMIT_ALL)
    judge = PolicyJudge(engine := CedarPolicyEngine(path=path), principal=PolicyPrincipal("alice"))
    assert engine._file is not None
    engine._file._every = 0.0
    request = PermissionRequest("c1", "Bash", {"command": "rm -rf /"})
    assert (await judge(request)).decision == "allow"
    _replace(path, PERMIT_ALL + NO_RM)
    assert [(await judge(request)).decision for _ in range(3)][-1] == "deny"
    with caplog.at_level(logging.ERROR, "computeragent"):
        _replace(path, "permit(")
        assert [(await judge(request)).decision for _ in range(3)] == ["deny"] * 3
    assert f"{path}:1: unexpected end" in caplog.text


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_runs_on_both_event_loops(backend: str):
    result = anyio.run(CedarPolicyEngine(policies=PERMIT_ALL).evaluate, call(), backend=backend)
    assert result.decision is PolicyDecision.ALLOW


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
