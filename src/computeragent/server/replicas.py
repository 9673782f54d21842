"""Several servers on one event log: any of them answers for sessions that another one runs.

State, list and stream come from the log. What acts on a run is passed on to the server that has it; when that is gone,
the run is ended honestly.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol
from weakref import WeakSet

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from computeragent.errors import (
    ComputerAgentError,
    EventLogUnavailableError,
    NotFoundError,
    ReplicaError,
    SessionEndedError,
    SessionLiveError,
    UnknownCallError,
)
from computeragent.eventlog import ChannelStream, SharedEventLog
from computeragent.eventlog.shared import Entry
from computeragent.harness.harness import end_interrupted_run
from computeragent.logs import Logger
from computeragent.server.auth import ANONYMOUS, Principal
from computeragent.server.bodies import Cancelled, Ok, SessionState, Status
from computeragent.server.endpoint import json_response
from computeragent.server.errors import respond
from computeragent.server.peers import Peers
from computeragent.server.stream import EventStreamResponse, resume_point
from computeragent.wire.encoding import to_json
from computeragent.wire.events import CaSessionStarted

_SESSION = re.compile(r"/v1/sessions/([A-Za-z0-9_][A-Za-z0-9._-]{0,127})(/.*)?")
_PAUSE = 0.1
_STATUS: dict[str, Status] = {
    "pending": "running",
    "running": "running",
    "complete": "completed",
    "budget_exceeded": "completed",
    "cancelled": "cancelled",
    "error": "errored",
}
_log = Logger("replicas")
_started = msgspec.json.Decoder(CaSessionStarted)


class Held(Protocol):
    """The sessions that this server itself has."""

    def has(self, session_id: str) -> bool:
        """Whether it has it, running or not."""
        ...

    def runs(self, session_id: str) -> bool:
        """Whether its run is going on here."""
        ...

    async def drop(self, session_id: str) -> None:
        """Let go of one that went on elsewhere."""
        ...

    async def free(self, session_id: str, principal: Principal) -> None:
        """Remove the folder that a session of an earlier server has left here."""
        ...


class Replicas:
    """What a server says to the others through the log, and what it does for those that are gone."""

    def __init__(self, log: SharedEventLog) -> None:
        self.log = log
        self.peers = Peers(log)
        self._streams: WeakSet[ChannelStream] = WeakSet()

    async def stream(self, session_id: str, after: int | None = None) -> ChannelStream:
        """A session's events from the log, whoever runs it."""
        stream = (await self.log.follow(session_id)).stream(after)
        self._streams.add(stream)
        return stream

    def leave(self) -> None:
        """End these streams: this server stops. Who reads goes on at another one."""
        for stream in list(self._streams):
            stream.close()

    # ── For the sessions that run here ──

    async def reserve(self, session_id: str, principal: Principal) -> None:
        """Make a session the caller's before it is opened. Raises `NotFoundError` for somebody else's."""
        if not await self.log.reserve(session_id, principal.id):
            raise NotFoundError(f"session {session_id} not found", hint="Choose another session id.")

    async def opened(self, session_id: str, principal: Principal, started: CaSessionStarted) -> None:
        """Say what the others need to know."""
        await self.log.describe(session_id, principal.id, to_json(started))

    async def deleted(self, session_id: str) -> None:
        """A session is forgotten."""
        try:
            await self.log.delete(session_id)
        except NotFoundError:
            return  # it has expired, or never said a word

    async def listing(self, principal: Principal, limit: int, offset: int) -> tuple[list[SessionState], bool]:
        """A principal's sessions on all servers, opened last first, and whether there are more."""
        entries, more = await self.log.listing(principal.id, limit, offset)
        return [_state(entry) for entry in entries], more

    async def once(self, place: tuple[str, ...], do: Callable[[], Awaitable[Any]]) -> msgspec.Raw:
        """Do it once for all servers; its answer as JSON, also for those that ask again."""
        name = "\n".join(place)
        while (found := await self.log.answer(name)) is not None:
            if found:
                return msgspec.Raw(found)
            await asyncio.sleep(_PAUSE)
        try:
            answer = to_json(await do())
        except BaseException:
            await self.log.keep_answer(name, None)
            raise
        await self.log.keep_answer(name, answer)
        return msgspec.Raw(answer)

    # ── For servers that are gone ──

    @asynccontextmanager
    async def watching(self, held: Held) -> AsyncGenerator[None]:
        """End what others leave behind, while the block runs; then close the log."""
        watch = asyncio.create_task(self._watch(held), name="replicas")
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait({watch})
            await self.peers.close()
            await self.log.close()

    async def _watch(self, held: Held) -> None:
        while True:
            try:
                for session_id in await self.log.orphans():
                    await self.end(session_id, held)
            except ComputerAgentError as error:
                _log.warn("watch_failed", error=error.message)
            except Exception as error:  # noqa: BLE001 - one bad session must not end the watch over all others
                _log.error("watch_broke", error=repr(error))
            await asyncio.sleep(self.log.lease / 5)

    async def end(self, session_id: str, held: Held) -> None:
        """Write the end of a run whose server is gone, unless somebody else is at it."""
        try:
            channel = await self.log.open(session_id)
        except SessionLiveError:
            return
        try:
            if channel.live:
                _log.warn("run_ended_for_another", session=session_id)
            end_interrupted_run(channel)
            await channel.flush()
        finally:
            await self.log.release(channel)
        await held.drop(session_id)


