"""`query` and `ClaudeSDKClient` behave as upstream's, told or not: messages, errors, cancellation, closing."""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import claude_agent_sdk as sdk
import pytest
from claude_agent_sdk import AssistantMessage, ClaudeAgentOptions, ResultMessage, TextBlock
from tests.telemetry.listening import Listener, Stuck

import computeragent
from computeragent import GuardrailError, GuardrailFilter
from computeragent.telemetry import Pipeline

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def sink() -> Iterator[Listener]:
    listener = Listener()
    computeragent.configure(sinks=[listener])
    yield listener
    computeragent.get_pipeline().close(5)
    computeragent.configure(sinks=[])


def text(words: str) -> AssistantMessage:
    return AssistantMessage(content=[TextBlock(text=words)], model="claude-haiku-4-5")


def result(**given: Any) -> ResultMessage:
    fields: dict[str, Any] = {
        "subtype": "success",
        "duration_ms": 1,
        "duration_api_ms": 1,
        "is_error": False,
        "num_turns": 1,
        "session_id": "up",
        "total_cost_usd": 0.5,
        "usage": {"input_tokens": 3, "output_tokens": 4},
        "result": "done",
    }
    return ResultMessage(**(fields | given))


class Upstream:
    """Stands in for upstream's `query`: yields, raises and records what is done to it."""

    def __init__(self, *script: Any) -> None:
        self.script = script
        self.kwargs: dict[str, Any] = {}
        self.closed = False
        self.said: list[Any] = []

    async def query(self, **kwargs: Any) -> AsyncIterator[Any]:
        self.kwargs = kwargs
        try:
            if not isinstance(kwargs["prompt"], str):
                async for message in kwargs["prompt"]:
                    self.said.append(message)
            for step in self.script:
                if isinstance(step, BaseException):
                    raise step
                if step == "wait":
                    await anyio.sleep(60)
                yield step
        finally:
            self.closed = True


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    def begin(*script: Any) -> Upstream:
        upstream = Upstream(*script)
        monkeypatch.setattr(sdk, "query", upstream.query)
        return upstream

    return begin


async def told(sink: Listener) -> None:
    assert await computeragent.get_pipeline().flush(10)


async def slowly(got: list[Any]) -> None:
    """Take one message after the other, each when the pipeline has seen the one before."""
    async for message in computeragent.query(prompt="hi"):
        got.append(message)
        await computeragent.get_pipeline().settle(5)


def test_signatures_are_upstreams() -> None:
    def shape(function: Any) -> list[tuple[str, Any, Any]]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert shape(computeragent.query) == shape(sdk.query)
    assert inspect.isasyncgenfunction(computeragent.query)
    ours, theirs = computeragent.ClaudeSDKClient, sdk.ClaudeSDKClient
    assert issubclass(ours, theirs)
    for name, method in inspect.getmembers(theirs, inspect.isfunction):
        assert shape(getattr(ours, name)) == shape(method), name
        assert inspect.isasyncgenfunction(getattr(ours, name)) == inspect.isasyncgenfunction(method)


async def test_messages_are_upstreams_own_objects_in_order(play: Any, sink: Listener) -> None:
    script = [text("a"), text("b"), result()]
    upstream = play(*script)
    options = ClaudeAgentOptions(system_prompt="You triage bugs.\nBe brief.", model="claude-haiku-4-5")
    got = [message async for message in computeragent.query(prompt="hi", options=options)]
    assert all(ours is theirs for ours, theirs in zip(got, script, strict=True))
    assert upstream.kwargs["options"] is options
    assert upstream.kwargs["prompt"] == "hi"
    await told(sink)
    assert sink.kinds == [
        "session_started",
        "turn_started",
        "assistant_message",
        "assistant_message",
        "usage_snapshot",
        "session_ended",
    ]
    started, ended = sink.events[0], sink.events[-1]
    assert started.agent_name == "You triage bugs."
    assert (started.payload["prompt"], started.payload["model"]) == ("hi", "claude-haiku-4-5")
    assert (ended.payload["subtype"], ended.payload["is_error"], ended.payload["total_cost_usd"]) == (
        "success",
        False,
        0.5,
    )
    assert len({event.session_id for event in sink.events}) == 1


async def test_nothing_is_told_and_nothing_changed_where_nobody_listens(play: Any) -> None:
    computeragent.configure(sinks=[])
    upstream = play(text("a"), result())

    async def prompts() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "user", "message": {"role": "user", "content": "hi"}}

    stream = prompts()
    got = [message async for message in computeragent.query(prompt=stream)]
    assert len(got) == 2
    assert upstream.kwargs == {"prompt": stream, "options": None, "transport": None}


