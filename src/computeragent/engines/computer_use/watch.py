"""What ends a turn from outside, at any moment of it: an interrupt, the run's end, its time limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self, TypeVar

from computeragent.protocol_types import EngineContext

T = TypeVar("T")
Why = Literal["interrupted", "cancelled", "deadline"]
_GRACE = 5.0  # seconds that something may take to stop


class StoppedError(Exception):
    """The turn was told to end."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why: Why = why


class Watch:
    """Runs what a turn waits for, so that it stops at once when the turn must. `deadline` is in seconds."""

    def __init__(self, ctx: EngineContext, deadline: float | None = None) -> None:
        self._ctx = ctx
        self._deadline = deadline
        self._told: asyncio.Task[Why] | None = None

    async def __aenter__(self) -> Self:
        self._told = asyncio.create_task(self._wait())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._told is not None
        await _ended(self._told)

    @property
    def stopped(self) -> Why | None:
        """Why the turn must end, None as long as it may go on."""
        if self._ctx.cancel_event.is_set():
            return "cancelled"
        if self._ctx.interrupt_event.is_set():
            return "interrupted"
        return self._told.result() if self._told is not None and self._told.done() else None

    def check(self) -> None:
        """Raise `StoppedError` when the turn must end."""
        if (why := self.stopped) is not None:
            raise StoppedError(why)

    async def run(self, work: Awaitable[T]) -> T:
        """The outcome of `work`, which is cancelled when the turn must end. Raises `StoppedError` then."""
        assert self._told is not None
        task = asyncio.ensure_future(work)
        try:
            self.check()
            await asyncio.wait({task, self._told}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise StoppedError(self.stopped or self._told.result())
        finally:
            await _ended(task)

    async def each(self, stream: AsyncIterator[T]) -> AsyncGenerator[T]:
        """The items of a stream, which is closed when the turn must end, and in any other case as well."""
        try:
            while True:
                try:
                    yield await self.run(anext(stream))
                except StopAsyncIteration:
                    return
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    async def sleep(self, seconds: float) -> None:
        """Wait, as long as the turn may go on."""
        await self.run(asyncio.sleep(seconds))

    async def _wait(self) -> Why:
        waits = {
            asyncio.create_task(self._ctx.cancel_event.wait()),
            asyncio.create_task(self._ctx.interrupt_event.wait()),
        }
        try:
            done, _ = await asyncio.wait(waits, timeout=self._deadline, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return "deadline"
            return "cancelled" if self._ctx.cancel_event.is_set() else "interrupted"
        finally:
            for wait in waits:
                wait.cancel()


async def _ended(task: asyncio.Future[T]) -> None:
    """Cancel what still runs, and give it a moment to let go of what it holds."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_GRACE)
    if task.done() and not task.cancelled():
        with suppress(BaseException):
            task.exception()