class Elsewhere:
    """ASGI middleware: answers for sessions that this server does not have itself."""

    def __init__(self, app: ASGIApp, *, replicas: Replicas, held: Held) -> None:
        self._app = app
        self._replicas = replicas
        self._log = replicas.log
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or leave it to the application."""
        path = scope["path"].removeprefix(scope.get("root_path", "")) if scope["type"] == "http" else ""
        found = _SESSION.fullmatch(path)
        app: ASGIApp = self._app
        if found is not None:
            principal = scope.get("computeragent.principal", ANONYMOUS)
            request = Request(scope, receive)
            try:
                app = await self._answer(request, found[1], found[2] or "", principal) or app
            except ComputerAgentError as error:
                app = respond(error)
        await app(scope, receive, send)

    async def _answer(self, request: Request, session_id: str, rest: str, principal: Principal) -> Response | None:
        """The answer to a request, or None for what is this server's own, nobody's, or somebody else's."""
        if self._held.runs(session_id):
            return None
        try:
            entry = await self._log.look_up(session_id)
        except EventLogUnavailableError:
            if self._held.has(session_id):
                return None
            raise
        if entry is not None and entry.ran_on == self._log.mark and self._held.has(session_id):
            return None
        await self._held.drop(session_id)
        if entry is None or entry.principal != principal.id or not entry.about:
            return None
        if entry.abandoned:
            entry = await self._ended(entry)
        if request.method == "GET" and not rest:
            return json_response(_state(entry))
        if request.method == "GET" and rest == "/events":
            after = resume_point(request.headers.get("last-event-id"), request.query_params.get("lastEventId"))
            return EventStreamResponse(await self._replicas.stream(session_id, after))
        if entry.ran_on != self._log.mark and (entry.address or entry.held_alive):
            try:
                return await self._replicas.peers.forward(entry, request, principal)
            except ReplicaError:
                entry = await self._log.look_up(session_id)
                if entry is None or entry.address or entry.held_alive:
                    raise
                entry = await self._ended(entry)
        return await self._without_server(entry, request.method, rest, principal)

    async def _ended(self, entry: Entry) -> Entry:
        """A session after its abandoned run was ended."""
        if entry.abandoned:
            await self._replicas.end(entry.session_id, self._held)
            entry = await self._log.look_up(entry.session_id) or entry
        return entry

    async def _without_server(self, entry: Entry, method: str, rest: str, principal: Principal) -> Response | None:
        """What can be done with a session whose run is over, and whose server is gone."""
        if entry.summary.live:
            return None  # it is just being opened here; nobody has been told of it yet
        name = entry.session_id
        if (method, rest) == ("DELETE", ""):
            await self._held.free(name, principal)
            await self._replicas.deleted(name)
            return json_response(Ok())
        if rest.startswith("/fs/"):
            raise NotFoundError(
                f"the working directory of session {name} is gone with its server",
                hint="Open the session again: it begins with its agent's files.",
            )
        if method != "POST":
            return None
        if rest == "/messages":
            raise SessionEndedError(
                f"session {name} has ended and takes no more messages",
                hint="Open the session again to start its next run.",
            )
        if rest.startswith("/permission/"):
            raise UnknownCallError(f"session {name} has ended", hint="Nothing waits for an answer any more.")
        return {"/cancel": json_response(Cancelled()), "/end-input": json_response(Ok())}.get(rest)


def _state(entry: Entry) -> SessionState:
    started = _started.decode(entry.about)
    return SessionState(
        session_id=entry.session_id,
        engine=started.engine,
        identity=started.identity,
        status=_STATUS[entry.summary.status],
        newest=entry.newest,
        pending_calls=entry.pending,
    )
