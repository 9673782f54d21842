"""Permission requests are answered by the same rule wherever the agent runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from computeragent import ComputerAgent, PermissionDecision, PermissionRequest
from computeragent.errors import NotRemotableError, UnknownCallError

from .conftest import TOKEN, scripted

pytestmark = pytest.mark.anyio

LS = {"tool": "Bash", "input": {"command": "ls"}, "result": "x"}
RM = {"tool": "Bash", "input": {"command": "rm -rf /"}, "result": "x"}
WRITE = {"tool": "Write", "input": {"file_path": "a.txt", "content": "asked for"}}


@pytest.fixture(params=["in process", "over http", "in a sandbox"])
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "in process":
        return {}
    kind, server = ("protocol", "harness_server") if request.param == "over http" else ("server", "sandbox_server")
    return {"harness_url": request.getfixturevalue(server), "harness_kind": kind, "harness_token": TOKEN}


async def decisions(agent: ComputerAgent, manual: dict[str, Any] | None = None) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    handle = agent.chat("go")
    async for event in handle:
        if event.kind == "ca_permission_request" and manual is not None:
            await handle.respond_to_permission(event.call_id, manual)
        if event.kind == "ca_permission_decision":
            found.append((event.decision, event.reason))
    return found


async def test_by_default_all_is_allowed_but_what_destroys(where: dict[str, Any]) -> None:
    async with ComputerAgent(**scripted([LS, RM, {"text": "done"}], **where)) as agent:
        (first, _), (second, why) = await decisions(agent)
    assert (first, second) == ("allow", "deny")
    assert why is not None
    assert "destructive calls are denied by default" in why


def sync_no(request: PermissionRequest) -> bool:
    return request.tool_name != "Bash"


async def async_no(request: PermissionRequest) -> PermissionDecision:
    await asyncio.sleep(0)
    return PermissionDecision(decision="deny", reason=f"no {request.input['command']}")


def raising(request: PermissionRequest) -> bool:
    raise RuntimeError("it broke")


async def nonsense(request: PermissionRequest) -> Any:
    return "perhaps"


@pytest.mark.parametrize(
    ("callback", "reason"),
    [
        (sync_no, None),
        (async_no, "no ls"),
        (raising, "on_tool_call failed: RuntimeError"),
        (nonsense, "on_tool_call failed: ValidationError"),
    ],
)
async def test_the_callback_decides_and_its_faults_deny(
    where: dict[str, Any], callback: Any, reason: str | None
) -> None:
    async with ComputerAgent(**scripted([LS, {"text": "done"}], on_tool_call=callback, **where)) as agent:
        assert await decisions(agent) == [("deny", reason)]


async def test_a_callback_may_allow_what_destroys(where: dict[str, Any]) -> None:
    async with ComputerAgent(**scripted([RM, {"text": "done"}], on_tool_call=lambda _: True, **where)) as agent:
        assert [decision for decision, _ in await decisions(agent)] == ["allow"]


async def test_a_manual_answer_wins_over_the_callback(where: dict[str, Any]) -> None:
    no = {"decision": "deny", "reason": "by hand"}
    async with ComputerAgent(**scripted([LS, {"text": "done"}], on_tool_call=lambda _: True, **where)) as agent:
        assert await decisions(agent, no) == [("deny", "by hand")]


async def test_a_modified_input_is_what_runs(where: dict[str, Any]) -> None:
    def change(request: PermissionRequest) -> dict[str, Any]:
        return {"decision": "modify", "input": request.input | {"content": "allowed"}}

    async with ComputerAgent(**scripted([WRITE, {"text": "done"}], on_tool_call=change, **where)) as agent:
        assert [decision for decision, _ in await decisions(agent)] == ["modify"]
        assert await agent.fetch_artifact_text("a.txt") == "allowed"


async def test_an_answer_after_the_first_is_refused(where: dict[str, Any]) -> None:
    async with ComputerAgent(**scripted([LS, {"text": "done"}], **where)) as agent:
        handle = agent.chat("go")
        async for event in handle:
            if event.kind == "ca_permission_request":
                await handle.respond_to_permission(event.call_id, {"decision": "allow"})
                with pytest.raises(UnknownCallError):
                    await handle.respond_to_permission(event.call_id, {"decision": "deny"})


async def test_what_nobody_answers_in_time_is_denied(where: dict[str, Any]) -> None:
    async def never(_: PermissionRequest) -> bool:
        await asyncio.Event().wait()
        return True

    settings = scripted([LS, {"text": "done"}], on_tool_call=never, approval_timeout=0.2, **where)
    if where.get("harness_kind") == "server":
        with pytest.raises(NotRemotableError, match="approval_timeout"):  # that wire carries none: told, not ignored
            ComputerAgent(**settings)
        return
    async with ComputerAgent(**settings) as agent:
        assert await decisions(agent) == [("deny", "nobody answered within 0.2 s")]