async def test_nothing_happens_before_the_first_message_is_asked_for(play: Any, sink: Listener) -> None:
    upstream = play(text("a"))
    stream = computeragent.query(prompt="hi")
    assert upstream.kwargs == {}
    await stream.aclose()  # type: ignore[attr-defined]
    await told(sink)
    assert sink.events == []


async def test_an_error_is_the_same_object_and_a_failure(play: Any, sink: Listener) -> None:
    error = sdk.ProcessError("gone", exit_code=1)
    upstream = play(text("a"), error)
    with pytest.raises(sdk.ProcessError) as caught:
        async for _ in computeragent.query(prompt="hi"):
            pass
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert upstream.closed
    await told(sink)
    ended = sink.one("session_ended").payload
    assert (ended["is_error"], ended["error_type"], ended["subtype"]) == (True, "ProcessError", "error")


async def test_an_error_before_the_first_message(play: Any, sink: Listener) -> None:
    play(sdk.CLINotFoundError("no CLI"))
    with pytest.raises(sdk.CLINotFoundError):
        async for _ in computeragent.query(prompt="hi"):
            pass
    await told(sink)
    assert sink.kinds == ["session_started", "turn_started", "session_ended"]


@pytest.mark.parametrize(("script", "subtype"), [([text("a"), result()], "success"), ([text("a")], "cancelled")])
async def test_leaving_early_is_a_success_after_the_result_and_no_error_before(
    play: Any, sink: Listener, script: list[Any], subtype: str
) -> None:
    upstream = play(*script, "wait")
    stream = computeragent.query(prompt="hi")
    for _ in script:
        await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert upstream.closed
    await told(sink)
    ended = sink.one("session_ended").payload
    assert (ended["subtype"], ended["is_error"]) == (subtype, False)


async def test_cancellation_reaches_upstream_and_waits_for_no_sink(play: Any) -> None:
    stuck = Stuck()
    computeragent.configure(sinks=[stuck])
    upstream = play(text("a"), "wait")
    with anyio.move_on_after(0.2) as scope:
        async for _ in computeragent.query(prompt="hi"):
            pass
    assert scope.cancelled_caught
    assert upstream.closed
    computeragent.get_pipeline().close(0.1)
    computeragent.configure(sinks=[])


async def test_the_end_of_a_query_waits_for_no_stuck_sink(play: Any) -> None:
    computeragent.configure(sinks=[Stuck()])
    play(text("a"), result())
    with anyio.fail_after(20):
        got = [message async for message in computeragent.query(prompt="hi")]
    assert len(got) == 2
    computeragent.get_pipeline().close(0.1)
    computeragent.configure(sinks=[])


async def test_streamed_prompts_pass_through_as_they_are_and_are_seen(play: Any, sink: Listener) -> None:
    upstream = play(text("a"), result(), text("b"), result())
    sent = [
        {"type": "user", "message": {"role": "user", "content": "one"}},
        {"type": "user", "message": {"role": "user", "content": [{"type": "text", "text": "two"}]}},
    ]

    async def prompts() -> AsyncIterator[dict[str, Any]]:
        for message in sent:
            yield message

    async for _ in computeragent.query(prompt=prompts()):
        pass
    assert all(ours is theirs for ours, theirs in zip(upstream.said, sent, strict=True))
    await told(sink)
    assert sink.one("session_started").payload["prompt"] == "one"
    assert [turn["prompt"] for turn in sink.of("turn_started")] == ["one", "two"]
    assert sink.of("user_message") == [{"text": "two"}]


async def test_messages_of_unforeseen_shapes_break_nothing(play: Any, sink: Listener) -> None:
    odd = text("x")
    odd.content = 5  # type: ignore[assignment]
    play(odd, object(), {"type": "assistant"}, result())
    got = [message async for message in computeragent.query(prompt="hi")]
    assert len(got) == 4
    await told(sink)
    assert sink.one("session_ended").payload["subtype"] == "success"


async def test_middleware_of_ours_never_runs_on_the_callers_thread(play: Any) -> None:
    threads: set[int] = set()

    async def note(event: Any) -> Any:
        threads.add(threading.get_ident())
        return event

    sink = Listener()
    computeragent.configure(middleware=[note], sinks=[sink])
    play(text("a"), result())
    async for _ in computeragent.query(prompt="hi"):
        pass
    await told(sink)
    assert threads
    assert threading.get_ident() not in threads
    computeragent.get_pipeline().close(5)
    computeragent.configure(sinks=[])


# ── Guards ──


