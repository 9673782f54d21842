"""Anthropic Messages as Amazon Bedrock carries them (`POST /model/{id}/invoke[-with-response-stream]`).

The model stands in the path, not in the body; a stream is AWS event-stream messages, each holding one event as
base64; errors have AWS's shape. Everything else is `anthropic`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from computeragent.dialects import anthropic
from computeragent.dialects.events import Ended, Failed, ModelEvent
from computeragent.dialects.eventstream import EventMessage, EventStreamDecoder, encode_message
from computeragent.dialects.fields import Fields, read_body
from computeragent.dialects.model import ErrorKind, ModelError, ModelRequest
from computeragent.dialects.protocol import Body
from computeragent.dialects.retry import kind_of_status
from computeragent.dialects.sse import broken_off, unreadable
from computeragent.errors import ValidationError
from computeragent.wire.encoding import to_json

NAME = "bedrock"
VERSION = "bedrock-2023-05-31"
STREAM_TYPE = "application/vnd.amazon.eventstream"

_EXCEPTIONS: dict[ErrorKind, tuple[str, int]] = {
    "invalid_request": ("ValidationException", 400),
    "too_large": ("ValidationException", 400),
    "authentication": ("UnrecognizedClientException", 403),
    "permission": ("AccessDeniedException", 403),
    "billing": ("AccessDeniedException", 403),
    "not_found": ("ResourceNotFoundException", 404),
    "rate_limit": ("ThrottlingException", 429),
    "timeout": ("ModelTimeoutException", 408),
    "overloaded": ("ServiceUnavailableException", 503),
    "server": ("InternalServerException", 500),
    "incomplete": ("ModelStreamErrorException", 424),
}


def parse_request(model: str, body: Body, *, stream: bool = False) -> ModelRequest:
    """Read the body of an invoke call; `model` and `stream` come from the path. Raises `ValidationError`."""
    fields = read_body(body)
    version = fields.optional_string("anthropic_version")
    request = anthropic.parse_request({**fields.rest(), "model": model})
    extra = {**request.extra, "anthropic_version": version} if version else request.extra
    return replace(request, stream=stream, extra=extra)


def build_request(request: ModelRequest) -> dict[str, Any]:
    """Write the body of an invoke call; the model belongs into the path."""
    body = {"anthropic_version": VERSION, **anthropic.build_request(request)}
    body.pop("model", None)
    body.pop("stream", None)
    return body


def build_error(error: ModelError) -> dict[str, Any]:
    """Write an error body."""
    return {"message": error.message}


def error_type(error: ModelError) -> str:
    """The exception's name, for the header `x-amzn-errortype`."""
    return _EXCEPTIONS[error.kind][0]


def error_status(error: ModelError) -> int:
    """The HTTP status of an error."""
    return error.status or _EXCEPTIONS[error.kind][1]


def parse_error(status: int, body: bytes) -> ModelError:
    """Read an error response."""
    try:
        message = read_body(body).optional_string("message")
    except ValidationError:
        message = body[:500].decode("utf-8", "replace").strip()
    return ModelError(kind=kind_of_status(status), message=message or f"HTTP {status}", status=status)


class BedrockStreamBuilder:
    """Writes one streamed answer as event-stream messages."""

    def __init__(self) -> None:
        self._events = anthropic.stream_builder()

    def encode(self, event: ModelEvent) -> bytes:
        """The messages of one event."""
        if isinstance(event, Failed):
            return _exception(event.error)
        return b"".join(_chunk(data) for data in self._events.objects(event))


def _chunk(data: dict[str, Any]) -> bytes:
    payload = to_json({"bytes": base64.b64encode(to_json(data)).decode()})
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    return encode_message(headers, payload)


def _exception(error: ModelError) -> bytes:
    name = _EXCEPTIONS[error.kind][0]
    kind = name[0].lower() + name[1:]
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return encode_message(headers, to_json({"message": error.message}))


class BedrockStreamParser:
    """Reads one streamed answer from event-stream messages."""

    def __init__(self) -> None:
        self._decoder = EventStreamDecoder()
        self._reader = anthropic.EventReader()
        self._over = False

    def feed(self, chunk: bytes) -> Iterator[ModelEvent]:
        """The events that `chunk` completes; an unreadable message becomes `Failed`."""
        try:
            for message in self._decoder.feed(chunk) if not self._over else ():
                for event in self._read(message):
                    self._over = isinstance(event, (Ended, Failed))
                    yield event
        except ValidationError as error:
            self._over = True
            yield unreadable(error)

    def finish(self) -> Iterator[ModelEvent]:
        """A `Failed` if the answer did not end."""
        if not self._over:
            yield broken_off()

    def _read(self, message: EventMessage) -> Iterator[ModelEvent]:
        body = read_body(message.payload)
        if message.headers.get(":message-type") != "event":
            yield Failed(_parse_exception(message.headers.get(":exception-type", ""), body))
            return
        try:
            data = base64.b64decode(body.string("bytes"), validate=True)
        except binascii.Error as error:
            raise ValidationError(f"bytes: {error}") from error
        yield from self._reader.read_object(read_body(data))


def _parse_exception(name: str, body: Fields) -> ModelError:
    kinds: dict[str, ErrorKind] = {word.lower(): kind for kind, (word, _) in reversed(_EXCEPTIONS.items())}
    message = body.optional_string("message") or name
    return ModelError(kind=kinds.get(name.lower(), "server"), message=message, type=name or None)


def stream_parser() -> BedrockStreamParser:
    """A reader of one streamed answer."""
    return BedrockStreamParser()


def stream_builder(request: ModelRequest | None = None) -> BedrockStreamBuilder:
    """A writer of one streamed answer; this dialect needs nothing from the request."""
    del request
    return BedrockStreamBuilder()
