"""A session's events as server-sent events: what is there at once in one write, heartbeats while nothing is."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from computeragent.errors import ComputerAgentError, ValidationError
from computeragent.logs import Logger
from computeragent.wire.events import Recorded
from computeragent.wire.sse import HEARTBEAT, encode_frame

HEARTBEAT_EVERY = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""
SLOWEST = 60.0
"""Seconds that a client may take for one write; after that it is cut off, and resumes from where it was."""
LARGEST_WRITE = 256 * 1024
"""Bytes that are written at once: what a client that is behind holds here, and what `SLOWEST` is for."""
_SMALL = 64 * 1024  # bytes that are written without a thought for others
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no", "connection": "keep-alive"}
_log = Logger("stream")


class Pages(Protocol):
    """What is streamed. A page has at least one event, and none at the end; an id below zero is not told."""

    @property
    def position(self) -> int:
        """The id of the last event that was read."""
        ...

    async def page(self) -> list[Recorded]:
        """All events that are there now, waiting for at least one; empty at the end."""
        ...

    def close(self) -> None:
        """Read no further."""
        ...


class EventStreamResponse(Response):
    """Streams a reader of a log. `on_leave` is awaited when the client leaves before the end."""

    media_type = "text/event-stream"

    def __init__(
        self,
        stream: Pages,
        *,
        heartbeat: float = HEARTBEAT_EVERY,
        slowest: float = SLOWEST,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(headers=_HEADERS | (headers or {}), media_type=self.media_type)
        del self.headers["content-length"]
        self._stream = stream
        self._heartbeat = heartbeat
        self._slowest = slowest
        self.complete = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole stream; returns when it has ended, or the client has gone or is cut off."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        writer = _Writer(send, self._heartbeat, self._slowest)
        gone = asyncio.ensure_future(_gone(receive))
        sending = asyncio.ensure_future(self._send_all(writer))
        try:
            await asyncio.wait({gone, sending, writer.stuck}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            elif writer.stuck.done():
                _log.info("slow_client_cut", after=self._stream.position)
        finally:
            gone.cancel()
            sending.cancel()  # before its stream is closed, which it would take for the end
            writer.close()
            self._stream.close()
            for task in (gone, sending):
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def _send_all(self, writer: _Writer) -> None:
        try:
            while page := await self._stream.page():
                body = b"".join(
                    [encode_frame(one.event.kind, one.id if one.id >= 0 else None, one.data) for one in page]
                )
                if len(body) <= _SMALL:
                    await writer.write(body)
                    continue
                for start in range(0, len(body), LARGEST_WRITE):
                    await writer.write(body[start : start + LARGEST_WRITE])
                    await asyncio.sleep(0)  # who reads a long past must not hold up others
        except ComputerAgentError as error:
            _log.warn("log_broke", error=error.message)
        self.complete = True
        await writer.write(b"", more=False)


class _Writer:
    """Writes bodies one after the other: what it is given, and a heartbeat where that is nothing for long.

    One timer looks after both, since a task or a timer for each event would cost more than the event.
    """

    def __init__(self, send: Send, heartbeat: float, slowest: float) -> None:
        self._send = send
        self._heartbeat = heartbeat
        self._slowest = slowest
        self._free = asyncio.Lock()
        self._busy = False
        self._since = time.monotonic()  # when the write that is under way began, or the last one ended
        self._longest = min(heartbeat, slowest)
        self._loop = asyncio.get_running_loop()
        self._beat: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(self._longest, self._look)
        self.stuck: asyncio.Future[None] = self._loop.create_future()
        """Done when the client has not taken a write for too long."""

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Write, when what is under way is written."""
        async with self._free:
            self._busy, self._since = True, time.monotonic()
            try:
                await self._send({"type": "http.response.body", "body": body, "more_body": more})
            finally:
                self._busy, self._since = False, time.monotonic()

    def close(self) -> None:
        """Write nothing more by itself."""
        self._timer.cancel()
        self.stuck.cancel()
        if self._beat is not None:
            self._beat.cancel()

    def _look(self) -> None:
        silent = time.monotonic() - self._since
        wait = (self._slowest if self._busy else self._heartbeat) - silent
        if wait <= 0 and self._busy:
            self.stuck.set_result(None)
            return
        if wait <= 0:
            self._beat = self._loop.create_task(self._say_something())
            wait = self._heartbeat
        self._timer = self._loop.call_later(min(wait, self._longest), self._look)

    async def _say_something(self) -> None:
        with suppress(OSError):  # the client has gone, which is told elsewhere
            await self.write(HEARTBEAT)


def resume_point(header: str | None, query: str | None) -> int | None:
    """The id after which a client wants to go on. Raises `ValidationError` for what is no id."""
    given = header if header is not None else query
    if given is None or given == "":
        return None
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise ValidationError(
            f"Last-Event-ID {given[:40]!r} is no event id", hint="Send an id that this stream gave, or none."
        )
    return int(given)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
