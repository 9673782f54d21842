"""`Connection`: requests to one server, tried again where that is safe, with errors as the library has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from importlib import metadata
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import httpx2
import msgspec

from computeragent.errors import (
    ComputerAgentError,
    HarnessProtocolError,
    InsufficientPermissionError,
    UnauthorizedError,
    ValidationError,
    told,
)
from computeragent.logs import Logger
from computeragent.telemetry.trace_context import traceparent
from computeragent.wire.encoding import from_json, to_json
from computeragent.wire.sse import Frame, SseDecoder

PAUSES = (0.1, 0.4, 1.5)
"""Seconds before each further attempt of a request whose connection was lost."""
SILENCE = 45.0
"""Seconds without a byte, heartbeats included, after which a connection is taken to be dead."""
Frames = AsyncGenerator[Frame | None]
"""Frames of a stream; None once at the start, when the server has let it in."""
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_JSON = {"content-type": "application/json"}
_log = Logger("client")
_LONGEST_NAME = 100


def name_of(by: str | None) -> str | None:
    """A person's name as servers take it, None for none: printable, not long, without parentheses."""
    return "".join(c for c in by or "" if c.isprintable() and c not in "()")[:_LONGEST_NAME].strip() or None


class Connection:
    """The HTTP side of a client. The token goes to `base_url` alone: redirects are not followed.

    A user and password in the address are sent as such, and are no part of `base_url`, which errors name. Raises
    `ValidationError` for a token that no header can carry.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: tuple[str, str] | str | None = None,
        token: str | None = None,
        timeout: float | None = 30.0,
        client: httpx2.AsyncClient | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url, found = _apart(base_url)
        self.http = client or httpx2.AsyncClient(timeout=timeout)
        self.auth = auth if isinstance(auth, tuple) else found
        self._own = client is None
        self._headers = {"user-agent": f"computer-agent-py/{metadata.version('computer-agent-py')}", **(headers or {})}
        bearer = token or (auth if isinstance(auth, str) else None)
        if bearer:
            if not bearer.isascii() or not bearer.isprintable():
                raise ValidationError(
                    "the token has characters that cannot be sent", hint="It is one line of letters, digits and marks."
                )
            self._headers["authorization"] = f"Bearer {bearer}"

    def headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What every request carries: who asks, and the trace that the caller is in."""
        span = traceparent()
        return self._headers | ({} if span is None else {"traceparent": span}) | dict(more or {})

    async def request(self, method: str, path: str, *, again: bool = False, **how: Any) -> httpx2.Response:
        """One request. Raises the error that the server told, `HarnessProtocolError` for what is none of ours.

        A lost connection is made again for what may safely be asked twice: reading, and with `again` anything.
        """
        headers = self.headers(how.pop("headers", None))
        pauses = list(PAUSES) if again or method in _REPEATABLE else []
        while True:
            try:
                response = await self.http.request(
                    method, f"{self.base_url}{path}", headers=headers, auth=self.auth, follow_redirects=False, **how
                )
                break
            except httpx2.TransportError as error:
                if not pauses or isinstance(error, (httpx2.ReadTimeout, httpx2.UnsupportedProtocol)):
                    raise self.unreachable(error) from error
                _log.info("request_again", method=method, path=path, error=type(error).__name__)
                await asyncio.sleep(pauses.pop(0))
            except (httpx2.InvalidURL, httpx2.DecodingError, ValueError) as error:
                raise HarnessProtocolError(f"{method} {path}: {error}") from error
        if response.status_code >= 300:
            raise told_error(method, path, response.status_code, response.content)
        return response

    async def frames(self, method: str, path: str, *, body: Any = None, after: int | None = None) -> Frames:
        """The server-sent events of one connection, as they come. Raises `httpx2.TransportError` when it is lost, and
        what the server refuses.
        """
        headers = self.headers({"accept": "text/event-stream"} | ({} if body is None else _JSON))
        if after is not None:
            headers["last-event-id"] = str(after)
        decoder = SseDecoder()
        content = None if body is None else to_json(body)
        timeout = httpx2.Timeout(30.0, read=SILENCE)
        async with self.http.stream(
            method, f"{self.base_url}{path}", headers=headers, auth=self.auth, timeout=timeout, content=content
        ) as response:
            if response.status_code >= 300:
                error = told_error(method, path, response.status_code, await response.aread())
                if method == "GET" and response.status_code in {502, 503, 504}:
                    raise httpx2.ConnectError(error.message)
                raise error
            yield None
            async for chunk in response.aiter_bytes():
                try:
                    complete = decoder.feed(chunk)
                except ValueError as error:
                    raise HarnessProtocolError(f"{method} {path}: {error}") from error
                for frame in complete:
                    yield frame

    async def json(
        self, method: str, path: str, body: Any = None, *, again: bool = False, **how: Any
    ) -> dict[str, Any]:
        """A request with a body of JSON, and the object that is the answer."""
        if body is not None:
            how["content"] = to_json(body)
            how["headers"] = {**_JSON, **how.get("headers", {})}
        response = await self.request(method, path, again=again, **how)
        try:
            answer = from_json(response.content)
        except msgspec.DecodeError as error:
            raise HarnessProtocolError(
                f"{method} {path}: the answer is not JSON", hint=f"Is {self.base_url} the server that you mean?"
            ) from error
        return cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}

    def unreachable(self, error: Exception) -> HarnessProtocolError:
        """What a failed connection is to callers."""
        return HarnessProtocolError(
            f"the server at {self.base_url} cannot be reached: {type(error).__name__}",
            hint="Is `computeragent serve` running there, and the address right?",
        )

    async def aclose(self) -> None:
        """Close the connections."""
        if self._own:
            await self.http.aclose()


def _apart(url: str) -> tuple[str, tuple[str, str] | None]:
    """An address without the user and password in it, and these."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.rstrip("/"), None
    if "@" not in parts.netloc:
        return url.rstrip("/"), None
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return plain.rstrip("/"), (unquote(parts.username or ""), unquote(parts.password or ""))


def told_error(method: str, path: str, status: int, body: bytes) -> ComputerAgentError:
    """The error that an answer tells, as the library's own class where the code is known."""
    try:
        answer: Any = from_json(body)
        inner = answer["error"]
        code = str(inner["code"])
        message = str(inner.get("message") or f"{method} {path}: {code}")
        hint, details = inner.get("hint"), inner.get("details")
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return _unworded(method, path, status, body)
    if status == 401:
        hint = "Pass harness_token=, or set COMPUTERAGENT_HARNESS_TOKEN, to a token that this server knows."
    return told(code, message, hint, details, default=_BY_STATUS.get(status, HarnessProtocolError))


_BY_STATUS: dict[int, type[ComputerAgentError]] = {401: UnauthorizedError, 403: InsufficientPermissionError}


def _unworded(method: str, path: str, status: int, body: bytes) -> ComputerAgentError:
    """An answer that is not in the envelope of the protocol, such as a proxy's."""
    text = body[:200].decode("utf-8", "replace").strip()
    message, details = f"{method} {path}: HTTP {status} {text}".rstrip(), {"status": status}
    if status < 400:
        hint = "Redirects are not followed: a token belongs to one address. Give the final address."
        return HarnessProtocolError(message, hint=hint, details=details)
    if status in _BY_STATUS:
        hint = "Pass harness_token=, or set COMPUTERAGENT_HARNESS_TOKEN, to a token that may do this."
        return _BY_STATUS[status](message, hint=hint, details=details)
    return HarnessProtocolError(message, details=details)
