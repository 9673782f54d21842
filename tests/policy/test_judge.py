"""The judge: the question as policies see it, the verdict as the chain sees it, and nothing but denial for faults."""

from __future__ import annotations

from typing import Any

import pytest

from computeragent.policy import (
    PolicyDecision,
    PolicyInput,
    PolicyJudge,
    PolicyPrincipal,
    PolicyResource,
    PolicyResult,
)
from computeragent.protocol_types import PermissionRequest

pytestmark = pytest.mark.anyio
ANN = PolicyPrincipal("ann", groups=["dev"])
CALL = PermissionRequest("c1", "Bash", {"command": "ls"}, "high")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


class Engine:
    """Gives these results in turn, the last one for ever; an exception is raised."""

    name = "engine"

    def __init__(self, *results: Any) -> None:
        self.results = list(results)
        self.asked: list[PolicyInput] = []

    async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002
        self.asked.append(input)
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, Exception):
            raise result
        return result

    async def aclose(self) -> None:
        return None


class Cached(Engine):
    generation: Any = 1


ALLOW = PolicyResult(PolicyDecision.ALLOW, rule="r")


async def test_the_question_says_who_what_with_what_and_in_which_context() -> None:
    engine = Engine(ALLOW)
    judge = PolicyJudge(
        engine, principal=ANN, resource=PolicyResource(agent_name="a", session_id="s"), context={"cwd": "/w"}
    )
    verdict = await judge(CALL)
    assert engine.asked[0].to_json() == {
        "principal": {"id": "ann", "groups": ["dev"], "attributes": {}},
        "action": {"name": "tool_use", "tool_name": "Bash", "tool_input": {"command": "ls"}},
        "resource": {"type": "agent", "agent_name": "a", "model": "", "session_id": "s", "attributes": {}},
        "context": {"risk": "high", "cwd": "/w"},
    }
    assert (verdict.decision, verdict.engine, verdict.rule, verdict.principal) == ("allow", "engine", "r", "ann")


async def test_parts_may_be_found_out_for_each_call_sync_or_async() -> None:
    async def principal(request: PermissionRequest) -> PolicyPrincipal:
        return PolicyPrincipal(request.tool_name)

    engine = Engine(ALLOW)
    await PolicyJudge(engine, principal=principal, context=lambda request: {"n": len(request.input)})(CALL)
    assert (engine.asked[0].principal.id, engine.asked[0].context) == ("Bash", {"risk": "high", "n": 1})


def raising(request: PermissionRequest) -> Any:
    raise LookupError("no such user: secret-name")


@pytest.mark.parametrize(
    "parts",
    [
        {"principal": raising},
        {"principal": None},
        {"principal": "ann"},
        {"principal": ANN, "resource": lambda _: "agent"},
        {"principal": ANN, "context": raising},
        {"principal": ANN, "context": lambda _: 5},
    ],
    ids=["raises", "absent", "no principal", "resource", "context raises", "context"],
)
async def test_a_question_that_cannot_be_made_denies(parts: Any) -> None:
    engine = Engine(ALLOW)
    verdict = await PolicyJudge(engine, **parts)(CALL)
    assert (verdict.decision, verdict.code, engine.asked) == ("deny", "POLICY_RESOLVER", [])
    assert "secret-name" not in str(verdict.reason)


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (ConnectionError("down: secret-token"), "POLICY_ERROR"),
        (True, "POLICY_MALFORMED"),
        (None, "POLICY_MALFORMED"),
        ("allow", "POLICY_MALFORMED"),
        (PolicyResult("allow"), "POLICY_MALFORMED"),  # pyright: ignore[reportArgumentType]
        (PolicyResult(PolicyDecision.ALLOW, obligations=[{"kind": "unheard of"}]), "POLICY_OBLIGATION"),
    ],
    ids=str,
)
async def test_an_engine_that_fails_or_answers_nonsense_denies(result: Any, code: str) -> None:
    verdict = await PolicyJudge(Engine(result), principal=ANN)(CALL)
    assert (verdict.decision, verdict.code, verdict.engine) == ("deny", code, "engine")
    assert "secret-token" not in str(verdict.reason)


async def test_a_person_is_asked_about_the_input_that_obligations_leave() -> None:
    obligations = [{"kind": "redact", "argument": "token"}]
    judge = PolicyJudge(Engine(PolicyResult(PolicyDecision.ASK, "why", obligations)), principal=ANN)
    verdict = await judge(PermissionRequest("c", "Deploy", {"token": "s3cret"}))
    assert (verdict.decision, verdict.input) == ("modify", {"token": "[REDACTED]"})
    verdict = await judge(PermissionRequest("c", "Deploy", {"token": "[REDACTED]"}))
    assert (verdict.decision, verdict.reason) == ("ask", "why")
    judge = PolicyJudge(Engine(PolicyResult(PolicyDecision.ASK, obligations=[{"kind": "unheard of"}])), principal=ANN)
    assert (await judge(PermissionRequest("c", "Deploy", {}))).code == "POLICY_OBLIGATION"


async def test_obligations_change_the_input_first_and_then_a_person_is_asked() -> None:
    obligations = [{"kind": "cap", "argument": "timeout", "max": 5}, {"kind": "require_approval", "reason": "slow"}]
    judge = PolicyJudge(Engine(PolicyResult(PolicyDecision.ALLOW, obligations=obligations)), principal=ANN)
    first = await judge(PermissionRequest("c", "Bash", {"timeout": 9}))
    assert (first.decision, first.input) == ("modify", {"timeout": 5})
    second = await judge(PermissionRequest("c", "Bash", {"timeout": 5}))
    assert (second.decision, second.reason) == ("ask", "slow")


async def test_answers_are_remembered_by_the_whole_question_until_the_policy_changes() -> None:
    engine = Cached(ALLOW, PolicyResult(PolicyDecision.DENY))
    judge = PolicyJudge(engine, principal=lambda request: PolicyPrincipal(request.call_id))
    same = PermissionRequest("c1", "Bash", {"b": 1, "a": 2})
    assert (await judge(same)).decision == "allow"
    assert (await judge(PermissionRequest("c1", "Bash", {"a": 2, "b": 1}))).decision == "allow"
    assert len(engine.asked) == 1
    assert (await judge(PermissionRequest("c2", "Bash", {"b": 1, "a": 2}))).decision == "deny"
    engine.results = [PolicyResult(PolicyDecision.DENY)]
    engine.generation = 2
    assert (await judge(same)).decision == "deny"


async def test_faults_and_answers_of_a_policy_that_changed_meanwhile_are_not_remembered() -> None:
    engine = Cached(PolicyResult(PolicyDecision.DENY, code="POLICY_UNAVAILABLE"), ALLOW)
    judge = PolicyJudge(engine, principal=ANN)
    assert (await judge(CALL)).decision == "deny"
    assert (await judge(CALL)).decision == "allow"

    class Changing(Cached):
        async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002
            self.generation += 1
            return await super().evaluate(input)

    changing = Changing(ALLOW, PolicyResult(PolicyDecision.DENY))
    judge = PolicyJudge(changing, principal=ANN)
    assert [(await judge(CALL)).decision for _ in range(2)] == ["allow", "deny"]


async def test_an_input_that_is_no_json_is_judged_and_not_remembered() -> None:
    engine = Cached(ALLOW)
    judge = PolicyJudge(engine, principal=ANN)
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    for _ in range(2):
        assert (await judge(PermissionRequest("c", "T", loop))).decision == "allow"
    assert len(engine.asked) == 2
