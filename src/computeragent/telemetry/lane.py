"""A lane: a thread with an event loop of its own that works through a bounded queue, whoever fills it.

What a producer does is one append to a deque: it never blocks, whatever the lane is busy with. The thread starts
with the first item and again after a fork.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Generic, TypeVar

from computeragent.logs import Logger

T = TypeVar("T")

MAX_ITEMS = 10_000
MAX_BYTES = 64 * 1024 * 1024
_UNWEIGHED = 64
_UNKNOWN_WEIGHT = 1024
_log = Logger("telemetry")
_lanes: weakref.WeakSet[Lane[Any]] = weakref.WeakSet()


class Lane(Generic[T]):
    """Runs ``handle(items)`` for what has gathered, in order.

    Beyond `max_items`, or `max_bytes` by `weigh`, the oldest item goes and is counted in `dropped`. What `keep` says
    must stay outlives that, within the same bounds of its own. Items are weighed only once the lane has fallen behind.
    `pause` seconds pass between two turns of `handle`, so that a busy producer is not made to wake the thread for each
    item.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[list[T]], Awaitable[None]],
        *,
        max_items: int = MAX_ITEMS,
        max_bytes: int = MAX_BYTES,
        weigh: Callable[[T], int] = lambda _: 0,
        keep: Callable[[T], bool] = lambda _: False,
        pause: float = 0.01,
    ) -> None:
        self.dropped = 0
        self._name = name
        self._handle = handle
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._weigh = weigh
        self._keep = keep
        self._pause = pause
        self._start_afresh()
        _lanes.add(self)
        _mind_forks()

    def _start_afresh(self) -> None:
        self._queue: deque[T] = deque()
        self._kept: deque[T] = deque()  # older than all of the queue: what overflow may not drop
        self._crowd = threading.RLock()  # a finalizer that runs in here may put something, too
        self._weight = 0
        self._kept_weight = 0
        self._crowded = False
        self._asleep = True
        self._closing = False
        self._starting = threading.RLock()
        self._failed_to_start = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell: asyncio.Event | None = None

    def put(self, item: T) -> None:
        """Queue an item; never blocks, never raises."""
        self._queue.append(item)
        if len(self._queue) > _UNWEIGHED or self._crowded:
            self._crowd_control(item)
        if self._asleep:
            self._wake()

    def __len__(self) -> int:
        return len(self._queue) + len(self._kept)

    @property
    def started(self) -> bool:
        """Whether anything was ever put in."""
        return self._thread is not None

    def close(self) -> None:
        """Let the thread end when the queue is empty."""
        self._closing = True
        if self._thread is not None:
            self._wake()

    def join(self, timeout: float) -> bool:
        """Wait for the thread to end; False when it has not."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    # ── The producer's side ──

    def _crowd_control(self, item: T) -> None:
        with self._crowd:
            self._crowded = True
            self._weight += self._weight_of(item)
            while self._queue and (len(self._queue) > self._max_items or self._weight > self._max_bytes):
                with suppress(IndexError):  # the thread may have taken them all just now
                    oldest = self._queue.popleft()
                    weight = self._weight_of(oldest)
                    self._weight = max(0, self._weight - weight)
                    if self._keep(oldest):
                        self._keep_back(oldest, weight)
                    else:
                        self.dropped += 1

    def _keep_back(self, item: T, weight: int) -> None:
        self._kept.append(item)
        self._kept_weight += weight
        while len(self._kept) > self._max_items or self._kept_weight > self._max_bytes:
            self._kept_weight -= self._weight_of(self._kept.popleft())
            self.dropped += 1

    def _weight_of(self, item: T) -> int:
        try:
            return self._weigh(item)
        except Exception:  # noqa: BLE001 - whatever the item is, its producer must not be disturbed
            return _UNKNOWN_WEIGHT

    def _wake(self) -> None:
        self._asleep = False
        loop, bell = self._loop, self._bell
        if loop is not None and bell is not None:
            with suppress(RuntimeError):  # the loop is closed: the interpreter is going down
                loop.call_soon_threadsafe(bell.set)
            return
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"computeragent-{self._name}", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:  # too many of them, or the interpreter is going down; the next item tries
                    self._thread, self._asleep = None, True
                    if not self._failed_to_start:
                        _log.warn("lane_not_started", lane=self._name, error=str(error))
                    self._failed_to_start = True

    # ── The thread's side ──

    def _run(self) -> None:
        with suppress(RuntimeError):
            asyncio.run(self._work())

    async def _work(self) -> None:
        bell = asyncio.Event()
        self._loop, self._bell = asyncio.get_running_loop(), bell
        while True:
            items = self._take()
            if items:
                try:
                    await self._handle(items)
                except (Exception, asyncio.CancelledError, SystemExit) as error:  # noqa: BLE001 - nothing ends the lane
                    _log.error("lane_failed", lane=self._name, error=repr(error))
                if not self._closing:
                    await asyncio.sleep(self._pause)
                continue
            bell.clear()
            self._asleep = True
            if self._queue or self._kept:
                self._asleep = False
                continue
            if self._closing:
                return
            await bell.wait()

    def _take(self) -> list[T]:
        with self._crowd:
            kept, self._kept, self._kept_weight = self._kept, deque(), 0
            items = list(kept)
            queue = self._queue
            with suppress(IndexError):
                while len(items) < self._max_items:
                    items.append(queue.popleft())
            self._weight = 0
            self._crowded = bool(queue)
        return items

    def reset_after_fork(self) -> None:
        """The child starts with an empty queue: what waits is the parent's to handle."""
        self.dropped = 0
        self._start_afresh()


def _reset_all() -> None:
    for lane in list(_lanes):
        lane.reset_after_fork()


@lru_cache(maxsize=1)
def _mind_forks() -> None:
    os.register_at_fork(after_in_child=_reset_all)
