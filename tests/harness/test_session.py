"""The session: one first and one last event per run, whatever the engine does or does not do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from computeragent.engines.scripted import ScriptedEngine
from computeragent.errors import EngineUnavailableError, EventsGoneError, SessionEndedError, UnknownCallError
from computeragent.eventlog import MemoryEventLog, Retention
from computeragent.harness import LocalHarness, LocalSession
from computeragent.protocol_types import (
    EngineContext,
    EngineEvent,
    PermissionDecision,
    PermissionRequest,
    UserInput,
)
from computeragent.wire.events import CaSessionEnded, CaTurnStarted, Recorded
from puppets import RESULT, Puppet, drain, kinds, request, until

pytestmark = pytest.mark.anyio

HI = UserInput(content="hi")


@pytest.fixture
async def harness() -> AsyncIterator[LocalHarness]:
    made = LocalHarness(grace=0.05)
    yield made
    await made.close()


@pytest.fixture
def open_with(harness: LocalHarness, tmp_path: Path) -> Any:
    async def open_session(engine: Any, **fields: Any) -> LocalSession:
        return await harness.open(request(tmp_path, engine, **fields))

    return open_session


async def whole(session: LocalSession) -> list[Recorded]:
    return await drain(session.events())


async def wait_for(session: LocalSession, kind: str, after: int = -1) -> Recorded:
    stream = session.events(after)
    try:
        async for recorded in stream:
            if recorded.event.kind == kind:
                return recorded
    finally:
        stream.close()
    raise AssertionError(f"the run ended without {kind}")


def end_of(events: list[Recorded]) -> CaSessionEnded:
    assert kinds(events).count("ca_session_ended") == 1
    last = events[-1].event
    assert isinstance(last, CaSessionEnded)
    return last


# ── A turn ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_run_is_started_turns_and_ended_in_this_order(open_with: Any):
    session = await open_with(ScriptedEngine([[{"usage": {"input_tokens": 3}}, {"text": "yes"}]]))
    assert await session.send(HI) == 0
    await session.end_input()
    events = await whole(session)
    assert kinds(events) == [
        *("ca_session_started", "sdk_message", "ca_turn_started", "ca_usage_snapshot"),
        *("sdk_message", "sdk_message", "ca_session_ended"),
    ]
    assert [recorded.event.turn_index for recorded in events[2:6]] == [0, 0, 0, 0]
    assert end_of(events).reason == "complete"
    assert session.status == "completed"


async def test_a_turn_tells_its_message_and_how_much_text_it_has(open_with: Any):
    session = await open_with(ScriptedEngine())
    await session.send(UserInput(content=[{"type": "text", "text": "abc"}]))
    turn = (await wait_for(session, "ca_turn_started")).event
    assert isinstance(turn, CaTurnStarted)
    assert turn.message == UserInput(content=[{"type": "text", "text": "abc"}])
    assert (turn.turn_index, turn.user_text_len) == (0, 3)


async def test_turns_are_numbered_on_across_runs(open_with: Any, harness: LocalHarness):
    for expected in (0, 1):
        session = await open_with(ScriptedEngine(), session_id="s")
        assert await session.send(HI) == expected
        await wait_for(session, "ca_turn_started", session.newest)
        await session.close()


async def test_a_message_after_the_end_is_refused(open_with: Any):
    session = await open_with(ScriptedEngine())
    await session.end_input()
    await session.wait()
    with pytest.raises(SessionEndedError, match="has ended and takes no more messages") as caught:
        await session.send(HI)
    assert (caught.value.code, caught.value.status) == ("SESSION_ENDED", 409)


@pytest.mark.parametrize(
    ("payload", "ends_turn", "ends"),
    [
        ({"type": "result"}, None, True),
        ({"type": "system", "subtype": "session_end"}, None, True),
        ({"type": "system", "subtype": "init"}, None, False),
        ({"type": "result"}, False, False),
        ({"type": "assistant"}, True, True),
        ("just text", None, False),
        (None, None, False),
        (msgspec.Raw(b'{"type":"result"}'), None, True),
    ],
)
async def test_a_turn_ends_by_convention_or_by_the_engine_s_word(
    payload: Any, ends_turn: bool | None, ends: bool, open_with: Any
):
    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        async for _ in ctx.user_message_queue:
            yield EngineEvent("sdk_message", payload, ends_turn=ends_turn)
            return

    session = await open_with(Puppet(play))
    await session.send(HI)
    message = (await whole(session))[-2].event
    assert (message.kind, message.ends_turn) == ("sdk_message", ends)


async def test_the_next_turn_begins_only_after_the_one_before_it_has_ended(open_with: Any):
    go_on = asyncio.Event()

    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        async for _ in ctx.user_message_queue:
            await go_on.wait()
            yield RESULT

    session = await open_with(Puppet(play))
    await session.send(HI)
    await session.send(HI)
    await wait_for(session, "ca_turn_started")
    assert kinds(await session_so_far(session)).count("ca_turn_started") == 1
    go_on.set()
    await session.end_input()
    assert kinds(await whole(session))[1:-1] == ["ca_turn_started", "sdk_message"] * 2


async def session_so_far(session: LocalSession) -> list[Recorded]:
    await asyncio.sleep(0.005)
    stream = session.events(-1)
    found = [await anext(stream) for _ in range(session.newest + 1)]
    stream.close()
    return found


# ── How runs end ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_engine_that_raises_ends_the_run_with_what_it_said(open_with: Any):
    session = await open_with(ScriptedEngine([[{"text": "so far"}, {"raise": "the model is on fire"}]]))
    await session.send(HI)
    end = end_of(await whole(session))
    assert (end.reason, end.error_message) == ("error", "RuntimeError: the model is on fire")
    assert (end.error_code, end.turn_index) == ("ENGINE_FAILED", 0)
    assert session.status == "errored"


async def test_an_engine_s_own_error_keeps_its_code_and_its_hint(open_with: Any):
    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        raise EngineUnavailableError("no key", hint="Set one.")
        yield RESULT

    end = end_of(await whole(await open_with(Puppet(play))))
    assert (end.error_message, end.error_code, end.error_hint) == ("no key", "ENGINE_UNAVAILABLE", "Set one.")


async def test_an_engine_that_fails_before_its_first_step_ends_the_run(open_with: Any):
    def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        raise RuntimeError("not even started")

    assert end_of(await whole(await open_with(Puppet(play)))).error_message == "RuntimeError: not even started"


async def test_a_payload_that_is_no_json_ends_the_run_with_an_error(open_with: Any):
    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        yield EngineEvent("sdk_message", {"x": object()})

    end = end_of(await whole(await open_with(Puppet(play))))
    assert (end.reason, end.error_message) == ("error", "TypeError: Encoding objects of type object is unsupported")


async def test_an_engine_that_returns_has_completed(open_with: Any):
    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        yield EngineEvent("sdk_message", {"type": "system"})

    assert end_of(await whole(await open_with(Puppet(play)))).reason == "complete"


@pytest.mark.parametrize("reason", ["complete", "error", "budget_exceeded", "cancelled"])
async def test_an_engine_may_end_the_run_with_a_reason(reason: Any, open_with: Any):
    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        yield EngineEvent("session_ended", reason=reason, error_message="why")
        yield EngineEvent("sdk_message", {"type": "late"})

    events = await whole(await open_with(Puppet(play)))
    assert kinds(events) == ["ca_session_started", "ca_session_ended"]
    assert (end_of(events).reason, end_of(events).error_message) == (reason, "why")


async def test_closing_an_idle_session_completes_its_run(open_with: Any):
    session = await open_with(ScriptedEngine())
    await session.close()
    assert end_of(await whole(session)).reason == "complete"


async def test_closing_a_busy_session_cancels_its_run(open_with: Any):
    session = await open_with(ScriptedEngine([[{"delay": 60}]]))
    await session.send(HI)
    await wait_for(session, "ca_turn_started")
    await session.close()
    assert end_of(await whole(session)).reason == "cancelled"


async def test_closing_twice_is_closing_once(open_with: Any):
    session = await open_with(ScriptedEngine())
    await asyncio.gather(session.close(), session.close())
    await session.close()
    assert kinds(await whole(session)).count("ca_session_ended") == 1


# ── Cancel and interrupt ─────────────────────────────────────────────────────────────────────────────────────


async def test_cancel_ends_the_run_and_forgets_what_waits(open_with: Any):
    session = await open_with(ScriptedEngine([[{"delay": 60}]]))
    await session.send(HI)
    await session.send(HI)
    await wait_for(session, "ca_turn_started")
    await session.cancel()
    events = await whole(session)
    assert (end_of(events).reason, end_of(events).turn_index) == ("cancelled", 0)
    assert kinds(events).count("ca_turn_started") == 1
    assert session.status == "cancelled"


async def test_what_a_cancelled_engine_says_last_does_not_end_its_turn(open_with: Any):
    session = await open_with(ScriptedEngine([[{"delay": 60}]]))
    await session.send(HI)
    await wait_for(session, "ca_turn_started")
    await session.cancel()
    assert not any(getattr(recorded.event, "ends_turn", False) for recorded in await whole(session))


async def test_an_engine_that_is_deaf_to_cancel_is_ended_by_force(open_with: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("computeragent.harness.session._FORCE", 0.05)
    session = await open_with(ScriptedEngine([[{"hang": True}]]))
    await session.send(HI)
    await wait_for(session, "ca_turn_started")
    await session.cancel()
    assert end_of(await whole(session)).reason == "cancelled"
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == f"engine {session.id}"]
    task.cancel()


async def test_an_engine_that_is_deaf_to_interrupts_is_cancelled(open_with: Any):
    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        async for _ in ctx.user_message_queue:
            await ctx.cancel_event.wait()
            yield RESULT

    session = await open_with(Puppet(play))
    await session.send(HI)
    await wait_for(session, "ca_turn_started")
    assert await session.interrupt() is False
    assert end_of(await whole(session)).reason == "cancelled"


async def test_an_interrupt_ends_the_turn_and_the_session_goes_on(open_with: Any):
    session = await open_with(ScriptedEngine([[{"delay": 60}], [{"text": "second"}]]))
    await session.send(HI)
    await session.send(HI)
    await wait_for(session, "ca_turn_started")
    assert await session.interrupt(0) is False
    await session.end_input()
    events = await whole(session)
    results = [r.event for r in events if getattr(r.event, "ends_turn", False)]
    assert [(event.turn_index, event.payload["subtype"]) for event in results] == [
        (0, "error_during_execution"),
        (1, "success"),
    ]
    assert end_of(events).reason == "complete"


async def test_a_turn_that_waits_can_be_taken_back_and_leaves_no_event(open_with: Any):
    session = await open_with(ScriptedEngine([[{"delay": 0.02}]]))
    await session.send(HI)
    waiting = await session.send(HI)
    await wait_for(session, "ca_turn_started")
    assert await session.interrupt(waiting) is True
    await session.end_input()
    events = await whole(session)
    assert waiting not in {getattr(recorded.event, "turn_index", None) for recorded in events}


async def test_an_interrupt_of_nothing_does_nothing(open_with: Any):
    session = await open_with(ScriptedEngine())
    assert await session.interrupt() is False
    assert await session.interrupt(99) is False
    await session.send(HI)
    await session.end_input()
    assert end_of(await whole(session)).reason == "complete"
    assert await session.interrupt() is False


async def test_an_interrupt_denies_the_call_that_waits(open_with: Any):
    session = await open_with(ScriptedEngine([[{"tool": "Bash", "input": {"command": "ls"}}]]))
    await session.send(HI)
    request_event = (await wait_for(session, "ca_permission_request")).event
    await session.interrupt()
    decision = (await wait_for(session, "ca_permission_decision")).event
    assert (decision.decision, decision.reason, decision.decided_by) == ("deny", "interrupted", "session")
    with pytest.raises(UnknownCallError):
        await session.decide(request_event.call_id, PermissionDecision(decision="allow"))


async def test_an_engine_that_hangs_in_a_tool_call_is_freed_by_cancel(open_with: Any):
    denied: list[PermissionDecision] = []

    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        async for _ in ctx.user_message_queue:
            denied.append(await ctx.on_permission_request(PermissionRequest("c", "Bash", {})))
            yield RESULT

    session = await open_with(Puppet(play))
    await session.send(HI)
    await wait_for(session, "ca_permission_request")
    assert session.pending_calls == ["c"]
    await session.cancel()
    assert denied == [PermissionDecision(decision="deny", reason="session cancelled")]


async def test_cancel_and_close_of_an_ended_session_return_at_once(open_with: Any):
    session = await open_with(ScriptedEngine())
    await session.end_input()
    await session.wait()
    await session.cancel()
    await session.close()
    assert end_of(await whole(session)).reason == "complete"


async def test_a_session_leaves_no_task_behind(open_with: Any):
    before = asyncio.all_tasks()
    session = await open_with(ScriptedEngine([[{"delay": 60}]]))
    await session.send(HI)
    await wait_for(session, "ca_turn_started")
    await session.interrupt()
    await session.cancel()
    await session.close()
    await until(lambda: asyncio.all_tasks() == before)


async def test_an_engine_s_generator_is_closed_when_its_run_is_over(open_with: Any):
    closed: list[bool] = []

    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        try:
            yield EngineEvent("session_ended")
            yield RESULT
        finally:
            closed.append(True)

    session = await open_with(Puppet(play))
    await session.wait()
    assert closed == [True]


# ── Readers ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_engine_waits_for_a_reader_that_lags_and_loses_nothing(tmp_path: Path):
    said = 0

    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        nonlocal said
        async for _ in ctx.user_message_queue:
            for _ in range(100):
                said += 1
                yield EngineEvent("sdk_message", {"type": "x", "text": "x" * 100})
            yield RESULT

    harness = LocalHarness(log=MemoryEventLog(Retention(max_bytes=2000)))
    session = await harness.open(request(tmp_path, Puppet(play)))
    stream = session.events()
    await session.send(HI)
    await asyncio.sleep(0.02)
    assert said < 50
    await session.end_input()
    assert [recorded.id for recorded in await drain(stream)] == list(range(104))
    await harness.close()


async def test_an_engine_that_waits_for_a_reader_still_hears_that_it_is_to_end(tmp_path: Path):
    heard: list[str] = []

    async def play(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        async for _ in ctx.user_message_queue:
            while not ctx.interrupt_event.is_set() and not ctx.cancel_event.is_set():
                yield EngineEvent("sdk_message", {"type": "x", "text": "x" * 100})
            heard.append("cancel" if ctx.cancel_event.is_set() else "interrupt")
            yield RESULT

    harness = LocalHarness(log=MemoryEventLog(Retention(max_bytes=2000)))
    session = await harness.open(request(tmp_path, Puppet(play)))
    unread = session.events()
    for end in (session.interrupt, session.cancel):
        await session.send(HI)
        await until(lambda: session._channel._crowded)
        await end()
    assert heard == ["interrupt", "cancel"]
    unread.close()
    await harness.close()


async def test_events_that_went_are_refused_with_the_earliest(tmp_path: Path):
    harness = LocalHarness(log=MemoryEventLog(Retention(max_events=10)))
    session = await harness.open(request(tmp_path))
    for _ in range(10):
        await session.send(HI)
    await session.end_input()
    await session.wait()
    with pytest.raises(EventsGoneError) as caught:
        session.events(0)
    found = await drain(session.events(caught.value.earliest - 1))
    assert found[0].id == caught.value.earliest
    await harness.close()


def test_a_loop_that_shuts_down_in_the_middle_of_a_turn_is_not_held_up(tmp_path: Path) -> None:
    """`asyncio.run` cancels every task at once when its main task has failed: nobody may then wait for ever."""
    program = """
import asyncio, sys
from computeragent import ComputerAgent
from computeragent.protocol_types import SubstrateHandle

class Place:
    async def boot(self, *, workspace, state_dir, envs, limits):
        working = asyncio.ensure_future(asyncio.sleep(60))  # such as the process of a sandbox

        async def close():
            await working

        return SubstrateHandle(workspace, close)

async def main():
    options = {"script": [[{"text": "x", "delay": 60}]]}
    agent = ComputerAgent(source=".", engine="scripted", runtime=Place(), options=options)
    handle = agent.chat("go")
    asyncio.ensure_future(anext(aiter(handle)))
    await asyncio.sleep(0.3)

    async def dispose():
        try:
            await asyncio.sleep(60)
        finally:
            await agent.dispose()

    asyncio.ensure_future(dispose())
    await asyncio.sleep(0)
    sys.exit(3)  # leaves at once, with everything under way

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, timeout=30, check=False)
    assert done.returncode == 3
