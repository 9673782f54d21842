"""A part of a session as a stream of its own: from where it begins, to its end, and one last frame that sums it up.

The last frame is ``ca_done`` or ``ca_error``. It has no id: a reader that comes back resumes after the last event.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Raw
from msgspec.structs import replace
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from computeragent.errors import ComputerAgentError
from computeragent.logs import Logger
from computeragent.server.stream import EventStreamResponse, Pages
from computeragent.wire.encoding import to_json
from computeragent.wire.events import CaSessionEnded, Recorded, UnknownEvent

_log = Logger("sandboxes")

Last = Callable[[ComputerAgentError | None], Awaitable[dict[str, Any]]]
"""Makes the last frame: an object with its ``kind``, given what broke the stream, if anything did."""


class Relay:
    """Pages of a session's part. `begin` opens the stream, which may take long; its errors become the last frame.

    `ends` says of each event whether the part ends with it; without it, the stream's own end is the end. Ids are
    told from `offset` on.
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[Pages]],
        last: Last,
        *,
        ends: Callable[[Recorded], bool] | None = None,
        offset: Callable[[], int] = lambda: 0,
    ) -> None:
        self._begin = begin
        self._last = last
        self._ends = ends
        self._offset = offset
        self._stream: Pages | None = None
        self._ended = self._over = False
        self.position = -1

    async def page(self) -> list[Recorded]:
        """All events that are there now; the last frame; nothing."""
        if self._over:
            return []
        failure: ComputerAgentError | None = None
        if not self._ended:
            try:
                self._stream = self._stream or await self._begin()
                page = await self._stream.page()
            except ComputerAgentError as error:
                failure, page = error, []
            except Exception as error:  # noqa: BLE001 - the client is told, whatever it was
                _log.error("stream_failed", error=repr(error))
                failure, page = ComputerAgentError("internal error", hint="See the server's log."), []
            kept = self._kept(page)
            if kept:
                return kept
        self._ended = self._over = True
        told = await self._last(failure)
        event = UnknownEvent(kind=told["kind"], session_id=str(told.get("sessionId", "")), raw=Raw(b"{}"))
        return [Recorded(-1, 0.0, event, to_json(told))]

    def _kept(self, page: list[Recorded]) -> list[Recorded]:
        offset = self._offset()
        for index, one in enumerate(page):
            self.position = one.id - offset
            if self._ends is not None and self._ends(one):
                self._ended = True
                page = page[: index + 1]
                break
        return page if not offset else [replace(one, id=one.id - offset) for one in page]

    def close(self) -> None:
        """Read no further."""
        if self._stream is not None:
            self._stream.close()


class RelayResponse(Response):
    """Streams a relay; `after` is awaited when it has ended or its client has left, whatever happens."""

    def __init__(
        self, relay: Relay, *, headers: dict[str, str] | None = None, after: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        super().__init__()
        self._inner = EventStreamResponse(relay, headers=headers)
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `EventStreamResponse`."""
        try:
            await self._inner(scope, receive, send)
        finally:
            if self._after is not None:
                await self._after()


def failed(error: ComputerAgentError, **more: Any) -> dict[str, Any]:
    """``ca_error`` for an error."""
    told = {"kind": "ca_error", **more, "code": error.code, "message": error.message}
    return told | ({"hint": error.hint} if error.hint else {})


def failed_run(ended: CaSessionEnded, **more: Any) -> dict[str, Any]:
    """``ca_error`` for a run that did."""
    told = {"kind": "ca_error", **more, "code": ended.error_code or "INTERNAL"}
    return told | {"message": ended.error_message or f"the run ended: {ended.reason}"}
