"""An event stream read from the bare socket, frame by frame as bytes: no client library that could hide a fault.

It knows HTTP/1.1 only as far as an event stream needs it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl as tls
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from computeragent.errors import ValidationError

_READ = 65536
_HEAD_LIMIT = 65536


class HttpBody:
    """Follows an HTTP/1.1 response as it comes in: its head, and then which of the bytes are its body's."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self._pending = b""  # of the head, or of a line between two chunks
        self._left: int | None = None  # bytes of the body, or of the chunk, that are still to come
        self._chunked = False
        self._lines = 0  # lines between two chunks that are still to come

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """Where in `data` the body's bytes are, as pairs of start and end. Raises `ValueError` for what is no HTTP."""
        position = 0
        if not self.status:
            position = self._head(data)
            if not self.status:
                return []
        found: list[tuple[int, int]] = []
        while position < len(data) and not self.complete:
            if self._lines:
                position = self._between(data, position)
                continue
            end = len(data) if self._left is None else min(len(data), position + self._left)
            found.append((position, end))
            if self._left is not None:
                self._left -= end - position
                if self._left == 0:
                    self.complete = not self._chunked
                    self._lines = 2
            position = end
        return found

    def _head(self, data: bytes) -> int:
        """Take in the head; where it ends in `data`."""
        before = len(self._pending)
        self._pending += data
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            if len(self._pending) > _HEAD_LIMIT:
                raise ValueError("the head of the answer does not end")
            return len(data)
        first, *lines = self._pending[:end].decode("latin-1").split("\r\n")
        version, status, *_ = [*first.split(" "), "", ""]
        if not version.startswith("HTTP/1.") or not status.isdigit():
            raise ValueError(f"the answer is no HTTP/1.1: {first[:80]!r}")
        self.status = int(status)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
        self._pending = b""
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        if self._chunked:
            self._lines, self._left = 1, 0
        elif "content-length" in self.headers:
            self._left = int(self.headers["content-length"])
            self.complete = self._left == 0
        return end + 4 - before

    def _between(self, data: bytes, position: int) -> int:
        """Take in the line ends and the size between two chunks; where that ends in `data`."""
        end = data.find(b"\n", position)
        if end < 0:
            self._pending += data[position:]
            return len(data)
        line = (self._pending + data[position:end]).strip()
        self._pending = b""
        self._lines -= 1
        if self._lines == 0:
            self._left = int(line.split(b";")[0], 16)
            self.complete = self._left == 0
        return end + 1


@dataclass(slots=True)
class Reading:
    """What one connection brought: whole frames, how many comments, and whether the answer came to its end."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    frames: list[bytes] = field(default_factory=list[bytes])
    comments: int = 0
    complete: bool = False
    body: bytes = b""  # of an answer that is no stream

    @property
    def last_id(self) -> int | None:
        """The id of the last frame; None without one."""
        return frame_id(self.frames[-1]) if self.frames else None


class StreamAddress:
    """Where streams are read from, and who asks.

    `url` is the server's; `through` a port of this machine to connect to instead, which passes the bytes on.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValidationError(f"{url!r} is no address of a server", hint="Such as http://127.0.0.1:7700.")
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.tls = tls.create_default_context() if parts.scheme == "https" else None
        self._base = parts.path.rstrip("/")
        self._named = parts.netloc.rpartition("@")[2]
        self._token = token

    def request(self, path: str, headers: Mapping[str, str | bytes]) -> bytes:
        """The bytes of a GET."""
        lines = [f"GET {self._base}{path} HTTP/1.1".encode(), b"host: " + self._named.encode()]
        lines += [b"accept: text/event-stream", b"connection: close"]
        if self._token is not None:
            lines.append(b"authorization: Bearer " + self._token.encode())
        for name, value in headers.items():
            lines.append(name.encode() + b": " + (value.encode() if isinstance(value, str) else value))
        return b"\r\n".join(lines) + b"\r\n\r\n"

    async def connect(self, through: int | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the server, or to a port of this machine that passes the bytes on."""
        if through is not None:
            return await asyncio.open_connection("127.0.0.1", through, limit=_READ)
        return await asyncio.open_connection(self.host, self.port, ssl=self.tls, limit=_READ)

    async def connect_narrowly(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that takes in as little as the system allows before the other side has to wait."""
        loop = asyncio.get_running_loop()
        family, kind, protocol, _, place = (await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM))[0]
        wire = socket.socket(family, kind, protocol)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        wire.setblocking(False)
        await loop.sock_connect(wire, place)
        name = self.host if self.tls else None
        return await asyncio.open_connection(sock=wire, ssl=self.tls, server_hostname=name, limit=1)


Connected = Callable[[asyncio.StreamWriter], None]


async def read_stream(
    address: StreamAddress,
    path: str,
    *,
    after: int | str | bytes | None = None,
    through: int | None = None,
    connected: Connected | None = None,
    until: Callable[[Reading], bool] | None = None,
    pace: Callable[[], Awaitable[int]] | None = None,
) -> Reading:
    """Read one connection to its end, its cut, or until `until` says so after a read.

    `after` is sent as ``Last-Event-ID``; `connected` is told of the connection before anything is sent on it. With
    `pace` as little as possible is taken in at once, and only as many bytes are read as it says each time.
    """
    sent = after if isinstance(after, bytes) or after is None else str(after)
    reading, body = Reading(), HttpBody()
    pending = b""
    try:
        reader, writer = await (address.connect(through) if pace is None else address.connect_narrowly())
    except ConnectionError:
        return reading
    try:
        if connected is not None:
            connected(writer)
        writer.write(address.request(path, {} if sent is None else {"last-event-id": sent}))
        while not body.complete:
            data = await reader.read(_READ if pace is None else await pace())
            if not data:
                break
            pending += b"".join(data[start:end] for start, end in body.feed(data))
            reading.status, reading.headers = body.status, body.headers
            if body.status == 200:
                pending = _take_frames(pending, reading)
            if until is not None and until(reading):
                break
    except ConnectionError:
        pass  # a cut; what came before it counts
    finally:
        writer.transport.abort()
    without_length = "content-length" not in body.headers and "transfer-encoding" not in body.headers
    reading.complete = body.complete or (bool(body.status) and without_length)
    if body.status != 200:
        reading.body = pending
    return reading


def _take_frames(pending: bytes, reading: Reading) -> bytes:
    """Take whole frames off; what is left."""
    *whole, rest = pending.split(b"\n\n")
    for each in whole:
        if each.startswith(b":") or not each:
            reading.comments += 1
        else:
            reading.frames.append(each + b"\n\n")
    return rest


def frame_id(frame: bytes) -> int | None:
    """The id that a frame names; None for none, or one that is no number."""
    for line in frame.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"id":
            text = value.strip()
            return int(text) if text.isdigit() else None
    return None


def frame_kind(frame: bytes) -> str:
    """The kind of event that a frame names."""
    for line in frame.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"event":
            return value.strip().decode("utf-8", "replace")
    return ""
