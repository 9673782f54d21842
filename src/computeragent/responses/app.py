"""`create_responses_server`: `/responses` as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from computeragent.errors import ComputerAgentError, HttpError, NotFoundError
from computeragent.harness import LocalHarness
from computeragent.policy.config import AnyPolicy
from computeragent.responses import bodies
from computeragent.responses.held import MAX_LIVE
from computeragent.responses.people import People, PersonAnswer
from computeragent.responses.service import Responses
from computeragent.server.auth import LOOPBACK, Authenticate, Gate
from computeragent.server.endpoint import Call, Endpoint, json_response
from computeragent.server.openapi import document
from computeragent.server.stream import EventStreamResponse, resume_point

if TYPE_CHECKING:
    from computeragent.responses.peers import PeerChoice
    from computeragent.responses.resolving import Offered
    from computeragent.telemetry.audit import AuditSink
    from computeragent.telemetry.pipeline import Pipeline

MAX_BODY = 64 * 1024 * 1024
"""Bytes of a request: a transcript with its screenshots."""
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}  # OpenAI's names
PUBLIC = ("/health", "/docs", "/openapi.json", "/human")


def create_responses_server(
    *,
    auth: Authenticate | None = None,
    allowed_hosts: Iterable[str] = LOOPBACK,
    offered: Offered | None = None,
    policy: AnyPolicy | None = None,
    audit_sinks: Sequence[AuditSink] = (),
    telemetry: Pipeline | None = None,
    max_live: int = MAX_LIVE,
    peer: PeerChoice | None = None,
) -> Starlette:
    """The computer-use proxy as an ASGI application.

    A server that stops ends what is under way first: ``await app.state.leave()``.

    Args:
        auth: Who a bearer token or ``X-API-Key`` is, such as `server.auth.bearer(["…"])`. Without it everybody is let
            in: for loopback alone.
        allowed_hosts: Host names that requests may be for; empty for any.
        offered: Which computers and models may be asked for; default `Offered()`.
        policy: Judges every action of every response.
        audit_sinks: Are told of every run.
        telemetry: The pipeline that runs are told to; default the process's own.
        max_live: Responses that may be under way at a time; further ones are refused with 429.
        peer: Serve over WebRTC as well, as this peer.

    """
    harness = LocalHarness(library_mode=False, telemetry=telemetry, audit_sinks=audit_sinks, policy=policy)
    responses = Responses(harness, offered=offered, most=max_live)
    endpoints = routes(responses, People())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            responses.start()
            stack.push_async_callback(responses.close)
            if peer is not None:
                from computeragent.responses.peers import serving

                await stack.enter_async_context(serving(peer, responses))
            yield

    app = Starlette(
        routes=[*(each.route() for each in endpoints), *_documents(endpoints)],
        lifespan=lifespan,
        middleware=[
            Middleware(_KeyHeader),
            Middleware(Gate, authenticate=auth, hosts=list(allowed_hosts), public=PUBLIC),
        ],
        exception_handlers={ComputerAgentError: _told, HTTPException: _refused, Exception: _failed},
    )
    app.state.leave = responses.leave
    app.state.responses = responses
    return app


def routes(responses: Responses, people: People) -> list[Endpoint]:
    """Every route. Under ``/v1`` the answers are plain response objects, as OpenAI's clients read them."""
    views = Views(responses)
    found = [
        Endpoint("GET", "/health", _health, "Health", public=True),
        Endpoint("GET", "/human", people.page, "Where a person answers as the model human/human", public=True),
        Endpoint("GET", "/human/pending", people.pending, "What waits for a person"),
        Endpoint("POST", "/human/{request_id}", people.answer, "Answer as the model", body=PersonAnswer),
    ]
    for root in ("", "/v1"):
        one = f"{root}/responses/{{response_id}}"
        plain = bool(root)
        found += [
            Endpoint(
                "POST",
                f"{root}/responses",
                partial(views.create, plain),
                "Have something done on a computer",
                body=bodies.CreateResponse,
                raw=True,
                max_body=MAX_BODY,
            ),
            Endpoint("GET", one, views.get, "A response; with ?stream=true its events", query=bodies.Listed),
            Endpoint("DELETE", one, views.delete, "Cancel a response that is under way, or forget one that is not"),
            Endpoint("POST", f"{one}/cancel", views.cancel, "Cancel a response"),
            Endpoint(
                "POST",
                f"{one}/approvals/{{call_id:path}}",
                views.approve,
                "Answer an action that waits for a person's word",
                body=bodies.Approve,
            ),
        ]
    return found


