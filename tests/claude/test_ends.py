"""Every session has one end, and keeps its secrets, whatever becomes of its caller, its process and its pipeline."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import claude_agent_sdk as sdk
import pytest
from claude_agent_sdk import AssistantMessage, ClaudeAgentOptions, ToolUseBlock
from tests.claude.test_wrappers import Upstream, result, text
from tests.telemetry.listening import Depot, Listener

import computeragent
from computeragent import GuardrailError, GuardrailFilter, PiiRedactor
from computeragent.telemetry import TelemetryEvent

pytestmark = pytest.mark.anyio

SECRET = "zq7-Kd9s8f7a6sd5f4-corp"


@pytest.fixture
def sink() -> Iterator[Listener]:
    listener = Listener()
    computeragent.configure(sinks=[listener])
    yield listener
    computeragent.get_pipeline().close(5)
    computeragent.configure(sinks=[])


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    def begin(*script: Any) -> Upstream:
        upstream = Upstream(*script)
        monkeypatch.setattr(sdk, "query", upstream.query)
        return upstream

    return begin


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(self: Any, prompt: Any = None) -> None:
        return None

    monkeypatch.setattr(sdk.ClaudeSDKClient, "connect", connect)


async def told() -> None:
    assert await computeragent.get_pipeline().flush(10)


async def test_an_error_that_cannot_say_what_it_is_ends_the_session(play: Any, sink: Listener) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    play(text("a"), Mute())
    with pytest.raises(Mute):
        async for _ in computeragent.query(prompt="hi"):
            pass
    await told()
    assert sink.one("session_ended").payload["error_type"] == "Mute"


async def test_a_guard_that_stops_a_query_after_its_result_is_told_as_such(play: Any) -> None:
    sink = Listener()
    computeragent.configure(middleware=[GuardrailFilter(cost_ceiling_usd=0.1)], sinks=[sink])
    play(result(), text("b"))
    with pytest.raises(GuardrailError):  # noqa: PT012
        async for _ in computeragent.query(prompt="hi"):
            await computeragent.get_pipeline().settle(5)
    await told()
    ended = sink.one("session_ended").payload
    assert (ended["subtype"], ended["is_error"]) == ("budget_exceeded", True)


async def test_a_client_that_connects_twice_or_is_forgotten_has_an_end_for_each_session(
    offline: None, sink: Listener
) -> None:
    client = computeragent.ClaudeSDKClient()
    await client.connect("one")
    await client.connect("two")
    await told()
    del client
    gc.collect()
    await told()
    assert sink.kinds.count("session_started") == sink.kinds.count("session_ended") == 2


async def test_nothing_is_told_after_the_end(offline: None, sink: Listener) -> None:
    client = computeragent.ClaudeSDKClient(ClaudeAgentOptions(env={"CORP_TOKEN": SECRET}))
    await client.connect("one")
    tap = client._tap
    assert tap is not None
    await client.disconnect()
    tap.message(text(SECRET))
    await told()
    assert sink.kinds[-1] == "session_ended"
    assert SECRET not in repr(sink.events)


async def test_a_message_that_cannot_be_read_does_not_end_a_client(
    offline: None, sink: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    script: list[Any] = [sdk.CLIJSONDecodeError("odd", ValueError()), result()]

    async def receive(self: Any) -> AsyncIterator[Any]:
        step = script.pop(0)
        if isinstance(step, Exception):
            raise step
        yield step

    monkeypatch.setattr(sdk.ClaudeSDKClient, "receive_messages", receive)
    client = computeragent.ClaudeSDKClient()
    await client.connect("hi")
    with pytest.raises(sdk.CLIJSONDecodeError):
        _ = [message async for message in client.receive_messages()]
    assert len([message async for message in client.receive_messages()]) == 1
    await client.disconnect()
    await told()
    assert sink.kinds == ["session_started", "turn_started", "usage_snapshot", "session_ended"]
    assert sink.one("session_ended").payload["subtype"] == "success"


@pytest.mark.parametrize("off", ["shutdown", "nowhere"])
async def test_turning_telemetry_off_ends_what_is_told_of_a_session(play: Any, sink: Listener, off: str) -> None:
    before = computeragent.get_pipeline()
    play(text("a"), text("b"), result())
    async for _ in computeragent.query(prompt="hi"):
        if off == "shutdown":
            await computeragent.shutdown()
        else:
            computeragent.configure(sinks=[])
    before.close(5)
    assert sink.kinds == ["session_started", "turn_started", "assistant_message", "session_ended"]


async def test_the_next_pipeline_goes_on_in_order_and_knows_the_secrets_of_the_session(play: Any) -> None:
    async def slow(event: TelemetryEvent) -> TelemetryEvent:
        await asyncio.sleep(0.03)
        return event

    first, second = Listener(), Listener()
    heard: list[str] = []
    for listener in (first, second):
        listener.events = _Noting(heard)  # type: ignore[assignment]
    computeragent.configure(middleware=[slow, PiiRedactor()], sinks=[first])
    play(*[text(f"{number} {SECRET}") for number in range(8)], result())
    seen = 0
    async for _ in computeragent.query(prompt="hi", options=ClaudeAgentOptions(env={"CORP_TOKEN": SECRET})):
        seen += 1
        if seen == 5:
            computeragent.configure(sinks=[second])
    deadline = time.monotonic() + 10
    while "session_ended" not in second.kinds and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert SECRET not in repr(first.events) + repr(second.events)
    assert [words.split()[0] for words in heard] == [str(number) for number in range(8)]
    assert [*first.kinds, *second.kinds].count("session_ended") == 1


class _Noting(list[TelemetryEvent]):
    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self._heard = heard

    def append(self, event: TelemetryEvent) -> None:
        super().append(event)
        if event.kind == "assistant_message":
            self._heard.append(event.payload["text"])


async def test_a_session_that_goes_on_elsewhere_is_not_lost_with_its_first_spool(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = Depot(), Depot(), Depot()
    first.broken = True
    computeragent.configure(sinks=[first])
    play(text("a"), text("b"), result())
    before = computeragent.get_pipeline()
    async for _ in computeragent.query(prompt="hi"):
        if before is computeragent.get_pipeline():
            await before.settle(5)
            computeragent.configure(sinks=[second])
    await told()
    before.close(10)
    computeragent.configure(sinks=[third])
    computeragent.get_pipeline().adopt()
    await computeragent.shutdown()
    kinds = [event.kind for event in second.events + third.events]
    assert kinds.count("session_started") == kinds.count("session_ended") == 1


async def test_what_middleware_changes_deep_inside_is_not_the_callers_message(play: Any) -> None:
    async def change(event: TelemetryEvent) -> TelemetryEvent:
        if event.kind == "tool_use":
            event.payload["tool_input"]["command"] = "changed"
        return event

    computeragent.configure(middleware=[change], sinks=[Listener()])
    block = ToolUseBlock(id="t1", name="Bash", input={"command": "ls"})
    play(AssistantMessage(content=[block], model="m"), result())
    async for _ in computeragent.query(prompt="hi"):
        pass
    await told()
    assert block.input == {"command": "ls"}


async def test_a_ceiling_goes_with_options_of_any_make(play: Any) -> None:
    class Own(ClaudeAgentOptions):
        def __init__(self, who: str) -> None:
            super().__init__()
            self.who = who

    computeragent.configure(middleware=[GuardrailFilter(cost_ceiling_usd=1)], sinks=[Listener()])
    upstream = play(result())
    async for _ in computeragent.query(prompt="hi", options=Own("me")):
        pass
    assert (upstream.kwargs["options"].max_budget_usd, upstream.kwargs["options"].who) == (1, "me")
    odd = ClaudeAgentOptions(max_budget_usd="1")  # type: ignore[arg-type]
    async for _ in computeragent.query(prompt="hi", options=odd):
        pass
    assert upstream.kwargs["options"] is odd


async def test_a_query_in_upstreams_place_may_be_a_mere_iterable_or_ours(
    sink: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Iterable:
        def __aiter__(self) -> AsyncIterator[Any]:
            return Upstream(text("a"), result()).query(prompt="hi")

    monkeypatch.setattr(sdk, "query", lambda **_: Iterable())
    assert len([message async for message in computeragent.query(prompt="hi")]) == 2
    monkeypatch.setattr(sdk, "query", computeragent.query)
    options = ClaudeAgentOptions(cli_path="/nowhere/claude")
    with pytest.raises(sdk.CLINotFoundError):
        _ = [message async for message in computeragent.query(prompt="hi", options=options)]


async def test_only_what_is_said_in_a_stream_is_a_turn(play: Any, sink: Listener) -> None:
    async def prompts() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "control_request", "request_id": "1"}
        yield {"type": "user", "message": {"role": "user", "content": "hi"}}

    play(text("a"), result())
    async for _ in computeragent.query(prompt=prompts()):
        pass
    await told()
    assert sink.kinds.count("turn_started") == 1
    assert sink.one("session_ended").payload["subtype"] == "success"


ENDS = """
import asyncio, os, sys
import claude_agent_sdk as sdk
from claude_agent_sdk import AssistantMessage, TextBlock
import computeragent

