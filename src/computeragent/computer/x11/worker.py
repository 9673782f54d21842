"""A thread of its own for what blocks: jobs one after another, and file descriptors watched in between."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from computeragent.errors import ComputerError

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class Worker:
    """A daemon thread, so that one that is stuck in a system call never keeps the process from ending."""

    def __init__(self, name: str) -> None:
        self._jobs: deque[_Job] = deque()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._watched: tuple[int, Callable[[], bool]] | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._stopping = False
        self._last: Callable[[], None] | None = None
        threading.Thread(target=self._main, name=name, daemon=True).start()

    async def run(self, job: Callable[[], T], timeout: float) -> T:
        """Do a job in the thread. Raises what it raises, and `TimeoutError`."""
        if self._stopping:
            raise ComputerError("this computer is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.append((job, future, loop))
        self._poke()
        async with asyncio.timeout(timeout):
            return await future

    def watch(self, descriptor: int, ready: Callable[[], bool]) -> None:
        """From a job: have `ready` called when there is something to read, and after each job, until it is False."""
        self._watched = (descriptor, ready)
        self._selector.register(descriptor, selectors.EVENT_READ)

    def stop(self, last: Callable[[], None] | None = None) -> None:
        """End the thread after its present job, and `last`. Jobs that have not begun are refused. Does not wait."""
        self._last = last
        self._stopping = True
        self._poke()

    def _poke(self) -> None:
        with suppress(OSError):  # full: it will wake up anyway; closed: it has ended
            self._wake.send(b"x")

    def _main(self) -> None:
        while not self._stopping:
            self._selector.select()
            with suppress(BlockingIOError):
                self._woken.recv(4096)
            while self._jobs and not self._stopping:
                self._do(*self._jobs.popleft())
            if self._watched and not self._watched[1]():
                self._selector.unregister(self._watched[0])
                self._watched = None
        while self._jobs:
            _, future, loop = self._jobs.popleft()
            _hand_over(loop, future, None, ComputerError("this computer is closed"))
        if self._last:
            self._last()
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _do(self, job: Callable[[], Any], future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        if future.cancelled():
            return
        try:
            result, error = job(), None
        except Exception as raised:  # noqa: BLE001 - it is the caller's
            result, error = None, raised
        _hand_over(loop, future, result, error)


def _hand_over(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], result: Any, error: Exception | None
) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(settle)
