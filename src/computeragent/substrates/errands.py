"""The way from a sandbox on another machine to a model, within: a port for each provider, whose requests wait for the
harness outside to come and ask for them, and to bring the answer. So no connection ever starts in the sandbox.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from computeragent.substrates.relay import GuestServer

PATIENCE = 20.0
"""Seconds that a question for the next errand may wait."""
HEAD = "x-errand-head"
"""The header in which an answer's status and headers come: JSON in base64."""
_AHEAD = 16  # parts of an answer that may wait to be read


class _BrokenError(Exception):
    """The answer stopped in the middle."""


@dataclass(eq=False)
class _Errand:
    request: dict[str, Any]
    head: asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]]
    parts: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue[bytes | None](_AHEAD))
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    broken: bool = False


class Errands:
    """What the engines of this sandbox ask of model providers."""

    def __init__(self, providers: int) -> None:
        self._listeners = [_loopback() for _ in range(providers)]
        self._waiting: dict[int, _Errand] = {}
        self._last = 0
        self._more = asyncio.Event()

    @property
    def ports(self) -> list[int]:
        """Where the providers are, in their order."""
        return [each.getsockname()[1] for each in self._listeners]

    async def serve(self) -> None:
        """Take requests, until cancelled."""
        servers: list[uvicorn.Server] = []
        for place in range(len(self._listeners)):
            config = uvicorn.Config(self._door(place), interface="asgi3", lifespan="off", log_config=None)
            config.access_log, config.proxy_headers, config.timeout_graceful_shutdown = False, False, 1
            servers.append(GuestServer(config))
        await asyncio.gather(
            *(server.serve(sockets=[each]) for server, each in zip(servers, self._listeners, strict=True))
        )

    async def next(self, after: int) -> dict[str, Any] | None:
        """The first errand after that id; None when none comes for `PATIENCE` seconds. Asked twice, it is the same."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    found = next((each for number, each in self._waiting.items() if number > after), None)
                    if found is not None:
                        return found.request
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            return None

    async def answer(self, number: int, head: str, stream: AsyncIterable[bytes]) -> bool:
        """Pass an answer on, as it comes; False when nobody waits for it (any more)."""
        errand = self._waiting.get(number)
        if errand is None or errand.head.done():
            return False
        told = json.loads(base64.b64decode(head))
        headers = [(str(name).encode("latin-1"), str(value).encode("latin-1")) for name, value in told["headers"]]
        errand.head.set_result((int(told["status"]), headers))
        try:
            async for part in stream:
                if part and not await _put(errand, part):
                    return False
        except ClientDisconnect:
            errand.broken = True
        return await _put(errand, None)

    def _door(self, place: int) -> ASGIApp:
        async def ask(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            body = b""
            while (message := await receive())["type"] == "http.request":
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            self._last += 1
            errand = _Errand(_described(self._last, place, scope, body), asyncio.get_running_loop().create_future())
            self._waiting[self._last] = errand
            number = self._last
            self._more.set()
            passing = asyncio.ensure_future(_pass_on(errand, send))
            leaving = asyncio.ensure_future(_disconnected(receive))
            try:
                await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if passing.done():
                    passing.result()
            finally:
                errand.gone.set()
                del self._waiting[number]
                for task in (passing, leaving):
                    task.cancel()
                await asyncio.gather(passing, leaving, return_exceptions=True)

        return ask


def _described(number: int, place: int, scope: Scope, body: bytes) -> dict[str, Any]:
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    return {
        "id": number,
        "provider": place,
        "method": scope["method"],
        "path": scope["path"],
        "rawPath": scope.get("raw_path", b"").decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "headers": headers,
        "body": base64.b64encode(body).decode("ascii"),
    }


async def _pass_on(errand: _Errand, send: Send) -> None:
    status, headers = await errand.head
    await send({"type": "http.response.start", "status": status, "headers": headers})
    while (part := await errand.parts.get()) is not None:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    if errand.broken:
        raise _BrokenError
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _put(errand: _Errand, part: bytes | None) -> bool:
    """Hand a part over; False when its reader has gone."""
    putting, leaving = asyncio.ensure_future(errand.parts.put(part)), asyncio.ensure_future(errand.gone.wait())
    try:
        await asyncio.wait({putting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return putting.done()
    finally:
        putting.cancel()
        leaving.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _loopback() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener
