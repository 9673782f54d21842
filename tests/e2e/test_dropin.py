"""The drop-in on the real CLI: what a caller sees is what upstream shows, whatever goes wrong; and it is all told."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import claude_agent_sdk as sdk
import pytest
from tests.telemetry.listening import Listener

import computeragent
from computeragent.testing.models import ModelSimulator, parse_script

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.e2e,
    # upstream leaves its streams and generators to the garbage collector when a turn or a query ends early
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject"),
    pytest.mark.filterwarnings("ignore:Async generator 'claude_agent_sdk"),
    pytest.mark.filterwarnings("ignore:Async generator 'computeragent.claude.client"),
]

SCRIPT = """
- match: list the files
  turns:
    - text: Let me look.
      tools: [{name: Bash, input: {command: "ls WORK"}}]
    - thinking: nearly there
      text: Here they are.
- match: think about it
  reply: {text: Thought about it., delay: 30}
- match: wait
  turns:
    - tools: [{name: Bash, input: {command: "python3 -c 'import time; time.sleep(60)'"}}]
    - text: Waited.
- match: refuse me
  reply: {error: {status: 400, message: refused}}
- match: hello
  reply: Hello to you.
"""


@pytest.fixture(params=["asyncio", pytest.param("trio", marks=pytest.mark.soak)])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def sink() -> Iterator[Listener]:
    listener = Listener()
    computeragent.configure(sinks=[listener])
    yield listener
    computeragent.get_pipeline().close(5)
    computeragent.configure(sinks=[])


Surface = Any
Scenario = Callable[[Surface, sdk.ClaudeAgentOptions], AsyncIterator[Any]]


@asynccontextmanager
async def prepared(workdir: Path, tmp_path: Path, **given: Any) -> AsyncIterator[sdk.ClaudeAgentOptions]:
    for name in ("home", "config"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    with ModelSimulator.start_in_thread(parse_script(SCRIPT.replace("WORK", str(workdir)))) as sim:
        env = sim.claude_environment(tmp_path / "config") | {"HOME": str(tmp_path / "home")}
        yield sdk.ClaudeAgentOptions(cwd=workdir, allowed_tools=["Bash"], env=env, **given)


def outline(message: Any) -> str:
    """What of a message is the same in every run."""
    if isinstance(message, sdk.ResultMessage):
        return f"Result {message.subtype} {message.is_error}"
    if isinstance(message, sdk.SystemMessage):
        return f"System {message.subtype}"
    if isinstance(message, (sdk.AssistantMessage, sdk.UserMessage)) and not isinstance(message.content, str):
        return f"{type(message).__name__} {[type(block).__name__ for block in message.content]}"
    return type(message).__name__


async def seen(scenario: Any, surface: Surface, options: sdk.ClaudeAgentOptions) -> list[str]:
    """What a caller sees of a scenario."""
    lines: list[str] = []
    try:
        with anyio.fail_after(50):
            await scenario(surface, options, lines)
    except Exception as error:
        lines.append(f"raised {type(error).__name__}")
    # how often the CLI tells of progress depends on the clock
    return [line for line in lines if line not in {"System api_retry", "System task_progress"}]


async def plain(surface: Surface, options: Any, lines: list[str]) -> None:
    async for message in surface.query(prompt="list the files", options=options):
        lines.append(outline(message))


async def streamed(surface: Surface, options: Any, lines: list[str]) -> None:
    async def prompts() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "user", "message": {"role": "user", "content": "hello"}}

    async for message in surface.query(prompt=prompts(), options=options):
        lines.append(outline(message))


async def refused(surface: Surface, options: Any, lines: list[str]) -> None:
    async for message in surface.query(prompt="refuse me", options=options):
        lines.append(outline(message))


async def too_many_turns(surface: Surface, options: Any, lines: list[str]) -> None:
    options.max_turns = 1
    async for message in surface.query(prompt="list the files", options=options):
        lines.append(outline(message))


async def no_such_folder(surface: Surface, options: Any, lines: list[str]) -> None:
    options.cwd = "/nowhere/at/all"
    async for message in surface.query(prompt="hello", options=options):
        lines.append(outline(message))


async def broken_off(surface: Surface, options: Any, lines: list[str]) -> None:
    stream = surface.query(prompt="list the files", options=options)
    async for message in stream:
        lines.append(outline(message))
        if isinstance(message, sdk.AssistantMessage):
            break
    await stream.aclose()
    lines.append("closed")


async def cancelled(surface: Surface, options: Any, lines: list[str]) -> None:
    with anyio.CancelScope() as scope:
        async for message in surface.query(prompt="think about it", options=options):
            lines.append(outline(message))
            scope.cancel()  # the model thinks for half a minute
    lines.append(f"cancelled {scope.cancelled_caught}")


async def conversation(surface: Surface, options: Any, lines: list[str]) -> None:
    async with surface.ClaudeSDKClient(options) as client:
        for prompt in ("hello", "list the files"):
            await client.query(prompt)
            async for message in client.receive_response():
                lines.append(outline(message))


async def interrupted(surface: Surface, options: Any, lines: list[str]) -> None:
    async with surface.ClaudeSDKClient(options) as client:
        await client.query("wait")
        async for message in client.receive_response():
            lines.append(outline(message))
            if isinstance(message, sdk.AssistantMessage):
                await client.interrupt()
        await client.query("hello")
        async for message in client.receive_response():
            lines.append(outline(message))


async def killed(surface: Surface, options: Any, lines: list[str]) -> None:
    async with surface.ClaudeSDKClient(options) as client:
        info = await client.get_server_info()
        await client.query("wait")
        async for message in client.receive_messages():
            lines.append(outline(message))
            if isinstance(message, sdk.AssistantMessage):
                os.kill(info["pid"], signal.SIGKILL)


async def not_connected(surface: Surface, options: Any, lines: list[str]) -> None:
    await surface.ClaudeSDKClient(options).query("hello")


EXPECTED = {
    plain: ("success", False),
    streamed: ("success", False),
    refused: ("success", True),
    too_many_turns: ("error_max_turns", True),
    no_such_folder: ("error", True),
    broken_off: ("cancelled", False),
    cancelled: ("cancelled", False),
    conversation: ("success", False),
    interrupted: ("success", False),
    killed: ("error", True),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scenario", EXPECTED, ids=lambda scenario: scenario.__name__)
async def test_a_caller_sees_what_upstream_shows_and_it_is_told_with_one_end(
    scenario: Any, workdir: Path, tmp_path: Path, sink: Listener
) -> None:
    lines: dict[str, list[str]] = {}

    async def watch(name: str, surface: Surface) -> None:
        async with prepared(workdir, tmp_path / name) as options:
            lines[name] = await seen(scenario, surface, options)

    async with anyio.create_task_group() as both:
        both.start_soon(watch, "theirs", sdk)
        both.start_soon(watch, "ours", computeragent)
    assert lines["ours"] == lines["theirs"]
    assert await computeragent.get_pipeline().flush(10)
    assert sink.kinds.count("session_started") == 1
    ended = sink.one("session_ended").payload
    assert (ended["subtype"], ended["is_error"]) == EXPECTED[scenario]
    assert computeragent.get_pipeline().stats()["failed"] == {}


async def test_a_client_that_was_never_connected_fails_as_upstreams_does(workdir: Path, tmp_path: Path) -> None:
    async with prepared(workdir, tmp_path) as options:
        assert await seen(not_connected, computeragent, options) == await seen(not_connected, sdk, options)


async def test_what_is_told_of_a_conversation(workdir: Path, tmp_path: Path, sink: Listener) -> None:
    async with prepared(workdir, tmp_path, include_partial_messages=True) as options:
        await conversation(computeragent, options, [])
    assert await computeragent.get_pipeline().flush(10)
    assert sink.one("session_started").payload["prompt"] == "hello"
    assert [turn["prompt"] for turn in sink.of("turn_started")] == ["hello", "list the files"]
    assert sink.of("user_message") == [{"text": "list the files"}]
    replies = [reply["text"] for reply in sink.of("assistant_message") if reply["text"]]
    assert replies == ["Hello to you.", "Let me look.", "Here they are."]
    assert [reply["thinking"] for reply in sink.of("assistant_message") if "thinking" in reply] == ["nearly there"]
    (call,), (answer,) = sink.of("tool_use"), sink.of("tool_result")
    assert call["tool_use_id"] == answer["tool_use_id"]
    assert (answer["tool_name"], answer["content"]) == ("Bash", "README.md")
    assert len(sink.of("response_first_token")) == 3
    first, second = sink.of("usage_snapshot")
    ended = sink.one("session_ended").payload
    assert ended["total_cost_usd"] == pytest.approx(first["cost_usd"] + second["cost_usd"])
    assert ended["usage"]["output_tokens"] == first["usage"]["output_tokens"] + second["usage"]["output_tokens"]
    assert len({event.event_id for event in sink.events}) == len(sink.events)


async def test_an_enforced_ceiling_really_stops_the_run(workdir: Path, tmp_path: Path) -> None:
    listener = Listener()
    computeragent.configure(middleware=[computeragent.GuardrailFilter(cost_ceiling_usd=0.0001)], sinks=[listener])
    lines: list[str] = []
    async with prepared(workdir, tmp_path) as options:
        with pytest.raises((sdk.ResultError, computeragent.GuardrailError)):
            await plain(computeragent, options, lines)
    assert lines[-1] == "Result error_max_budget_usd True"
    assert await computeragent.get_pipeline().flush(10)
    assert listener.one("session_ended").payload["is_error"]
    computeragent.get_pipeline().close(5)
    computeragent.configure(sinks=[])


async def test_a_guard_interrupts_a_client_and_refuses_the_next_prompt(workdir: Path, tmp_path: Path) -> None:
    def no_looking(event: Any) -> Any:
        return None if "Let me look" in str(event.payload.get("text", "")) else event

    listener = Listener()
    computeragent.configure(middleware=[computeragent.GuardrailFilter(content_filter=no_looking)], sinks=[listener])
    lines: list[str] = []
    async with prepared(workdir, tmp_path, include_partial_messages=True) as options:
        options.hooks = {}
        async with computeragent.ClaudeSDKClient(options) as client:
            await client.query("list the files")
            async for message in client.receive_response():
                lines.append(outline(message))
                await computeragent.get_pipeline().settle(5)
            with pytest.raises(computeragent.GuardrailError):
                await client.query("hello")
    assert lines[-1].startswith("Result ")
    assert await computeragent.get_pipeline().flush(10)
    assert listener.one("session_ended").payload["subtype"] == "content_blocked"
    computeragent.get_pipeline().close(5)
    computeragent.configure(sinks=[])