@pytest.fixture
def guarded() -> Iterator[Any]:
    def begin(**settings: Any) -> Listener:
        listener = Listener()
        computeragent.configure(middleware=[GuardrailFilter(**settings)], sinks=[listener], tail_timeout=5)
        return listener

    yield begin
    computeragent.get_pipeline().close(5)
    computeragent.configure(sinks=[])


async def test_a_cost_ceiling_goes_to_the_cli_as_its_budget(play: Any, guarded: Any) -> None:
    guarded(cost_ceiling_usd=1.5)
    for own, expected in ((None, 1.5), (9.0, 1.5), (0.5, 0.5)):
        upstream = play(result())
        options = ClaudeAgentOptions(max_budget_usd=own, model="m")
        async for _ in computeragent.query(prompt="hi", options=options):
            pass
        assert upstream.kwargs["options"].max_budget_usd == expected
        assert upstream.kwargs["options"].model == "m"
        assert options.max_budget_usd == own  # the caller's own object is as it was


async def test_a_run_above_its_ceiling_is_stopped_at_the_next_message(play: Any, guarded: Any) -> None:
    sink = guarded(cost_ceiling_usd=0.1)
    upstream = play(text("a"), result(), text("b"), "wait")
    got: list[Any] = []
    with pytest.raises(GuardrailError) as caught:
        await slowly(got)
    assert len(got) == 2  # nothing that was yielded is taken back
    assert upstream.closed
    assert caught.value.details == {"kind": "budget_exceeded", "session_id": sink.events[0].session_id}
    await told(sink)
    assert sink.one("usage_snapshot").payload["guardrail"]["mode"] == "enforce"


async def test_blocked_content_stops_the_run_and_reaches_no_sink(play: Any, guarded: Any) -> None:
    def no_swearing(event: Any) -> Any:
        return None if "damn" in event.payload.get("text", "") else event

    sink = guarded(content_filter=no_swearing)
    upstream = play(text("damn"), text("more"), "wait")
    with pytest.raises(GuardrailError):
        await slowly([])
    assert upstream.closed
    await told(sink)
    assert "damn" not in repr(sink.events)
    ended = sink.one("session_ended").payload
    assert (ended["subtype"], ended["is_error"]) == ("content_blocked", True)


async def test_a_content_filter_that_fails_has_allowed_nothing(play: Any, guarded: Any) -> None:
    async def broken(event: Any) -> Any:
        raise ConnectionError("moderation is down")

    guarded(content_filter=broken)
    play(text("a"), text("b"), "wait")
    with pytest.raises(GuardrailError):
        await slowly([])


async def test_observing_stops_nothing(play: Any, guarded: Any) -> None:
    sink = guarded(cost_ceiling_usd=0.1, mode="observe")
    upstream = play(text("a"), result(), text("b"), result())
    got = [message async for message in computeragent.query(prompt="hi")]
    assert len(got) == 4
    assert upstream.kwargs["options"] is None
    await told(sink)
    assert [turn["guardrail"]["mode"] for turn in sink.of("usage_snapshot")] == ["observe", "observe"]


async def test_an_allow_list_shapes_telemetry_only_and_keeps_the_results_of_allowed_tools(
    play: Any, guarded: Any
) -> None:
    sink = guarded(tool_name_allowlist={"Read", "mcp__docs__*"})
    calls = [
        sdk.ToolUseBlock(id="1", name="Read", input={}),
        sdk.ToolUseBlock(id="2", name="Bash", input={}),
        sdk.ToolUseBlock(id="3", name="mcp__docs__search", input={}),
    ]
    results = [sdk.ToolResultBlock(tool_use_id=number, content=number) for number in "123"]
    play(AssistantMessage(content=list(calls), model="m"), sdk.UserMessage(content=list(results)), result())
    got = [message async for message in computeragent.query(prompt="hi")]
    assert len(got) == 3
    await told(sink)
    assert [use["tool_use_id"] for use in sink.of("tool_use")] == ["1", "3"]
    assert [use["tool_use_id"] for use in sink.of("tool_result")] == ["1", "3"]


async def test_long_texts_are_cut_in_telemetry_only(play: Any, guarded: Any) -> None:
    sink = guarded(max_attribute_length=10)
    play(text("x" * 50), result())
    got = [message async for message in computeragent.query(prompt="hi")]
    assert got[0].content[0].text == "x" * 50
    await told(sink)
    assert sink.one("assistant_message").payload["text"] == "x" * 10 + "…(+40 chars)"


def test_a_pipeline_can_be_built_by_hand() -> None:
    assert isinstance(computeragent.configure(sinks=[]), Pipeline)
    assert computeragent.get_pipeline().active is False