class Print:
    async def emit(self, event): print(event.kind, event.payload.get("subtype"), flush=True)
    async def flush(self, timeout=5.0): ...
    async def aclose(self): ...

async def upstream(**_):
    for word in "ab":
        yield AssistantMessage(content=[TextBlock(text=word)], model="m")

async def connect(self, prompt=None): ...

sdk.query, sdk.ClaudeSDKClient.connect = upstream, connect
computeragent.configure(sinks=[Print()])
loop = asyncio.new_event_loop()
if sys.argv[1] == "client":
    client = computeragent.ClaudeSDKClient()
    loop.run_until_complete(client.connect("hi"))
else:
    stream = computeragent.query(prompt="hi")
    loop.run_until_complete(anext(stream))
    if sys.argv[1] == "fork":
        pid = os.fork()
        if pid == 0:
            loop.run_until_complete(stream.aclose())
            sys.exit()
        os.waitpid(pid, 0)
        loop.run_until_complete(stream.aclose())
"""


@pytest.mark.parametrize("how", ["client", "suspended", "fork"])
def test_the_end_of_the_process_is_the_end_of_its_sessions(how: str, tmp_path: Path) -> None:
    script = tmp_path / "ends.py"
    script.write_text(ENDS)
    done = subprocess.run([sys.executable, script, how], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("session_started") == 1
    assert done.stdout.split("\n").count("session_ended cancelled") == 1
    assert done.stderr == ""
