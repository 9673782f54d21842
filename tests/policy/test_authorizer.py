"""`PolicyToolAuthorizer` as upstream calls it: sync and async resolvers, both arities, and telemetry."""

from __future__ import annotations

from typing import Any

import pytest
from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny, ToolPermissionContext

from computeragent.errors import ValidationError
from computeragent.policy import (
    PolicyDecision,
    PolicyInput,
    PolicyPrincipal,
    PolicyResource,
    PolicyResult,
    PolicyToolAuthorizer,
)
from computeragent.protocol_types import PermissionRequest

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


class Engine:
    name = "engine"

    def __init__(self, decision: str, **more: Any) -> None:
        self.result = PolicyResult(PolicyDecision(decision), **more)
        self.asked: list[PolicyInput] = []

    async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002
        self.asked.append(input)
        return self.result

    async def aclose(self) -> None:
        return None


CONTEXT = ToolPermissionContext(tool_use_id="t1")


def ann(context: ToolPermissionContext) -> PolicyPrincipal:
    return PolicyPrincipal("ann", attributes={"call": context.tool_use_id})


async def test_it_allows_with_the_input_as_it_is() -> None:
    engine = Engine("allow")

    async def resource(context: ToolPermissionContext, action: Any) -> PolicyResource:
        return PolicyResource(agent_name=action.tool_name.lower())

    authorizer = PolicyToolAuthorizer(
        engine=engine,
        principal_resolver=ann,
        resource_resolver=resource,
        context_resolver=lambda context, action: {"command": action.tool_input["command"]},
    )
    result = await authorizer("Bash", {"command": "rm -rf /"}, CONTEXT)
    assert isinstance(result, PermissionResultAllow)
    assert result.updated_input == {"command": "rm -rf /"}
    (asked,) = engine.asked
    assert (asked.principal.attributes, asked.resource.agent_name) == ({"call": "t1"}, "bash")
    assert asked.context == {"risk": "destructive", "command": "rm -rf /"}


async def test_it_denies_with_the_reason_and_ends_the_turn_if_so_told() -> None:
    for on_deny, interrupt in (("deny", False), ("interrupt", True)):
        authorizer = PolicyToolAuthorizer(
            engine=Engine("deny", reason="not you"), principal_resolver=ann, on_deny=on_deny
        )
        result = await authorizer("Bash", {}, CONTEXT)
        assert isinstance(result, PermissionResultDeny)
        assert (result.message, result.interrupt) == ("not you", interrupt)


def failing(context: Any) -> Any:
    raise RuntimeError("directory down")


@pytest.mark.parametrize("which", ["principal_resolver", "resource_resolver", "context_resolver"])
async def test_a_resolver_that_fails_denies(which: str) -> None:
    engine = Engine("allow")
    resolvers: dict[str, Any] = {"principal_resolver": ann} | {which: failing}
    result = await PolicyToolAuthorizer(engine=engine, **resolvers)("Bash", {}, CONTEXT)
    assert isinstance(result, PermissionResultDeny)
    assert engine.asked == []


async def test_a_resolver_that_takes_for_ever_denies() -> None:
    import anyio

    async def slow(context: Any) -> Any:
        await anyio.sleep_forever()

    result = await PolicyToolAuthorizer(engine=Engine("allow"), principal_resolver=slow, timeout=0.05)(
        "Bash", {}, CONTEXT
    )
    assert isinstance(result, PermissionResultDeny)
    assert "did not answer within" in result.message


async def test_what_the_policy_asks_goes_to_who_is_there_and_else_is_denied() -> None:
    engine = Engine("ask", reason="it is late")
    nobody = PolicyToolAuthorizer(engine=engine, principal_resolver=ann)
    assert isinstance(await nobody("Bash", {}, CONTEXT), PermissionResultDeny)
    heard: list[Any] = []

    async def somebody(request: Any) -> bool:
        heard.append((request.policy, request.reason, request.tool_name))
        return True

    asked = PolicyToolAuthorizer(engine=engine, principal_resolver=ann, on_ask=somebody)
    assert isinstance(await asked("Bash", {}, CONTEXT), PermissionResultAllow)
    assert heard == [("engine", "it is late", "Bash")]
    broken = PolicyToolAuthorizer(engine=engine, principal_resolver=ann, on_ask=failing)
    assert isinstance(await broken("Bash", {}, CONTEXT), PermissionResultDeny)


async def test_a_changed_input_is_what_runs() -> None:
    engine = Engine("allow", obligations=[{"kind": "redact", "argument": "token"}])
    result = await PolicyToolAuthorizer(engine=engine, principal_resolver=ann)("Send", {"token": "t", "n": 1}, CONTEXT)
    assert isinstance(result, PermissionResultAllow)
    assert result.updated_input == {"token": "[REDACTED]", "n": 1}


def test_nonsense_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValidationError, match="on_deny"):
        PolicyToolAuthorizer(engine=Engine("allow"), principal_resolver=ann, on_deny="stop")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValidationError, match="principal_resolver must be a callable"):
        PolicyToolAuthorizer(engine=Engine("allow"), principal_resolver="ann")  # pyright: ignore[reportArgumentType]


async def test_the_session_s_folder_is_told_unless_the_caller_says_otherwise() -> None:
    async def more(context: ToolPermissionContext) -> dict[str, Any]:
        return {"cwd": "/else", "who": "x"}

    engine, call = Engine("allow"), PermissionRequest("c1", "Bash", {"command": "ls"})
    await PolicyToolAuthorizer(engine=engine, principal_resolver=ann).rule(call, CONTEXT, cwd="/work")
    resolved = PolicyToolAuthorizer(engine=engine, principal_resolver=ann, context_resolver=more)
    await resolved.rule(call, CONTEXT, cwd="/work")
    assert [asked.context for asked in engine.asked] == [
        {"risk": "low", "cwd": "/work"},
        {"risk": "low", "cwd": "/else", "who": "x"},
    ]
