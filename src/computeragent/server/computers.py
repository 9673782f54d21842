"""`create_computer_server`: any computer behind the wire of a cua computer-server: ``/cmd``, ``/ws``, ``/status``.

What is beyond that protocol is in the `features` that ``/status`` tells: ``act`` takes every action as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from computeragent.computer.types import Computer
from computeragent.errors import ComputerAgentError, UnauthorizedError
from computeragent.logs import Logger
from computeragent.server.auth import LOOPBACK, Authenticate, Gate, host_name
from computeragent.server.computer_commands import Commands
from computeragent.server.endpoint import failed, http_error, read_body, told
from computeragent.wire.encoding import from_json, to_json

MAX_MESSAGE = 10 * 1024 * 1024
_KEY = b"x-api-key"
_log = Logger("server.computer")


def create_computer_server(
    computer: Computer, *, auth: Authenticate | None, allowed_hosts: Iterable[str] = LOOPBACK
) -> Starlette:
    """A computer as an ASGI application that speaks the protocol of cua computer-servers.

    Commands of all callers are done one after another. The computer stays the caller's, who closes it.

    Args:
        computer: What is driven.
        auth: Who a key is (``X-API-Key``, a bearer token, or ``authenticate`` as the first message), such as
            `bearer([token])`. None lets everybody in: for loopback alone, since a caller may do anything there.
        allowed_hosts: Host names that requests may be for; empty for any.

    """
    server = _Server(computer, auth, allowed_hosts)
    return Starlette(
        routes=[
            Route("/status", server.status, methods=["GET"]),
            Route("/cmd", server.command, methods=["POST"]),
            WebSocketRoute("/ws", server.socket),
        ],
        middleware=[
            Middleware(_KeyIsToken),
            Middleware(Gate, authenticate=auth, hosts=list(allowed_hosts), public=["/status"]),
        ],
        exception_handlers={ComputerAgentError: told, HTTPException: http_error, Exception: failed},
    )


class _KeyIsToken:
    """ASGI middleware: an ``X-API-Key`` counts as a bearer token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = list(scope.get("headers", ()))
        key = next((value for name, value in headers if name == _KEY), None)
        if key is not None and not any(name == b"authorization" for name, _ in headers):
            scope = {**scope, "headers": [*headers, (b"authorization", b"Bearer " + key)]}
        await self._app(scope, receive, send)


class _Server:
    def __init__(self, computer: Computer, auth: Authenticate | None, hosts: Iterable[str]) -> None:
        self._commands = Commands(computer)
        self._auth = auth
        self._hosts = frozenset(host.lower() for host in hosts)
        self._turn = asyncio.Lock()

    async def status(self, request: Request) -> Response:
        del request
        return JSONResponse(
            {"status": "ok", "os_type": self._commands.os_type, "features": list(self._commands.features)}
        )

    async def command(self, request: Request) -> Response:
        answer = await self._answer(await read_body(request, MAX_MESSAGE))
        return PlainTextResponse(b"data: " + to_json(answer) + b"\n\n")

    async def socket(self, socket: WebSocket) -> None:
        if not self._is_for_here(socket):
            await socket.close(1008)
            return
        is_known = self._auth is None or await self._auth(_bearer(socket)) is not None
        await socket.accept()
        try:
            while True:
                message = await socket.receive_text()
                if len(message) > MAX_MESSAGE:
                    await socket.close(1009)
                    return
                if (key := _key_in(message)) is not None:
                    is_known = is_known or (self._auth is not None and await self._auth(key) is not None)
                    await socket.send_text(to_json(_known(is_known)).decode())
                elif is_known:
                    await socket.send_text(to_json(await self._answer(message.encode("utf-8", "replace"))).decode())
                else:
                    await socket.send_text(to_json(_known(False)).decode())
                if not is_known:
                    await socket.close(1008)
                    return
        except (WebSocketDisconnect, KeyError):  # KeyError: a binary message, which is none of the protocol
            return

    def _is_for_here(self, socket: WebSocket) -> bool:
        """Whether a connection names this server, and comes from no page of another one."""
        if not self._hosts:
            return True
        named = [socket.headers.get("host", "")]
        if "origin" in socket.headers:
            named.append(socket.headers["origin"].partition("://")[2])
        return all(host_name(each.encode("latin-1", "replace")) in self._hosts for each in named)

    async def _answer(self, message: bytes) -> dict[str, Any]:
        try:
            asked: Any = from_json(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {"success": False, "error": "the message is not JSON"}
        name, params = _asked(asked)
        if name is None or params is None:
            return {"success": False, "error": 'a message is {"command": "…", "params": {…}}'}
        async with self._turn:
            try:
                return {"success": True, **await self._commands.run(name, params)}
            except ComputerAgentError as error:
                return {"success": False, "error": error.message, "code": error.code, "hint": error.hint}
            except Exception as error:  # noqa: BLE001 - the connection goes on, whatever the computer did
                _log.error("command_failed", command=name[:40], error=repr(error))
                return {"success": False, "error": "internal error"}


def _asked(asked: object) -> tuple[str | None, Mapping[str, Any] | None]:
    if not isinstance(asked, dict):
        return None, None
    message = cast("dict[str, Any]", asked)
    name: Any = message.get("command")
    params: Any = message.get("params") or {}
    return (name if isinstance(name, str) else None), (
        cast("dict[str, Any]", params) if isinstance(params, dict) else None
    )


def _known(is_known: bool) -> dict[str, Any]:
    if is_known:
        return {"success": True, "message": "authenticated"}
    return {"success": False, "error": "the key is missing or wrong", "code": UnauthorizedError.code}


def _key_in(message: str) -> str | None:
    """The key in an ``authenticate`` message; None for any other message."""
    if "authenticate" not in message[:200]:
        return None
    try:
        name, params = _asked(from_json(message))
    except (msgspec.DecodeError, RecursionError):
        return None
    if name != "authenticate":
        return None
    return str((params or {}).get("api_key") or "")


def _bearer(socket: WebSocket) -> str:
    return socket.headers.get("authorization", "").partition(" ")[2]
