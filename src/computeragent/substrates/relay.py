"""The way from a sandbox without a network to a model: a port in the sandbox, answered out here, where the key is.

A relay has one upstream. It drops what the sandbox sends as credentials and adds the real ones; nothing that comes
from the sandbox decides where a request goes, beyond a path below the provider's address.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator, Iterable
from posixpath import normpath

import httpx2
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from computeragent.credentials import KEY_HEADERS, Route
from computeragent.logs import Logger

# RFC 9110 §7.6.1, and what belongs to one of the two connections alone.
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "host", "expect"}
)
_CONNECT = 15.0
_CONNECTIONS = 256
"""Those of one sandbox to one relay, each an open file of this process's; more are closed at once."""
_log = Logger("relay")


class Forward:
    """Answers what a sandbox asks of one provider; an ASGI application."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self._http = httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=_CONNECT), follow_redirects=False, limits=httpx2.Limits()
        )

    async def close(self) -> None:
        """Close the connections to the provider."""
        await self._http.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        path = scope.get("raw_path", b"").decode("ascii", "replace")
        if scope["type"] != "http" or not _is_below(path, scope["path"]):
            await _refuse(send, 404, "this relay forwards requests for its model provider only")
            return
        url = (
            self.route.base_url + path + (f"?{scope['query_string'].decode('ascii')}" if scope["query_string"] else "")
        )
        headers = [each for each in _named(scope["headers"]) if each[0] not in _HOP_BY_HOP | KEY_HEADERS]
        if self.route.header is not None:
            headers.append(self.route.header)
        has_body = any(name in {"content-length", "transfer-encoding"} for name, _ in _named(scope["headers"]))
        content = _body(receive) if has_body else None
        request = self._http.build_request(scope["method"], url, headers=headers, content=content)
        try:
            response = await self._http.send(request, stream=True)
        except httpx2.TransportError as error:
            _log.warn("upstream_unreachable", provider=self.route.provider.name, error=type(error).__name__)
            await _refuse(send, 502, f"the model provider cannot be reached ({type(error).__name__})")
            return
        passing = asyncio.ensure_future(_pass_on(response, send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({passing, gone}, return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                passing.result()
        finally:
            for task in (passing, gone):
                task.cancel()
            await asyncio.gather(passing, gone, return_exceptions=True)
            await response.aclose()


class Relay:
    """Serves a listener that was opened in a sandbox, for one provider."""

    def __init__(self, route: Route, listener: socket.socket) -> None:
        self._name = f"relay {route!r}"
        self._listener = listener
        self._forward = Forward(route)
        config = uvicorn.Config(self._forward, interface="asgi3", lifespan="off", log_config=None, access_log=False)
        config.proxy_headers, config.timeout_graceful_shutdown = False, 1
        config.http, config.backlog = _Bounded, 64  # as many are accepted before any of them is looked at
        self._server = GuestServer(config)
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Answer from now on."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]), name=self._name)

    async def close(self) -> None:
        """Stop answering, also what is under way."""
        self._server.should_exit = self._server.force_exit = True
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)
        self._listener.close()
        await self._forward.close()


class _Bounded(H11Protocol):
    """A connection, which is closed where there are too many."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin, or end at once."""
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            transport.abort()


def _named(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]


async def _pass_on(response: httpx2.Response, send: Send) -> None:
    """An answer as it comes: its bytes, compressed or not, are not touched."""
    kept = [(name.encode(), value.encode("latin-1")) for name, value in _named(response.headers.raw)]
    kept = [each for each in kept if each[0].decode() not in _HOP_BY_HOP]
    await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
    async for part in response.aiter_raw():
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class GuestServer(uvicorn.Server):
    """A server within somebody else's program: signals are not its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the program's signal handlers alone."""
        yield


def _is_below(raw: str, path: str) -> bool:
    """Whether a path stays below the address that it is appended to."""
    return raw.startswith("/") and "\\" not in path and normpath(path) == (path.rstrip("/") or "/") and "//" not in raw


async def _body(receive: Receive) -> AsyncGenerator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise httpx2.WriteError("the sandbox has hung up")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


async def _refuse(send: Send, status: int, message: str) -> None:
    body = b'{"type":"error","error":{"type":"api_error","message":"' + message.encode() + b'"}}'
    headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
