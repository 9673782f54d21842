"""A viewer that is a program: it speaks the page's protocol, as fast or as slowly as a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect


class Viewer:
    """Frames and messages in the order in which they came; `draws` acknowledges each frame at once."""

    def __init__(self, socket: ClientConnection, *, draws: bool) -> None:
        self.frames: list[bytes] = []
        self.messages: list[dict[str, Any]] = []
        self._socket = socket
        self._draws = draws
        self._news = asyncio.Condition()

    async def say(self, **message: Any) -> None:
        await self._socket.send(json.dumps(message))

    async def send(self, data: str | bytes) -> None:
        await self._socket.send(data)

    async def act(self, **action: Any) -> None:
        await self.say(type="act", do=action)

    async def take(self) -> None:
        await self.say(type="take")
        await self.until(lambda: self.last("control")["mine"])

    def last(self, kind: str) -> dict[str, Any]:
        """The newest message of a type; empty before there is one."""
        return next((each for each in reversed(self.messages) if each["type"] == kind), {"mine": False, "state": ""})

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(condition)

    async def read(self) -> None:
        async for data in self._socket:
            if isinstance(data, bytes):
                self.frames.append(data)
                if self._draws:
                    await self.say(type="drawn")
            else:
                self.messages.append(json.loads(data))
            async with self._news:
                self._news.notify_all()


@asynccontextmanager
async def watching(url: str, *, token: str | None = None, draws: bool = True) -> AsyncIterator[Viewer]:
    """A viewer of a view."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with connect(f"{url.replace('http', 'ws')}/screen", additional_headers=headers, max_size=None) as socket:
        viewer = Viewer(socket, draws=draws)
        reading = asyncio.create_task(viewer.read())
        try:
            yield viewer
        finally:
            reading.cancel()
            await asyncio.wait({reading})
