"""`create_harness_server`: the harness protocol as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from computeragent import plugins
from computeragent.errors import ComputerAgentError, ProtocolVersionError, ValidationError
from computeragent.eventlog import EventLog, SharedEventLog
from computeragent.harness import LocalHarness
from computeragent.policy.config import AnyPolicy
from computeragent.protocol_types import Substrate
from computeragent.server import bodies
from computeragent.server.approvals import Approvals
from computeragent.server.auth import LOOPBACK, Authenticate, Gate
from computeragent.server.endpoint import FILE_LIMIT, Call, Endpoint, failed, http_error, told
from computeragent.server.errors import respond
from computeragent.server.files import Files
from computeragent.server.offer import Offer
from computeragent.server.openapi import document
from computeragent.server.peers import PeerGate
from computeragent.server.replicas import Elsewhere, Replicas
from computeragent.server.sessions import MAX_SESSIONS, Sessions
from computeragent.wire.events import PROTOCOL_VERSION

if TYPE_CHECKING:
    from computeragent.telemetry.audit import AuditSink
    from computeragent.telemetry.pipeline import Pipeline

PUBLIC = ("/health", "/v1/health", "/docs", "/v1/openapi.json")


def create_harness_server(
    *,
    engines: Sequence[str] | None = None,
    loaders: Sequence[str] | None = None,
    stores: Sequence[str] | None = None,
    auth: Authenticate | None = None,
    log: EventLog | None = None,
    audit_sinks: Sequence[AuditSink] = (),
    telemetry: Pipeline | None = None,
    allowed_hosts: Iterable[str] = LOOPBACK,
    session_ttl: float = 3600.0,
    max_sessions: int = MAX_SESSIONS,
    harness: LocalHarness | None = None,
    substrate: str | Substrate = "local",
    advertise: str | None = None,
    policy: AnyPolicy | None = None,
) -> Starlette:
    """The harness protocol, version `PROTOCOL_VERSION`, as an ASGI application.

    A server that stops waits for its streams, which last as long as their runs: ``await app.state.leave()`` ends them.

    Args:
        engines: The engines that may be asked for; default all that are registered.
        loaders: The identity loaders that may be asked for, likewise.
        stores: The session stores that may be asked for, likewise.
        auth: Who a bearer token is, such as `bearer(["…"])`. Without it everybody is let in: for loopback alone.
        log: Where events are kept; default in memory. With a `RedisEventLog` several servers share their sessions; it
            is closed with the server.
        audit_sinks: Are told of every run.
        telemetry: The pipeline that runs are told to; default the process's own.
        allowed_hosts: Host names that requests may be for; empty for any.
        session_ttl: Seconds after which an idle session that nobody uses is ended and forgotten.
        max_sessions: Sessions that may be under way here at a time; further ones are refused with 429.
        harness: Runs the sessions, in place of one made of `log`, `telemetry`, `audit_sinks` and `substrate`.
        substrate: Where engines run, such as ``"bwrap"``. A pool of it is filled before the server takes requests.
        policy: Judges every tool call of every session, beside the policy that a request brings along.
        advertise: Where the other servers on the log reach this one, such as ``http://10.0.0.5:7700``.

    """
    placed = plugins.resolve_substrate(substrate) if isinstance(substrate, str) else plugins.substrates.check(substrate)
    harness = harness or LocalHarness(
        log=log,
        substrate=placed,
        library_mode=False,
        telemetry=telemetry,
        audit_sinks=audit_sinks,
        policy=policy,
    )
    offer = Offer(engines=engines, loaders=loaders, stores=stores)
    replicas = _replicas(harness.log, advertise)
    sessions = Sessions(harness, ttl=session_ttl, most=max_sessions, offer=offer, replicas=replicas)
    endpoints = routes(sessions, offer)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        watching = replicas.watching(sessions) if replicas is not None else nullcontext()
        async with _pool(placed), watching:
            reaper = asyncio.create_task(sessions.reap())
            try:
                yield
            finally:
                reaper.cancel()
                await sessions.close()

    app = Starlette(
        routes=[*(each.route() for each in endpoints), *_documents(endpoints)],
        lifespan=lifespan,
        middleware=_middleware(sessions, replicas, auth, _hosts(allowed_hosts, advertise)),
        exception_handlers={
            ComputerAgentError: told,
            HTTPException: http_error,
            Exception: failed,
        },
    )
    app.state.leave = sessions.leave
    return app


ComputerAgentServer = create_harness_server


def _pool(substrate: Substrate) -> AbstractAsyncContextManager[Any]:
    """The substrate's pool for as long as the server runs, where it has one."""
    return substrate if isinstance(substrate, AbstractAsyncContextManager) else nullcontext()


def _replicas(log: EventLog, advertise: str | None) -> Replicas | None:
    """The other servers on a log; None where it has no others."""
    if isinstance(log, SharedEventLog):
        log.reached_at(advertise or "")
        return Replicas(log)
    if advertise is not None:
        raise ValidationError("only servers that share a log reach each other", hint="Give `log=RedisEventLog(…)`.")
    return None


def _hosts(allowed: Iterable[str], advertise: str | None) -> list[str]:
    """The host names that requests may be for, what other servers call this one included."""
    hosts = list(allowed)
    if advertise is None:
        return hosts
    parts = urlsplit(advertise)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValidationError(f"{advertise!r} is no address of a server", hint="Such as http://10.0.0.5:7700.")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return [*hosts, name] if hosts else []


