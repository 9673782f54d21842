"""One turn, seen by its caller: iterate the events as they come, or await the result, or both."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Generator
from typing import Any, Protocol, cast

from computeragent.chat_input import ChatInput, as_message, normalise
from computeragent.chat_result import ChatResult, error_of, failure_of
from computeragent.errors import TurnFailedError, UnknownCallError
from computeragent.logs import Logger
from computeragent.policy.answers import parse_decision
from computeragent.protocol_types import EventStream, PermissionRequest, Session
from computeragent.wire.events import (
    CaPermissionDecision,
    CaPermissionRequest,
    CaSessionEnded,
    CaSessionStarted,
    CaUsageSnapshot,
    HarnessEvent,
    Recorded,
    SdkMessage,
)
from computeragent.wire.requests import PermissionDecision, UserInput, join_messages
from computeragent.wire.usage import UsageRollup

_log = Logger("chat")


class Host(Protocol):
    """What a handle needs of the agent that made it."""

    async def claim_session(self) -> tuple[Session, bool]:
        """The live session for a handle's turn, opened if need be, and whether it is the first of its run."""
        ...

    def readers_changed(self, handle: ChatHandle) -> None:
        """Hear that somebody began or stopped to read a turn."""
        ...

    async def answer(self, request: PermissionRequest) -> tuple[PermissionDecision, str]:
        """The answer to a call that nobody answered by hand, and who gave it."""
        ...

    async def tell(self, hook: str, *args: Any) -> Any:
        """Call a telemetry hook; never raises."""
        ...

    def trace(self, event: HarnessEvent) -> None:
        """Log one consumed event."""
        ...


