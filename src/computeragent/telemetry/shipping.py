"""Shipping: a thread per spooled sink that reads the spool, delivers in batches, and tries again until it is done."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  # pyright: ignore[reportUnusedImport] - what sinks import later would fail to at the end of the process
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from computeragent.logs import Logger
from computeragent.telemetry.protocols import RetryLater, SpooledSink
from computeragent.telemetry.spool import Spool, Spooled

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
LONGEST_ASKED = 600.0
_IDLE = 5.0
_log = Logger("telemetry")


@dataclass(slots=True)
class Delivery:
    """How a sink fares: events delivered, attempts that failed, and why the last one did, None when all is well."""

    delivered: int = 0
    failures: int = 0
    failing: str | None = None


class Shipper:
    """Brings the events of the spools to one sink, oldest spool first, each spool in order."""

    def __init__(self, sink: SpooledSink, spools: Callable[[], Sequence[Spool]]) -> None:
        self.sink = sink
        self.state = Delivery()
        self._spools = spools
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._read: dict[Spool, int] = {}
        self._change = threading.Condition()
        self._hurry = False
        self._closing = False
        self._thread: threading.Thread | None = None

    # ── From any thread ──

    def notify(self, *, hurry: bool = False) -> None:
        """There may be something to ship; with `hurry`, now: no waiting for more, no pause after a failure."""
        with self._change:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="computeragent-shipper", daemon=True)
                with suppress(RuntimeError):  # too many threads: next time; the interpreter is going down: next process
                    thread.start()
                    self._thread = thread
            if hurry:
                self._hurry = True
            self._change.notify_all()

    def flush(self, deadline: float) -> bool:
        """Ship now and wait until all is delivered, or an attempt has failed, or the deadline (monotonic) is there."""
        with self._change:
            if self._delivered_all():
                return True
            failures = self.state.failures
        self.notify(hurry=True)
        with self._change:
            while not self._delivered_all():
                left = deadline - time.monotonic()
                if left <= 0 or self.state.failures > failures:
                    return False
                self._change.wait(min(left, 0.5))
            return True

    def close(self, deadline: float) -> bool:
        """Stop after the delivery under way; False when it goes on beyond the deadline."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(max(0.0, deadline - time.monotonic()))
            return not thread.is_alive()
        return True

    def reset_after_fork(self) -> None:
        """The child has spools of its own, and ships them with a thread of its own."""
        self.state = Delivery()
        self._start_afresh()

    # ── On the sink's thread ──

    def _run(self) -> None:
        pid = os.getpid()
        self._open()
        while pid == os.getpid():
            gathered = self._gather()
            if gathered is None:
                return
            spool, batch = gathered
            streak = 0
            while True:
                try:
                    needed = self.sink.deliver(batch)
                except Exception as error:  # noqa: BLE001 - whatever went wrong, the events are kept and tried again
                    streak += 1
                    if not self._waited_after(error, streak):
                        return
                else:
                    self._succeeded(spool, batch, needed)
                    break

    def _open(self) -> None:
        """Have the sink load what it needs now: at the end of a short program it would be too late for some of it."""
        try:
            self.sink.open()
        except Exception as error:  # noqa: BLE001 - the first delivery will say it again
            _log.info("sink_not_opened", sink=self.sink.destination, error=repr(error))

    def _gather(self) -> tuple[Spool, list[Spooled]] | None:
        """The next batch, once it is worth a delivery; None when closing."""
        limits = self.sink.limits
        while not self._closing:
            for spool in self._spools():
                batch = self._next(spool, limits.events, limits.bytes)
                if not batch:
                    continue
                self._linger(batch, spool)
                grown = self._next(spool, limits.events, limits.bytes)
                if grown:  # else what was there made room for newer events
                    return spool, grown
            with self._change:
                if self._delivered_all() and not self._closing:
                    self._hurry = False
                    self._read = {spool: self._read[spool] for spool in self._spools() if spool in self._read}
                    self._change.notify_all()  # whoever flushes: there is nothing left
                    self._change.wait(_IDLE)
        return None

    def _linger(self, batch: list[Spooled], spool: Spool) -> None:
        """Give a small batch time to grow."""
        limits = self.sink.limits
        size = sum(len(event.data) for event in batch)
        if len(batch) >= limits.events or size >= limits.bytes or spool is not self._spools()[-1]:
            return
        until = batch[0].at + limits.linger - time.time()
        with self._change:
            self._change.wait_for(lambda: self._hurry or self._closing, min(max(0.0, until), limits.linger))

    def _next(self, spool: Spool, events: int, octets: int) -> list[Spooled]:
        after, newest = self._position(spool), spool.newest
        if after is None or after >= newest:
            return []
        try:
            found = spool.read(after=after, limit=events, max_bytes=octets)
        except sqlite3.Error as error:
            _log.error("spool_unreadable", sink=self.sink.destination, error=str(error))
            found = []
        if not found and after == self._position(spool):  # damage, not overflow, which moves the position
            self._read[spool] = newest
        return found

    def _position(self, spool: Spool) -> int | None:
        """Up to where this sink has read a spool; None for a spool that is not for it."""
        kept = spool.sinks.get(self.sink.destination)
        return None if kept is None else max(kept, self._read.get(spool, 0))

    def _delivered_all(self) -> bool:
        positions = [(spool, self._position(spool)) for spool in self._spools()]
        return all(position is None or position >= spool.newest for spool, position in positions)

    def _succeeded(self, spool: Spool, batch: Sequence[Spooled], needed: Spooled | None) -> None:
        if self.state.failing:
            _log.info("sink_recovered", sink=self.sink.destination)
        if needed is None or spool.size > spool.max_bytes // 2:
            done = batch[-1].position
        else:
            done = needed.position - 1 if needed.spool == spool.name else 0
        self._acknowledge(spool, done)
        with self._change:
            self._read[spool] = batch[-1].position
        self._acknowledge_older(spool, needed)
        with self._change:
            self.state.delivered += len(batch)
            self.state.failing = None
            self._change.notify_all()

    def _acknowledge(self, spool: Spool, position: int) -> None:
        with suppress(sqlite3.Error):  # the disk is full: the events may be sent again, with the same ids
            spool.acknowledge(self.sink.destination, position)

    def _acknowledge_older(self, current: Spool, needed: Spooled | None) -> None:
        """What was kept in earlier spools for the sink's sake, and is not needed any more, is done with."""
        for spool in self._spools():
            if spool is current or (needed is not None and needed.spool == spool.name):
                return
            read = self._read.get(spool)
            if read is not None and self.sink.destination in spool.sinks:
                self._acknowledge(spool, read)

    def _waited_after(self, error: Exception, streak: int) -> bool:
        """Note a failure and pause; False when closing."""
        if not self.state.failing:
            _log.warn("sink_failing", sink=self.sink.destination, error=str(error))
        pause = _pause(error, streak)
        with self._change:
            self._hurry = False
            self.state.failures += 1
            self.state.failing = str(error) or type(error).__name__
            self._change.notify_all()
            self._change.wait_for(lambda: self._hurry or self._closing, pause)
            return not self._closing


def _pause(error: Exception, streak: int) -> float:
    """Seconds to wait after so many failures in a row: what was asked for, else ever longer; never all at once."""
    asked = error.after if isinstance(error, RetryLater) else None
    if asked is not None:
        return max(FIRST_PAUSE, min(asked, LONGEST_ASKED)) * random.uniform(1.0, 1.2)  # noqa: S311 - no secret
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(streak - 1, 12)) * random.uniform(0.5, 1.0)  # noqa: S311
