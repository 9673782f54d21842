"""Sandboxes that are started before anybody asks for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from computeragent.errors import ValidationError
from computeragent.logs import Logger

PRELOAD = ("computeragent.engines.scripted", "computeragent.engines.claude_agent_sdk", "claude_agent_sdk")
"""What a spare has imported before it is needed."""
_PAUSE = 0.5  # seconds until a spare that was taken is replaced: the session that has it needs the processor first
_log = Logger("pool")


class Spare(Protocol):
    """A started sandbox that waits for its session."""

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        ...

    async def discard(self) -> None:
        """End it."""
        ...


S = TypeVar("S", bound=Spare)


class Pool(Generic[S]):
    """Keeps `size` spares ready, made by `make`; each serves one session and is then replaced."""

    def __init__(self, make: Callable[[], Awaitable[S]], size: int) -> None:
        if size < 0:
            raise ValidationError(f"a pool of {size} cannot be", hint="Give the number of sandboxes to keep ready.")
        self._make = make
        self._size = size
        self._spares: deque[S] = deque()
        self._filling: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def take(self) -> S | None:
        """A spare, if one is ready; another one is started in its place."""
        self._belong_here()
        found: S | None = None
        while self._spares and found is None:
            candidate = self._spares.popleft()
            if candidate.alive:
                found = candidate
            else:
                await candidate.discard()
        self._fill(_PAUSE)
        return found

    async def warm(self) -> None:
        """Return when all spares are ready. Raises what keeps them from starting."""
        self._belong_here()
        self._fill()
        if self._filling is not None:
            await asyncio.shield(self._filling)
        while len(self._spares) < self._size:
            self._spares.append(await self._make())

    async def close(self) -> None:
        """End the spares that nobody has taken."""
        if self._filling is not None and self._loop is asyncio.get_running_loop():
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)
        while self._spares:
            await self._spares.popleft().discard()

    def _belong_here(self) -> None:
        """Spares belong to the event loop that started them; those of one that is gone have ended with it."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._filling = loop, None
            self._spares.clear()

    def _fill(self, pause: float = 0.0) -> None:
        if len(self._spares) < self._size and (self._filling is None or self._filling.done()):
            self._filling = asyncio.create_task(self._refill(pause), name="substrate pool")

    async def _refill(self, pause: float) -> None:
        await asyncio.sleep(pause)
        while len(self._spares) < self._size:
            try:
                self._spares.append(await self._make())
            except Exception as error:  # noqa: BLE001 - without a spare a sandbox is started when it is asked for
                _log.warn("spare_failed", error=str(error))
                return
