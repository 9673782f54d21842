"""The two framings of a streamed answer: server-sent events, and one JSON list whose items come one by one."""

from __future__ import annotations

import re

from computeragent.wire.sse import Frame, SseDecoder

_LARGEST = 64 * 1024 * 1024
_MARKS = re.compile(rb'[{}\[\]"\\]')
_BETWEEN = re.compile(rb"[\s,\[]*")


class ChunkDecoder:
    """Finds out by the first byte which framing it is; the frames hold one chunk of JSON each."""

    def __init__(self) -> None:
        self._decoder: SseDecoder | ListDecoder | None = None

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes. Raises `ValueError` for what cannot be framed."""
        if self._decoder is None:
            chunk = chunk.lstrip(b"\r\n\t ")
            if not chunk:
                return []
            self._decoder = ListDecoder() if chunk[:1] in b"[{" else SseDecoder()
        return self._decoder.feed(chunk)


class ListDecoder:
    """Incremental decoder of a JSON list of objects, or of one object that stands alone."""

    def __init__(self, largest: int = _LARGEST) -> None:
        self._held = bytearray()
        self._seen = 0
        self._depth = 0
        self._in_string = False
        self._largest = largest
        self._over = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """The objects that `chunk` completes. Raises `ValueError` for other items, and for one that is too large."""
        self._held += chunk
        frames: list[Frame] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        if len(self._held) > self._largest:
            raise ValueError(f"an item of the list is larger than {self._largest} bytes")
        return frames

    def _next(self) -> Frame | None:
        held = self._held
        if self._depth == 0:
            self._skip_to_object()
        while (match := _MARKS.search(held, self._seen)) is not None:
            mark, self._seen = match[0], match.end()
            if mark == b"\\" and self._in_string:
                if self._seen == len(held):  # what is escaped has not come yet
                    self._seen -= 1
                    return None
                self._seen += 1
            elif mark == b'"':
                self._in_string = not self._in_string
            elif not self._in_string and mark != b"\\":
                self._depth += 1 if mark in b"{[" else -1
                if self._depth == 0:
                    data = bytes(held[: self._seen])
                    del held[: self._seen]
                    self._seen = 0
                    return Frame(data.decode("utf-8", "replace"))
        self._seen = len(held)
        return None

    def _skip_to_object(self) -> None:
        held = self._held
        if self._over:
            held.clear()
            return
        match = _BETWEEN.match(held)
        del held[: match.end() if match else 0]
        if held.startswith(b"]"):
            self._over = True
            held.clear()
        elif held and not held.startswith(b"{"):
            raise ValueError("the list has an item that is no object")
        self._seen = 0
