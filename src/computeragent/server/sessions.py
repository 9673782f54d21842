"""Handlers of sessions: open, look, list, stream, send, decide, cancel, delete."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from starlette.background import BackgroundTask
from starlette.responses import Response

from computeragent.errors import NotFoundError, SessionEndedError, TooManySessionsError, ValidationError
from computeragent.harness import LocalHarness
from computeragent.harness.session import LocalSession
from computeragent.ids import check_session_id, new_id
from computeragent.logs import Logger
from computeragent.protocol_types import SessionRequest
from computeragent.server.answers import answered_by
from computeragent.server.auth import ANONYMOUS, Principal
from computeragent.server.bodies import (
    Cancelled,
    CancelScope,
    Ok,
    OpenSession,
    Sent,
    SessionList,
    SessionOpened,
    SessionState,
)
from computeragent.server.endpoint import Call, decoded, json_response
from computeragent.server.offer import Offer
from computeragent.server.policies import allowed_options, allowed_policy, on_behalf_of
from computeragent.server.replicas import Replicas
from computeragent.server.stream import EventStreamResponse, resume_point
from computeragent.wire.events import PROTOCOL_VERSION, CaSessionStarted
from computeragent.wire.identity import IdentitySource, LocalSource
from computeragent.wire.requests import PermissionDecision, StoreConfig, UserInput

DEFAULT_ENGINE = "claude-agent-sdk"
MAX_SESSIONS = 10_000
"""Runs that one server has under way at a time, unless it is told otherwise."""
_KEPT_KEYS = 10_000
_FURTHEST = 1_000_000_000  # of any list
_log = Logger("server")


@dataclass(slots=True)
class Held:
    """A session of this server: who owns it, and what it said of itself."""

    session: LocalSession
    owner: str
    project: str
    started: CaSessionStarted
    remembers: bool  # in a store that outlives it
    used: float = field(default_factory=time.monotonic)


class Sessions:
    """The sessions of one server, at most so many under way at a time.

    One that has been idle, and that nobody has used, for `ttl` seconds is let go.
    """

    def __init__(
        self,
        harness: LocalHarness,
        *,
        ttl: float = 3600.0,
        most: int = MAX_SESSIONS,
        offer: Offer,
        replicas: Replicas | None = None,
    ) -> None:
        self.harness = harness
        self._replicas = replicas
        self._ttl = ttl
        self._most = most
        self._opening = 0
        self._offer = offer
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._doors: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._answers: OrderedDict[tuple[str, str, str], asyncio.Future[Any]] = OrderedDict()

    # ── Handlers ──

    async def open(self, call: Call) -> Response:
        """``POST /v1/sessions``: 201, or the stream itself."""
        body: OpenSession = call.body
        wants_stream = body.identity is None or "text/event-stream" in call.request.headers.get("accept", "")
        if wants_stream and "idempotency-key" not in call.request.headers:
            return self._streamed(await self._opened(call, body), delete=False)
        opened = await self._once(call, "open", lambda: self._opened_answer(call, body))
        return await self._stream_of(opened) if wants_stream else json_response(opened, 201)

    async def chat(self, call: Call) -> Response:
        """``POST /v1/chat``: the stream of a session that is gone with it."""
        return self._streamed(await self._opened(call, call.body), delete=True)

    async def events(self, call: Call) -> Response:
        """``GET …/events``: the stream, from the start of the run or after an id."""
        held = self._find(call)
        after = resume_point(call.request.headers.get("last-event-id"), call.query.last_event_id)
        return EventStreamResponse(held.session.events(after))

    async def state(self, call: Call) -> SessionState:
        """``GET /v1/sessions/{id}``."""
        return _state(self._find(call))

    async def listing(self, call: Call) -> SessionList:
        """``GET /v1/sessions``: the caller's own, newest first."""
        limit, offset = call.query.limit, call.query.offset
        if not 1 <= limit <= 500 or not 0 <= offset <= _FURTHEST:
            raise ValidationError(
                f"limit is 1 to 500, offset 0 to {_FURTHEST}", hint="Leave them out for the first 50."
            )
        if self._replicas is not None:
            states, has_more = await self._replicas.listing(call.principal, limit, offset)
            return SessionList(sessions=states, next=offset + limit if has_more else None)
        own = self.of(call.principal)[::-1]
        page = own[offset : offset + limit]
        more = offset + limit if offset + limit < len(own) else None
        return SessionList(sessions=[_state(held) for held in page], next=more)

    async def send(self, call: Call) -> Response:
        """``POST …/messages``: queued; the answer names the turn that it will be."""
        held = self._find(call)

        async def send() -> Sent:
            return Sent(turn_index=await held.session.send(call.body.message))

        return json_response(await self._once(call, "send", send))

    async def end_input(self, call: Call) -> Ok:
        """``POST …/end-input``: the run ends when the turns that wait are done."""
        await self._find(call).session.end_input()
        return Ok()

    async def cancel(self, call: Call) -> Cancelled:
        """``POST …/cancel``: ends the run, or a turn."""
        held = self._find(call)
        scope = decoded(call.raw, CancelScope) if call.raw.strip() else CancelScope()
        if scope.scope == "turn":
            return Cancelled(withdrawn=await held.session.interrupt(scope.turn_index))
        if held.session.ended is None:
            await held.session.cancel()
        return Cancelled()

    async def decide(self, call: Call) -> Ok:
        """``POST …/permission/{callId}``: the first answer wins."""
        body = call.body
        decision = PermissionDecision(decision=body.decision, input=body.input, reason=body.reason)
        await self._find(call).session.decide(call.path["call_id"], decision, by=answered_by(call))
        return Ok()

    async def delete(self, call: Call) -> Ok:
        """``DELETE /v1/sessions/{id}``: ends what runs, and forgets the session."""
        held = self._find(call)
        await self._forget(held)
        return Ok()

    def workspace(self, call: Call) -> Any:
        """The working directory of the session that a call is about."""
        return self._find(call).session.files

    # ── Life ──

    async def reap(self) -> None:
        """Let go of sessions that are finished or idle and that nobody has used for long; runs for ever."""
        while True:
            await asyncio.sleep(min(60.0, self._ttl))
            now = time.monotonic()
            for session_id, held in list(self._held.items()):
                if not held.session.idle:
                    held.used = now
                elif held.used < now - self._ttl:
                    await self._let_go(held)
                    _log.info("session_expired", session=session_id)

    async def leave(self) -> None:
        """End what runs, so that its streams end with it, and cut those of sessions that run elsewhere."""
        if self._replicas is not None:
            self._replicas.leave()
        await asyncio.gather(*(held.session.close() for held in list(self._held.values())))

    async def close(self) -> None:
        """End all sessions."""
        self._held.clear()
        await self.harness.close()

    @property
    def replicas(self) -> Replicas | None:
        """The other servers on the log; None where it has no others."""
        return self._replicas

    def of(self, principal: Principal) -> list[Held]:
        """A principal's sessions that are here, oldest first."""
        return [held for held in self._held.values() if held.owner == principal.id]

    def has(self, session_id: str) -> bool:
        """Whether a session is here, running or not."""
        return session_id in self._held

    def runs(self, session_id: str) -> bool:
        """Whether a session's run is going on here."""
        held = self._held.get(session_id)
        return held is not None and held.session.ended is None

    async def drop(self, session_id: str) -> None:
        """Let go of a session whose run is over, and that went on elsewhere."""
        if self.has(session_id) and not self.runs(session_id):
            await self._held.pop(session_id).session.close()

    async def free(self, session_id: str, principal: Principal) -> None:
        """Remove the folder that a session of an earlier server has left here."""
        async with self._door(session_id):
            if not self.has(session_id):
                await self.harness.forget(session_id, _project(principal))

    async def _forget(self, held: Held) -> None:
        """Delete a session: its events, and what only it had."""
        await self._let_go(held, delete=True)

    async def _let_go(self, held: Held, *, delete: bool = False) -> None:
        """Close a session and free its folder. A log that nobody else reads forgets it, too; others to `delete`."""
        name = held.session.id
        async with self._door(name):
            if self._held.get(name) is not held:
                return  # it is gone already, or its next run has begun
            del self._held[name]
            await held.session.close()
            if not held.remembers:
                await self.harness.forget(name, held.project, transcript=True)
            if self._replicas is None:
                with suppress(NotFoundError):
                    await self.harness.log.delete(name)
            elif delete:
                await self._replicas.deleted(name)

    def _door(self, session_id: str) -> asyncio.Lock:
        """One opens a session, or lets it go, at a time."""
        return self._doors.setdefault(session_id, asyncio.Lock())

    def _find(self, call: Call) -> Held:
        """The session of a call. One of somebody else's does not exist."""
        session_id = call.path["session_id"]
        held = self._held.get(session_id)
        if held is None or held.owner != call.principal.id:
            raise NotFoundError(f"session {session_id[:140]} not found", hint="GET /v1/sessions lists yours.")
        held.used = time.monotonic()
        return held

    async def _opened(self, call: Call, body: OpenSession) -> Held:
        request, messages = self._request(body, call.principal)
        self._require_room()
        self._opening += 1
        try:
            async with self._door(str(request.session_id)):
                held = await self._begun(request, call.principal)
        finally:
            self._opening -= 1
        with suppress(SessionEndedError):  # an engine that failed at once has said so in the stream
            for message in messages:
                await held.session.send(message)
        if not body.streaming_input:
            await held.session.end_input()
        return held

    def _require_room(self) -> None:
        """Raises `TooManySessionsError` where as many runs are under way as there may be."""
        if len(self._held) + self._opening < self._most:
            return
        active = self._opening + sum(1 for held in self._held.values() if held.session.ended is None)
        if active >= self._most:
            raise TooManySessionsError(
                f"{active} sessions of at most {self._most} are under way",
                hint="Try again when one has ended.",
                details={"active": active, "max": self._most},
            )

    async def _begun(self, request: SessionRequest, principal: Principal) -> Held:
        """A session whose run has begun; other servers have been told."""
        replicas, session_id = self._replicas, request.session_id
        assert session_id is not None
        previous = self._held.get(session_id)
        if previous is not None and previous.owner != principal.id:
            raise NotFoundError(f"session {session_id} not found", hint="Choose another session id.")
        if replicas is not None:
            await replicas.reserve(session_id, principal)
        try:
            session = await self.harness.open(request)
        except BaseException:
            if replicas is not None:
                await replicas.log.unreserve(session_id)
            raise
        try:
            stream = session.events()
            try:
                first = (await anext(stream)).event
            finally:
                stream.close()
            assert isinstance(first, CaSessionStarted)
            if replicas is not None:
                await replicas.opened(session_id, principal, first)
        except BaseException:
            await session.close()
            raise
        store = request.session_store
        remembers = isinstance(store, StoreConfig) and store.kind != "memory"
        held = self._held[session_id] = Held(session, principal.id, request.project_key, first, remembers)
        self._held.move_to_end(session_id)
        return held

    def _request(self, body: OpenSession, principal: Principal) -> tuple[SessionRequest, list[UserInput]]:
        """What a body asks for, in either form."""
        source = body.identity.source if body.identity is not None else body.source
        if source is None:
            raise ValidationError(
                "the request names no agent", hint="Send identity.source, or source: a git address or a folder."
            )
        messages = list(body.messages)
        if body.message is not None:
            said = UserInput(content=body.message) if isinstance(body.message, str) else body.message
            messages.append(said)
        if not messages and not body.streaming_input:
            raise ValidationError("the request has no message", hint="Send message, messages, or streamingInput: true.")
        engine = body.engine or body.harness or DEFAULT_ENGINE
        if body.engine and body.harness and body.engine != body.harness:
            raise ValidationError("engine and harness name two engines", hint="Send one of them; they mean the same.")
        self._offer.engines.require(engine)
        loader = body.identity.loader if body.identity is not None else None
        if loader is not None:
            self._offer.loaders.require(loader)
        if body.session_store is not None:
            self._offer.stores.require(body.session_store.kind)
            if body.session_store.options and not principal.local:
                raise ValidationError(
                    "where a session store keeps its data is the server's to say", hint="Send its kind alone."
                )
        request = SessionRequest(
            source=_source(source, principal),
            engine=engine,
            identity_loader=loader,
            envs=body.envs,
            options=allowed_options(body.options, principal),
            model=body.model,
            session_id=check_session_id(body.session_id) if body.session_id is not None else new_id("session"),
            session_store=body.session_store,
            project_key=_project(principal),
            attachments=body.attachments,
            budget_max_usd=body.budget_max_usd,
            approval_timeout=body.approval_timeout or SessionRequest.approval_timeout,
            policy=allowed_policy(body.policy, principal),
            principal=on_behalf_of(principal, body.policy),
            hosted=body.hosted,
        )
        return request, messages

    async def _opened_answer(self, call: Call, body: OpenSession) -> SessionOpened:
        held = await self._opened(call, body)
        return SessionOpened(
            session_id=held.session.id,
            engine=held.started.engine,
            identity=held.started.identity,
            capabilities=held.started.capabilities,
            events_url=f"/v1/sessions/{held.session.id}/events",
            protocol_version=PROTOCOL_VERSION,
        )

    def _streamed(self, held: Held, *, delete: bool) -> Response:
        response = EventStreamResponse(held.session.events(), headers={"x-session-id": held.session.id})

        async def after() -> None:
            if delete:
                await self._forget(held)

        response.background = BackgroundTask(after)
        return _then(response)

    async def _stream_of(self, opened: SessionOpened | msgspec.Raw) -> Response:
        """The stream of a session that was opened under a key, just now or by an earlier request."""
        if isinstance(opened, msgspec.Raw):
            opened = msgspec.json.decode(opened, type=SessionOpened)
        name, held = opened.session_id, self._held.get(opened.session_id)
        if held is not None:
            return self._streamed(held, delete=False)
        if self._replicas is None:
            raise NotFoundError(f"session {name} not found", hint="It was deleted since it was opened.")
        return EventStreamResponse(await self._replicas.stream(name), headers={"x-session-id": name})

    async def _once(self, call: Call, what: str, do: Callable[[], Any]) -> Any:
        """Do it; with an ``Idempotency-Key``, once for all requests that have the same. What came of it."""
        key = call.request.headers.get("idempotency-key")
        if not key:
            return await do()
        place = (call.principal.id, f"{what} {call.path.get('session_id', '')}", key)
        if what == "open" and self._replicas is not None:
            do = partial(self._replicas.once, place, do)
        future = self._answers.get(place)
        if future is None:
            future = self._answers[place] = asyncio.ensure_future(do())
            future.add_done_callback(partial(self._forget_failed, place))
            while len(self._answers) > _KEPT_KEYS:
                self._answers.popitem(last=False)
        return await asyncio.shield(future)

    def _forget_failed(self, place: tuple[str, str, str], done: asyncio.Future[Any]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._answers.pop(place, None)


class _then(Response):  # noqa: N801 - a response that runs its background task also when its client has left
    def __init__(self, inner: EventStreamResponse) -> None:
        super().__init__()
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._inner(scope, receive, send)
        finally:
            if self._inner.background is not None:
                await asyncio.shield(self._inner.background())


def _project(principal: Principal) -> str:
    """Under which name a caller's sessions are remembered: nobody resumes what somebody else has said."""
    return "computeragent" if principal == ANONYMOUS else f"computeragent:{principal.id}"


def _source(given: str | IdentitySource, principal: Principal) -> IdentitySource:
    """Where the agent comes from. Folders of this machine are for whoever runs it."""
    if not isinstance(given, LocalSource):
        from computeragent.identity.sources import parse_source  # an engine host, which has its folder, does without

        given = parse_source(given)
    if isinstance(given, LocalSource) and not principal.local:
        raise ValidationError("folders of this server are not offered to agents", hint="Use a git or inline source.")
    return given


def _state(held: Held) -> SessionState:
    return SessionState(
        session_id=held.session.id,
        engine=held.started.engine,
        identity=held.started.identity,
        status=held.session.status,
        newest=held.session.newest,
        pending_calls=held.session.pending_calls,
    )
