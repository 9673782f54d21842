"""Something that runs beside the caller's own task, under asyncio and trio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

_running: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly


def beside(do: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Start `do`, which must not raise, and go on."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio

        trio.lowlevel.spawn_system_task(do)
        return
    task = loop.create_task(do())
    _running.add(task)
    task.add_done_callback(_running.discard)
