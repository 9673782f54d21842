"""Whose computer it is, and until when: leased at the first action, kept for the next turns, given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from computeragent.computer.types import Computer, Environment, Screenshot, Size
from computeragent.engines.computer_use.screen import Limit, Screen
from computeragent.logs import Logger

_log = Logger("engine.computer_use")
_GUESS = Size(1280, 800)


class Source(Protocol):
    """Where a computer comes from. `size` and `environment` are None as long as they are not known."""

    @property
    def size(self) -> Size | None:
        """The size that its screen will have."""
        ...

    @property
    def environment(self) -> Environment | None:
        """What it will be."""
        ...

    def lease(self) -> AbstractAsyncContextManager[Computer]:
        """The computer, for as long as the context lasts."""
        ...


class Desk:
    """A run's computer. `keep` is how many seconds it is kept when no turn runs.

    `limit` and `wanted` say how large the model may see it, and is to see it (see `Screen.fit`).
    """

    def __init__(self, source: Source, *, keep: float, limit: Limit | None = None, wanted: Size | None = None) -> None:
        self._source = source
        self._keep = keep
        self._fit: Callable[[Size], Screen] = lambda real: Screen.fit(real, limit=limit, wanted=wanted)
        self._lease: AbstractAsyncContextManager[Computer] | None = None
        self._computer: Computer | None = None
        self._leaving: asyncio.Task[None] | None = None
        self.screen = self._fit(source.size or _GUESS)
        """The screen as the model was told of it last."""

    @property
    def leased(self) -> bool:
        """Whether there is a computer now."""
        return self._computer is not None

    @property
    def environment(self) -> Environment:
        """What the computer is."""
        if self._computer is not None:
            return self._computer.environment
        return self._source.environment or "linux"

    async def computer(self) -> Computer:
        """The computer, leased if need be. Raises `ComputerError`."""
        if self._computer is None:
            lease = self._source.lease()
            self._computer = await lease.__aenter__()
            self._lease = lease
            self.screen = self._fit(self._computer.dimensions)
            _log.debug("leased", kind=self._computer.kind)
        return self._computer

    def seen(self, shot: Screenshot) -> Screen:
        """The screen that a screenshot shows; what the model is told of it from now on."""
        if shot.size != self.screen.real:
            self.screen = self._fit(shot.size)
        return self.screen

    async def rest(self) -> None:
        """No turn runs: give the computer back, now or after a while."""
        if self._computer is None:
            return
        if self._keep <= 0:
            await self.leave()
        else:
            self._leaving = asyncio.create_task(self._leave_later())

    async def resume(self) -> None:
        """A turn begins."""
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            leaving.cancel()
            await asyncio.wait({leaving})

    async def leave(self) -> None:
        """Give the computer back, whatever became of it: what cannot be made as good as new is closed there."""
        lease, self._lease, self._computer = self._lease, None, None
        if lease is None:
            return
        self.screen = self._fit(self._source.size or self.screen.real)
        try:
            await lease.__aexit__(None, None, None)
        except Exception as error:  # noqa: BLE001 - what cannot be given back is gone; the run goes on without
            _log.warn("not_given_back", error=type(error).__name__)

    async def close(self) -> None:
        """The run is over."""
        await self.resume()
        await self.leave()

    async def _leave_later(self) -> None:
        await asyncio.sleep(self._keep)
        await asyncio.shield(self.leave())
