"""``/sandboxes``: open one, look at it, chat in it, end it."""

from __future__ import annotations

from starlette.responses import Response

from computeragent.errors import ComputerAgentError, MissingPathError, NotFoundError
from computeragent.logs import Logger
from computeragent.server.answers import answered_by
from computeragent.server.bodies import Ok
from computeragent.server.endpoint import Call, json_response
from computeragent.server.sandboxes.errors import BusyError
from computeragent.server.sandboxes.files import content, listing
from computeragent.server.sandboxes.orders import Desk, check_attachments, said
from computeragent.server.sandboxes.pool import Pool
from computeragent.server.sandboxes.relay import RelayResponse
from computeragent.server.sandboxes.sandbox import Sandbox
from computeragent.server.sandboxes.shapes import (
    ChatRequest,
    Entries,
    SandboxAlive,
    SandboxDisposed,
    SandboxList,
    SandboxRequest,
    SandboxState,
)
from computeragent.server.sandboxes.snapshots import Snapshots
from computeragent.server.sandboxes.tenants import Tenants
from computeragent.server.stream import EventStreamResponse, resume_point
from computeragent.server.times import iso
from computeragent.wire.requests import PermissionDecision

_log = Logger("sandboxes")


class Sandboxes:
    """Handlers of sandboxes."""

    def __init__(self, desk: Desk, tenants: Tenants, pool: Pool, snapshots: Snapshots) -> None:
        self._desk = desk
        self._tenants = tenants
        self._pool = pool
        self._snapshots = snapshots

    async def create(self, call: Call) -> Response:
        """``POST /sandboxes``: 201, or 200 with the live one of the same session."""
        body: SandboxRequest = call.body
        order = self._desk.order(body, call.principal, self._tenants.of(call.principal))
        if body.auto_save is not None:
            self._snapshots.require(body.auto_save.state_store)
        warm = self._pool.warm(call.principal, order.session_id) if order.session_id is not None else None
        if warm is not None:
            if warm.order.policy != order.policy:
                raise BusyError(
                    "the live sandbox of this session has another policy", hint="Dispose of it, or send its policy."
                )
            return json_response(warm.opened(reused=True))
        sandbox = await self._pool.create(
            order, ttl_ms=body.ttl_ms, idle_ttl_ms=body.idle_ttl_ms, auto_save=body.auto_save
        )
        return json_response(sandbox.opened(), 201)

    async def listing(self, call: Call) -> SandboxList:
        """``GET /sandboxes``."""
        return SandboxList(sandboxes=[sandbox.state() for sandbox in self._pool.of(call.principal)])

    async def by_session(self, call: Call) -> Response:
        """``GET /sandboxes/by-session/{sessionId}``."""
        sandbox = self._pool.warm(call.principal, call.path["session_id"])
        if sandbox is None:
            error = NotFoundError("no live sandbox has this session", hint="POST /sandboxes opens one.")
            return json_response(error.to_wire() | {"warm": False}, 404)
        return json_response(sandbox.state())

    async def one(self, call: Call) -> SandboxState:
        """``GET /sandboxes/{id}``."""
        return self._find(call).state()

    async def workdir(self, call: Call) -> Entries:
        """``GET /sandboxes/{id}/workdir``: nothing, where the source cannot be fetched."""
        sandbox = self._live(call)
        try:
            files = await sandbox.files()
        except ComputerAgentError as error:
            _log.warn("workdir_not_there", sandbox=sandbox.id, error=error.message)
            return Entries(entries=[])
        return await listing(files, depth=call.query.depth)

    async def artifact(self, call: Call) -> Response:
        """``GET /sandboxes/{id}/artifact``."""
        if not call.query.path:
            raise MissingPathError("the query has no path", hint="Add ?path=… to the address.")
        return await content(await self._live(call).files(), call.query.path)

    async def chat(self, call: Call) -> Response:
        """``POST /sandboxes/{id}/chat``: one turn, streamed. It goes on when its client leaves."""
        body: ChatRequest = call.body
        sandbox = self._live(call)
        message = said(body.message)
        turn, relay = sandbox.chat(message, check_attachments(body.attachments))
        if body.attachments:
            await turn.attached.wait()
            if turn.failure is not None:
                raise turn.failure
        return RelayResponse(relay, headers={"x-session-id": sandbox.session_id})

    async def events(self, call: Call) -> Response:
        """``GET /sandboxes/{id}/events``: the session's events, for whoever lost the stream of a chat."""
        sandbox = self._live(call)
        if sandbox.session is None:
            raise NotFoundError("nothing has been said in this sandbox", hint="POST …/chat says something.")
        after = resume_point(call.request.headers.get("last-event-id"), call.query.last_event_id)
        return EventStreamResponse(sandbox.session.events(after))

    async def decide(self, call: Call) -> Ok:
        """``POST /sandboxes/{id}/permission/{callId}``: the first answer wins."""
        sandbox = self._live(call)
        if sandbox.session is None:
            raise NotFoundError("this sandbox has asked nothing", hint="Its pendingCalls say what waits.")
        body = call.body
        decision = PermissionDecision(decision=body.decision, input=body.input, reason=body.reason)
        await sandbox.session.decide(call.path["call_id"], decision, by=answered_by(call))
        return Ok()

    async def cancel(self, call: Call) -> Ok:
        """``POST /sandboxes/{id}/cancel``: ends the turn under way; the sandbox stays."""
        await self._live(call).interrupt()
        return Ok()

    async def heartbeat(self, call: Call) -> SandboxAlive:
        """``POST /sandboxes/{id}/heartbeat``: somebody is there; only the end of its life stays where it was."""
        sandbox = self._live(call)
        sandbox.touch()
        return SandboxAlive(
            sandbox_id=sandbox.id,
            state=sandbox.phase,
            idle_expires_at=iso(sandbox.idle_expires),
            expires_at=iso(sandbox.expires),
        )

    async def delete(self, call: Call) -> SandboxDisposed:
        """``DELETE /sandboxes/{id}``."""
        sandbox = self._find(call)
        saved = await self._pool.dispose(sandbox, save=call.query.save != "false")
        return SandboxDisposed(
            ok=True, sandbox_id=sandbox.id, final_usage=sandbox.used, turn_count=sandbox.turns, auto_saved=saved
        )

    def _find(self, call: Call) -> Sandbox:
        return self._pool.find(call.principal, call.path["sandbox_id"])

    def _live(self, call: Call) -> Sandbox:
        sandbox = self._find(call)
        if sandbox.ended is not None or (not sandbox.is_live and sandbox.turn is None):
            raise sandbox.gone_error()
        return sandbox
