"""An address to serve at, and serving until somebody says stop: runs end first, and their streams with them."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from starlette.applications import Starlette

from computeragent.errors import ValidationError


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 is any free one. Raises `ValidationError` where that is not possible."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ValidationError(
            f"cannot listen on {bracketed(host)}:{port}: {error.strerror or error}",
            hint="Is a server running there already? --port and --host choose another address.",
        ) from error


def url_of(host: str, listener: socket.socket) -> str:
    """Where a socket is reached under the name that it was asked for."""
    return f"http://{bracketed(host)}:{listener.getsockname()[1]}"


def bracketed(host: str) -> str:
    """A host as addresses and Host headers spell it."""
    return f"[{host}]" if ":" in host else host


def serve_app(app: Starlette, listener: socket.socket) -> None:
    """Serve until a signal comes."""
    _server(app).run(sockets=[listener])


async def serve_in_loop(app: Starlette, listener: socket.socket, **settings: Any) -> None:
    """The same in a loop that runs already; `settings` are uvicorn's."""
    await _server(app, **settings).serve(sockets=[listener])


def _server(app: Starlette, **settings: Any) -> _Server:
    return _Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10, **settings))


class _Server(uvicorn.Server):
    """Waits for its connections in the end; a stream lasts as long as its run, so runs are ended meanwhile."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: Any = self.config.app
        leave = getattr(app.state, "leave", None)
        leaving = asyncio.ensure_future(leave()) if leave is not None else None
        await super().shutdown(sockets)
        if leaving is not None:
            leaving.cancel()
            await asyncio.wait({leaving})
