"""Turns of a real Claude Code agent: text, tools, thinking, images, sub-agents, MCP."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from computeragent import TurnFailedError

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

PIXEL = base64.b64encode(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
).decode()

HELLO = "rules: [{match: hello, turns: [{text: Hello from the model., chunk_size: 6}]}]"


async def test_a_turn_streams_text_and_ends_with_usage_before_the_result(start: Any) -> None:
    async with start(HELLO) as (agent, sim):
        events = [event async for event in agent.chat("hello")]
    kinds = [event.kind for event in events]
    assert kinds[0] == "ca_session_started"
    assert kinds[-1] == "ca_session_ended"
    payloads = [event.payload for event in events if event.kind == "sdk_message"]
    deltas = [p["event"]["delta"]["text"] for p in payloads if _is_text_delta(p)]
    assert "".join(deltas) == "Hello from the model."
    assert len(deltas) > 1
    result = next(event for event in events if event.kind == "sdk_message" and event.payload["type"] == "result")
    assert result.payload["result"] == "Hello from the model."
    assert kinds.index("ca_usage_snapshot") < events.index(result)
    assert sim.calls[0].model == "claude-haiku-4-5-20251001"


def _is_text_delta(payload: dict[str, Any]) -> bool:
    return payload["type"] == "stream_event" and payload["event"].get("delta", {}).get("type") == "text_delta"


TOOLS = """
rules:
  - match: work
    turns:
      - {tool: Read, input: {file_path: WORK/README.md}}
      - {tool: Write, input: {file_path: WORK/notes.txt, content: "on Tuesdays"}}
      - {tool: Bash, input: {command: "python3 -c \\"print(6*7)\\" > WORK/answer.txt"}}
      - text: All done.
"""


async def test_tools_really_run_and_each_was_asked(start: Any, workdir: Path) -> None:
    asked: list[str] = []

    def allow(request: Any) -> dict[str, str]:
        asked.append(request.tool_name)
        return {"decision": "allow"}

    async with start(TOOLS, on_tool_call=allow) as (agent, sim):
        result = await agent.chat("work please")
    assert result.text == "All done."
    assert asked == ["Read", "Write", "Bash"]
    assert (workdir / "notes.txt").read_text() == "on Tuesdays"
    assert (workdir / "answer.txt").read_text() == "42\n"
    assert "Widgets are made on Tuesdays" in str(sim.calls[1].json)


@pytest.mark.parametrize(
    "options",
    [
        {"permission_mode": "bypassPermissions"},
        {"allowed_tools": ["Bash", "Write", "Read"]},
        {"permission_mode": "acceptEdits"},
        {"permission_mode": "dontAsk", "allowed_tools": ["Bash", "Write", "Read"]},
    ],
)
async def test_on_tool_call_is_asked_in_every_mode(start: Any, workdir: Path, options: dict[str, Any]) -> None:
    asked: list[str] = []

    async def deny(request: Any) -> dict[str, str]:
        asked.append(request.tool_name)
        return {"decision": "deny", "reason": "not today"}

    async with start(TOOLS, on_tool_call=deny, options=options) as (agent, sim):
        await agent.chat("work please")
    assert asked == ["Read", "Write", "Bash"]
    assert not (workdir / "notes.txt").exists()
    assert not (workdir / "answer.txt").exists()
    assert "not today" in str(sim.calls[1].json)


async def test_bypass_permissions_runs_unasked_calls_even_as_root(start: Any, workdir: Path) -> None:
    async with start(TOOLS, options={"permission_mode": "bypassPermissions"}) as (agent, _):
        result = await agent.chat("work please")
    assert result.text == "All done."
    assert (workdir / "answer.txt").read_text() == "42\n"


async def test_a_modified_input_is_what_runs(start: Any, workdir: Path) -> None:
    def modify(request: Any) -> dict[str, Any]:
        if request.tool_name != "Write":
            return {"decision": "allow"}
        return {"decision": "modify", "input": {**request.input, "content": "on Fridays"}}

    async with start(TOOLS, on_tool_call=modify) as (agent, _):
        events = [event async for event in agent.chat("work please")]
    assert (workdir / "notes.txt").read_text() == "on Fridays"
    decisions = {e.tool_name: e for e in events if e.kind == "ca_permission_decision"}
    assert decisions["Write"].decision == "modify"
    assert decisions["Write"].input["content"] == "on Fridays"
    assert decisions["Write"].decided_by == "callback"
    assert decisions["Read"].decision == "allow"


async def test_a_manual_answer_wins_over_the_callback(start: Any, workdir: Path) -> None:
    async with start(TOOLS, on_tool_call=lambda _: {"decision": "allow"}) as (agent, _):
        handle = agent.chat("work please")
        async for event in handle:
            if event.kind == "ca_permission_request" and event.tool_name == "Bash":
                await handle.respond_to_permission(event.call_id, {"decision": "deny", "reason": "by hand"})
    assert (workdir / "notes.txt").exists()
    assert not (workdir / "answer.txt").exists()


async def test_thinking_is_relayed(start: Any) -> None:
    script = "rules: [{match: think, turns: [{thinking: Let me see., text: Seen.}]}]"
    async with start(script) as (agent, _):
        result = await agent.chat("think hard")
    blocks = [b for m in result.messages if m["type"] == "assistant" for b in m["message"]["content"]]
    assert {"type": "thinking", "thinking": "Let me see."}.items() <= blocks[0].items()
    assert result.text == "Seen."


async def test_images_reach_the_model(start: Any) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    async with start(HELLO) as (agent, sim):
        await agent.chat({"role": "user", "content": [image, {"type": "text", "text": "hello, what is this?"}]})
    assert PIXEL in str(sim.calls[0].json)


async def test_attachments_are_in_the_working_directory(start: Any) -> None:
    script = "rules: [{match: look, turns: [{tool: Read, input: {file_path: WORK/data.csv}}, {text: Read it.}]}]"
    attachment = {"path": "data.csv", "content": base64.b64encode(b"a,b\n1,2\n").decode(), "encoding": "base64"}
    async with start(script, attachments=[attachment]) as (agent, sim):
        assert (await agent.chat("look")).text == "Read it."
        assert await agent.fetch_artifact("data.csv") == b"a,b\n1,2\n"
    assert "1,2" in str(sim.calls[1].json)


SUBAGENT = """
rules:
  - match: "count the files"
    turns:
      - {tool: Bash, input: {command: "touch WORK/by-subagent"}}
      - text: There is one file.
  - match: delegate
    turns:
      - tool: Agent
        input: {description: count, prompt: "count the files", subagent_type: general-purpose}
      - text: The sub-agent answered.
