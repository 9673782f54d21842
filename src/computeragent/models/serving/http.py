"""A small HTTP/1.1 server on asyncio streams, so that serving a model needs no optional dependency.

Keep-alive, request bodies by length or in chunks, responses whole or in chunks, bounded sizes (RFC 9112).
Malformed bytes get a 400 and a closed connection. No TLS, no compression, no pipelining of responses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from msgspec import Struct, field

MAX_HEAD = 64 * 1024
MAX_BODY = 64 * 1024 * 1024
IDLE_TIMEOUT = 120.0
LINGER = 1.0
BACKLOG = 1024

_log = logging.getLogger("computeragent.models")
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class HttpRequest(Struct, frozen=True, kw_only=True):
    """One request, body included. Header names are lower case; `path` is decoded, `query` is not.

    `left` says whether the client has gone by now, so that nobody works on for it.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    left: Callable[[], bool] = lambda: False


class HttpResponse(Struct, frozen=True, kw_only=True):
    """One response: a whole body, or pieces that are sent in chunks as they come."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes | AsyncGenerator[bytes] = b""


class CutConnection(Exception):  # noqa: N818 - a signal, not a fault
    """Raised while a body is produced: close the socket in the midst of the answer."""


class _BadRequest(Exception):  # noqa: N818 - becomes a response
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


class HttpServer:
    """Serves `handler` on `host`:`port` (port 0: any free one). A handler that raises becomes a 500 and a log line.

    Instead of an address it takes `listener`, a listening socket that it then owns, or `path`, where a Unix socket is
    made (for this user alone) and removed at the end; `port` is 0 for those without one.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        listener: socket.socket | None = None,
        path: str | os.PathLike[str] | None = None,
        max_body: int = MAX_BODY,
    ) -> None:
        self._handler = handler
        self._host = host
        self.port = port
        self._listener = listener
        self._path = None if path is None else os.fspath(path)
        self._max_body = max_body
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises `OSError` when the address cannot be used."""
        if self._path is not None:
            self._listener = _unix_listener(self._path)
        if self._listener is None:
            self._server = await asyncio.start_server(
                self._serve_connection, self._host, self.port, backlog=BACKLOG, limit=MAX_HEAD
            )
        else:
            self._server = await asyncio.start_server(self._serve_connection, sock=self._listener, limit=MAX_HEAD)
        listening = self._server.sockets[0]
        self.port = 0 if listening.family == socket.AF_UNIX else listening.getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and every connection, at once."""
        if self._server is not None:
            self._server.close()
            self._remove_path()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._server = None

    def _remove_path(self) -> None:
        if self._path is not None:
            Path(self._path).unlink(missing_ok=True)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the peer left: nobody is there to be told
        except (CutConnection, asyncio.CancelledError):
            writer.transport.abort()  # a peer that does not read would keep a stop waiting for ever
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            async with asyncio.timeout(IDLE_TIMEOUT):
                received = await _read_request(reader, writer, self._max_body)
        except _BadRequest as error:
            await _send(writer, "GET", _plain(error.status, str(error)), keep_alive=False, chunked=False)
            await _linger(reader, writer)
            return False
        if received is None:
            return False
        request, version = received
        response = await self._answer(request)
        keep_alive = _wants_keep_alive(request.headers, version)
        chunked = version == "HTTP/1.1"
        keep_alive = keep_alive and (chunked or isinstance(response.body, bytes))
        await _send(writer, request.method, response, keep_alive=keep_alive, chunked=chunked)
        return keep_alive

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        try:
            return await self._handler(request)
        except CutConnection:
            raise
        except Exception:  # noqa: BLE001 - one failing request must not end the connection
            _log.exception("%s %s failed", request.method, request.path)
            return _plain(500, "internal error; see the log")


