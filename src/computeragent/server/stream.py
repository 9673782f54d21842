"""A session's events as server-sent events: what is there at once in one write, heartbeats while nothing is."""

from __future__ import annotations

import asyncio
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
        """Send the whole stream; returns when it has ended or the client has gone."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        gone = asyncio.ensure_future(_gone(receive))
        sending = asyncio.ensure_future(self._send_all(send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            self._stream.close()
            for task in (gone, sending):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def _send_all(self, send: Send) -> None:
        waiting: asyncio.Task[bytes | None] | None = None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(self._next())
                done, _ = await asyncio.wait({waiting}, timeout=self._heartbeat)
                body: bytes | None = HEARTBEAT
                if done:
                    body, waiting = waiting.result(), None
                if body is None:
                    break
                for start in range(0, len(body), LARGEST_WRITE):
                    part = body if len(body) <= LARGEST_WRITE else body[start : start + LARGEST_WRITE]
                    async with asyncio.timeout(self._slowest):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError:
            _log.info("slow_client_cut", after=self._stream.position)
            return
        finally:
            if waiting is not None:
                waiting.cancel()
        self.complete = True
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self) -> bytes | None:
        """The frames of all events that are there now, at least one; None at the end."""
        try:
            page = await self._stream.page()
        except ComputerAgentError as error:
            _log.warn("log_broke", error=error.message)
            return None
        if not page:
            return None
        return b"".join(encode_frame(one.event.kind, one.id if one.id >= 0 else None, one.data) for one in page)


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