class Views:
    """The routes of `/responses`."""

    def __init__(self, responses: Responses) -> None:
        self._responses = responses

    async def create(self, plain: bool, call: Call) -> Response:
        """`POST /responses`."""
        body = bodies.read(call.raw)
        try:
            request = bodies.create_from(body)
            can_ask = request.stream or request.background
            run = self._responses.create(request, call.principal, can_ask=can_ask)
        except ComputerAgentError as error:
            return _problem(error, bodies.model_of(body), plain=plain)
        if request.background:
            if request.stream:
                return EventStreamResponse(run.stream())
            return json_response(run.as_dict() if plain else bodies.envelope(run.as_dict()))
        if request.stream:
            return _Foreground(run.stream(), run.cancel)
        gone = await self._responses.until_done(run, call.request)
        if gone:
            return Response(status_code=499)  # nobody reads it
        told = run.as_dict()
        if plain:
            return json_response(told)
        return json_response(bodies.envelope(told), bodies.status_of(told))

    async def get(self, call: Call) -> Response:
        """`GET /responses/{id}`."""
        run = self._responses.find(call.path["response_id"], call.principal)
        query: bodies.Listed = call.query
        if not query.stream:
            return json_response(run.as_dict())
        header = resume_point(call.request.headers.get("last-event-id"), None)
        after = query.starting_after if query.starting_after is not None else header
        return EventStreamResponse(run.stream(-1 if after is None else after))

    async def delete(self, call: Call) -> dict[str, Any]:
        """`DELETE /responses/{id}`."""
        run = self._responses.find(call.path["response_id"], call.principal)
        if not run.done.is_set():
            await run.cancel()
            return run.as_dict()
        self._responses.forget(run)
        return {"id": run.id, "object": "response.deleted", "deleted": True}

    async def cancel(self, call: Call) -> dict[str, Any]:
        """`POST /responses/{id}/cancel`."""
        run = self._responses.find(call.path["response_id"], call.principal)
        await run.cancel()
        return run.as_dict()

    async def approve(self, call: Call) -> dict[str, Any]:
        """`POST /responses/{id}/approvals/{call_id}`."""
        run = self._responses.find(call.path["response_id"], call.principal)
        await run.approve(call.path["call_id"], call.body, call.principal.id)
        return {"ok": True}


class _Foreground(EventStreamResponse):
    """The stream of a response that lives as long as somebody reads it."""

    def __init__(self, stream: Any, stop: Any) -> None:
        super().__init__(stream)
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; a reader who leaves before its end stops the work."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            if not self.complete:
                await self._stop()


class _KeyHeader:
    """ASGI middleware: ``X-API-Key`` says the same as a bearer token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            key = headers.get(b"x-api-key")
            if key and b"authorization" not in headers:
                scope["headers"] = [*scope["headers"], (b"authorization", b"Bearer " + key)]
        await self._app(scope, receive, send)


def _problem(error: ComputerAgentError, model: str | None, *, plain: bool) -> Response:
    if plain:
        kind = "server_error" if error.status >= 500 else _KINDS.get(error.status, "invalid_request_error")
        wire = {"message": error.message, "type": kind, "param": None, "code": error.code}
        return json_response({"error": {**wire, **({"hint": error.hint} if error.hint else {})}}, error.status)
    return json_response(bodies.failure(error, model), error.status)


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, ComputerAgentError)
    return _problem(error, None, plain=request.url.path.startswith("/v1/"))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return await _told(request, NotFoundError(f"there is no {request.url.path}", hint="See /docs."))
    response = await _told(request, HttpError(str(error.detail), hint="See /docs."))
    response.status_code = error.status_code
    return response


async def _failed(request: Request, error: Exception) -> Response:
    from computeragent.server.endpoint import failed

    return await failed(request, error)


async def _health(call: Call) -> dict[str, str]:
    del call
    return {"status": "healthy"}


def _documents(endpoints: Sequence[Endpoint]) -> list[Route]:
    described = cache(partial(document, endpoints, title="computeragent responses"))

    async def openapi(_: Request) -> Response:
        return Response(described(), media_type="application/json")

    async def docs(_: Request) -> Response:
        from computeragent.server.api_page import page

        return Response(page(described(), "/openapi.json"), media_type="text/html")

    return [Route("/openapi.json", openapi, methods=["GET"]), Route("/docs", docs, methods=["GET"])]