def _unix_listener(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # between bind and a chmod anybody could connect
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _plain(status: int, message: str) -> HttpResponse:
    return HttpResponse(status=status, headers={"content-type": "text/plain"}, body=message.encode() + b"\n")


def _wants_keep_alive(headers: Mapping[str, str], version: str) -> bool:
    options = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    return "keep-alive" in options if version == "HTTP/1.0" else "close" not in options


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read what the client is still sending: closing on unread bytes would take the answer back from it."""
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while await reader.read(MAX_HEAD):
                pass


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_body: int
) -> tuple[HttpRequest, str] | None:
    head = await _read_head(reader)
    if head is None:
        return None
    lines = head.decode("latin-1").split("\r\n")
    method, target, version = _parse_request_line(lines[0])
    headers = _parse_headers(lines[1:])
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await _read_body(reader, headers, max_body)
    path, _, query = target.partition("?")
    request = HttpRequest(
        method=method,
        path=unquote(path),
        query=query,
        headers=headers,
        body=body,
        left=lambda: reader.at_eof() or reader.exception() is not None,  # closed, or reset
    )
    return request, version


async def _read_head(reader: asyncio.StreamReader) -> bytes | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise _BadRequest(400, "the request head is incomplete") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise _BadRequest(431, f"the request head is larger than {MAX_HEAD} bytes") from error
    return head[:-4].lstrip(b"\r\n")


def _parse_request_line(line: str) -> tuple[str, str, str]:
    words = line.split(" ")
    if len(words) != 3 or not words[0] or not set(words[0]) <= _TOKEN:
        raise _BadRequest(400, "malformed request line")
    method, target, version = words
    if version not in {"HTTP/1.1", "HTTP/1.0"}:
        raise _BadRequest(505 if version.startswith("HTTP/") else 400, "HTTP/1.1 is spoken here")
    if target.startswith("http://"):
        target = "/" + target.removeprefix("http://").partition("/")[2]
    if not target.startswith("/") and target != "*":
        raise _BadRequest(400, "malformed request target")
    return method, target, version


def _parse_headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or not set(name) <= _TOKEN:
            raise _BadRequest(400, "malformed header")
        key, value = name.lower(), value.strip(" \t")
        if key in headers and key in {"content-length", "transfer-encoding", "host"}:
            raise _BadRequest(400, f"more than one {key} header")
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str], max_body: int) -> bytes:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        # Two statements of one length are how requests are smuggled (RFC 9112, 6.3).
        if length is not None or coding.lower() != "chunked":
            raise _BadRequest(400, "the body must be chunked or have a content-length, not both")
        return await _read_chunks(reader, max_body)
    if length is None:
        return b""
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        raise _BadRequest(400, "malformed content-length")
    if int(length) > max_body:
        raise _BadRequest(413, f"the body is larger than {max_body} bytes")
    return await reader.readexactly(int(length))


async def _read_chunks(reader: asyncio.StreamReader, max_body: int) -> bytes:
    body = bytearray()
    while size := await _read_chunk_size(reader):
        if len(body) + size > max_body:
            raise _BadRequest(413, f"the body is larger than {max_body} bytes")
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise _BadRequest(400, "malformed chunk")
    for _ in range(100):
        if await _read_line(reader) == b"":
            return bytes(body)
    raise _BadRequest(400, "too many trailers")


async def _read_chunk_size(reader: asyncio.StreamReader) -> int:
    digits = (await _read_line(reader)).partition(b";")[0].strip()
    if not digits or len(digits) > 15 or not all(byte in b"0123456789abcdefABCDEF" for byte in digits):
        raise _BadRequest(400, "malformed chunk size")
    return int(digits, 16)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await reader.readuntil(b"\r\n"))[:-2]
    except asyncio.LimitOverrunError as error:
        raise _BadRequest(400, "a line is too long") from error


async def _send(
    writer: asyncio.StreamWriter, method: str, response: HttpResponse, *, keep_alive: bool, chunked: bool
) -> None:
    body = response.body
    headers: dict[str, Any] = {**response.headers}
    if isinstance(body, bytes):
        headers["content-length"] = len(body)
    elif chunked:
        headers["transfer-encoding"] = "chunked"
    if not keep_alive:
        headers["connection"] = "close"
    phrase = HTTPStatus(response.status).phrase if response.status in set(HTTPStatus) else "Unknown"
    lines = [f"HTTP/1.1 {response.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
    if method == "HEAD":
        await writer.drain()
    elif isinstance(body, bytes):
        writer.write(body)
        await writer.drain()
    else:
        await _send_pieces(writer, body, chunked=chunked)


async def _send_pieces(writer: asyncio.StreamWriter, pieces: AsyncGenerator[bytes], *, chunked: bool) -> None:
    # No pause before this: pieces that were never begun could not clean up after themselves.
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            if piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
            if writer.is_closing():
                raise ConnectionResetError("the client has left")
    if chunked:
        writer.write(b"0\r\n\r\n")
    await writer.drain()
