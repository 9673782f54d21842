"""One thread per store for its blocking calls: they run in the order in which they were made."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """Runs functions on its own thread, from any event loop, any thread, and again after a fork.

    The thread starts with the first call and ends when the worker is garbage.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._pid = os.getpid()

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run ``function(*args)`` after all calls made before. A call that has begun is not cancelled."""
        future = self._live_executor().submit(function, *args)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            import anyio.to_thread

            return await anyio.to_thread.run_sync(future.result)
        return await asyncio.wrap_future(future)

    def _live_executor(self) -> ThreadPoolExecutor:
        if self._pid != os.getpid():  # threads do not survive a fork, and a lock may have been held by one
            self._lock, self._executor, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self._name)
            return self._executor
