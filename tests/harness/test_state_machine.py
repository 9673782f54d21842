"""Whatever the order of send, decide, interrupt, cancel, close and crash: the stream of a session keeps its shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from computeragent.errors import SessionEndedError, UnknownCallError
from computeragent.eventlog import MemoryEventLog
from computeragent.harness import LocalHarness, LocalSession
from computeragent.ids import new_id
from computeragent.protocol_types import (
    EngineCapabilities,
    EngineContext,
    EngineEvent,
    LocalSource,
    PermissionDecision,
    PermissionRequest,
    SessionRequest,
    UserInput,
)
from computeragent.wire.events import Recorded


class PuppetEngine:
    """An engine whose every step is told by the test: text, tool, crash, finish, or nothing at all."""

    name = "puppet"
    capabilities = EngineCapabilities(
        streaming_input=True, partial_messages=False, permission_callback=True, sessions=False, budget=False
    )

    def __init__(self) -> None:
        self.moves: asyncio.Queue[str] = asyncio.Queue()

    async def start_session(self, ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        feeding = asyncio.create_task(self._feed(ctx))
        try:
            while True:
                move = await self.moves.get()
                if move == "crash":
                    raise RuntimeError("the puppet broke")
                if move == "finish":
                    return
                if move == "end":
                    yield EngineEvent("session_ended", reason="budget_exceeded")
                if move == "tool":
                    request = PermissionRequest(new_id("call"), "Bash", {"command": "ls"})
                    decision = await ctx.on_permission_request(request)
                    yield EngineEvent("sdk_message", {"type": "user", "decision": decision.decision})
                if move == "text":
                    yield EngineEvent("sdk_message", {"type": "assistant"})
                if move == "result":
                    yield EngineEvent("usage_snapshot", input_tokens=1)
                    yield EngineEvent("sdk_message", {"type": "result"})
                if ctx.cancel_event.is_set():
                    return
        finally:
            feeding.cancel()

    async def _feed(self, ctx: EngineContext) -> None:
        async for _ in ctx.user_message_queue:
            pass


class SessionMachine(RuleBasedStateMachine):
    """Drives one session through anything; the rules run the loop until nothing moves any more."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = TemporaryDirectory()
        self.log = MemoryEventLog()
        self.harness = LocalHarness(log=self.log, grace=0.02)
        self.engine = PuppetEngine()
        self.session: LocalSession
        self.sent: list[int] = []
        self.runs = 0

    def do(self, coroutine: Any) -> Any:
        result = self.loop.run_until_complete(coroutine)
        self.settle()
        return result

    def settle(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0.001))

    @initialize()
    def open(self) -> None:
        self._open()

    def _open(self) -> None:
        self.engine = PuppetEngine()
        request = SessionRequest(
            source=LocalSource(path=self.folder.name), engine=self.engine, session_id="machine", identity_loader=None
        )
        self.session = self.do(self.harness.open(request))
        self.runs += 1

    @rule(text=st.sampled_from(["hi", "", "ünï \ud800"]))
    def send(self, text: str) -> None:
        try:
            self.sent.append(self.do(self.session.send(UserInput(content=text))))
        except SessionEndedError:
            assert self.session.ended is not None or self.session.turns.closed

    @rule(move=st.sampled_from(["text", "tool", "result", "result", "text", "crash", "finish", "end"]))
    def engine_moves(self, move: str) -> None:
        self.engine.moves.put_nowait(move)
        self.settle()

    @rule(decision=st.sampled_from(["allow", "deny"]))
    def decide(self, decision: str) -> None:
        pending = self.session.pending_calls
        for call in [*pending[:1], "call_unknown"]:
            try:
                self.do(self.session.decide(call, PermissionDecision(decision=decision)))
                assert call in pending
            except UnknownCallError:
                assert call == "call_unknown"

    @rule()
    def interrupt(self) -> None:
        self.do(self.session.interrupt())

    @rule()
    def end_input(self) -> None:
        self.do(self.session.end_input())

    @rule()
    def cancel(self) -> None:
        self.do(self.session.cancel())
        assert self.session.ended is not None

    @precondition(lambda self: self.session.ended is not None and self.runs < 4)
    @rule()
    def next_run(self) -> None:
        self.do(self.session.wait())
        self._open()

    @invariant()
    def stream_keeps_its_shape(self) -> None:
        if self.runs == 0:
            return
        events = self.loop.run_until_complete(self._recorded())
        check_shape(events, live=self.session.ended is None, sent=self.sent)

    async def _recorded(self) -> list[Recorded]:
        found: list[Recorded] = []
        while page := await self.log.read("machine", found[-1].id if found else -1):
            found.extend(page)
        return found

    def teardown(self) -> None:
        if self.runs:
            self.do(self.session.close())
            assert self.session.ended is not None
            events = self.loop.run_until_complete(self._recorded())
            check_shape(events, live=False, sent=self.sent)
        self.loop.run_until_complete(self.harness.close())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        left = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        self.loop.run_until_complete(asyncio.sleep(0.05))
        left = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        assert left == []
        self.loop.close()
        self.folder.cleanup()


def check_shape(events: list[Recorded], *, live: bool, sent: list[int]) -> None:
    assert [recorded.id for recorded in events] == list(range(len(events)))
    runs: list[list[Any]] = []
    for recorded in events:
        if recorded.event.kind == "ca_session_started":
            runs.append([])
        runs[-1].append(recorded.event)
    for number, run in enumerate(runs):
        kinds = [event.kind for event in run]
        assert kinds.count("ca_session_started") == 1
        ends = kinds.count("ca_session_ended")
        if number < len(runs) - 1 or not live:
            assert ends == 1
            assert kinds[-1] == "ca_session_ended"
        else:
            assert ends == 0
    started = [recorded.event.turn_index for recorded in events if recorded.event.kind == "ca_turn_started"]
    assert started == sorted(set(started))
    assert set(started) <= set(sent)
    current = None
    for recorded in events:
        event: Any = recorded.event
        if event.kind == "ca_turn_started":
            assert current is None
            current = event.turn_index
        elif event.kind == "sdk_message":
            assert event.turn_index == current
            if event.ends_turn:
                current = None
        elif event.kind == "ca_session_ended":
            current = None
        elif event.kind == "ca_usage_snapshot":
            assert event.turn_index == current


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestSessionMachine = pytest.mark.timeout(300)(TestSessionMachine)
