"""The state machine of one session: runs of turns, each run with exactly one first and one last event.

A run starts with `ca_session_started` and ends with `ca_session_ended`, also when the engine raises, ignores
cancellation or is killed. A turn starts when its message reaches the engine and ends with the engine's
terminating message, or with the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Raw, Struct

from computeragent.errors import ComputerAgentError, EngineError, SessionEndedError
from computeragent.eventlog import Channel, ChannelStream
from computeragent.harness.permissions import Pending, PermissionChain
from computeragent.harness.turns import TurnQueue
from computeragent.logs import Logger
from computeragent.protocol_types import EngineContext, EngineDriver, EngineEvent, PolicyDecider, Workspace
from computeragent.wire.events import (
    AgentIdentity,
    Capabilities,
    CaSessionEnded,
    CaSessionStarted,
    CaTurnStarted,
    CaUsageSnapshot,
    EndReason,
    HarnessEvent,
    SdkMessage,
    raw_payload,
)
from computeragent.wire.requests import PermissionDecision, UserInput

if TYPE_CHECKING:
    from computeragent.harness.told import RunTelemetry

GRACE = 10.0
"""Seconds that an engine has to end a turn or a run that it was told to end, before it is ended by force."""

_FORCE = 2.0
_log = Logger("session")


class _Head(Struct):
    type: str | None = None
    subtype: str | None = None


_heads = msgspec.json.Decoder(_Head)


class LocalSession:
    """A session whose engine runs in this process. Made by `LocalHarness.open`; implements `Session`.

    `released` is awaited when the run has ended, `closed` when the caller has no more use for the session.
    """

    def __init__(
        self,
        *,
        channel: Channel,
        engine: EngineDriver,
        workspace: Workspace,
        policy: PolicyDecider | None,
        approval_timeout: float,
        released: Callable[[], Awaitable[None]],
        closed: Callable[[], Awaitable[None]],
        telemetry: RunTelemetry | None = None,
        grace: float = GRACE,
    ) -> None:
        self.id = channel.session_id
        self.files = workspace
        self.ended: CaSessionEnded | None = None
        self.cancel_event = asyncio.Event()
        self.interrupt_event = asyncio.Event()
        self.turns = TurnQueue(first_index=channel.summary.turns, on_start=self._begin_turn)
        self.chain = PermissionChain(
            session_id=self.id,
            policy=policy,
            approval_timeout=approval_timeout,
            emit=self.record,
            turn=lambda: self.turns.current,
        )
        self._channel = channel
        self._engine = engine
        self._released = released
        self._closed = closed
        self._grace = grace
        self._verdict: CaSessionEnded | None = None  # what the run ends with, whatever the engine says
        self._telemetry = telemetry
        self._turn_ended = asyncio.Event()
        self._released_event = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        channel.on_broken = self._break_off

    @property
    def status(self) -> Literal["running", "completed", "cancelled", "errored"]:
        """Where the run stands."""
        if self.ended is None:
            return "running"
        outcomes: dict[EndReason, Literal["completed", "cancelled", "errored"]] = {
            "complete": "completed",
            "cancelled": "cancelled",
            "budget_exceeded": "completed",
            "error": "errored",
        }
        return outcomes[self.ended.reason]

    @property
    def capabilities(self) -> Capabilities:
        """What the session's engine can do."""
        return self._engine.capabilities

    @property
    def idle(self) -> bool:
        """Whether no turn is under way or waits, and nobody reads the events."""
        return self.turns.idle and not self._channel.readers

    @property
    def pending_calls(self) -> list[str]:
        """The tool calls that wait for an answer."""
        return self.chain.pending

    @property
    def waiting(self) -> list[Pending]:
        """The tool calls that wait for an answer, as they were asked."""
        return self.chain.waiting

    # ── The run ──

    def start(self, context: EngineContext, *, resumed: bool, cwd: str | None = None) -> None:
        """Begin the run: its first event is recorded before this returns, its engine runs on.

        `cwd` is the agent's working folder, as the agent sees it.
        """
        manifest = context.manifest
        self._channel.append(
            CaSessionStarted(
                session_id=self.id,
                engine=self._engine.name,
                identity=AgentIdentity(name=manifest.name, version=manifest.version, sha=manifest.sha),
                capabilities=self._engine.capabilities,
                resumed=resumed,
                cwd=cwd,
            )
        )
        if self._telemetry is not None:
            self._telemetry.follow(self)
        engine = asyncio.create_task(self._drive(context), name=f"engine {self.id}")
        supervisor = asyncio.create_task(self._supervise(engine), name=f"session {self.id}")
        # However it ends: a loop that shuts down cancels it wherever it is, and somebody may wait for it all the same.
        supervisor.add_done_callback(lambda _: self._released_event.set())
        self._tasks = [engine, supervisor]

    async def _drive(self, context: EngineContext) -> None:
        """Pump the engine into the log until it ends; the end is recorded when the engine has let go of everything."""
        reason: EndReason = "complete"
        message: str | None = None
        try:
            async with _closing(self._engine.start_session(context)) as stream:
                async for event in stream:
                    if event.kind == "session_ended":
                        reason, message = event.reason, event.error_message
                        break
                    if self.ended is not None:
                        return
                    self._relay(event)
                    if self._channel.full:
                        await self._channel.room(self._told_to_end)
        except asyncio.CancelledError:
            self._finish("cancelled")
            raise
        except ComputerAgentError as error:
            self._finish("error", error.message, error.code, error.hint)
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; it becomes the run's end
            _log.error("engine_failed", session=self.id, engine=self._engine.name, error=_without_secrets(repr(error)))
            self._finish("error", f"{type(error).__name__}: {error}", EngineError.code)
        else:
            self._finish(reason, message)

    async def _supervise(self, task: asyncio.Task[None]) -> None:
        """Wait for the engine, or for its time to run out; then write the end and let everything go."""
        cancelled = asyncio.create_task(self.cancel_event.wait())
        try:
            await asyncio.wait({task, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await asyncio.wait({task}, timeout=self._grace)
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_FORCE)
            if not task.done():
                _log.error("engine_ignores_cancel", session=self.id, engine=self._engine.name)
            self._finish("cancelled")
        finally:
            cancelled.cancel()
            try:
                await self._released()
            except Exception as error:  # noqa: BLE001 - the run is over; what is left is housekeeping
                _log.error("release_failed", session=self.id, error=str(error))

    def _told_to_end(self) -> bool:
        return self.cancel_event.is_set() or self.interrupt_event.is_set()

    def _begin_turn(self, index: int, message: UserInput) -> None:
        self.interrupt_event.clear()
        length = message.text_length()
        self.record(CaTurnStarted(session_id=self.id, turn_index=index, message=message, user_text_len=length))

    def _relay(self, event: EngineEvent) -> None:
        turn = self.turns.current
        if event.kind == "usage_snapshot":
            self.record(
                CaUsageSnapshot(
                    session_id=self.id,
                    input_tokens=event.input_tokens,
                    output_tokens=event.output_tokens,
                    cache_creation_input_tokens=event.cache_creation_input_tokens,
                    cache_read_input_tokens=event.cache_read_input_tokens,
                    cost_usd=event.cost_usd,
                    cost_semantic=event.cost_semantic,
                    turn_index=turn,
                )
            )
            return
        raw = raw_payload(event.payload)
        ends = turn is not None and (_ends_turn(raw) if event.ends_turn is None else event.ends_turn)
        if self._verdict is not None:
            ends = False  # the run's end ends the turn, too: what a cancelled engine says last is not its outcome
        self.record(SdkMessage(session_id=self.id, raw=raw, ends_turn=ends, turn_index=turn))
        if ends:
            self.chain.deny_pending("the turn ended")
            self.turns.end_turn()
            self._turn_ended.set()

    def _finish(
        self, reason: EndReason, message: str | None = None, code: str | None = None, hint: str | None = None
    ) -> None:
        """Record the end of the run, once. After `cancel` or `stop`, that was it, whatever the engine says."""
        if self.ended is not None:
            return
        if (verdict := self._verdict) is not None:
            reason, message, code, hint = verdict.reason, verdict.error_message, verdict.error_code, None
        self.chain.close("session cancelled" if reason == "cancelled" else "the session ended")
        end = CaSessionEnded(
            session_id=self.id,
            reason=reason,
            error_message=message,
            error_code=code,
            error_hint=hint,
            turn_index=self.turns.current,
        )
        self.record(end)
        self.ended = end
        self.turns.drop()
        self.turns.end_turn()
        self._turn_ended.set()

    def record(self, event: HarnessEvent) -> None:
        """Append an event of the current run; after the run's end nothing is recorded."""
        if self.ended is None:
            try:
                self._channel.append(event)
            except ComputerAgentError as error:
                self._break_off(error)

    def _break_off(self, failure: Exception) -> None:
        """The log is broken: nothing more can be recorded, so the run stops here. Readers were told."""
        if self.ended is not None:
            return
        code = failure.code if isinstance(failure, ComputerAgentError) else EngineError.code
        self.ended = CaSessionEnded(session_id=self.id, reason="error", error_message=str(failure), error_code=code)
        self.chain.close("the session ended")
        self.turns.drop()
        self._turn_ended.set()
        self.cancel_event.set()

    # ── What callers do ──

    async def send(self, message: UserInput) -> int:
        """See `Session.send`. Raises `SessionEndedError` when the run is over."""
        if self.ended is not None or self.turns.closed:
            raise SessionEndedError(
                f"session {self.id} has ended and takes no more messages",
                hint="Open the session again to start its next run.",
            )
        index = self.turns.put(message)
        if self._telemetry is not None:
            self._telemetry.sent(index)
        return index

    def events(self, after: int | None = None) -> ChannelStream:
        """See `Session.events`."""
        return self._channel.stream(after)

    @property
    def newest(self) -> int:
        """The newest committed event id."""
        return self._channel.newest

    @property
    def cost_so_far(self) -> float:
        """The running total in US dollars that the engine has reported in this run."""
        return self._channel.summary.cumulative_usd

    async def decide(self, call_id: str, decision: PermissionDecision, *, by: str = "manual") -> None:
        """See `Session.decide`."""
        self.chain.decide(call_id, decision, by)

    async def interrupt(self, turn_index: int | None = None) -> bool:
        """See `Session.interrupt`. An engine that ignores it is cancelled."""
        if turn_index is not None and turn_index != self.turns.current:
            return self.turns.withdraw(turn_index)
        current = self.turns.current
        if current is None or self.ended is not None:
            return False
        self.interrupt_event.set()
        self.chain.deny_pending("interrupted")
        try:
            async with asyncio.timeout(self._grace):
                while self.turns.current == current and self.ended is None:
                    self._turn_ended.clear()
                    await self._turn_ended.wait()
        except TimeoutError:
            _log.warn("interrupt_ignored", session=self.id, engine=self._engine.name)
            await self.cancel()
        return False

    async def cancel(self) -> None:
        """See `Session.cancel`. Returns when the end is recorded."""
        self._end_with(CaSessionEnded(session_id=self.id, reason="cancelled"), "session cancelled")
        await self._released_event.wait()

    def stop(self, reason: EndReason, message: str, code: str) -> None:
        """End the run at once for a reason of our own, such as a guard's; returns before it has ended."""
        end = CaSessionEnded(session_id=self.id, reason=reason, error_message=message, error_code=code)
        self._end_with(end, message)

    def _end_with(self, verdict: CaSessionEnded, why: str) -> None:
        if self.ended is None:
            self._verdict = self._verdict or verdict
            self.cancel_event.set()
            self.chain.close(why)
            self.turns.drop()

    async def wait(self) -> None:
        """Wait until the run has ended and everything of it is committed."""
        await self._released_event.wait()

    async def end_input(self) -> None:
        """No more messages: the run ends when the turns that wait are done."""
        self.turns.close()

    async def close(self) -> None:
        """See `Session.close`."""
        if self.turns.idle and self.ended is None:
            self.turns.close()
            try:
                async with asyncio.timeout(self._grace):
                    await self._released_event.wait()
            except TimeoutError:
                await self.cancel()
        else:
            await self.cancel()
        await self._closed()


@asynccontextmanager
async def _closing(stream: AsyncIterator[EngineEvent]) -> AsyncGenerator[AsyncIterator[EngineEvent]]:
    """Close an engine's generator at once when the pump stops; plain iterators have nothing to close."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


def _ends_turn(raw: Raw) -> bool:
    """Whether a message ends its turn, by the protocol's convention for `sdk_message` payloads."""
    try:
        head = _heads.decode(raw)
    except msgspec.DecodeError:
        return False
    return head.type == "result" or (head.type == "system" and head.subtype == "session_end")


def _without_secrets(text: str) -> str:
    from computeragent.telemetry.redaction import SECRETS, Redactor  # heavy, and for this alone

    return Redactor(detectors=SECRETS).redact_text(text)
