"""One turn as its caller sees it: iterate, await, or both; answer, cancel, fail, go on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent, EngineError, PermissionDecision, TurnFailedError, UserInput
from computeragent.chat import ChatHandle
from computeragent.errors import IdentityError, UnknownCallError, ValidationError
from computeragent.eventlog import MemoryEventLog, Retention
from computeragent.protocol_types import EngineContext, EngineEvent, PermissionRequest, PolicyVerdict
from puppets import BASH, RESULT, Puppet, kinds, scripted, until

pytestmark = pytest.mark.anyio

SLOW = [{"delay": 60}]
DESTROY = {"tool": "Bash", "input": {"command": "rm -rf /"}}


@pytest.fixture
async def agents(tmp_path: Path) -> AsyncIterator[Any]:
    """`agents(script, **options)`: agents that are disposed when the test is over."""
    made: list[ComputerAgent] = []

    def make(script: Any = None, **options: Any) -> ComputerAgent:
        made.append(scripted(tmp_path, script, **options))
        return made[-1]

    yield make
    for agent in made:
        await agent.dispose()


def decisions(events: list[Any]) -> list[tuple[str, str | None]]:
    return [(event.decision, event.decided_by) for event in events if event.kind == "ca_permission_decision"]


async def begun(handle: ChatHandle) -> asyncio.Task[Any]:
    """A task that awaits a turn, once the turn has reached the engine."""
    reader = asyncio.create_task(handle.result())
    session: Any = await handle._start()
    await until(lambda: session.turns.current in handle._turns)
    return reader


async def break_off(handle: ChatHandle) -> None:
    """Read a turn until the assistant has said something, and stop."""
    async for event in handle:
        if event.kind == "sdk_message" and event.payload["type"] == "assistant":
            break


# ── Iterate, await, or both ──────────────────────────────────────────────────────────────────────────────────


async def test_awaiting_gives_the_result(agents: Any):
    result = await agents([[{"usage": {"input_tokens": 7, "cost_usd": 0.5}}, {"text": "Hello."}]]).chat("hi")
    assert result.text == "Hello."
    assert (result.ended.reason, result.ended.turn_index) == ("complete", 0)
    assert (result.usage.input_tokens, result.usage.cost_usd) == (7, 0.5)
    assert [message["type"] for message in result.messages] == ["system", "assistant", "result"]
    assert result.session_id.startswith("sess_")
    assert result.duration_ms > 0


async def test_awaiting_again_gives_the_same_result(agents: Any):
    handle = agents().chat("hi")
    assert await handle is await handle


async def test_iterating_gives_every_event_and_ends_with_the_end(agents: Any):
    events = [event async for event in agents([[BASH, {"text": "x"}]]).chat("hi")]
    assert events[0].kind == "ca_session_started"
    assert kinds(events).count("ca_session_ended") == 1
    assert kinds(events)[-1] == "ca_session_ended"
    assert {"ca_turn_started", "ca_permission_request", "ca_permission_decision"} < set(kinds(events))


async def test_awaiting_after_iterating_gives_what_was_seen(agents: Any):
    handle = agents([[{"text": "x"}]]).chat("hi")
    payloads = [event.payload async for event in handle if event.kind == "sdk_message"]
    assert list((await handle).messages) == payloads
    assert [event async for event in handle] == []


async def test_iterating_and_awaiting_at_once_loses_nothing_of_the_result(agents: Any):
    handle = agents([[{"text": str(number)} for number in range(20)]]).chat("hi")

    async def iterate() -> list[Any]:
        return [event async for event in handle]

    events, result = await asyncio.gather(iterate(), handle.result())
    assert len(result.messages) == 22
    assert len(events) <= 26


async def test_a_turn_starts_when_it_is_first_used_and_once(agents: Any):
    agent = agents()
    handle = agent.chat("hi")
    assert agent.session_id is None
    ids = await asyncio.gather(handle.session_id(), handle.session_id(), handle.session_id())
    assert ids == [agent.session_id] * 3
    assert (await handle).ended.turn_index == 0
    assert (await agent.chat("next")).ended.turn_index == 1


async def test_the_usage_grows_while_the_turn_runs(agents: Any):
    handle = agents([[{"usage": {"output_tokens": 1}}, {"usage": {"output_tokens": 2}}]]).chat("hi")
    seen = [handle.get_usage().output_tokens async for event in handle if event.kind == "ca_usage_snapshot"]
    assert seen == [1, 3]


async def test_the_costs_of_turns_add_up_to_the_session_s_cost_even_side_by_side(agents: Any):
    agent = agents([[{"usage": {"cost_usd": 0.25}}], [{"usage": {"cost_usd": 1.0}}], [{"usage": {"cost_usd": 1.5}}]])
    two = await asyncio.gather(agent.chat("a").result(), agent.chat("b").result())
    three = [*two, await agent.chat("c")]
    assert [result.usage.cost_usd for result in three] == [0.25, 0.75, 0.5]


# ── Input ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_agent_remembers_the_turns_before(agents: Any):
    agent = agents([[], [{"text": "first you said {user}, now {message}"}]])
    await agent.chat("one")
    assert (await agent.chat("two")).text == "first you said one, now two"


async def test_a_list_is_one_turn_of_joined_messages(agents: Any):
    handle = agents().chat(["a", {"role": "user", "content": "b"}, UserInput(content=[{"type": "text", "text": "c"}])])
    events = [event async for event in handle]
    (turn,) = [event for event in events if event.kind == "ca_turn_started"]
    assert [block["text"] for block in turn.message.content] == ["a", "b", "c"]


async def test_each_message_of_an_async_iterable_is_a_turn_of_one_handle(agents: Any):
    async def messages() -> AsyncIterator[Any]:
        yield "a"
        await asyncio.sleep(0.005)
        yield {"role": "user", "content": "b"}

    events = [event async for event in agents().chat(messages())]
    assert [event.turn_index for event in events if event.kind == "ca_turn_started"] == [0, 1]
    assert kinds(events).count("ca_session_ended") == 1


async def test_an_async_iterable_that_ends_long_after_its_last_turn_ends_the_handle(agents: Any):
    answered = asyncio.Event()

    async def messages() -> AsyncIterator[str]:
        yield "a"
        await answered.wait()

    agent = agents()
    handle = agent.chat(messages())
    async for event in handle:
        if event.kind == "sdk_message" and event.ends_turn:
            asyncio.get_running_loop().call_later(0.01, answered.set)
    assert (await handle).text == "You said: a"


async def test_an_async_iterable_that_fails_fails_the_handle_after_its_turns_and_the_next_chat_works(agents: Any):
    async def messages() -> AsyncIterator[str]:
        yield "a"
        raise LookupError("no more")

    agent = agents([[{"delay": 0.02}]])
    handle = agent.chat(messages())
    for _ in range(2):
        with pytest.raises(LookupError, match="no more"):
            await handle
    assert (await agent.chat("b")).text == "You said: b"


async def test_an_empty_async_iterable_is_a_turn_of_nothing(agents: Any):
    async def messages() -> AsyncIterator[str]:
        return
        yield ""

    result = await agents().chat(messages())
    assert (result.ended.reason, result.text) == ("complete", "")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ([], "an empty list of messages"),
        (5, "not a user message: "),
        (None, "not a user message: "),
        ({"content": 5}, "not a user message: "),
        ({"role": "assistant", "content": "x"}, "not a user message: Invalid enum value 'assistant'"),
        (["fine", 7], "not a user message: "),
        (b"bytes", "not a user message: "),
    ],
)
async def test_what_is_no_message_is_refused_and_the_next_chat_works(message: Any, says: str, agents: Any):
    agent = agents()
    with pytest.raises(ValidationError) as caught:
        await agent.chat(message)
    assert caught.value.message.startswith(says)
    assert caught.value.hint
    assert (await agent.chat("hi")).text == "You said: hi"


# ── Permissions ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_manual_answer_wins_and_the_callback_is_not_even_asked(agents: Any):
    asked: list[PermissionRequest] = []
    events: list[Any] = []
    handle = agents([[BASH]], on_tool_call=asked.append).chat("hi")
    async for event in handle:
        events.append(event)
        if event.kind == "ca_permission_request":
            await handle.respond_to_permission(event.call_id, {"decision": "deny", "reason": "not now"})
    assert decisions(events) == [("deny", "manual")]
    assert asked == []


async def test_what_the_loop_leaves_open_goes_to_the_callback(agents: Any):
    async def callback(request: PermissionRequest) -> Any:
        assert (request.tool_name, request.input, request.risk) == ("Bash", {"command": "ls"}, "low")
        return {"decision": "modify", "input": {"command": "pwd"}}

    events = [event async for event in agents([[BASH]], on_tool_call=callback).chat("hi")]
    (decision,) = [event for event in events if event.kind == "ca_permission_decision"]
    assert (decision.decision, decision.decided_by, decision.input) == ("modify", "callback", {"command": "pwd"})


def raises(request: PermissionRequest) -> bool:
    raise ConnectionError("nobody there")


@pytest.mark.parametrize(
    ("callback", "decided", "reason"),
    [
        (lambda request: True, ("allow", "callback"), None),
        (lambda request: False, ("deny", "callback"), None),
        (raises, ("deny", "fault"), "on_tool_call failed: ConnectionError"),
        (lambda request: "yes", ("deny", "fault"), "on_tool_call failed: ValidationError"),
        (lambda request: None, ("deny", "fault"), "on_tool_call failed: ValidationError"),
        (
            lambda request: PermissionDecision(decision="sure"),
            ("deny", "fault"),
            "on_tool_call failed: ValidationError",
        ),
        (lambda request: {"decision": "modify"}, ("deny", "fault"), "on_tool_call failed: ValidationError"),
    ],
)
async def test_a_callback_decides_and_any_fault_of_it_denies(callback: Any, decided: Any, reason: Any, agents: Any):
    events = [event async for event in agents([[BASH]], on_tool_call=callback).chat("hi")]
    (decision,) = [event for event in events if event.kind == "ca_permission_decision"]
    assert (decision.decision, decision.decided_by) == decided
    assert decision.reason == reason


async def test_without_anyone_to_ask_calls_are_allowed(agents: Any):
    assert decisions([event async for event in agents([[BASH]]).chat("hi")]) == [("allow", "default")]


async def test_without_anyone_to_ask_destructive_calls_are_denied_with_a_hint(agents: Any):
    events = [event async for event in agents([[DESTROY]]).chat("hi")]
    (decision,) = [event for event in events if event.kind == "ca_permission_decision"]
    assert (decision.decision, decision.decided_by) == ("deny", "default")
    assert decision.reason == "destructive calls are denied by default; pass on_tool_call= or policy= to decide them"


async def test_what_a_policy_asks_and_nobody_answers_is_denied(agents: Any):
    async def policy(request: PermissionRequest) -> PolicyVerdict:
        return PolicyVerdict("ask", reason="who are you?", engine="house")

    events = [event async for event in agents([[BASH]], policy=policy).chat("hi")]
    (asked,) = [event for event in events if event.kind == "ca_permission_request"]
    (decision,) = [event for event in events if event.kind == "ca_permission_decision"]
    assert (asked.policy, asked.reason) == ("house", "who are you?")
    assert (decision.decision, decision.reason) == ("deny", "the policy asks, and nobody answers")


async def test_where_a_policy_has_no_opinion_all_is_as_without_one(agents: Any):
    async def policy(request: PermissionRequest) -> PolicyVerdict:
        return PolicyVerdict("abstain")

    events = [event async for event in agents([[BASH], [DESTROY]], policy=policy).chat("hi")]
    assert decisions(events) == [("allow", "default")]
    events = [event async for event in agents([[DESTROY]], policy=policy).chat("hi")]
    assert decisions(events) == [("deny", "default")]


async def test_a_callback_hears_why_a_policy_asks(agents: Any):
    heard: list[PermissionRequest] = []

    async def policy(request: PermissionRequest) -> PolicyVerdict:
        return PolicyVerdict("ask", reason="it is late", engine="house")

    def answer(request: PermissionRequest) -> bool:
        heard.append(request)
        return True

    await agents([[BASH]], policy=policy, on_tool_call=answer).chat("hi")
    assert [(each.policy, each.reason) for each in heard] == [("house", "it is late")]


async def test_an_answer_before_the_start_or_after_the_decision_is_refused(agents: Any):
    handle = agents([[BASH]]).chat("hi")
    with pytest.raises(UnknownCallError):
        await handle.respond_to_permission("call_x", True)
    await handle
    with pytest.raises(UnknownCallError):
        await handle.respond_to_permission("call_x", True)


async def test_nonsense_as_a_manual_answer_is_refused_and_the_call_still_waits(agents: Any):
    events: list[Any] = []
    handle = agents([[BASH]], on_tool_call=lambda request: False).chat("hi")
    async for event in handle:
        events.append(event)
        if event.kind == "ca_permission_request":
            with pytest.raises(ValidationError):
                await handle.respond_to_permission(event.call_id, "maybe")
    assert decisions(events) == [("deny", "callback")]


async def test_a_callback_that_never_answers_is_left_behind_at_the_time_limit(agents: Any):
    async def callback(request: PermissionRequest) -> bool:
        await asyncio.Event().wait()
        return True

    events = [event async for event in agents([[BASH]], on_tool_call=callback, approval_timeout=0.02).chat("hi")]
    assert decisions(events) == [("deny", "timeout")]


async def test_a_reader_that_gives_up_while_the_callback_thinks_leaves_the_question_to_the_next(agents: Any):
    asked = 0

    async def callback(request: PermissionRequest) -> bool:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.Event().wait()
        return True

    handle = agents([[BASH, {"text": "done"}]], on_tool_call=callback).chat("hi")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(handle.result(), 0.02)
    assert (await handle).text == "done"
    assert asked == 2


# ── Cancel ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_cancel_ends_the_turn_and_the_session_goes_on(agents: Any):
    agent = agents([SLOW, [{"text": "second"}]])
    handle = agent.chat("hi")
    reader = await begun(handle)
    await handle.cancel()
    assert (await reader).ended.reason == "cancelled"
    assert (await agent.chat("next")).text == "second"


async def test_a_turn_that_is_cancelled_before_it_starts_never_starts(agents: Any):
    agent = agents()
    handle = agent.chat("hi")
    await handle.cancel()
    result = await handle
    assert (result.ended.reason, result.ended.turn_index) == ("cancelled", None)
    assert (await agent.chat("next")).ended.turn_index == 0


async def test_a_turn_that_is_cancelled_while_it_waits_ends_at_once_and_never_starts(agents: Any):
    agent = agents([SLOW, [{"text": "third"}]])
    first, second = agent.chat("1"), agent.chat("2")
    reader = await begun(first)
    waiting = asyncio.create_task(second.result())
    await until(lambda: bool(second._open_turns))
    await second.cancel()
    assert (await waiting).ended.reason == "cancelled"
    assert not reader.done()
    await first.cancel()
    await reader
    assert (await agent.chat("3")).text == "third"


async def test_cancelling_an_async_iterable_input_ends_its_handle(agents: Any):
    async def messages() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    handle = agents().chat(messages())
    reader = asyncio.create_task(handle.result())
    await until(lambda: bool(handle._messages) and not handle._open_turns)
    await handle.cancel()
    assert (await reader).ended.reason == "cancelled"


async def test_cancel_in_the_loop_body_is_allowed(agents: Any):
    handle = agents([[{"text": "a"}, {"delay": 60}]]).chat("hi")
    async for event in handle:
        if event.kind == "sdk_message" and event.payload["type"] == "assistant":
            await handle.cancel()
    assert (await handle).ended.reason == "cancelled"


async def test_cancel_after_the_end_changes_nothing(agents: Any):
    handle = agents().chat("hi")
    result = await handle
    await handle.cancel()
    assert (await handle) is result
    assert result.ended.reason == "complete"


async def test_cancelling_the_agent_ends_the_run_for_everyone(agents: Any):
    agent = agents([SLOW, SLOW])
    first = await begun(agent.chat("1"))
    second = asyncio.create_task(agent.chat("2").result())
    await asyncio.sleep(0.005)
    await agent.cancel()
    assert (await first).ended.reason == "cancelled"
    assert (await second).ended.reason == "cancelled"


# ── Broken off ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_turn_that_was_broken_off_leaks_nothing_into_the_next(agents: Any):
    agent = agents([[{"text": "one"}, {"delay": 60}, {"text": "late"}], [{"text": "two"}]])
    await break_off(agent.chat("1"))
    events = [event async for event in agent.chat("2")]
    assert {event.turn_index for event in events} == {1}
    texts = [str(event.payload) for event in events if event.kind == "sdk_message"]
    assert not any("late" in text or "one" in text for text in texts)


async def test_a_turn_that_was_broken_off_says_cancelled_when_it_is_awaited_later(agents: Any):
    agent = agents([[{"text": "one"}, {"delay": 60}]])
    handle = agent.chat("1")
    await break_off(handle)
    await agent.chat("2")
    assert (await handle).ended.reason == "cancelled"


async def test_a_turn_that_was_broken_off_can_be_taken_up_again(agents: Any):
    handle = agents([[{"text": "one"}, {"text": "two"}]]).chat("1")
    await break_off(handle)
    assert (await handle).text == "two"


async def test_a_turn_whose_waiter_gave_up_makes_room_for_the_next(agents: Any):
    agent = agents([SLOW, [{"text": "two"}]])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(agent.chat("1").result(), 0.02)
    assert (await agent.chat("2")).text == "two"


async def test_a_turn_that_is_broken_off_while_another_waits_makes_room_for_it(agents: Any):
    agent = agents([[{"text": "one"}, {"delay": 60}], [{"text": "two"}]])
    first, second = agent.chat("1"), agent.chat("2")
    iteration = aiter(first)
    while not first._messages:
        await anext(iteration)
    waiting = asyncio.create_task(second.result())
    await until(lambda: bool(second._open_turns))
    del iteration
    assert (await waiting).text == "two"


async def test_a_later_turn_that_is_broken_off_makes_room_for_an_earlier_handle_s_next_one(agents: Any):
    go_on = asyncio.Event()

    async def messages() -> AsyncIterator[str]:
        yield "1"
        await go_on.wait()
        yield "3"

    agent = agents([[], [{"text": "hm"}, {"delay": 60}], [{"text": "three"}]])
    conversation = agent.chat(messages())
    reader = asyncio.create_task(conversation.result())
    await until(lambda: bool(conversation._messages))
    later = agent.chat("2")
    iteration = aiter(later)
    while not later._messages:
        await anext(iteration)
    go_on.set()
    await until(lambda: 2 in conversation._turns)
    del iteration
    assert (await reader).text == "three"


async def test_a_turn_that_is_taken_up_again_at_once_goes_on_though_another_waits(agents: Any):
    agent = agents([[{"text": "hm"}, {"delay": 0.01}, {"text": "one"}], [{"text": "two"}]])
    first, second = agent.chat("1"), agent.chat("2")
    await first.session_id()
    waiting = asyncio.create_task(second.result())
    await until(lambda: bool(second._open_turns))
    async for event in first:
        if event.kind == "ca_turn_started":
            break
    assert (await first).text == "one"
    assert (await waiting).text == "two"


async def test_one_reader_that_leaves_does_not_end_the_turn_for_the_other(agents: Any):
    agent = agents([[{"text": "hm"}, {"delay": 0.02}, {"text": "one"}]])
    handle = agent.chat("1")
    reader = await begun(handle)
    async for _ in handle:
        break
    await agent.chat("2")
    assert (await reader).text == "one"


async def test_a_handle_that_is_kept_after_it_was_broken_off_holds_no_events_back(agents: Any):
    agent = agents([[{"text": "x"}, {"delay": 60}]] + [[{"text": "y" * 300}] * 10] * 20, event_log=small_log())
    kept = agent.chat("1")
    await break_off(kept)
    for _ in range(10):
        await agent.chat("next")


def small_log() -> MemoryEventLog:
    return MemoryEventLog(Retention(max_bytes=5000))


async def test_a_turn_bigger_than_the_log_reaches_a_reader_that_reads(agents: Any):
    agent = agents([[{"text": "y" * 300}] * 50], event_log=small_log())
    assert len((await agent.chat("1")).messages) == 52


# ── Side by side ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_concurrent_first_chats_share_one_session_and_each_gets_its_own_answer(agents: Any):
    agent = agents()
    results = await asyncio.gather(*(agent.chat(f"m{number}").result() for number in range(10)))
    assert len({result.session_id for result in results}) == 1
    assert [result.text for result in results] == [f"You said: m{number}" for number in range(10)]
    assert sorted(result.ended.turn_index for result in results) == list(range(10))


# ── Failures ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_run_that_fails_raises_every_time_with_what_there_was_and_the_next_chat_starts_a_next_run(agents: Any):
    agent = agents([[{"text": "so far"}, {"raise": "broken"}], [{"text": "well again"}]])
    handle = agent.chat("1")
    for _ in range(2):
        with pytest.raises(EngineError, match="RuntimeError: broken") as caught:
            await handle
        assert not isinstance(caught.value, TurnFailedError)
        assert caught.value.result.text == "so far"
        assert caught.value.result.ended.reason == "error"
    events = [event async for event in agent.chat("2")]
    assert events[0].kind == "ca_session_started"
    assert events[0].resumed is True


async def test_iterating_a_run_that_fails_ends_with_the_end_and_does_not_raise(agents: Any):
    events = [event async for event in agents([[{"raise": "broken"}]]).chat("1")]
    assert (events[-1].kind, events[-1].reason) == ("ca_session_ended", "error")


async def test_a_turn_that_fails_is_an_error_of_that_turn_and_the_session_goes_on(tmp_path: Path):
    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        number = 0
        async for _ in ctx.user_message_queue:
            number += 1
            failed = {"type": "result", "is_error": True, "subtype": "error_max_turns", "errors": ["too many", "turns"]}
            yield EngineEvent("sdk_message", failed) if number == 1 else RESULT

    async with ComputerAgent(source=tmp_path, engine=Puppet(play)) as agent:
        handle = agent.chat("1")
        for _ in range(2):
            with pytest.raises(TurnFailedError, match=r"^too many; turns$") as caught:
                await handle
            assert caught.value.hint == "The session goes on: send the message again, or another one."
        assert (await agent.chat("2")).text == "done"
        await agent.cancel()
        with pytest.raises(TurnFailedError):
            await handle


async def test_a_run_that_costs_too_much_ends_with_that_reason_and_no_error(agents: Any):
    agent = agents([[{"usage": {"cost_usd": 2.0}}, {"text": "never said"}]], budget_max_usd=1.0)
    result = await agent.chat("1")
    assert result.ended.reason == "budget_exceeded"
    assert "never said" not in result.text


async def test_a_session_that_cannot_open_fails_its_handle_every_time_and_works_once_it_can(tmp_path: Path):
    async with scripted(tmp_path, identity_loader="gap") as agent:
        handle = agent.chat("1")
        for attempt in (handle.result, handle.session_id, handle.result):
            with pytest.raises(IdentityError):
                await attempt()
        (tmp_path / "agent.yaml").write_text("name: a\nversion: 0.1.0\ndescription: d\nspec_version: '0.1.0'\n")
        with pytest.raises(IdentityError):
            await handle
        assert (await agent.chat("2")).text == "You said: 2"


async def test_the_end_of_the_run_while_a_turn_waits_is_that_turn_s_end_too(agents: Any):
    agent = agents([[{"delay": 0.02}, {"raise": "broken"}]])
    outcomes = await asyncio.gather(agent.chat("1").result(), agent.chat("2").result(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineError, EngineError]


async def test_an_engine_may_say_its_messages_in_any_shape(tmp_path: Path):
    shapes = [{"type": "assistant", "message": "plain"}, "text", None, 7, [], {"type": "assistant"}, {"message": 1}]
    shapes.append({"type": "assistant", "message": {"content": ["odd", {"type": "text", "text": "block"}, 5]}})

    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        async for _ in ctx.user_message_queue:
            for shape in shapes:
                yield EngineEvent("sdk_message", shape)
            yield EngineEvent("sdk_message", {"type": "result"})

    async with ComputerAgent(source=tmp_path, engine=Puppet(play)) as agent:
        result = await agent.chat("1")
        assert result.text == "block"
        assert list(result.messages[:-1]) == shapes


async def test_a_handle_that_was_never_used_costs_nothing(agents: Any):
    agent = agents()
    agent.chat("forgotten")
    gc.collect()
    assert agent.session_id is None
    assert (await agent.chat("hi")).ended.turn_index == 0
