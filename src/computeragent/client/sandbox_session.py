"""`SandboxSession`: a session in a sandbox. Its turns are streams of their own there, and one log here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from computeragent.client.sandbox_files import SandboxWorkspace
from computeragent.client.sandbox_turn import Turn
from computeragent.client.server_client import ComputerAgentServerClient
from computeragent.errors import (
    ComputerAgentError,
    HarnessProtocolError,
    HttpError,
    NotFoundError,
    SessionEndedError,
    UnknownCallError,
)
from computeragent.eventlog import Channel, ChannelStream, MemoryEventLog
from computeragent.harness.told import RunTelemetry
from computeragent.logs import Logger
from computeragent.wire.events import CaSessionEnded, EndReason
from computeragent.wire.requests import PermissionDecision, UserInput

BUSY_FOR = 60.0
"""Seconds that a turn waits for a sandbox that is busy with another one."""
_GONE = frozenset({"GONE", "NOT_FOUND"})
_PAUSE = 0.5
_PAUSES = (0.1, 0.4, 1.5, 4.0)
_IDLE_TTL = 600_000.0
_log = Logger("client")


class SandboxSession:
    """A session in a sandbox; implements `Session`. Its log is here: that wire has streams of single turns."""

    def __init__(
        self,
        client: ComputerAgentServerClient,
        channel: Channel,
        opened: dict[str, Any],
        *,
        engine: str,
        log: MemoryEventLog,
        follow: Callable[[SandboxSession], RunTelemetry | None],
    ) -> None:
        self.id = channel.session_id
        self.sandbox_id = str(opened["sandboxId"])
        self.files = SandboxWorkspace(client, self.sandbox_id)
        self.ended: CaSessionEnded | None = None
        self.telemetry: RunTelemetry | None = None
        self.engine = engine
        self._client = client
        self._channel = channel
        self._idle_ttl = float(opened.get("idleTtlMs") or _IDLE_TTL) / 1000
        self._log = log
        self._follow = follow
        self._before = channel.newest
        self._waiting: deque[Turn] = deque()
        self._current: Turn | None = None
        self._next_index = 0
        self._no_more = False
        self._is_closed = False
        self._said = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._playing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to play turns, and to keep the sandbox."""
        self._tasks = [asyncio.create_task(self._play_all()), asyncio.create_task(self._keep())]

    # ── Session ──

    @property
    def cost_so_far(self) -> float:
        """The running total in US dollars that the engine has reported in this run."""
        return self._channel.summary.cumulative_usd

    @property
    def newest(self) -> int:
        """The newest event id that is here."""
        return self._channel.newest

    async def send(self, message: UserInput) -> int:
        """See `Session.send`. Where no turn is under way: returns with the turn's first event."""
        if self.ended is not None or self._no_more:
            raise SessionEndedError(f"session {self.id} has ended", hint="Open its next run.")
        turn = Turn(self._next_index, message, self)
        self._next_index += 1
        starting = self._current or (self._waiting[0] if self._waiting else turn)
        self._waiting.append(turn)
        self._said.set()
        if starting is turn:
            await asyncio.shield(turn.taken)
        elif not self._channel.live:  # the first turn of the run is yet to begin
            await asyncio.wait({starting.taken})
            if self.ended is not None:
                turn.settle()
                await turn.taken
        if self.telemetry is None and self._channel.live:
            self.telemetry = self._follow(self)
        if self.telemetry is not None:
            self.telemetry.sent(turn.index)
        return turn.index

    def events(self, after: int | None = None) -> ChannelStream:
        """See `Session.events`."""
        return self._channel.stream(self._before if after is None else after)

    async def decide(self, call_id: str, decision: PermissionDecision, *, by: str = "manual") -> None:
        """See `Session.decide`. Raises `UnknownCallError` also where the server decides by itself."""
        name = None if by == "manual" else by
        try:
            await self._client.decide_permission(self.sandbox_id, call_id, decision, by=name)
        except (NotFoundError, HttpError) as error:
            raise UnknownCallError(f"nobody waits for an answer to {call_id!r}", hint=error.message) from error

    async def end_input(self) -> None:
        """See `Session.end_input`. The sandbox stays for the session's next run."""
        self._no_more = True
        if self._current is None and not self._waiting:
            await self._end("complete")

    async def interrupt(self, turn_index: int | None = None) -> bool:
        """See `Session.interrupt`. Where the server cannot end a turn, it is left there and read no further."""
        for turn in self._waiting:
            if turn.index == turn_index:
                self._waiting.remove(turn)
                turn.settle()
                return True
        current = self._current
        if current is None or (turn_index is not None and turn_index != current.index):
            return False
        try:
            await self._client.cancel(self.sandbox_id)
        except (NotFoundError, HttpError, HarnessProtocolError) as error:
            _log.warn("turn_left", sandbox=self.sandbox_id, hint="this server cannot end a turn", error=error.message)
            if self._playing is not None:
                self._playing.cancel()
        return False

    async def cancel(self) -> None:
        """See `Session.cancel`. The sandbox stays for the session's next run."""
        await self.interrupt()
        await self._end("cancelled")

    def stop(self, reason: EndReason, message: str, code: str) -> None:
        """End the run: a guard of this process says so."""
        self._tasks.append(asyncio.ensure_future(self._end(reason, message, code)))

    async def close(self) -> None:
        """See `Session.close`: the sandbox is gone from the server as well."""
        if self._is_closed:
            return
        self._is_closed = True
        busy = self._current is not None or bool(self._waiting)
        try:
            await self._client.delete_sandbox(self.sandbox_id)
        except HarnessProtocolError as error:
            _log.warn("sandbox_not_deleted", sandbox=self.sandbox_id, error=error.message)
        finally:
            await self._end("cancelled" if busy else "complete")
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self.telemetry is not None:
                await self.telemetry.finish()

    # ── Turns ──

    @property
    def channel(self) -> Channel:
        """Where turns write."""
        return self._channel

    async def _play_all(self) -> None:
        while self.ended is None:
            while not self._waiting:
                self._said.clear()
                await self._said.wait()
            turn = self._current = self._waiting.popleft()
            self._playing = asyncio.create_task(self._play(turn))
            await asyncio.wait({self._playing})
            self._current = None
            if self._no_more and not self._waiting:
                await self._end("complete")

    async def _play(self, turn: Turn) -> None:
        """One turn, to its end. What goes wrong ends the run: the next one finds the sandbox as it was left."""
        try:
            await self._listen(turn)
        except asyncio.CancelledError:
            turn.end()
        except ComputerAgentError as error:
            turn.settle(error)
            await self._end("error", error.message, error.code, error.hint)
        except Exception as error:  # noqa: BLE001 - whatever it is, readers must not wait for ever
            failure = HarnessProtocolError(f"the turn broke off: {error!r}")
            turn.settle(failure)
            await self._end("error", failure.message, failure.code)
        else:
            if turn.failure is not None:
                await self._end(*turn.failure)

    async def _listen(self, turn: Turn) -> None:
        until = asyncio.get_running_loop().time() + BUSY_FOR
        while True:
            try:
                return await self._read(turn, self._client.chat(self.sandbox_id, turn.said(), taken=turn.accept))
            except ComputerAgentError as error:
                has_a_place = turn.last_id is not None or not self._channel.live
                if turn.accepted and error.code == HarnessProtocolError.code and has_a_place:
                    return await self._resume(turn, error)
                if error.code != "BUSY" or turn.accepted or asyncio.get_running_loop().time() > until:
                    raise
            await asyncio.sleep(_PAUSE)

    async def _resume(self, turn: Turn, lost: ComputerAgentError) -> None:
        """Read on after the last event, where the server has a stream for it. Raises `lost` where it does not."""
        pauses = deque(_PAUSES)
        while pauses:
            after = turn.last_id
            _log.info("stream_reconnects", sandbox=self.sandbox_id, after=after, reason=lost.message)
            await asyncio.sleep(pauses.popleft())
            try:
                return await self._read(turn, self._client.sandbox_events(self.sandbox_id, after=after), resumed=True)
            except HarnessProtocolError:
                if turn.last_id != after:
                    pauses = deque(_PAUSES)
            except NotFoundError:
                if after is not None:
                    raise lost from None  # it has no such stream; else its engine may not have started yet
            except ComputerAgentError:
                raise lost from None
        raise lost

    async def _read(self, turn: Turn, events: AsyncGenerator[dict[str, Any]], *, resumed: bool = False) -> None:
        async with aclosing(events) as stream:
            async for event in stream:
                if turn.take(event, resumed=resumed):
                    return

    async def _keep(self) -> None:
        """Tell the server, as long as the session is open, that somebody is there."""
        while self.ended is None:
            await asyncio.sleep(max(self._idle_ttl / 3, 0.05))
            try:
                await self._client.heartbeat(self.sandbox_id)
            except ComputerAgentError as error:
                _log.warn("no_heartbeat", sandbox=self.sandbox_id, error=error.message)
                if error.code in _GONE and self._current is None:
                    await self._end("error", f"the sandbox is gone: {error.message}", "GONE")

    async def _end(
        self, reason: EndReason, message: str | None = None, code: str | None = None, hint: str | None = None
    ) -> None:
        if self.ended is not None:
            return
        self.ended = CaSessionEnded(
            session_id=self.id, reason=reason, error_message=message, error_code=code, error_hint=hint
        )
        if self._playing is not None and asyncio.current_task() is not self._playing:
            self._playing.cancel()
            await asyncio.wait({self._playing}, timeout=1)
        for turn in self._waiting:
            turn.settle(SessionEndedError(f"session {self.id} has ended: {reason}", hint=message or "Say it again."))
        self._waiting.clear()
        if self._channel.live:
            self._channel.append(self.ended)
        await self._log.release(self._channel)
        self._said.set()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
