"""Server-sent events: the frames of a resumable stream. LF only, since deployed clients split on it."""

from __future__ import annotations

from msgspec import Struct

HEARTBEAT = b": ping\n\n"
"""A comment frame; keeps idle connections open through proxies."""


class Frame(Struct, frozen=True):
    """One server-sent event. `event` is None where the frame names none; `id` is the last one that the stream named."""

    data: str
    event: str | None = None
    id: str | None = None


def encode_frame(kind: str, event_id: int | None, data: bytes) -> bytes:
    """One frame. `data` is a single line of JSON. Without an id the reader's place stays where it was."""
    name = b" ".join(kind.encode().split())
    if event_id is None:
        return b"event: %b\ndata: %b\n\n" % (name, data)
    return b"event: %b\nid: %d\ndata: %b\n\n" % (name, event_id, data)


class SseDecoder:
    """Incremental decoder of an event stream: feed bytes, get frames. Accepts LF, CRLF and CR line ends.

    Follows the WHATWG algorithm, except that `max_frame` bounds how much an unfinished frame may hold.
    """

    def __init__(self, max_frame: int = 64 * 1024 * 1024) -> None:
        self._line: list[bytes] = []
        self._data: list[str] = []
        self._event: str | None = None
        self._id: str | None = None
        self._size = 0
        self._max = max_frame
        self._skip_lf = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes. Raises `ValueError` when a frame grows past the bound."""
        if self._skip_lf and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._skip_lf = False
        if chunk.endswith(b"\r"):
            self._skip_lf = True
        first, *others = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._line.append(first)
        self._size += len(first)
        frames: list[Frame] = []
        for piece in others:
            self._end_line(frames)
            self._line = [piece]
            self._size += len(piece)
        if self._size > self._max:
            raise ValueError(f"a server-sent event is larger than {self._max} bytes")
        return frames

    def _end_line(self, frames: list[Frame]) -> None:
        line = b"".join(self._line)
        if not self._begun:
            line, self._begun = line.removeprefix(b"\xef\xbb\xbf"), True
        if line:
            self._take(line)
            return
        if self._data:
            frames.append(Frame("\n".join(self._data), self._event, self._id))
        self._data, self._event, self._size = [], None, 0

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value.decode("utf-8", "replace"))
            return
        self._size -= len(line)  # only data is held until the frame is complete
        if name == b"event":
            self._event = value.decode("utf-8", "replace") or None
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
