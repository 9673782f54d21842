"""Requests from one server to another on the same log, signed with a secret of theirs for the caller they speak for."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from computeragent.errors import ComputerAgentError, ReplicaError, UnauthorizedError
from computeragent.eventlog import SharedEventLog
from computeragent.eventlog.shared import Entry
from computeragent.server.auth import Principal
from computeragent.server.endpoint import FILE_LIMIT, read_body
from computeragent.server.errors import respond

FROM_PEER = "computeragent.peer"
"""In the scope of a request that another server has passed on."""
_PRINCIPAL, _SIGNATURE = "x-computeragent-principal", "x-computeragent-peer"
_PASSED_ON = ("accept", "content-type", "idempotency-key", "x-protocol-version")
_PASSED_BACK = ("content-type", "x-content-type-options", "www-authenticate")


class PeerGate:
    """ASGI middleware: a request that another server has signed is its principal's; one badly signed is refused."""

    def __init__(self, app: ASGIApp, *, log: SharedEventLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, with the principal that a peer speaks for."""
        if scope["type"] == "http" and (given := Request(scope).headers.get(_SIGNATURE)) is not None:
            try:
                principal = await self._vouched_for(Request(scope), given)
            except ComputerAgentError as error:
                await respond(error)(scope, receive, send)
                return
            scope = {**scope, "computeragent.principal": principal, FROM_PEER: True}
        await self._app(scope, receive, send)

    async def _vouched_for(self, request: Request, given: str) -> Principal:
        principal = unquote(request.headers.get(_PRINCIPAL, ""))
        secret = await self._log.peer_secret()
        expected = _signature(secret, request.method, _target(request.scope), principal, self._log.mark)
        if not hmac.compare_digest(given.encode("latin-1"), expected.encode()):
            raise UnauthorizedError("this is not signed by a server of ours", hint="Send a bearer token instead.")
        return Principal(principal)


class Peers:
    """Passes requests on to the server that runs their session."""

    def __init__(self, log: SharedEventLog) -> None:
        import httpx2  # what it needs, servers that share nothing do not

        self._log = log
        timeout = httpx2.Timeout(60.0, connect=5.0)  # a cancel waits until the engine has let go
        self._http = httpx2.AsyncClient(timeout=timeout, trust_env=False)

    async def forward(self, entry: Entry, request: Request, principal: Principal) -> Response:
        """What the session's server answers. Raises `ReplicaError` when it cannot be reached."""
        if not entry.address or FROM_PEER in request.scope:
            raise _unreachable(entry, "it has said no address" if not entry.address else "it has moved on")
        body = await read_body(request, FILE_LIMIT)
        target = _target(request.scope)
        signature = _signature(await self._log.peer_secret(), request.method, target, principal.id, entry.ran_on)
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        headers |= {_PRINCIPAL: quote(principal.id, safe=""), _SIGNATURE: signature}
        import httpx2

        base = httpx2.URL(entry.address)
        url = base.copy_with(raw_path=base.raw_path.rstrip(b"/") + target)
        try:
            answer = await self._http.request(request.method, url, content=body, headers=headers)
        except httpx2.TransportError as error:
            raise _unreachable(entry, type(error).__name__) from error
        kept = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
        return Response(answer.content, answer.status_code, kept)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _target(scope: Scope) -> bytes:
    """Path and query of a request as they were sent, from ``/v1/`` on: what is before it may differ between servers."""
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    query: bytes = scope["query_string"]
    path = path[max(path.find(b"/v1/"), 0) :]
    return path + b"?" + query if query else path


def _signature(secret: bytes, method: str, target: bytes, principal: str, mark: str) -> str:
    """Good for one request of one principal to one server."""
    said = b"\n".join((method.encode(), target, quote(principal, safe="").encode(), mark.encode()))
    return hmac.new(secret, said, hashlib.sha256).hexdigest()


def _unreachable(entry: Entry, why: str) -> ReplicaError:
    return ReplicaError(
        f"the server that runs session {entry.session_id} cannot be reached: {why}",
        hint="Try again in a few seconds: if it is gone, its run is ended. Check --advertise if it is not.",
    )
