"""A model behind HTTP, asked in its own dialect: one request, a stream of events back, or a `ModelCallError`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from importlib import metadata
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec.structs import replace

from computeragent.dialects import DIALECTS
from computeragent.dialects.events import Ended, Failed, ModelEvent, Ping, Started
from computeragent.dialects.model import ErrorKind, ModelError, ModelRequest, ModelResponse
from computeragent.dialects.protocol import Dialect
from computeragent.dialects.streams import response_events
from computeragent.discovery import unlogged, without_credentials
from computeragent.errors import ModelCallError, ValidationError
from computeragent.logs import Logger
from computeragent.models.providers import Endpoint
from computeragent.wire.encoding import to_json

if TYPE_CHECKING:
    import httpx2

LARGEST = 64 * 1024 * 1024
"""Bytes that an answer may have."""
LARGEST_ERROR = 64 * 1024
LONGEST_MESSAGE = 1_000
"""Characters of a provider's message that an error repeats."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HINTS: dict[ErrorKind, str] = {
    "billing": "The account of this key has no credit left.",
    "permission": "This key may not use the model.",
    "not_found": "Check the model's name and the base URL.",
    "too_large": "Send less: fewer or smaller images, a shorter conversation.",
    "rate_limit": "Try again later, or with less at once.",
    "overloaded": "The provider is busy; try again later.",
}
_log = Logger("models")