"""


async def test_a_sub_agent_works_inside_the_turn_and_its_tools_are_asked(start: Any, workdir: Path) -> None:
    asked: list[str] = []

    def allow(request: Any) -> bool:
        asked.append(request.tool_name)
        return True

    async with start(SUBAGENT, on_tool_call=allow) as (agent, _):
        result = await agent.chat("delegate this")
    assert result.text == "The sub-agent answered."
    assert asked == ["Agent", "Bash"]
    assert (workdir / "by-subagent").exists()


async def test_an_in_process_mcp_tool_is_called_and_asked(start: Any) -> None:
    from claude_agent_sdk import create_sdk_mcp_server, tool

    called: list[int] = []

    @tool("double", "Doubles a number", {"n": int})
    async def double(args: dict[str, Any]) -> dict[str, Any]:
        called.append(args["n"])
        return {"content": [{"type": "text", "text": str(args["n"] * 2)}]}

    script = "rules: [{match: double, turns: [{tool: mcp__math__double, input: {n: 21}}, {text: Doubled.}]}]"
    asked: list[str] = []
    async with start(
        script,
        options={"mcp_servers": {"math": create_sdk_mcp_server("math", tools=[double])}},
        on_tool_call=lambda request: asked.append(request.tool_name) or True,
    ) as (agent, sim):
        assert (await agent.chat("double it")).text == "Doubled."
    assert called == [21]
    assert asked == ["mcp__math__double"]
    assert "42" in str(sim.calls[1].json)


async def test_the_model_order_is_options_then_model_then_agent_yaml_then_default(start: Any, workdir: Path) -> None:
    async def model_of(**agent: Any) -> str:
        async with start(HELLO, **agent) as (made, sim):
            await made.chat("hello")
            return sim.calls[0].model

    assert await model_of() == "claude-haiku-4-5-20251001"
    (workdir / "agent.yaml").write_text(
        'spec_version: "0.1.0"\nname: w\nversion: 0.1.0\nmodel:\n  preferred: claude-sonnet-4-5-20250929\n'
    )
    assert await model_of() == "claude-sonnet-4-5-20250929"
    assert await model_of(model="claude-opus-5-5") == "claude-opus-5-5"
    assert await model_of(model="claude-opus-5-5", options={"model": "top-model"}) == "top-model"


async def test_turns_remember_and_cost_adds_up(start: Any) -> None:
    async with start(HELLO) as (agent, sim):
        first = await agent.chat("hello, my name is Ada")
        second = await agent.chat("hello again")
        third = await agent.chat("hello once more")
        session = agent._session
        assert session is not None
        total = session.cost_so_far
    assert "my name is Ada" in str(sim.calls[-1].json)
    costs = [r.usage.cost_usd for r in (first, second, third)]
    assert sum(costs) == pytest.approx(total)


async def test_a_turn_limit_fails_the_turn_and_the_session_goes_on(start: Any) -> None:
    async with start(TOOLS + "  - {match: hello, turns: [{text: Still here.}]}\n", options={"max_turns": 2}) as (
        agent,
        _,
    ):
        handle = agent.chat("work please")
        for _ in range(2):
            with pytest.raises(TurnFailedError) as failure:
                await handle
        assert failure.value.result.ended.reason == "error"
        assert (await agent.chat("hello")).text == "Still here."
