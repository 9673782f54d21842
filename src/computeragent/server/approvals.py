"""Approvals: the tool calls that wait for an answer, of all sessions of whoever asks, on all servers of a log."""

from __future__ import annotations

import asyncio

import msgspec

from computeragent.errors import ComputerAgentError
from computeragent.eventlog.shared import Entry
from computeragent.harness.permissions import Pending
from computeragent.logs import Logger
from computeragent.server.auth import Principal
from computeragent.server.bodies import Approval, ApprovalList
from computeragent.server.endpoint import Call
from computeragent.server.peers import FROM_PEER
from computeragent.server.replicas import Replicas
from computeragent.server.sessions import Held, Sessions
from computeragent.server.times import iso

_PAGE = 500
_log = Logger("server")
_lists = msgspec.json.Decoder(ApprovalList)


class Approvals:
    """Lists what waits. It is answered where its session is: ``POST /v1/sessions/{id}/permission/{callId}``."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def listing(self, call: Call) -> ApprovalList:
        """``GET /v1/approvals``: the caller's own."""
        found = [
            _approval(held, pending) for held in self._sessions.of(call.principal) for pending in held.session.waiting
        ]
        unreachable: list[str] = []
        replicas = self._sessions.replicas
        if replicas is not None and FROM_PEER not in call.request.scope:
            await call.request.body()  # read once, for all that it is passed on to
            elsewhere = await self._elsewhere(replicas, call.principal)
            for answer in await asyncio.gather(*(self._asked(replicas, call, each) for each in elsewhere)):
                found += answer.approvals
                unreachable += answer.unreachable
        found.sort(key=lambda approval: (approval.asked_at, approval.call_id))
        return ApprovalList(approvals=found, unreachable=unreachable)

    async def _elsewhere(self, replicas: Replicas, principal: Principal) -> list[list[Entry]]:
        """Sessions in which calls wait, by the server that runs them; without this one."""
        servers: dict[str, list[Entry]] = {}
        offset, more = 0, True
        while more:
            entries, more = await replicas.log.listing(principal.id, _PAGE, offset)
            offset += _PAGE
            for entry in entries:
                if entry.pending and entry.ran_on != replicas.log.mark and entry.held_alive:
                    servers.setdefault(entry.ran_on, []).append(entry)
        return list(servers.values())

    async def _asked(self, replicas: Replicas, call: Call, entries: list[Entry]) -> ApprovalList:
        """What waits on another server."""
        try:
            response = await replicas.peers.forward(entries[0], call.request, call.principal)
            if response.status_code == 200:
                return _lists.decode(bytes(response.body))
            _log.warn("approvals_not_told", status=response.status_code)
        except (ComputerAgentError, msgspec.DecodeError) as error:
            _log.warn("approvals_not_told", error=str(error))
        return ApprovalList(approvals=[], unreachable=[entry.session_id for entry in entries])


def _approval(held: Held, pending: Pending) -> Approval:
    asked = pending.request
    return Approval(
        session_id=held.session.id,
        call_id=asked.call_id,
        tool_name=asked.tool_name,
        input=asked.input,
        asked_at=iso(pending.asked_at),
        expires_at=iso(pending.expires_at),
        agent=held.started.identity.name,
        risk=asked.risk,
        policy=asked.policy,
        reason=asked.reason,
        turn_index=asked.turn_index,
    )