class HttpModel:
    """A `Model` behind HTTP. Serves any number of requests at once over one pool of connections, on one event loop.

    `retries` is how often a call is tried again before its answer has begun: when the provider is busy, fails or
    cannot be reached. It waits as long as `retry-after` says, but no longer than `longest_pause` seconds, else from
    `first_pause` seconds twice as long each time, with jitter. `silence` is how many seconds a provider may say
    nothing, `connect` how many a connection may take. `largest` bounds an answer, in bytes.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        retries: int = 3,
        first_pause: float = 0.5,
        longest_pause: float = 30.0,
        connect: float = 15.0,
        silence: float = 300.0,
        largest: int = LARGEST,
    ) -> None:
        self.endpoint = endpoint
        self._dialect: Dialect = DIALECTS[endpoint.dialect]
        self._retries = retries
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._connect = connect
        self._silence = silence
        self._largest = largest
        self._client: httpx2.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"HttpModel({self.name!r}, {without_credentials(self.endpoint.url)!r})"

    @property
    def name(self) -> str:
        """The model's name as its provider knows it."""
        return self.endpoint.model

    @property
    def dialect(self) -> str:
        """The wire that it is spoken to in."""
        return self.endpoint.dialect

    @property
    def provider(self) -> str:
        """Whose model it is: a prefix of `providers.PROVIDERS`."""
        return self.endpoint.provider

    async def aclose(self) -> None:
        """Let connections go; calls under way fail."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """The answer's events, up to `Ended`. Closing the iterator ends the call. Raises `ModelCallError`."""
        body, headers = self._prepare(request)
        for attempt in range(self._retries + 1):
            # The start is held back until there is an answer: what breaks off before may still be tried again.
            held: list[ModelEvent] | None = []
            try:
                async with aclosing(self._attempt(body, headers)) as events:
                    async for event in events:
                        if held is not None:
                            held.append(event)
                            if isinstance(event, (Started, Ping)):
                                continue
                        due, held = held or [event], None
                        for each in due:
                            yield each
            except _CallFailed as failure:
                pause = None
                if held is not None and failure.again and attempt < self._retries:
                    pause = self._pause(failure.error, attempt)
                if pause is None:
                    raise self._told(failure.error) from None
                _log.info("again", model=self.name, kind=failure.error.kind, status=failure.error.status, pause=pause)
                await asyncio.sleep(pause)
            else:
                return

    def _prepare(self, request: ModelRequest) -> tuple[bytes, dict[str, str]]:
        request = replace(request, model=self.name, stream=True)
        try:
            body = to_json(self._dialect.build_request(request))
        except (ValidationError, TypeError) as error:
            failure = ModelError(kind="invalid_request", message=f"the request cannot be written: {error}")
            raise self._told(failure) from error
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream, application/json",
            "user-agent": f"computer-agent-py/{metadata.version('computer-agent-py')}",
            "accept-encoding": "identity",  # what is compressed can grow without bounds
            **self._dialect.request_headers(request),
        }
        if self.endpoint.header is not None:
            name, value = self.endpoint.header
            headers[name] = value
        return body, headers

    async def _attempt(self, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[ModelEvent]:
        """One call. Raises `_CallFailed`."""
        import httpx2

        response: httpx2.Response | None = None
        try:
            client = self._open()
            with unlogged():
                request = client.build_request("POST", self.endpoint.url, content=body, headers=dict(headers))
                response = await client.send(request, stream=True, follow_redirects=False)
            if response.status_code != 200:
                raise _CallFailed(await self._read_error(response))
            async with aclosing(self._read(response)) as events:
                async for event in events:
                    if isinstance(event, Failed):
                        raise _CallFailed(event.error)
                    yield event
                    if isinstance(event, Ended):
                        return
        except httpx2.TimeoutException as error:
            # Who was silent for so long once is not waited for again.
            again = isinstance(error, httpx2.ConnectTimeout)
            failure = _lost("timeout", f"{self._place} did not answer in time", error)
            raise _CallFailed(failure, again=again) from None
        except (httpx2.RemoteProtocolError, httpx2.ReadError) as error:
            message = f"the connection to {self._place} broke off"
            raise _CallFailed(_lost("incomplete", message, error)) from None
        except (httpx2.HTTPError, httpx2.StreamError, OSError, RuntimeError, ValueError) as error:
            # RuntimeError: closed in the midst of it. ValueError: an address that the client cannot make out.
            raise _CallFailed(_lost("server", f"{self._place} cannot be reached", error)) from None
        finally:
            if response is not None:
                await response.aclose()

    async def _read(self, response: httpx2.Response) -> AsyncGenerator[ModelEvent]:
        if "json" in response.headers.get("content-type", ""):  # a server that does not stream
            for event in response_events(await self._read_whole(response)):
                yield event
            return
        parser, size = self._dialect.stream_parser(), 0
        async with aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                if size > self._largest:
                    raise self._too_much()
                for event in parser.feed(chunk):
                    yield event
        for event in parser.finish():
            yield event

    async def _read_whole(self, response: httpx2.Response) -> ModelResponse:
        data = await _bounded(response, self._largest)
        if len(data) > self._largest:
            raise self._too_much()
        try:
            return self._dialect.parse_response(data)
        except ValidationError as error:
            message = f"the answer cannot be read: {error.message}"
            raise _CallFailed(ModelError(kind="server", message=message)) from None

    async def _read_error(self, response: httpx2.Response) -> ModelError:
        status = response.status_code
        if not 400 <= status <= 599:
            message = f"{self._place} answered HTTP {status}, which is no answer; redirects are not followed"
            return ModelError(kind="invalid_request", message=message, status=status)
        data = (await _bounded(response, LARGEST_ERROR))[:LARGEST_ERROR]
        headers = {name.lower(): value for name, value in response.headers.items()}
        return self._dialect.parse_error(status, data, headers)

    def _too_much(self) -> _CallFailed:
        error = ModelError(kind="server", message=f"the answer has more than {self._largest} bytes")
        return _CallFailed(error, again=False)

    def _pause(self, error: ModelError, attempt: int) -> float | None:
        """Seconds to wait before the next attempt; None where there should be none."""
        if not error.retryable:
            return None
        if error.retry_after is not None and error.retry_after >= 0:
            return error.retry_after if error.retry_after <= self._longest_pause else None
        longest = min(self._first_pause * 2**attempt, self._longest_pause)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    def _told(self, error: ModelError) -> ModelCallError:
        """The error for the caller: bounded, and without our key should the provider repeat it."""
        message = " ".join(error.message.split())
        if self.endpoint.header is not None:
            secret = self.endpoint.header[1].removeprefix("Bearer ")
            message = message.replace(secret, "***") if secret else message
        if len(message) > LONGEST_MESSAGE:
            message = message[: LONGEST_MESSAGE - 1] + "…"
        details = {"kind": error.kind, "status": error.status, "type": error.type, "provider": self.provider}
        details |= {"retry_after": error.retry_after, "request_id": error.request_id}
        told = {name: value for name, value in details.items() if value is not None}
        return ModelCallError(f"{self.name}: {message}", hint=self._hint(error.kind), details=told)

    def _hint(self, kind: ErrorKind) -> str | None:
        if kind == "authentication":
            return f"Check {' or '.join(reversed(self.endpoint.key_variables))}."
        return _HINTS.get(kind)

    @property
    def _place(self) -> str:
        return without_credentials(self.endpoint.url)

    def _open(self) -> httpx2.AsyncClient:
        if self._client is None:
            import httpx2

            parts = urlsplit(self.endpoint.url)
            nearby = parts.hostname in _LOOPBACK
            self._client = httpx2.AsyncClient(
                timeout=httpx2.Timeout(self._silence, connect=self._connect),
                limits=httpx2.Limits(max_connections=256, max_keepalive_connections=16, keepalive_expiry=60.0),
                verify=not (nearby and parts.scheme == "http"),  # to load certificates takes long
                trust_env=not nearby,  # a proxy cannot reach this machine for us
            )
        return self._client


class _CallFailed(Exception):  # noqa: N818 - a signal, told as a `ModelCallError`
    def __init__(self, error: ModelError, *, again: bool = True) -> None:
        super().__init__(error.message)
        self.error = error
        self.again = again


async def _bounded(response: httpx2.Response, largest: int) -> bytes:
    """The body, or somewhat more than `largest` bytes of it."""
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > largest:
            break
    return bytes(data)


def _lost(kind: ErrorKind, message: str, error: Exception) -> ModelError:
    return ModelError(kind=kind, message=f"{message} ({type(error).__name__})")
