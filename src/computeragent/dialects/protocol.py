"""What a dialect is: the same pure functions in each module. A dialect does no I/O and keeps no state of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from computeragent.dialects.events import ModelEvent
from computeragent.dialects.model import ModelError, ModelRequest, ModelResponse

Body = bytes | Mapping[str, Any]
"""A JSON document: its bytes, or the plain data decoded from them."""


class StreamParser(Protocol):
    """Reads one streamed answer as its bytes arrive."""

    def feed(self, chunk: bytes) -> Iterator[ModelEvent]:
        """The events that `chunk` completes. Raises nothing for unknown events, `Failed` for an unreadable one."""
        ...

    def finish(self) -> Iterator[ModelEvent]:
        """The bytes have ended: what was held back, and a `Failed` of kind `incomplete` if the answer was not done."""
        ...


class StreamBuilder(Protocol):
    """Writes one streamed answer, event by event."""

    def encode(self, event: ModelEvent) -> bytes:
        """The bytes of one event; none where the dialect has no word for it."""
        ...


class Dialect(Protocol):
    """One model wire. Parsers raise `ValidationError` (with the JSON path) for what cannot be understood."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a module constant, seen as a protocol member
        """The dialect's name; also the value of `dialect` in what it parses."""
        ...

    def parse_request(self, body: Body) -> ModelRequest:
        """Read a request."""
        ...

    def build_request(self, request: ModelRequest) -> dict[str, Any]:
        """Write a request."""
        ...

    def request_headers(self, request: ModelRequest) -> dict[str, str]:
        """The headers that go with a request, beyond those of its key and body. Names are lower case."""
        ...

    def parse_response(self, body: Body) -> ModelResponse:
        """Read a whole response."""
        ...

    def build_response(self, response: ModelResponse) -> dict[str, Any]:
        """Write a whole response."""
        ...

    def parse_error(self, status: int, body: bytes, headers: Mapping[str, str] = ...) -> ModelError:
        """Read an error response, whatever its body is. Header names are lower case."""
        ...

    def build_error(self, error: ModelError) -> dict[str, Any]:
        """Write the body of an error response."""
        ...

    def error_status(self, error: ModelError) -> int:
        """The HTTP status that an error has on this wire."""
        ...

    def stream_parser(self) -> StreamParser:
        """A reader of one streamed answer."""
        ...

    def stream_builder(self, request: ModelRequest | None = None) -> StreamBuilder:
        """A writer of one streamed answer to `request`."""
        ...

    def build_models(self, names: Iterable[str]) -> dict[str, Any]:
        """Write the list of models that a server offers."""
        ...


def parse_stream(dialect: Dialect, chunks: Iterable[bytes]) -> Iterator[ModelEvent]:
    """The events of a complete stream of bytes."""
    parser = dialect.stream_parser()
    for chunk in chunks:
        yield from parser.feed(chunk)
    yield from parser.finish()


def build_stream(
    dialect: Dialect, events: Iterable[ModelEvent], request: ModelRequest | None = None
) -> Iterator[bytes]:
    """The bytes of a stream, one item per event that the dialect has a word for."""
    builder = dialect.stream_builder(request)
    for event in events:
        if data := builder.encode(event):
            yield data
