"""The part of reading a streamed answer that all SSE dialects share: frames in, events out, breaks reported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from computeragent.dialects.events import Ended, Failed, ModelEvent
from computeragent.dialects.model import ModelError
from computeragent.errors import ValidationError
from computeragent.wire.sse import Frame, SseDecoder


class FrameReader(Protocol):
    """A dialect's understanding of one frame after the other."""

    def read(self, frame: Frame) -> Iterator[ModelEvent]:
        """The events of one frame. May raise `ValidationError` or `msgspec.DecodeError`."""
        ...

    def finish(self) -> Iterator[ModelEvent]:
        """What is still due when the bytes have ended in good order."""
        ...


class FrameDecoder(Protocol):
    """Cuts bytes into frames."""

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes. May raise `ValueError`."""
        ...


class SseStreamParser:
    """A `StreamParser` over server-sent events, or the frames of `decoder`; nothing follows `Ended` or `Failed`."""

    def __init__(self, reader: FrameReader, decoder: FrameDecoder | None = None) -> None:
        self._reader = reader
        self._decoder = decoder or SseDecoder()
        self._over = False

    def feed(self, chunk: bytes) -> Iterator[ModelEvent]:
        """The events that `chunk` completes; an unreadable one becomes `Failed`."""
        if self._over:
            return
        try:
            for frame in self._decoder.feed(chunk):
                yield from self._pass(self._reader.read(frame))
        except (ValidationError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            yield from self._pass(iter([unreadable(error)]))

    def finish(self) -> Iterator[ModelEvent]:
        """What the dialect held back, and `Failed` if the answer did not end."""
        if not self._over:
            yield from self._pass(self._reader.finish())
        if not self._over:
            yield from self._pass(iter([broken_off()]))

    def _pass(self, events: Iterator[ModelEvent]) -> Iterator[ModelEvent]:
        for event in events:
            if self._over:
                return
            self._over = isinstance(event, (Ended, Failed))
            yield event


def unreadable(error: Exception) -> Failed:
    """The end of a stream that cannot be understood."""
    return Failed(ModelError(kind="server", message=f"the stream cannot be read: {error}"))


def broken_off() -> Failed:
    """The end of a stream that stops before the answer does."""
    return Failed(ModelError(kind="incomplete", message="the stream ended before the answer was complete"))


def sse(data: bytes, event: str | None = None) -> bytes:
    """One frame of one line of JSON, with its event name where the dialect uses them."""
    return b"data: %b\n\n" % data if event is None else b"event: %b\ndata: %b\n\n" % (event.encode(), data)
