"""`ComputerAgent(policy=…)` in every spelling, and the policy that binds an agent which brings none along."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent
from computeragent.errors import NotRemotableError, ValidationError
from computeragent.policy import PolicyDecision, PolicyInput, PolicyResult
from computeragent.policy.config import make_engine, parse_policy
from computeragent.protocol_types import PermissionRequest, PolicyVerdict

pytestmark = pytest.mark.anyio
WRITE = {"tool": "Write", "input": {"file_path": "note.txt", "content": "x"}, "result": "written"}
RULES = "version: 1\ndefault: allow\nrules:\n- {name: no-writing, effect: deny, match: {tool: Write}}\n"
CEDAR = '@id("all") permit(principal, action, resource);\n@id("no-writing") forbid(principal, action, resource)\n'
CEDAR += 'when { context.tool_name == "Write" };\n'


async def decision(**agent: Any) -> Any:
    """What is decided of a call that writes a file; and the file tells the same."""
    source = {"type": "inline", "manifest": {"name": "writer"}}
    async with ComputerAgent(source=source, engine="scripted", options={"script": [[WRITE]]}, **agent) as made:
        events = [event async for event in made.chat("go")]
        written = await made.fetch_artifact("note.txt") is not None
    (found,) = [event for event in events if event.kind == "ca_permission_decision"]
    assert written is (found.decision != "deny")
    return found


class Engine:
    """A policy engine of the caller's own."""

    name = "own"

    def __init__(self, decided: str) -> None:
        self.decided, self.closed = PolicyDecision(decided), False
        self.asked: list[PolicyInput] = []

    async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002
        self.asked.append(input)
        return PolicyResult(self.decided, rule="whim")

    async def aclose(self) -> None:
        self.closed = True


async def test_a_policy_may_be_a_file_data_an_engine_or_a_callable(tmp_path: Path) -> None:
    rules, cedar = tmp_path / "p.yaml", tmp_path / "p.cedar"
    rules.write_text(RULES)
    cedar.write_text(CEDAR)

    async def decider(request: PermissionRequest) -> PolicyVerdict:
        return PolicyVerdict("deny", rule="no-writing", engine="mine")

    for policy, engine in (
        (str(rules), "rules"),
        (rules, "rules"),
        (cedar, "cedar"),
        ({"kind": "rules", "text": RULES}, "rules"),
        ({"kind": "cedar", "path": str(cedar)}, "cedar"),
        (decider, "mine"),
    ):
        told = await decision(policy=policy)
        assert (told.decision, told.engine, told.rule) == ("deny", engine, "no-writing")
    assert (await decision(policy_decider=decider)).engine == "mine"


async def test_an_engine_of_the_callers_is_asked_with_all_that_is_known_and_stays_open() -> None:
    engine = Engine("allow")
    told = await decision(policy=engine, principal="ann", model="m", session_id="s1", agent_name="scribe")
    assert (told.decision, told.engine, told.rule, told.principal) == ("allow", "own", "whim", "ann")
    (asked,) = engine.asked
    assert asked.action.tool_input == WRITE["input"]
    assert (asked.resource.agent_name, asked.resource.session_id, asked.resource.model) == ("scribe", "s1", "m")
    assert asked.resource.attributes["engine"] == "scripted"
    assert (asked.context["risk"], Path(asked.context["cwd"]).name) == ("medium", "source")
    assert not engine.closed


async def test_a_policy_file_that_changes_holds_for_the_next_call(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(RULES)
    source = {"type": "inline", "manifest": {"name": "writer"}}
    turns = [[WRITE], [WRITE], [WRITE]]
    async with ComputerAgent(source=source, engine="scripted", options={"script": turns}, policy=file) as agent:
        decided: list[str] = []
        for text in (None, RULES.replace("deny", "allow"), "version: 1\nrules: oops"):
            if text is not None:
                file.write_text(text)
                await asyncio.sleep(0.6)
            events = [event async for event in agent.chat("go")]
            decided += [event.decision for event in events if event.kind == "ca_permission_decision"]
    assert decided == ["deny", "allow", "allow"]  # the last version that could be read stands


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"policy": 5}, "policy cannot be a int"),
        ({"policy": "policy.rego"}, "no policy file that is known here"),
        ({"policy": {"kind": "house"}}, "names no kind of policy"),
        ({"policy": {"kind": "rules", "txt": ""}}, "unknown field"),
        ({"policy": {"kind": "srs", "endpoint": "http://x", "apiKey": "sk-secret"}}, "missing required field"),
        ({"policy": "p.yaml", "policy_decider": print}, "mean the same"),
        ({"principal": 5}, "a principal is a name"),
    ],
    ids=str,
)
def test_nonsense_is_refused_at_once(given: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        ComputerAgent(source=".", engine="scripted", **given)
    assert "sk-secret" not in str(caught.value) + str(caught.value.hint)


def test_a_live_policy_and_a_principal_do_not_travel() -> None:
    for given in ({"policy": Engine("allow")}, {"principal": "ann"}):
        with pytest.raises(NotRemotableError):
            ComputerAgent(source=".", harness_url="http://127.0.0.1:1", harness_kind="protocol", **given)


async def test_an_srs_policy_of_the_environment_binds_agents_that_bring_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRS_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SRS_POLICY_ID", "p1")
    told = await decision()
    assert (told.decision, told.engine) == ("deny", "srs")
    assert told.code in {"POLICY_UNBOUND", "POLICY_UNAVAILABLE"}
    assert (await decision(policy=Engine("allow"))).engine == "own"


@pytest.mark.parametrize("name", ["SRS_BASE_URL", "SRS_POLICY_ID"])
def test_half_an_srs_policy_of_the_environment_is_no_reason_to_run_without_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(ValidationError, match=f"{name} alone names no policy"):
        ComputerAgent(source=".", engine="scripted")
    ComputerAgent(source=".", engine="scripted", policy=Engine("allow"))


@pytest.mark.parametrize("fields", [{"endpoint": "", "policyId": "p"}, {"endpoint": " ", "policyId": ""}])
def test_an_srs_policy_that_is_empty_is_not_looked_up_elsewhere(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="an endpoint and a policyId"):
        make_engine(parse_policy({"kind": "srs", **fields}))
