"""A typed route: method, path, the shapes that go in and out, and a handler that sees them decoded."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from computeragent.errors import ComputerAgentError, HttpError, NotFoundError, TooLargeError, ValidationError
from computeragent.logs import Logger
from computeragent.server.auth import ANONYMOUS, Principal
from computeragent.server.errors import respond
from computeragent.telemetry.trace_context import asked_in
from computeragent.wire.encoding import clean_json, to_json

MAX_BODY = 16 * 1024 * 1024
"""Bytes of a request body, unless an endpoint says otherwise."""
FILE_LIMIT = 64 * 1024 * 1024
"""Bytes of a file that is sent."""
_PATH = re.compile(r"^(.*) - at `(.+)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[([^\]]*)\]")
_log = Logger("server")


@dataclass(slots=True)
class Call:
    """One request, decoded. `body` and `query` are of the endpoint's types."""

    request: Request
    principal: Principal
    body: Any = None
    query: Any = None
    raw: bytes = b""
    path: dict[str, str] = field(default_factory=dict[str, str])


Handler = Callable[[Call], Awaitable[Any]]


class NotJsonError(ValidationError):
    """A request body is no JSON at all."""


class BodyError(ValidationError):
    """A request's body or query has another shape than its route's."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route. `body`, `query` and `answer` are msgspec types.

    ``raw=True`` takes the body's bytes as they are; `body` then only tells the document what they hold.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: Any = None
    query: Any = None
    answer: Any = None
    status: int = 200
    raw: bool = False
    stream: bool = False
    public: bool = False
    max_body: int = MAX_BODY

    def route(self) -> Route:
        """The Starlette route that does it."""
        route = Route(self.path, self._answer, methods=[self.method], name=f"{self.method} {self.path}")
        if self.stream and route.methods is not None:
            route.methods.discard("HEAD")  # what has no end has no head
        return route

    async def _answer(self, request: Request) -> Response:
        call = Call(request, request.scope.get("computeragent.principal", ANONYMOUS))
        call.path = {name: str(value) for name, value in request.path_params.items()}
        if self.query is not None:
            call.query = _converted(dict(request.query_params), self.query)
        if self.body is not None or self.raw:
            call.raw = await read_body(request, self.max_body)
        if self.body is not None and not self.raw:
            call.body = decoded(call.raw, self.body)
        with asked_in(request.headers.get("traceparent")):
            answer = await self.handler(call)
        return answer if isinstance(answer, Response) else json_response(answer, self.status)


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(to_json(value), status, media_type="application/json")


def decoded(data: bytes, type_: Any) -> Any:
    """A body of a type. Raises `ValidationError` with the place of the fault in `details`."""
    try:
        return msgspec.json.decode(clean_json(data), type=type_)
    except msgspec.ValidationError as error:
        raise invalid(error) from error
    except msgspec.DecodeError as error:
        raise NotJsonError(f"the request body is not JSON: {error}", hint="Send a JSON object.") from error
    except RecursionError:
        raise NotJsonError("the request body is nested too deeply", hint="Send a flatter JSON object.") from None


def invalid(error: Exception) -> ValidationError:
    """A fault of shape as an error of ours: what is wrong, and where, in the terms of the wire."""
    text = str(error)
    found = _PATH.match(text)
    message, place = (found[1], found[2]) if found else (text, "$")
    steps = [name or index for name, index in _STEP.findall(place)]
    return BodyError(
        "Request body failed validation",
        hint=f"{message} at {place}" if place != "$" else message,
        details=[{"path": steps, "message": message}],
    )


async def told(request: Request, error: Exception) -> Response:
    """An error of the family, in its envelope."""
    del request
    assert isinstance(error, ComputerAgentError)
    return respond(error)


async def http_error(request: Request, error: Exception) -> Response:
    """A refusal of the framework's own, such as of a path or method that is not there."""
    assert isinstance(error, HTTPException)
    hint = "The OpenAPI document lists the routes."
    if error.status_code == 404:
        return respond(NotFoundError(f"there is no {request.url.path}", hint=hint))
    response = respond(HttpError(str(error.detail), hint=hint))
    response.status_code = error.status_code
    return response


async def failed(request: Request, error: Exception) -> Response:
    """The last resort: an error that nobody foresaw is told without its insides."""
    del request
    _log.error("internal", error=repr(error))
    return respond(ComputerAgentError("internal error", hint="See the server's log."))


def _converted(values: dict[str, str], type_: Any) -> Any:
    try:
        return msgspec.convert(values, type_, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error) from error


async def read_body(request: Request, limit: int) -> bytes:
    """The body, at most `limit` bytes of it. Raises `TooLargeError`."""
    too_large = TooLargeError(f"the request body is larger than {limit} bytes", hint="Send less at a time.")
    try:
        if int(request.headers.get("content-length") or 0) > limit:
            raise too_large
    except ValueError:
        raise ValidationError("content-length is not a number", hint="Send a valid header.") from None
    parts: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_large
            parts.append(chunk)
    except ClientDisconnect:
        raise ValidationError("the client left before its body was complete", hint="Send it again.") from None
    return b"".join(parts)
