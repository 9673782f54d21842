"""`Pipeline`: what a tap sees goes through middleware and out to sinks, on threads of its own.

A tap appends to a lane and goes on. The lane's thread tells the story of each session, runs the middleware, commits
to the spool what has to survive, and hands plain sinks their copy. Whatever happens there, the run is not touched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from computeragent.errors import ValidationError
from computeragent.logs import Logger
from computeragent.settings import home
from computeragent.telemetry.bounds import MAX_TEXT, truncate
from computeragent.telemetry.event import TelemetryEvent, checked
from computeragent.telemetry.exiting import mind
from computeragent.telemetry.faults import ANYTHING, said
from computeragent.telemetry.lane import Lane
from computeragent.telemetry.middleware import PiiRedactor
from computeragent.telemetry.outlets import Outlets
from computeragent.telemetry.protocols import (
    Guard,
    KeepsSecrets,
    SpooledSink,
    TelemetryMiddleware,
    TelemetrySink,
)
from computeragent.telemetry.sessions import Sessions, Watcher
from computeragent.telemetry.spool import MAX_BYTES
from computeragent.telemetry.steps import Handover, Mark, Step, is_vital, weigh

COMMIT_EVERY = 0.02
"""Seconds of work after which what is ready is committed, so that a slow event does not hold back the others."""

TELL_DROPS_EVERY = 5.0
"""Seconds between two events that tell of others that were dropped."""

_POLL = 0.002
_log = Logger("telemetry")


@dataclass(slots=True)
class _Ready:
    """Events that have been through the middleware."""

    events: list[TelemetryEvent] = field(default_factory=list[TelemetryEvent])
    since: float = 0.0


class Pipeline:
    """Middleware, in order, then sinks.

    Args:
        middleware: What every event goes through; None is a `PiiRedactor`, ``[]`` is nothing at all.
        sinks: Where events go: `TelemetrySink`s and `SpooledSink`s.
        fail_open: Whether an event that middleware fails on is let through; by default it is dropped.
        spool_dir: Where spooled events are kept (default: ``spool`` under `COMPUTERAGENT_HOME`).
        max_spool_bytes: What the spool may hold; beyond it the oldest events go, counted.
        tail_timeout: Seconds that the end of a `query` waits at most until all it told is safe: committed to the spool
            or queued for its sink. Delivery goes on behind it.

    """

    def __init__(
        self,
        *,
        middleware: Sequence[TelemetryMiddleware] | None = None,
        sinks: Sequence[TelemetrySink | SpooledSink] | None = None,
        fail_open: bool = False,
        spool_dir: str | Path | None = None,
        max_spool_bytes: int = MAX_BYTES,
        tail_timeout: float = 0.25,
    ) -> None:
        self.fail_open = fail_open
        self.tail_timeout = tail_timeout
        self._use([PiiRedactor()] if middleware is None else middleware)
        self._own_middleware = middleware is not None
        self._sinks = list(sinks or ())
        folder = Path(spool_dir) if spool_dir is not None else None
        self._outlets = Outlets(self._sinks, lambda: folder or home("spool"), max_bytes=max_spool_bytes)
        self._lane: Lane[Step | Mark] = Lane("telemetry", self._handle, weigh=weigh, keep=is_vital)
        self._sessions = Sessions()
        self._failed: dict[str, int] = {}
        self._told_drops = 0
        self._tell_drops_at = 0.0
        self._emitted = 0
        self._retired = False
        self._closing = threading.RLock()
        self._closed = threading.Event()
        self._handover = Handover()
        mind(self)

    # ── What it consists of ──

    @property
    def active(self) -> bool:
        """Whether anything would see an event. A tap of an inactive pipeline does nothing at all."""
        return not self._retired and bool(self._sinks or (self._own_middleware and self._middleware))

    @property
    def cost_ceiling_usd(self) -> float | None:
        """The lowest ceiling that a guard enforces on a session."""
        ceilings = [guard.enforced_ceiling_usd for guard in self._guards]
        return min((ceiling for ceiling in ceilings if ceiling is not None), default=None)

    @property
    def middleware(self) -> list[TelemetryMiddleware]:
        """What events go through, in order."""
        return list(self._middleware)

    @property
    def sinks(self) -> list[TelemetrySink | SpooledSink]:
        """Where events go."""
        return list(self._sinks)

    def add_middleware(self, middleware: TelemetryMiddleware) -> None:
        """Append one to the middleware."""
        self.replace_middleware([*self._middleware, middleware])

    def replace_middleware(self, middleware: Sequence[TelemetryMiddleware]) -> None:
        """Have events go through these from now on."""
        self._use(middleware)
        self._own_middleware = True
        for session_id, settings in self._sessions.known().items():
            self.offer(Step(0, partial(self._relearn, session_id, settings), vital=True))

    def _use(self, middleware: Sequence[TelemetryMiddleware]) -> None:
        for each in middleware:
            if not callable(each):
                raise ValidationError(f"{each!r} is no middleware", hint="Middleware is an async callable of an event.")
        self._middleware = list(middleware)
        self._guards = [each for each in middleware if isinstance(each, Guard)]
        self._keepers = [each for each in middleware if isinstance(each, KeepsSecrets)]

    # ── Telling it ──

    def offer(self, step: Step) -> None:
        """Queue a step; never blocks, never raises."""
        if self._retired:
            self._handover.offer(step)
        else:
            self._lane.put(step)

    async def emit(self, event: TelemetryEvent) -> None:
        """Send an event of your own through middleware and sinks; returns at once."""
        self.offer(Step(time.time_ns(), lambda _: (event,)))

    def adopt(self) -> None:
        """Take over what processes that are gone left in their spools; otherwise the first event does it."""

        def begin(_: int) -> Iterable[TelemetryEvent]:
            self._outlets.open()
            return ()

        self.offer(Step(0, begin, vital=True))

    def _hand_over(self) -> None:
        """What was told is out: have the successor go on with the sessions under way."""
        successor = self._handover.successor
        steps: list[Step] = []
        if successor is not None:
            for session_id, watcher in self._sessions.watchers().items():
                successor.watch(session_id, watcher)
            for session_id, settings in self._sessions.known().items():
                steps.append(Step(0, partial(successor.learned, session_id, settings), vital=True))
            steps.append(Step(0, partial(successor.took_over, self._outlets.storage.open_sessions()), vital=True))
            self._outlets.storage.end_sessions()
        self._handover.finish(steps)

    def took_over(self, opened: Mapping[str, bytes], _: int = 0) -> Iterable[TelemetryEvent]:
        """On the pipeline's thread: sessions go on here; should this process die, it is here that they are missed."""
        if opened and self._outlets.shippers:
            self._outlets.storage.commit([], opened, ())
        return ()

    def watch(self, session_id: str, watcher: Watcher) -> None:
        """Call ``watcher.stop(trip)`` when a guard trips on this session; the watcher is held weakly."""
        successor = self._handover.successor
        if successor is not None:
            successor.watch(session_id, watcher)
        else:
            self._sessions.watch(session_id, watcher)

    def learned(self, session_id: str, settings: Sequence[Any], _: int = 0) -> Iterable[TelemetryEvent]:
        """On the pipeline's thread: let middleware know the credentials of a session."""
        successor = self._handover.successor
        if successor is not None and self._handover.finished:
            return successor.learned(session_id, settings)
        self._sessions.know(session_id, settings)
        for each in self._keepers:
            try:
                each.learn(session_id, settings)
            except ANYTHING as error:
                self._count(type(each).__name__, error)
        return ()

    def _relearn(self, session_id: str, settings: Sequence[Any], _: int) -> Iterable[TelemetryEvent]:
        return self.learned(session_id, settings) if session_id in self._sessions.known() else ()

    # ── Waiting for it ──

    async def settle(self, timeout: float | None = None) -> bool:
        """Wait until all that was told so far is committed or queued for its sink; under asyncio and trio."""
        limit = self.tail_timeout if timeout is None else timeout
        if self._handover.successor is not None:
            return await self._handover.successor.settle(limit)
        if limit <= 0 or not self.active:
            return False
        # Not in a worker thread: an application that keeps all of them busy would hold up the end of each query.
        mark, deadline = self._mark(), time.monotonic() + limit
        while not mark.done.is_set() and time.monotonic() < deadline:  # noqa: ASYNC110 - a thread sets it
            await anyio.sleep(_POLL)
        return mark.done.is_set()

    async def flush(self, timeout: float = 5.0) -> bool:
        """Wait until all that was told so far is delivered; False when that took longer, or a sink fails.

        What could not be delivered by spooled sinks stays in the spool. Works under asyncio and trio.
        """
        return await _in_thread(lambda: self.flush_sync(timeout))

    async def aclose(self, timeout: float = 5.0) -> None:
        """Flush, then let the threads, sinks and files go."""
        await _in_thread(lambda: self.close(timeout))

    def flush_sync(self, timeout: float = 5.0) -> bool:
        """`flush` for callers without an event loop; blocks."""
        return self._flush(time.monotonic() + timeout)

    def close(self, timeout: float = 5.0, *, successor: Pipeline | None = None) -> None:
        """`aclose` for callers without an event loop; blocks at most about `timeout` seconds.

        What sessions under way still tell goes to `successor`.
        """
        deadline = time.monotonic() + timeout
        with self._closing:
            closing = self._retired
            if not closing:
                if successor is None or not successor.active:
                    self._sessions.leave()
                self._handover.successor, self._retired = successor, True
        if closing:  # by somebody else
            self._closed.wait(timeout)
            return
        try:
            if self._lane.started:
                self._settle(deadline)
            self._lane.close()
            self._hand_over()
            self._outlets.deliver(deadline, closing=True)
            stopped = self._outlets.close(deadline)
            self._lane.join(max(0.0, deadline - time.monotonic()))
            if stopped:
                self._outlets.discard()
        finally:
            self._closed.set()

    @property
    def used(self) -> bool:
        """Whether anything was ever told."""
        return self._lane.started

    @property
    def traced(self) -> bool:
        """Whether a sink exports spans, so that what an agent starts may become their child."""
        return any(getattr(sink, "exports_spans", False) for sink in self._sinks)

    def _mark(self) -> Mark:
        mark = Mark()
        self._lane.put(mark)
        return mark

    def _settle(self, deadline: float) -> bool:
        return self._mark().done.wait(max(0.0, deadline - time.monotonic()))

    def _flush(self, deadline: float) -> bool:
        settled = self._settle(deadline) if self._lane.started else True
        return self._outlets.deliver(deadline) and settled

    def stats(self) -> dict[str, Any]:
        """Counts of what went through, waits, failed and was dropped; plain data."""
        return {
            "emitted": self._emitted,
            "waiting": len(self._lane),
            "dropped": self._lane.dropped + self._handover.lost,
            "failed": dict(self._failed),
            "disk_failures": self._outlets.storage.failures,
            "sinks": self._outlets.stats(),
        }

    # ── On the pipeline's thread ──

    async def _handle(self, items: list[Step | Mark]) -> None:
        ready = _Ready(since=time.monotonic())
        for item in items:
            if isinstance(item, Mark):
                self._dispatch(ready)
                item.done.set()
                continue
            for event in self._told(item):
                kept = await self._through_middleware(event)
                if kept is not None:
                    ready.events.append(kept)
            if time.monotonic() - ready.since > COMMIT_EVERY:
                self._dispatch(ready)
        self._dispatch(ready)

    def _told(self, step: Step) -> list[TelemetryEvent]:
        """The events of a step, with what was lost before them."""
        try:
            told = [checked(event) for event in step.tell(step.at)]
        except ANYTHING as error:  # a message of a shape that nobody foresaw
            self._count("tell", error)
            return []
        return [*self._losses(told), *told]

    async def _through_middleware(self, event: TelemetryEvent) -> TelemetryEvent | None:
        session_id, kind = event.session_id, event.kind
        current: TelemetryEvent | None = event
        for each in self._middleware:
            before = current
            try:
                returned = await each(current)
                current = None if returned is None else checked(returned)
            except ANYTHING as error:  # what it fails on is not let through
                self._count(type(each).__name__, error)
                current = before if self.fail_open else None
            if current is None:
                break
        self._judge(session_id)
        if kind == "session_ended":
            self._sessions.ended(session_id)
            for each in self._keepers:
                try:
                    each.forget(session_id)
                except ANYTHING as error:
                    self._count(type(each).__name__, error)
        return current

    def _judge(self, session_id: str) -> None:
        for guard in self._guards:
            try:
                trip = guard.verdict(session_id)
                if trip is not None:
                    self._sessions.stop(session_id, trip)
            except ANYTHING as error:
                self._count(type(guard).__name__, error)

    def _dispatch(self, ready: _Ready) -> None:
        """Commit what is ready, then hand it to the plain sinks."""
        events, ready.events, ready.since = ready.events, [], time.monotonic()
        if not events:
            return
        for event in events:
            event.raw = None
            event.payload = truncate(event.payload, MAX_TEXT)
        self._emitted += len(events)
        try:
            self._outlets.commit(events)
        except Exception as error:  # noqa: BLE001 - neither disk nor memory took it
            self._count("spool", error)
        self._outlets.feed(events)

    def _losses(self, told: list[TelemetryEvent]) -> list[TelemetryEvent]:
        """What overflowed since it was told last, as an event of its own, so that it is seen where events go."""
        dropped = self._lane.dropped + self._outlets.dropped
        now = time.monotonic()
        if dropped == self._told_drops or not told or now < self._tell_drops_at:
            return []
        data = {"dropped": dropped - self._told_drops, "dropped_total": dropped}
        if not self._told_drops:
            _log.warn("events_dropped", **data, hint="a sink or the middleware is too slow; see stats()")
        self._told_drops = dropped
        self._tell_drops_at = now + TELL_DROPS_EVERY
        about = told[0]
        return [
            TelemetryEvent(
                kind="system_message",
                session_id=about.session_id,
                agent_name=about.agent_name,
                agent_id=about.agent_id,
                agent_description=about.agent_description,
                payload={"subtype": "telemetry_loss", "data": data},
            )
        ]

    def _count(self, where: str, error: BaseException) -> None:
        """Telemetry that fails is counted, and logged the first time."""
        seen = self._failed.get(where, 0)
        self._failed[where] = seen + 1
        if not seen:
            _log.error("failed", where=where, error=said(error))

    def reset_after_fork(self) -> None:
        """The child has threads, spools and connections of its own."""
        self._outlets.reset_after_fork()
        self._closing = threading.RLock()
        self._handover.reset_after_fork()
        self._sessions.abandon()
        self._emitted = 0


async def _in_thread(wait: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(wait, abandon_on_cancel=True)
