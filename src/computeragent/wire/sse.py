"""Server-sent events: the frames of a resumable stream. LF only, since deployed clients split on it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

HEARTBEAT = b": ping\n\n"
"""A comment frame; keeps idle connections open through proxies."""


class Frame(Struct, frozen=True):
    """One server-sent event; `id` and `event` are None where the frame names none."""

    data: str
    event: str | None = None
    id: str | None = None


def encode_frame(kind: str, event_id: int, data: bytes) -> bytes:
    """One frame. `data` is a single line of JSON."""
    return b"event: %b\nid: %d\ndata: %b\n\n" % (kind.encode(), event_id, data)


class SseDecoder:
    """Incremental decoder of an event stream: feed bytes, get frames. Accepts LF, CRLF and CR line ends.

    Follows the WHATWG algorithm, except that `max_frame` bounds how much an unfinished frame may hold.
    Raises `ValueError` when a frame grows past that bound.
    """

    def __init__(self, max_frame: int = 64 * 1024 * 1024) -> None:
        self._buffer = b""
        self._data: list[str] = []
        self._event: str | None = None
        self._id: str | None = None
        self._size = 0
        self._max = max_frame
        self._skip_lf = False

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Yield each frame that `chunk` completes."""
        if self._skip_lf and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._skip_lf = False
        if chunk.endswith(b"\r"):
            self._skip_lf = True
        lines = (self._buffer + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._buffer = lines.pop()
        if len(self._buffer) + self._size > self._max:
            raise ValueError(f"a server-sent event is larger than {self._max} bytes")
        for line in lines:
            if not line:
                if self._data:
                    yield Frame("\n".join(self._data), self._event, self._id)
                self._data, self._event, self._size = [], None, 0
                continue
            self._take(line)

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value)
            self._data.append(value.decode("utf-8", "replace"))
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
