"""An event loop on a thread of its own, for database drivers that belong to one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class DriverLoop:
    """Runs coroutines on its own loop, called from any event loop, any thread, and again after a fork.

    The thread starts with the first call and ends with the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()

    @property
    def epoch(self) -> int:
        """Changes with a fork: what belongs to the loop of another epoch cannot be used."""
        return os.getpid()

    async def run(self, make: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Await ``make(*args)`` on the driver's loop. A cancelled caller cancels it there."""
        future = asyncio.run_coroutine_threadsafe(make(*args), self._live_loop())
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            import anyio.to_thread

            return await anyio.to_thread.run_sync(future.result)
        return await asyncio.wrap_future(future)

    def _live_loop(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():  # threads do not survive a fork, and a lock may have been held by one
            self._lock, self._loop, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True).start()
            return self._loop
