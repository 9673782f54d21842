"""One session's stream in this process: the writer appends, a backend commits, readers follow.

Ids are given at append and never restart; readers see an event once the backend has committed it.
The tail of committed events stays in memory: all of it that `Retention` keeps where the backend has nothing
else, or a short one where it can read older events back.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from computeragent.errors import EventIdAheadError, EventsGoneError, NotFoundError
from computeragent.eventlog.summary import SessionSummary, fold
from computeragent.wire.events import CaSessionEnded, CaSessionStarted, CaTurnStarted, HarnessEvent, Recorded
from computeragent.wire.events import encode_event as encode

_PAGE = 512
_CHECK = 0.5  # seconds after which a waiting writer looks for readers that are gone without a word


@dataclass(frozen=True, slots=True)
class Retention:
    """What stays in memory: an event goes when it is beyond the newest `max_events` or older than `max_age`
    seconds, but never one that a reader here has not read, nor one of the current turn.

    Above `max_bytes` the writer waits for readers that lag; where none does, the oldest events go after all,
    and resuming from them is refused with the earliest id.
    """

    max_events: int = 1_000
    max_age: float = 300.0
    max_bytes: int = 64 * 1024 * 1024


class Backend(Protocol):
    """Where appended events are committed. It calls `Channel.committed` in order, on the event loop."""

    durable: bool

    def submit(self, channel: Channel, recorded: Recorded) -> None:
        """Take an event for commit; never blocks."""
        ...

    async def fetch(self, session_id: str, after: int, limit: int) -> list[Recorded]:
        """Committed events after an id, where the backend keeps more than the channel."""
        ...

    async def flush(self, channel: Channel) -> None:
        """Return when everything submitted is committed and announced."""
        ...


class EventLog(Protocol):
    """A log of many sessions."""

    async def open(self, session_id: str) -> Channel:
        """Claim a session for writing. Raises `SessionLiveError` while another writer holds it."""
        ...

    async def release(self, channel: Channel) -> None:
        """Give a claim back, after everything appended is committed."""
        ...

    async def read(self, session_id: str, after: int = -1, limit: int = _PAGE) -> list[Recorded]:
        """Committed events after an id, oldest first. Raises `NotFoundError` for an unknown session."""
        ...

    async def sessions(self, limit: int = 50) -> list[SessionSummary]:
        """The sessions used last, newest first."""
        ...

    async def delete(self, session_id: str) -> None:
        """Forget a session. Raises `NotFoundError`."""
        ...

    async def close(self) -> None:
        """Commit what is pending and free everything."""
        ...


class Channel:
    """The writer's end of one session, and the source of its readers' streams."""

    def __init__(
        self,
        backend: Backend,
        summary: SessionSummary,
        *,
        retention: Retention,
        newest: int = -1,
        run_start: int = 0,
        generation: int = 1,
        kept_from: int = 0,
    ) -> None:
        self.session_id = summary.session_id
        self.generation = generation
        self.kept_from = kept_from  # the oldest id that a durable backend still has
        self.summary = summary
        self.next_id = newest + 1
        self.run_start = run_start
        self.failure: Exception | None = None
        self.on_broken: Callable[[Exception], None] | None = None
        self._backend = backend
        self._retention = retention
        self._committed = newest
        self._tail: deque[Recorded] = deque()
        self._tail_bytes = 0
        self._pending_bytes = 0
        self._turn_start = newest + 1
        self._live = summary.live
        self._streams: weakref.WeakSet[ChannelStream] = weakref.WeakSet()
        self._waiters: list[asyncio.Future[None]] = []
        self._crowded = False

    @property
    def live(self) -> bool:
        """Whether a run has started and its end is not yet committed."""
        return self._live

    @property
    def newest(self) -> int:
        """The newest committed id, -1 when there is none."""
        return self._committed

    @property
    def earliest(self) -> int:
        """The oldest id that a stream may start from."""
        if self._backend.durable:
            return self.kept_from
        return self._tail[0].id if self._tail else self._committed + 1

    @property
    def turn_start(self) -> int:
        """Where the current turn began, or the run when it has no turn yet."""
        return self._turn_start

    @property
    def readers(self) -> int:
        """How many read here now."""
        return len(self._streams)

    # ── Writing ──

    def append(self, event: HarnessEvent) -> int:
        """Give the event its id and hand it to the backend; never blocks. Raises what broke the log, if it broke."""
        if self.failure is not None:
            raise self.failure
        recorded = Recorded(self.next_id, time.time(), event, encode(event))
        self.next_id += 1
        self._began(recorded)
        self.summary = fold(self.summary, event, recorded.at)
        self._pending_bytes += len(recorded.data)
        self._backend.submit(self, recorded)
        return recorded.id

    def replicate(self, recorded: Recorded) -> None:
        """Take over an event of another log as it is there, its id included; ids go up one by one.

        For a channel that nothing is appended to: a copy of a session that runs elsewhere.
        """
        if self._committed < 0 and not self._tail:
            self._committed = recorded.id - 1
        self.next_id = recorded.id + 1
        self._began(recorded)
        self.summary = fold(self.summary, recorded.event, recorded.at)
        self._pending_bytes += len(recorded.data)
        self.committed([recorded])

    def _began(self, recorded: Recorded) -> None:
        """Note where runs and turns begin."""
        if isinstance(recorded.event, CaSessionStarted):
            self.run_start = self._turn_start = recorded.id
            self._live = True
        elif isinstance(recorded.event, CaTurnStarted):
            self._turn_start = recorded.id

    @property
    def full(self) -> bool:
        """Whether the writer should wait in `room` before it appends more."""
        return self._tail_bytes + self._pending_bytes > self._retention.max_bytes

    async def room(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Wait while the channel is full and a reader here, or the backend, is behind; not while `hurry` says so."""
        while self.full and self.failure is None and (self._pending_bytes or self._lagging()) and not hurry():
            self._crowded = True
            await asyncio.wait({self._changed()}, timeout=_CHECK)
            self._trim()
        self._crowded = False

    async def flush(self) -> None:
        """Wait until all that was appended is committed. Raises what broke the log, if it is broken."""
        await self._backend.flush(self)
        if self.failure is not None:
            raise self.failure

    # ── The backend's side ──

    def committed(self, batch: list[Recorded]) -> None:
        """Called by the backend, in order: these events are safe, readers may see them."""
        for recorded in batch:
            self._tail.append(recorded)
            self._tail_bytes += len(recorded.data)
            self._pending_bytes -= len(recorded.data)
        last = batch[-1]
        self._committed = last.id
        if isinstance(last.event, CaSessionEnded) and last.id + 1 == self.next_id:
            self._live = False
        self._trim()
        self._wake()

    def broke(self, failure: Exception) -> None:
        """Called by the backend: nothing more can be committed."""
        self.failure = failure
        self._live = False
        self._wake()
        if self.on_broken is not None:
            self.on_broken(failure)

    # ── Reading ──

    def stream(self, after: int | None = None) -> ChannelStream:
        """Events after an id, or from the start of the current run; ends with the newest run.

        Raises `EventsGoneError` when events after `after` are no longer kept, and `EventIdAheadError` when
        `after` has not happened yet in a live run.
        """
        start = self.run_start - 1 if after is None else after
        if start >= self.next_id and self._live:
            raise EventIdAheadError(
                f"event {start} does not exist yet; the newest is {self._committed}",
                hint="Resume from an id that was received.",
            )
        if start + 1 < self.earliest:
            raise EventsGoneError(start, self.earliest)
        stream = ChannelStream(self, start)
        self._streams.add(stream)
        return stream

    def discard(self, stream: ChannelStream) -> None:
        """Forget a reader."""
        self._streams.discard(stream)
        self._wake()

    def advanced(self) -> None:
        """A reader has read on: a writer that waits for it may have room now."""
        if self._crowded:
            self._wake()

    async def take(self, after: int, stream: ChannelStream | None = None) -> list[Recorded] | None:
        """Committed events after an id, waiting for at least one; None at the end of the newest run or of `stream`."""
        while True:
            if stream is not None and stream.closed:
                return None
            if after < self._committed:
                return await self._page(after)
            if self.failure is not None:
                raise self.failure
            if not self._live:
                return None
            await self._changed()

    async def _page(self, after: int) -> list[Recorded]:
        first = self._tail[0].id if self._tail else self._committed + 1
        if after + 1 < first:
            if not self._backend.durable:
                raise EventsGoneError(after, first)
            page = await self._backend.fetch(self.session_id, after, _PAGE)
            if not page:
                raise NotFoundError(f"session {self.session_id} was deleted")
            if page[0].id > after + 1:  # what came between is no longer kept
                raise EventsGoneError(after, page[0].id)
            return page
        skip = after + 1 - first
        if skip == 0 and len(self._tail) <= _PAGE:
            return list(self._tail)
        return [self._tail[index] for index in range(skip, min(len(self._tail), skip + _PAGE))]

    # ── Retention ──

    def _lagging(self) -> bool:
        return any(stream.position < self._committed for stream in self._streams)

    def _trim(self) -> None:
        tail, keep = self._tail, self._retention
        if not tail:
            return
        over = len(tail) > keep.max_events or tail[0].at < time.time() - keep.max_age or self.full
        if not over:
            return
        floor = self._committed + 1
        if not self._backend.durable:
            if tail[0].id >= self._turn_start and not self.full:
                return  # a long turn stays whole, whoever reads
            floor = min([self._turn_start, *(stream.position + 1 for stream in self._streams)])
        horizon = time.time() - keep.max_age
        while tail and tail[0].id < floor and (len(tail) > keep.max_events or tail[0].at < horizon or self.full):
            self._tail_bytes -= len(tail.popleft().data)
        if self.full and not self._lagging():
            while self.full and len(tail) > 1:
                self._tail_bytes -= len(tail.popleft().data)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _changed(self) -> asyncio.Future[None]:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter


class ChannelStream:
    """A reader: an async iterator over `Recorded`. Counts as a reader from the moment it is made."""

    def __init__(self, channel: Channel, position: int) -> None:
        self._channel = channel
        self.position = position
        self._page: deque[Recorded] = deque()
        self.closed = False

    def __aiter__(self) -> AsyncIterator[Recorded]:
        return self

    async def __anext__(self) -> Recorded:
        if not self._page:
            page = await self._channel.take(self.position, self)
            if page is None or self.closed:
                self.close()
                raise StopAsyncIteration
            self._page.extend(page)
        recorded = self._page.popleft()
        self.position = recorded.id
        self._channel.advanced()
        return recorded

    async def page(self) -> list[Recorded]:
        """All events that are there now, waiting for at least one; empty at the end."""
        if self._page:
            found = list(self._page)
            self._page.clear()
        else:
            taken = await self._channel.take(self.position, self)
            if taken is None or self.closed:
                self.close()
                return []
            found = taken
        self.position = found[-1].id
        self._channel.advanced()
        return found

    def close(self) -> None:
        """Stop reading, also where the reader waits right now; events that only this reader held back may go."""
        if not self.closed:
            self.closed = True
            self._page.clear()
            self._channel.discard(self)
