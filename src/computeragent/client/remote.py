"""`RemoteHarness`: sessions on a server, used like those of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from computeragent.client.files import RemoteWorkspace
from computeragent.client.harness_client import HarnessClient
from computeragent.client.telling import Telling
from computeragent.errors import (
    ComputerAgentError,
    HarnessProtocolError,
    NotFoundError,
    NotRemotableError,
    ValidationError,
)
from computeragent.eventlog import Channel, ChannelStream, MemoryEventLog, Retention, SessionSummary
from computeragent.harness.told import RunTelemetry
from computeragent.logs import Logger
from computeragent.protocol_types import SessionRequest
from computeragent.wire.events import CaSessionEnded, EndReason
from computeragent.wire.policy import CedarPolicyConfig, PolicyConfig, RulesPolicyConfig
from computeragent.wire.requests import PermissionDecision, StoreConfig, UserInput

DEFAULT_TIMEOUT = SessionRequest.approval_timeout
_ENDING = 30.0
_log = Logger("client")


class RemoteHarness:
    """Opens sessions on a harness server; implements `Harness`. `telling` is who hears of its runs here."""

    def __init__(self, client: HarnessClient, telling: Telling | None = None) -> None:
        self._client = client
        self._log = MemoryEventLog()
        self._telling = telling or Telling()
        self._sessions: set[RemoteSession] = set()
        self._leaving: set[asyncio.Task[None]] = set()

    async def open(self, request: SessionRequest) -> RemoteSession:
        """Open a session there. Raises `NotRemotableError` for what cannot travel, and what the server refuses."""
        body = request_body(request)
        if request.agent_id is not None:
            _log.debug("agent_id_stays_here", hint="the harness protocol carries none; telemetry_pipeline is told it")
        creating = asyncio.ensure_future(self._client.create_session(body))
        try:
            opened = await asyncio.shield(creating)
        except asyncio.CancelledError:
            self._later(self._undo(creating))
            raise
        session_id = str(opened["sessionId"])
        replica = Channel(self._log, SessionSummary(session_id), retention=Retention())
        session = RemoteSession(self._client, replica, self._sessions.discard)
        self._sessions.add(session)
        try:
            await session.begin()
        except BaseException:
            self._later(session.close())
            raise
        session.telemetry = self._telling.follow(session, request)
        return session

    async def close(self) -> None:
        """Close what is open, and the connections. Raises what the server refuses."""
        closing = [session.close() for session in list(self._sessions)]
        results = await asyncio.gather(*closing, return_exceptions=True)
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=_ENDING)
        for task in self._leaving:
            task.cancel()
        await self._telling.close()
        await self._client.aclose()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _undo(self, creating: asyncio.Future[dict[str, Any]]) -> None:
        """Delete a session whose opener was cancelled meanwhile."""
        opened = await creating
        await self._client.delete_session(str(opened["sessionId"]))

    def _later(self, ending: Coroutine[Any, Any, None]) -> None:
        """Let something end that nobody waits for."""

        async def end() -> None:
            try:
                await ending
            except ComputerAgentError as error:
                _log.warn("session_not_ended", error=error.message)

        task = asyncio.create_task(end())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


class RemoteSession:
    """A session on a server; implements `Session`. One connection feeds a replica of the current run's events."""

    def __init__(
        self, client: HarnessClient, channel: Channel, closed: Callable[[RemoteSession], None] | None = None
    ) -> None:
        self.telemetry: RunTelemetry | None = None
        self._closed = closed
        self.id = channel.session_id
        self.files = RemoteWorkspace(client, self.id)
        self.ended: CaSessionEnded | None = None
        self._client = client
        self._channel = channel
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Follow the run that has begun; returns when its first event is here."""
        self._pump = asyncio.create_task(self._follow(), name=f"remote {self.id}")
        await self._begun.wait()
        if self._channel.failure is not None:
            raise self._channel.failure

    async def _follow(self) -> None:
        try:
            async for recorded in self._client.stream_events(self.id):
                self._channel.replicate(recorded)
                self._begun.set()
                if isinstance(recorded.event, CaSessionEnded):
                    self.ended = recorded.event
        except ComputerAgentError as error:
            self._break_off(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, readers must not wait for ever
            self._break_off(HarnessProtocolError(f"the event stream of {self.id} broke: {error!r}"))
        finally:
            self._begun.set()
            self._over.set()

    def _break_off(self, error: ComputerAgentError) -> None:
        if self.ended is not None:
            return
        self.ended = CaSessionEnded(
            session_id=self.id, reason="error", error_message=error.message, error_code=error.code
        )
        self._channel.broke(error)

    # ── Session ──

    @property
    def cost_so_far(self) -> float:
        """The running total in US dollars that the engine has reported in this run."""
        return self._channel.summary.cumulative_usd

    @property
    def newest(self) -> int:
        """The newest event id that is here."""
        return self._channel.newest

    async def send(self, message: UserInput) -> int:
        """See `Session.send`. However often it must be tried, it is said once."""
        turn = await self._client.send_message(self.id, message)
        if self.telemetry is not None:
            self.telemetry.sent(turn)
        return turn

    def events(self, after: int | None = None) -> ChannelStream:
        """See `Session.events`."""
        return self._channel.stream(after)

    async def decide(self, call_id: str, decision: PermissionDecision, *, by: str = "manual") -> None:
        """See `Session.decide`; the server notes its principal as who decided, with `by` beside it."""
        await self._client.decide_permission(
            self.id,
            call_id,
            decision.decision,
            input=decision.input,
            reason=decision.reason,
            by=None if by == "manual" else by,
        )

    async def interrupt(self, turn_index: int | None = None) -> bool:
        """See `Session.interrupt`."""
        if self.ended is not None:
            return False
        return await self._client.cancel(self.id, scope="turn", turn_index=turn_index)

    async def end_input(self) -> None:
        """See `Session.end_input`."""
        await self._client.end_input(self.id)

    async def cancel(self) -> None:
        """See `Session.cancel`."""
        if self.ended is None:
            await self._client.cancel(self.id)
        await self._wait_over()

    async def close(self) -> None:
        """See `Session.close`: the session is gone from the server as well."""
        try:
            await self._client.delete_session(self.id)
            await self._wait_over()
        except NotFoundError:
            pass
        except HarnessProtocolError as error:
            _log.warn("session_not_deleted", session=self.id, error=error.message)
        finally:
            await self._stop()
            if self.telemetry is not None:
                await self.telemetry.finish()
            if self._closed is not None:
                self._closed(self)

    def stop(self, reason: EndReason, message: str, code: str) -> None:
        """End the run: a guard of this process says so. The server records it as cancelled."""
        _log.warn("run_stopped", session=self.id, reason=reason, message=message, code=code)
        self._stopping = asyncio.ensure_future(self.cancel())

    async def _stop(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait({self._pump})
        if self.ended is None:
            self._break_off(HarnessProtocolError(f"session {self.id} was closed before its end was heard of"))

    async def _wait_over(self) -> None:
        try:
            async with asyncio.timeout(_ENDING):
                await self._over.wait()
        except TimeoutError:
            self._break_off(HarnessProtocolError(f"session {self.id} did not end in {_ENDING:g} s"))


def request_body(request: SessionRequest) -> dict[str, Any]:
    """A request as the wire spells it. Raises `NotRemotableError` for objects of this process."""
    engine = named(request.engine, "engine")
    loader = request.identity_loader
    if request.git_credentials is not None:
        raise NotRemotableError(
            "git_credentials is an object of this process", hint="Configure git_credentials on the server."
        )
    if request.project_key != SessionRequest.project_key and request.hosted is None:
        raise NotRemotableError("project_key is the server's to choose", hint="Leave it out.")
    identity: dict[str, Any] = {"source": request.source}
    if loader is not None:
        identity["loader"] = named(loader, "identity_loader")
    body: dict[str, Any] = {
        "engine": engine,
        "identity": identity,
        "streamingInput": True,
        "envs": dict(request.envs),
        "options": dict(request.options),
        "attachments": list(request.attachments),
    }
    optional = {
        "model": request.model,
        "sessionId": request.session_id,
        "sessionStore": travelling_store(request.session_store),
        "budgetMaxUsd": request.budget_max_usd,
        "hosted": request.hosted,
        "policy": travelling_policy(request),
        "approvalTimeout": None if request.approval_timeout == DEFAULT_TIMEOUT else request.approval_timeout,
    }
    return body | {key: value for key, value in optional.items() if value is not None}


def named(choice: object, what: str) -> str:
    """A choice by name. Raises `NotRemotableError` for an object."""
    if isinstance(choice, str):
        return choice
    raise NotRemotableError(f"{what} is an object of this process", hint="Name one that the server has.")


def travelling_policy(request: SessionRequest) -> PolicyConfig | None:
    """A request's policy as the wire carries it: a file of this machine travels as its text.

    Raises `NotRemotableError` for an object, and `ValidationError` for a file that cannot be read.
    """
    policy = request.policy
    if request.principal is not None:
        raise NotRemotableError("the principal is the server's to say", hint="Leave it out: it is who the token is.")
    if policy is not None and not isinstance(policy, PolicyConfig):
        raise NotRemotableError(
            "policy is an object of this process",
            hint="Pass it as data, such as {'kind': 'rules', 'text': …}, or give the server one.",
        )
    if not isinstance(policy, RulesPolicyConfig | CedarPolicyConfig) or policy.path is None:
        return policy
    try:
        text = Path(policy.path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValidationError(f"the policy {policy.path} cannot be read: {error}", hint="Check its path.") from None
    return msgspec.structs.replace(policy, path=None, text=text)


def travelling_store(store: object) -> StoreConfig | None:
    """A session store as the wire names it. Raises `NotRemotableError` for an object."""
    if isinstance(store, str):
        return StoreConfig(kind=store)
    if store is None or isinstance(store, StoreConfig):
        return store
    raise NotRemotableError("session_store is an object of this process", hint="Name one that the server has.")