def _middleware(
    sessions: Sessions, replicas: Replicas | None, auth: Authenticate | None, hosts: list[str]
) -> list[Middleware]:
    gate, versioned = Middleware(Gate, authenticate=auth, hosts=hosts, public=PUBLIC), Middleware(_Versioned)
    if replicas is None:
        return [gate, versioned]
    elsewhere = Middleware(Elsewhere, replicas=replicas, held=sessions)
    return [Middleware(PeerGate, log=replicas.log), gate, versioned, elsewhere]


def routes(sessions: Sessions, offer: Offer) -> list[Endpoint]:
    """Every route of the protocol."""
    files, open_, chat = Files(sessions), sessions.open, sessions.chat
    approvals, health = Approvals(sessions), partial(_health, offer)
    one, fs = "/v1/sessions/{session_id}", "/v1/sessions/{session_id}/fs"
    call = "{call_id:path}"  # the ids of some engines have slashes
    return [
        Endpoint("GET", "/health", health, "Health", answer=bodies.Health, public=True),
        Endpoint("GET", "/v1/health", health, "Health", answer=bodies.Health, public=True),
        Endpoint("GET", "/v1/capabilities", health, "What is here", answer=bodies.Health),
        Endpoint(
            "POST",
            "/v1/sessions",
            open_,
            "Open",
            body=bodies.OpenSession,
            answer=bodies.SessionOpened,
            status=201,
        ),
        Endpoint("GET", "/v1/sessions", sessions.listing, "Yours", query=bodies.Page, answer=bodies.SessionList),
        Endpoint("POST", "/v1/chat", chat, "One session, streamed and gone", body=bodies.OpenSession, stream=True),
        Endpoint("GET", one, sessions.state, "A session", answer=bodies.SessionState),
        Endpoint("DELETE", one, sessions.delete, "Delete a session", answer=bodies.Ok),
        Endpoint("GET", f"{one}/events", sessions.events, "Its events", query=bodies.After, stream=True),
        Endpoint("POST", f"{one}/messages", sessions.send, "Say", body=bodies.SendMessage, answer=bodies.Sent),
        Endpoint("POST", f"{one}/end-input", sessions.end_input, "No more messages", answer=bodies.Ok),
        Endpoint("POST", f"{one}/cancel", sessions.cancel, "End the run or turn", raw=True, answer=bodies.Cancelled),
        Endpoint("POST", f"{one}/permission/{call}", sessions.decide, "Answer", body=bodies.Decide, answer=bodies.Ok),
        Endpoint("GET", "/v1/approvals", approvals.listing, "Calls that wait for you", answer=bodies.ApprovalList),
        Endpoint("GET", f"{fs}/tree", files.tree, "A directory", query=bodies.Where, answer=bodies.Tree),
        Endpoint("GET", f"{fs}/file", files.read, "A file's bytes", query=bodies.Where),
        Endpoint(
            "PUT",
            f"{fs}/file",
            files.write,
            "Write a file",
            query=bodies.Where,
            answer=bodies.Written,
            raw=True,
            max_body=FILE_LIMIT,
        ),
        Endpoint("DELETE", f"{fs}/file", files.delete, "Remove a file", query=bodies.Where, answer=bodies.Ok),
        Endpoint("POST", f"{fs}/edit", files.edit, "Replace text", body=bodies.EditFile, answer=bodies.Edited),
        Endpoint("POST", f"{fs}/mkdir", files.mkdir, "Make a directory", body=bodies.MakeDirectory, answer=bodies.Ok),
        Endpoint("POST", f"{fs}/move", files.move, "Rename", body=bodies.MoveFile, answer=bodies.Ok),
    ]


class _Versioned:
    """ASGI middleware: refuses clients of another version of the protocol, except those that ask which it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] not in (*PUBLIC, "/v1/capabilities"):
            stated = Headers(scope=scope).get("x-protocol-version", PROTOCOL_VERSION)
            if stated != PROTOCOL_VERSION:
                app = respond(
                    ProtocolVersionError(
                        f"this server speaks protocol version {PROTOCOL_VERSION}, the client {stated[:20]!r}",
                        hint="Use a client of the same version.",
                    )
                )
        await app(scope, receive, send)


async def _health(offer: Offer, call: Call) -> bodies.Health:
    from importlib import metadata

    del call
    return bodies.Health(
        ok=True,
        version=metadata.version("computer-agent-py"),
        protocol_version=PROTOCOL_VERSION,
        engines={name: plugins.resolve_engine(name).capabilities for name in offer.engines.names},
        loaders=list(offer.loaders.names),
        stores=list(offer.stores.names),
    )


def _documents(endpoints: Sequence[Endpoint]) -> list[Route]:
    described = cache(partial(document, endpoints))  # made when first asked for

    async def openapi(_: Request) -> Response:
        return Response(described(), media_type="application/json")

    async def docs(_: Request) -> Response:
        from computeragent.server.api_page import page

        return Response(page(described(), "/v1/openapi.json"), media_type="text/html")

    return [Route("/v1/openapi.json", openapi, methods=["GET"]), Route("/docs", docs, methods=["GET"])]