class ChatHandle:
    """A turn in progress, made by `ComputerAgent.chat`. It starts when it is first iterated or awaited.

    Iterating yields `HarnessEvent`s and ends with a `ca_session_ended`: the run's own, or one that says how the
    turn ended while the session goes on. A permission request may be answered with `respond_to_permission` in the
    loop body; what the body leaves open goes to `on_tool_call`, else to the default.
    """

    def __init__(self, agent: Host, message: ChatInput) -> None:
        self._agent = agent
        self._input = message
        self._session: Session | None = None
        self._stream: EventStream | None = None
        self._turns: set[int] = set()
        self._open_turns: set[int] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._feed_error: Exception | None = None
        self._request: CaPermissionRequest | None = None
        self._ahead: deque[Recorded] = deque()
        self._reading: asyncio.Task[Recorded | None] | None = None
        self._messages: list[SdkMessage] = []
        self._usage = UsageRollup()
        self._ended: CaSessionEnded | None = None
        self._failure: BaseException | None = None
        self._cancelled = False
        self._started_at = 0.0
        self._result: ChatResult | None = None
        self._telemetry: Any = None
        self._lock = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._readers = 0
        self.abandoned = False

    # ── What callers use ──

    def __aiter__(self) -> AsyncIterator[HarnessEvent]:
        return _Events(self)

    def __await__(self) -> Generator[Any, None, ChatResult]:
        return self.result().__await__()

    async def result(self) -> ChatResult:
        """Drain the turn and return its result; every time the same one.

        Raises `EngineError` when the run failed, `TurnFailedError` when only this turn did (both with what there
        was as `result`), and whatever kept the session from opening. A failed handle raises every time.
        """
        self.join()
        try:
            while await self.next_event() is not None:
                pass
        finally:
            self.leave()
        result = self._make_result()
        if result.ended.reason == "error":
            raise error_of(result)
        return result

    def get_usage(self) -> UsageRollup:
        """The usage so far."""
        return self._usage

    async def session_id(self) -> str:
        """The session's id; opens the session if need be."""
        return (await self._start()).id

    async def cancel(self) -> None:
        """End this turn: interrupt it, or take it back while it waits. Before the start: it never starts."""
        self._cancelled = True
        if self._session is None:
            return
        if self._feeder is not None:
            self._feeder.cancel()
        for turn in sorted(self._open_turns, reverse=True):
            if await self._session.interrupt(turn):
                self._open_turns.discard(turn)  # it never started, so no event will tell its end
        if not self._open_turns and self._stream is not None:
            self._stream.close()

    async def respond_to_permission(self, call_id: str, decision: Any) -> None:
        """Answer a permission request; the first answer wins. Raises `UnknownCallError` when it comes too late."""
        if self._session is None:
            raise UnknownCallError(f"no pending permission request for callId {call_id!r}", hint="Iterate first.")
        await self._session.decide(call_id, parse_decision(decision), by="manual")
        if self._request is not None and self._request.call_id == call_id:
            self._request = None  # answered: nobody else is asked

    # ── For iterations and the agent ──

    def join(self) -> None:
        """Somebody begins to read this turn."""
        self._readers += 1
        self.abandoned = False
        self._agent.readers_changed(self)

    def leave(self) -> None:
        """Somebody stops reading; the last one to do so before the end abandons the turn."""
        self._readers -= 1
        self.abandoned = self.started and not self._readers and not self.finished
        self._agent.readers_changed(self)

    async def abandon(self) -> None:
        """End the turn if nobody reads it any more, and hold nothing back for it."""
        if not self.abandoned or self.finished:
            return
        self.abandoned = False
        await self.cancel()
        if self._stream is not None:
            self._stream.close()

    @property
    def awaited(self) -> bool:
        """Whether somebody is reading the turn, and it is not over."""
        return self._readers > 0 and not self.finished

    @property
    def started(self) -> bool:
        """Whether the turn's session is open. Until then the turn waits for its source to be fetched."""
        return self._session is not None

    @property
    def finished(self) -> bool:
        """Whether the turn is over and drained."""
        return self._ended is not None or self._failure is not None

    # ── The stream ──

    async def next_event(self) -> HarnessEvent | None:
        """The next event of this turn, or None after its end. Any number of readers take turns at it."""
        async with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._ended is not None:
                return None
            try:
                await self._start()
                if self._request is not None:
                    await self._settle(self._request)
                event = await self._pull()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self._failure = error
                await self._finish()
                raise
            if isinstance(event, CaSessionEnded):
                await self._finish()
            return event

    async def _start(self) -> Session:
        """Open the session and send the message: once, however many ask, and failing every time if it fails."""
        async with self._starting:
            if self._failure is not None:
                raise self._failure
            if self._session is None:
                try:
                    await self._begin()
                except Exception as error:
                    self._failure = error
                    raise
        assert self._session is not None
        return self._session

    async def _begin(self) -> None:
        self._started_at = time.monotonic()
        messages, more = normalise(self._input)
        session, first = await self._agent.claim_session()
        self._usage.baseline = session.cost_so_far
        self._stream = session.events(None if first else session.newest)
        self._telemetry = await self._agent.tell("on_chat_start", {"session_id": session.id, "message": self._input})
        self._session = session
        if self._cancelled:
            return
        if more is not None:
            self._feeder = asyncio.create_task(self._feed(session, more))
        elif messages:
            await self._send(session, join_messages(messages))

    async def _send(self, session: Session, message: UserInput) -> None:
        turn = await session.send(message)
        self._turns.add(turn)
        self._open_turns.add(turn)

    async def _feed(self, session: Session, more: AsyncIterable[Any]) -> None:
        try:
            async for item in more:
                await self._send(session, as_message(item))
        except Exception as error:  # noqa: BLE001 - the caller's iterable failed; the reader raises it
            self._feed_error = error
        finally:
            if not self._open_turns and self._stream is not None:
                self._stream.close()

    async def _pull(self) -> HarnessEvent:
        """The next event that belongs to this turn; the end of the turn is one of them."""
        assert self._stream is not None
        if self._feed_error is not None and not self._open_turns:
            raise self._feed_error
        if self._ready_to_end():
            return self._end_turn()
        while (recorded := await self._next()) is not None:
            event = recorded.event
            turn = None if isinstance(event, CaSessionStarted) else event.turn_index
            if isinstance(event, CaSessionEnded):
                self._ended = event
            elif turn is not None and turn not in self._turns:
                if isinstance(event, CaUsageSnapshot):
                    self._usage.skip(event)
                continue
            self._note(event)
            return event
        if self._feed_error is not None:
            raise self._feed_error
        return self._end_turn()

    async def _next(self) -> Recorded | None:
        """The next event of the session, or None at the end; what was read ahead comes first."""
        assert self._stream is not None
        if self._ahead:
            return self._ahead.popleft()
        if self._reading is None:
            return await anext(self._stream, None)
        await asyncio.wait({self._reading})
        reading, self._reading = self._reading, None
        return reading.result()

    def _note(self, event: HarnessEvent) -> None:
        self._agent.trace(event)
        if isinstance(event, CaUsageSnapshot):
            self._usage.absorb(event)
        elif isinstance(event, CaPermissionRequest):
            self._request = event
        elif isinstance(event, SdkMessage):
            self._messages.append(event)
            if event.ends_turn and event.turn_index is not None:
                self._open_turns.discard(event.turn_index)

    def _ready_to_end(self) -> bool:
        feeding = self._feeder is not None and not self._feeder.done()
        return not feeding and not self._open_turns and self._feed_error is None

    def _end_turn(self) -> CaSessionEnded:
        """How the turn ended while the session goes on."""
        assert self._session is not None
        last = self._messages[-1].payload if self._messages else None
        failure = failure_of(cast("dict[str, Any]", last)) if isinstance(last, dict) else None
        reason = "cancelled" if self._cancelled else "complete" if failure is None else "error"
        self._ended = CaSessionEnded(
            session_id=self._session.id,
            reason=reason,
            error_message=failure if reason == "error" else None,
            error_code=TurnFailedError.code if reason == "error" else None,
            turn_index=max(self._turns, default=None),
        )
        return self._ended

    async def _finish(self) -> None:
        if self._stream is not None:
            self._stream.close()
        for task in (self._feeder, self._reading):
            if task is not None:
                task.cancel()
        if self._session is not None:
            await self._agent.tell("on_chat_end", self._report(), self._telemetry)

    # ── Permissions ──

    async def _settle(self, request: CaPermissionRequest) -> None:
        """Answer what the loop body left open: the callback's word, else the default.

        Meanwhile the stream is read ahead: an answer that comes too late, because the turn was interrupted or the
        time is up, is not waited for.
        """
        assert self._session is not None
        asked = PermissionRequest(
            request.call_id, request.tool_name, request.input or {}, request.risk, request.policy, request.reason
        )
        answering = asyncio.create_task(self._agent.answer(asked))
        try:
            while not answering.done() and not await self._overtaken(request, answering):
                pass
            if answering.done():
                decision, by = answering.result()
                await self._session.decide(request.call_id, decision, by=by)
        except UnknownCallError:
            _log.debug("answered_already", call=request.call_id)
        finally:
            answering.cancel()
            await asyncio.wait({answering}, timeout=1)
        self._request = None

    async def _overtaken(self, request: CaPermissionRequest, answering: asyncio.Task[Any]) -> bool:
        """Read one event ahead while an answer is sought. True when the request does not wait any more."""
        assert self._stream is not None
        if self._reading is None:
            self._reading = asyncio.create_task(_read(self._stream))
        await asyncio.wait({answering, self._reading}, return_when=asyncio.FIRST_COMPLETED)
        if not self._reading.done():
            return False
        if self._reading.exception() is not None or (recorded := self._reading.result()) is None:
            return True
        self._reading = None
        self._ahead.append(recorded)
        event = recorded.event
        if isinstance(event, CaPermissionDecision):
            return event.call_id == request.call_id
        return isinstance(event, CaSessionEnded)

    # ── The result ──

    def _make_result(self) -> ChatResult:
        if self._result is None:
            assert self._session is not None
            assert self._ended is not None
            self._result = ChatResult(
                session_id=self._session.id,
                messages=tuple(message.payload for message in self._messages),
                ended=self._ended,
                usage=self._usage,
                duration_ms=(time.monotonic() - self._started_at) * 1000,
            )
        return self._result

    def _report(self) -> dict[str, Any]:
        assert self._session is not None
        result = self._make_result() if self._ended is not None else None
        ok = result is not None and result.ended.reason in {"complete", "cancelled"}
        return {
            "session_id": self._session.id,
            "ok": ok,
            "error": str(self._failure) if self._failure else (result.ended.error_message if result else None),
            "duration_ms": (time.monotonic() - self._started_at) * 1000,
            "usage": self._usage,
            "reply": result.text if result else "",
        }


class _Events:
    """One iteration over a handle. Dropped before the end, it leaves the turn abandoned; see `ComputerAgent.chat`."""

    def __init__(self, handle: ChatHandle) -> None:
        self._handle = handle
        handle.join()

    def __aiter__(self) -> AsyncIterator[HarnessEvent]:
        return self

    async def __anext__(self) -> HarnessEvent:
        event = await self._handle.next_event()
        if event is None:
            raise StopAsyncIteration
        return event

    def __del__(self) -> None:
        self._handle.leave()


async def _read(stream: EventStream) -> Recorded | None:
    return await anext(stream, None)
