"""The turn queue: messages wait here, and the engine gets one at a time, the next only after a turn has ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from computeragent.wire.requests import UserInput


class TurnQueue:
    """An async iterable of user messages for the engine. `on_start` is called as each turn begins."""

    def __init__(self, first_index: int, on_start: Callable[[int, UserInput], None]) -> None:
        self.current: int | None = None
        self._on_start = on_start
        self._next_index = first_index
        self._waiting: deque[tuple[int, UserInput]] = deque()
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether the input has ended."""
        return self._closed

    @property
    def idle(self) -> bool:
        """Whether no turn runs and none waits."""
        return self.current is None and not self._waiting

    def put(self, message: UserInput) -> int:
        """Queue a message and return its turn's index."""
        index = self._next_index
        self._next_index += 1
        self._waiting.append((index, message))
        self._changed.set()
        return index

    def withdraw(self, index: int) -> bool:
        """Take a turn back that has not started. False when it has, or never was."""
        for entry in self._waiting:
            if entry[0] == index:
                self._waiting.remove(entry)
                self._changed.set()
                return True
        return False

    def end_turn(self) -> None:
        """The current turn is over; the next one may start."""
        self.current = None
        self._changed.set()

    def close(self) -> None:
        """No more messages: the engine gets what waits, then the end."""
        self._closed = True
        self._changed.set()

    def drop(self) -> None:
        """Close, and forget what waits."""
        self._waiting.clear()
        self.close()

    def __aiter__(self) -> AsyncIterator[UserInput]:
        return self

    async def __anext__(self) -> UserInput:
        while True:
            if self.current is None and self._waiting:
                self.current, message = self._waiting.popleft()
                self._on_start(self.current, message)
                return message
            if self._closed and not self._waiting:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
