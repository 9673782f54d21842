"""The computer behind the tools: opened at the first call, let go when idle, one caller at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from computeragent.computer.types import Computer
from computeragent.desk.screen import Open
from computeragent.errors import ComputerAgentError, ComputerBusyError, ComputerError, ComputerUnsupportedError
from computeragent.logs import Logger

_CLOSE = 30.0
_log = Logger("desk.mcp")


class Holder:
    """Has the computer. `using` gives it to one caller after another; a long task keeps the others out."""

    def __init__(self, open_: Open, *, idle: float) -> None:
        self._open = open_
        self._idle = idle
        self._computer: Computer | None = None
        self._turn = asyncio.Lock()
        self._task = ""
        self._used = 0.0
        self._watching: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def using(self, task: str = "") -> AsyncGenerator[Computer]:
        """The computer, for one call; with `task`, for a long one, meanwhile others get `ComputerBusyError`.

        A computer that has gone is closed; the next caller gets a new one.
        """
        if self._task:
            raise ComputerBusyError(f"{self._task} has the computer", hint="Wait for its end, or cancel it.")
        async with self._turn:
            if self._task:
                raise ComputerBusyError(f"{self._task} has the computer", hint="Wait for its end, or cancel it.")
            self._task = task
            try:
                computer = self._computer or await self._start()
                yield computer
            except (ComputerBusyError, ComputerUnsupportedError):
                raise
            except ComputerError:
                await self._let_go()
                raise
            finally:
                self._task = ""
                self._used = time.monotonic()

    async def close(self) -> None:
        """Let the computer go."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        await self._let_go()

    async def _start(self) -> Computer:
        self._computer = await self._open()
        self._used = time.monotonic()
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        return self._computer

    async def _watch(self) -> None:
        """Let the computer go when nobody has used it for so long."""
        while self._computer is not None:
            await asyncio.sleep(max(0.01, self._used + self._idle - time.monotonic()))
            if self._used + self._idle > time.monotonic():
                continue
            async with self._turn:
                if self._used + self._idle <= time.monotonic():
                    await self._let_go()

    async def _let_go(self) -> None:
        computer, self._computer = self._computer, None
        if computer is None:
            return
        try:
            async with asyncio.timeout(_CLOSE):
                await computer.close()
        except (ComputerAgentError, TimeoutError) as error:
            _log.warn("not_closed", error=repr(error))
