"""Feeding: a thread and event loop per plain sink, so that none of them holds up another, or the pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

from computeragent.logs import Logger
from computeragent.telemetry.bounds import size
from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.faults import ANYTHING, said
from computeragent.telemetry.lane import Lane
from computeragent.telemetry.protocols import TelemetrySink
from computeragent.telemetry.shipping import Delivery

_log = Logger("telemetry")


@dataclass(slots=True)
class _Flush:
    """A place in the queue up to which somebody waits."""

    deadline: float
    closing: bool = False
    failed: bool = False
    done: threading.Event = field(default_factory=threading.Event)


class Feeder:
    """Hands one sink its events, in order. Beyond what the queue holds the oldest go, counted."""

    def __init__(self, sink: TelemetrySink) -> None:
        self.sink = sink
        self.name = type(sink).__name__
        self.state = Delivery()
        self._lane: Lane[TelemetryEvent | _Flush] = Lane(
            f"sink-{self.name}",
            self._handle,
            weigh=lambda item: size(item.payload) if isinstance(item, TelemetryEvent) else 0,
            keep=lambda item: isinstance(item, _Flush),
            pause=0.0,
        )

    @property
    def dropped(self) -> int:
        """Events that the queue had no room for."""
        return self._lane.dropped

    def __len__(self) -> int:
        return len(self._lane)

    def put(self, event: TelemetryEvent) -> None:
        """Queue an event; never blocks."""
        self._lane.put(event)

    def begin_flush(self, deadline: float, *, closing: bool = False) -> _Flush:
        """Ask for what is queued to be handed over and flushed; `end_flush` waits for it."""
        mark = _Flush(deadline, closing)
        self._lane.put(mark)
        return mark

    def end_flush(self, mark: _Flush) -> bool:
        """Wait for a flush, at most to its deadline (monotonic); False when that passes, or the sink's flush fails."""
        if not self._lane.started:  # no thread can be had: the interpreter is going down
            return False
        return mark.done.wait(max(0.0, mark.deadline - time.monotonic())) and not mark.failed

    def close(self, deadline: float) -> None:
        """Let the thread end; call after a flush with `closing`."""
        self._lane.close()
        self._lane.join(max(0.0, deadline - time.monotonic()))

    async def _handle(self, items: list[TelemetryEvent | _Flush]) -> None:
        for item in items:
            if isinstance(item, _Flush):
                await self._flush(item)
                continue
            try:
                await self.sink.emit(item)
            except ANYTHING as error:  # the next event may do better
                self._failed(error)
            else:
                self.state.delivered += 1
                self.state.failing = None

    async def _flush(self, mark: _Flush) -> None:
        try:
            await self._attempt(self.sink.flush(max(0.0, mark.deadline - time.monotonic())), mark)
            if mark.closing:
                await self._attempt(self.sink.aclose(), mark)
        finally:
            mark.done.set()

    async def _attempt(self, step: Awaitable[None], mark: _Flush) -> None:
        try:
            await step
        except ANYTHING as error:
            mark.failed = True
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        why = said(error)
        if self.state.failing is None:
            _log.warn("sink_failing", sink=self.name, error=why)
        self.state.failures += 1
        self.state.failing = why
