"""`on(event, callback)`, as the JavaScript client has it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from computeragent.errors import ValidationError
from computeragent.logs import Logger

_log = Logger("p2p")


class Events:
    """Callbacks by event, plain or async. One that raises is logged, and stops nothing."""

    def __init__(self, *names: str) -> None:
        self._callbacks: dict[str, list[Callable[..., Any]]] = {name: [] for name in names}
        self._tasks: set[asyncio.Future[Any]] = set()

    def on(self, name: str, callback: Callable[..., Any]) -> None:
        """Call it at each event of a name. Raises `ValidationError` for a name that is none."""
        if name not in self._callbacks:
            raise ValidationError(f"there is no event {name!r}", hint=f"Events: {', '.join(self._callbacks)}.")
        self._callbacks[name].append(callback)

    def has(self, name: str) -> bool:
        """Whether anybody listens."""
        return bool(self._callbacks[name])

    def emit(self, name: str, *values: Any) -> None:
        """Call who listens."""
        for callback in list(self._callbacks[name]):
            try:
                result = callback(*values)
            except Exception as error:  # noqa: BLE001 - theirs, whatever it is
                _log.error("callback.failed", on=name, error=type(error).__name__)
                continue
            if inspect.isawaitable(result):
                task = asyncio.ensure_future(result)
                self._tasks.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("callback.failed", error=type(error).__name__)
