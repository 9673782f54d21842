"""Requests and replies between peers, as the computer-use proxy has them; what is asked for is the handler's business.

A request is an object, or one as JSON text; so is its reply. It is the body of a request itself, or it is in the form
of HTTP: ``{"method": "POST", "path": "/responses", "body": {…}}``, answered by ``{"status", "headers", "body"}``. A
``request_id`` comes back with each of its replies; ``{"type": "cancel", "request_id": …}`` gives a request up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import msgspec

from computeragent.errors import (
    ComputerAgentError,
    NotFoundError,
    PeerError,
    PeerMessageError,
    TooManySessionsError,
    ValidationError,
)
from computeragent.logs import Logger
from computeragent.p2p.connection import Connection
from computeragent.p2p.peer import Peer
from computeragent.wire.encoding import from_json, to_json

Reply = dict[str, Any] | AsyncIterator[dict[str, Any]]
Handler = Callable[[dict[str, Any]], Awaitable[Reply]]
_JSON, _EVENTS = {"Content-Type": "application/json"}, {"Content-Type": "text/event-stream"}
_MAX_ID = 200
_log = Logger("p2p")


async def serve(
    peer: Peer,
    handler: Handler,
    *,
    welcome: bool = True,
    endpoints: Sequence[str] = ("/responses",),
    max_requests: int = 4,
) -> None:
    """Answer the requests of everybody who connects to a started peer, until it is closed or this is cancelled.

    `handler` gets the body of a request; it returns the body of its reply, or an async iterator of events, each of
    which becomes a message. What it raises is told as ``{"success": false, "error", "code", "model"}``. It is
    cancelled when the other peer leaves. With `welcome` a connection begins with a message of type ``welcome`` that
    names the `endpoints`. A connection has `max_requests` under way at most; more are refused.
    """
    async with asyncio.TaskGroup() as group:
        async for connection in peer.connections():
            visitor = _Visitor(connection, handler, endpoints, max_requests)
            group.create_task(visitor.stay(welcome=welcome))


class _Visitor:
    """One connection, and its requests."""

    def __init__(self, connection: Connection, handler: Handler, endpoints: Sequence[str], max_requests: int) -> None:
        self._connection = connection
        self._handler = handler
        self._endpoints = tuple(endpoints)
        self._max_requests = max_requests
        self._tasks: dict[asyncio.Task[None], _Request] = {}

    async def stay(self, *, welcome: bool) -> None:
        try:
            if welcome:
                text = "Connected to ComputerAgent Proxy"
                await self._send({"type": "welcome", "message": text, "endpoints": list(self._endpoints)}, as_text=True)
            async for message in self._connection:
                await self._take(message)
        except PeerError as error:
            _log.info("peer.left", peer=self._connection.peer, code=error.code)
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._connection.close()

    async def _take(self, message: Any) -> None:
        request = _Request(message, self._endpoints)
        if request.cancels:
            for task, other in self._tasks.items():
                if request.id is not None and other.id == request.id:
                    task.cancel()
        elif request.problem is not None:
            await self._reply_error(request, request.problem)
        elif len(self._tasks) >= self._max_requests:
            await self._reply_error(
                request,
                TooManySessionsError(
                    f"{len(self._tasks)} requests of this connection are under way",
                    hint="Wait for one of their replies.",
                ),
            )
        else:
            task = asyncio.create_task(self._answer(request))
            self._tasks[task] = request
            task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _answer(self, request: _Request) -> None:
        try:
            reply = await self._handler(request.body)
            if isinstance(reply, dict):
                await self._send(request.reply(reply), as_text=request.as_text)
                return
            async with contextlib.aclosing(cast("Any", reply)) as events:
                async for event in events:
                    await self._send(request.reply(event, headers=_EVENTS), as_text=request.as_text)
        except PeerMessageError as error:
            await self._reply_error(request, error)
        except PeerError as error:
            _log.debug("peer.reply_undelivered", code=error.code)
        except ComputerAgentError as error:
            await self._reply_error(request, error)
        except Exception as error:  # noqa: BLE001 - the handler's, whatever it is
            _log.error("peer.handler_failed", error=type(error).__name__)
            await self._reply_error(request, ComputerAgentError("the request failed"))

    async def _reply_error(self, request: _Request, error: ComputerAgentError) -> None:
        body: dict[str, Any] = {"success": False, "error": error.message, "code": error.code}
        if error.hint:
            body["hint"] = error.hint
        if "model" in request.body:
            body["model"] = request.body["model"]
        with contextlib.suppress(PeerError):
            await self._send(request.reply(body, status=error.status), as_text=request.as_text)

    async def _send(self, message: dict[str, Any], *, as_text: bool) -> None:
        await self._connection.send(to_json(message).decode() if as_text else message)


class _Request:
    """What a message asks for, and the form of its replies."""

    def __init__(self, message: Any, endpoints: Sequence[str]) -> None:
        self.as_text = not isinstance(message, dict)
        self.body: dict[str, Any] = {}
        self.id: str | int | None = None
        self.cancels = False
        self.problem: ComputerAgentError | None = None
        self._is_http = False
        try:
            self._read(message, endpoints)
        except ComputerAgentError as error:
            self.problem = error

    def _read(self, message: Any, endpoints: Sequence[str]) -> None:
        fields = _object(message)
        given = fields.pop("request_id", None)
        if given is not None and (
            isinstance(given, bool) or not isinstance(given, (str, int)) or len(str(given)) > _MAX_ID
        ):
            raise ValidationError(f"request_id must be text of up to {_MAX_ID} characters, or a whole number")
        self.id = given
        self.cancels = fields == {"type": "cancel"}
        method, path = fields.get("method"), fields.get("path")
        self._is_http = isinstance(method, str) and isinstance(path, str)
        if not self._is_http:
            self.body = fields
            return
        if path not in endpoints:
            raise NotFoundError(f"there is no endpoint {str(path)[:100]!r}", hint=f"Endpoints: {', '.join(endpoints)}.")
        if method != "POST":
            raise ValidationError(f"{path} takes POST, not {str(method)[:20]}")
        self.body = _object(fields.get("body"))

    def reply(self, body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """A message that answers it."""
        message = {"status": status, "headers": headers or _JSON, "body": body} if self._is_http else dict(body)
        return message if self.id is None else {**message, "request_id": self.id}


def _object(message: Any) -> dict[str, Any]:
    if isinstance(message, (str, bytes)):
        try:
            message = from_json(message)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise ValidationError("Invalid JSON in request") from None
    if not isinstance(message, dict):
        raise ValidationError("a request must be a JSON object")
    return dict(cast("dict[str, Any]", message))
