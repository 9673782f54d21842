"""``POST /run``: one message, streamed, and gone with its stream; its files while it lasts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.responses import Response

from computeragent.errors import ComputerAgentError, NotFoundError
from computeragent.harness import LocalHarness
from computeragent.harness.session import LocalSession
from computeragent.ids import new_id
from computeragent.logs import Logger
from computeragent.protocol_types import Workspace
from computeragent.server.answers import answered_by
from computeragent.server.bodies import Ok
from computeragent.server.endpoint import Call
from computeragent.server.sandboxes.errors import MissingParamError, TooManyRunsError
from computeragent.server.sandboxes.files import content, listing
from computeragent.server.sandboxes.orders import Desk, Order, said
from computeragent.server.sandboxes.relay import Relay, RelayResponse, failed, failed_run
from computeragent.server.sandboxes.shapes import Entries, RunRequest, Usage
from computeragent.server.sandboxes.tenants import Tenants
from computeragent.server.stream import Pages
from computeragent.wire.events import CaUsageSnapshot, Recorded
from computeragent.wire.requests import PermissionDecision, UserInput
from computeragent.wire.usage import UsageRollup

_log = Logger("sandboxes")


@dataclass(slots=True)
class Run:
    """One run, from its request to the end of its stream."""

    order: Order
    session_id: str
    harness: LocalHarness
    session: LocalSession | None = None
    usage: UsageRollup = field(default_factory=UsageRollup)
    closing: asyncio.Task[None] | None = None

    async def begin(self, message: UserInput) -> Pages:
        """Open the session and say the message."""
        session = await self.harness.open(self.order.request(self.session_id))
        self.session = session
        stream = session.events()
        await session.send(message)
        await session.end_input()
        return stream

    def seen(self, recorded: Recorded) -> bool:
        """Count what an event used; no event but the run's last one ends the stream, which ends by itself."""
        if isinstance(recorded.event, CaUsageSnapshot):
            self.usage.absorb(recorded.event)
        return False

    def last(self, failure: ComputerAgentError | None) -> dict[str, Any]:
        """The last frame."""
        ended = self.session.ended if self.session is not None else None
        if failure is not None:
            return failed(failure, sessionId=self.session_id)
        if ended is not None and ended.reason == "error":
            return failed_run(ended, sessionId=self.session_id)
        reason = ended.reason if ended is not None else "complete"
        return {
            "kind": "ca_done",
            "sessionId": self.session_id,
            "reason": reason,
            "usage": Usage.of(self.usage),
        }


class Runs:
    """The runs of one server, at most `most` at a time."""

    def __init__(self, desk: Desk, tenants: Tenants, most: int) -> None:
        self._desk = desk
        self._tenants = tenants
        self._most = most
        self._live: dict[tuple[str, str], Run] = {}

    @property
    def active(self) -> int:
        """How many are under way."""
        return len(self._live)

    @property
    def most(self) -> int:
        """How many may be."""
        return self._most

    async def run(self, call: Call) -> Response:
        """``POST /run``."""
        body: RunRequest = call.body
        tenant = self._tenants.of(call.principal)
        order = self._desk.order(body, call.principal, tenant)
        message = said(body.message)
        if len(self._live) >= self._most:
            raise TooManyRunsError(len(self._live), self._most)
        session_id = order.session_id or new_id("session")
        with tenant.claimed(session_id):
            run = Run(order, session_id, tenant.harness(order.runtime))
        self._live[call.principal.id, session_id] = run

        async def last(failure: ComputerAgentError | None) -> dict[str, Any]:
            told = run.last(failure)
            await self._end(run)  # whoever has read the last frame finds its place and session id free
            return told

        relay = Relay(partial(run.begin, message), last, ends=run.seen)
        return RelayResponse(relay, headers={"x-session-id": session_id}, after=partial(self._end, run))

    async def artifact(self, call: Call) -> Response:
        """``GET /artifact``: a file of a live run."""
        if not call.query.path:
            raise MissingParamError("the query has no path", hint="Add &path=… to the address.")
        return await content(self._files(call), call.query.path)

    async def workdir(self, call: Call) -> Entries:
        """``GET /workdir``: what is in a live run's working directory."""
        return await listing(self._files(call), depth=3)

    async def decide(self, call: Call) -> Ok:
        """``POST /run/{sessionId}/permission/{callId}``."""
        run = self._find(call, call.path["session_id"])
        if run.session is None:
            raise NotFoundError("this run has not asked anything", hint="It has not begun yet.")
        body = call.body
        decision = PermissionDecision(decision=body.decision, input=body.input, reason=body.reason)
        await run.session.decide(call.path["call_id"], decision, by=answered_by(call))
        return Ok()

    async def close(self) -> None:
        """End all runs."""
        await asyncio.gather(*(self._end(run) for run in list(self._live.values())))

    def _files(self, call: Call) -> Workspace:
        session_id = call.query.session_id
        if not session_id:
            raise MissingParamError("the query has no sessionId", hint="Add ?sessionId=… to the address.")
        run = self._find(call, session_id)
        if run.session is None:
            raise NotFoundError("this run has no files yet", hint="It is being set up.")
        return run.session.files

    def _find(self, call: Call, session_id: str) -> Run:
        run = self._live.get((call.principal.id, session_id))
        if run is None:
            raise NotFoundError(
                f"session {session_id[:140]} is not running",
                hint="Files of a run are there while it lasts.",
                details={"sessionId": session_id[:140]},
            )
        return run

    async def _end(self, run: Run) -> None:
        """End a run whatever state it is in; who comes second waits for the first."""
        if run.closing is None:
            run.closing = asyncio.create_task(self._close(run))
        await asyncio.shield(run.closing)

    async def _close(self, run: Run) -> None:
        order = run.order
        try:
            await run.harness.close()
        except Exception as error:  # noqa: BLE001 - its place must become free
            _log.error("run_close_failed", session=run.session_id, error=repr(error))
        finally:
            await order.tenant.forget(run.session_id, transcript=order.store is None)
            del self._live[order.owner.id, run.session_id]
