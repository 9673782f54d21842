"""`RemoteHarness`: sessions on a server, used like those of this process."""

from __future__ import annotations

import asyncio
from typing import Any

from computeragent.client.files import RemoteWorkspace
from computeragent.client.harness_client import HarnessClient
from computeragent.errors import ComputerAgentError, HarnessProtocolError, NotFoundError, NotRemotableError
from computeragent.eventlog import Channel, ChannelStream, MemoryEventLog, Retention, SessionSummary
from computeragent.protocol_types import SessionRequest
from computeragent.wire.events import CaSessionEnded
from computeragent.wire.requests import PermissionDecision, StoreConfig, UserInput

_ENDING = 30.0


class RemoteHarness:
    """Opens sessions on a harness server; implements `Harness`."""

    def __init__(self, client: HarnessClient) -> None:
        self._client = client
        self._log = MemoryEventLog()
        self._sessions: set[RemoteSession] = set()

    async def open(self, request: SessionRequest) -> RemoteSession:
        """Open a session there. Raises `NotRemotableError` for what cannot travel, and what the server refuses."""
        opened = await self._client.create_session(request_body(request))
        session_id = str(opened["sessionId"])
        replica = Channel(self._log, SessionSummary(session_id), retention=Retention())
        session = RemoteSession(self._client, replica)
        self._sessions.add(session)
        await session.begin()
        return session

    async def close(self) -> None:
        """Close what is open, and the connections."""
        await asyncio.gather(*(session.close() for session in list(self._sessions)), return_exceptions=True)
        await self._client.aclose()


class RemoteSession:
    """A session on a server; implements `Session`. One connection feeds a replica of the current run's events."""

    def __init__(self, client: HarnessClient, channel: Channel) -> None:
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
        """See `Session.send`."""
        return await self._client.send_message(self.id, message)

    def events(self, after: int | None = None) -> ChannelStream:
        """See `Session.events`."""
        return self._channel.stream(after)

    async def decide(self, call_id: str, decision: PermissionDecision, *, by: str = "manual") -> None:
        """See `Session.decide`; the server notes its principal as who decided."""
        del by
        await self._client.decide_permission(
            self.id, call_id, decision.decision, input=decision.input, reason=decision.reason
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
        except NotFoundError:
            pass
        finally:
            await self._wait_over()
            if self._pump is not None:
                self._pump.cancel()

    async def _wait_over(self) -> None:
        try:
            async with asyncio.timeout(_ENDING):
                await self._over.wait()
        except TimeoutError:
            self._break_off(HarnessProtocolError(f"session {self.id} did not end in {_ENDING:g} s"))


def request_body(request: SessionRequest) -> dict[str, Any]:
    """A request as the wire spells it. Raises `NotRemotableError` for objects of this process."""
    engine = _named(request.engine, "engine")
    loader = request.identity_loader
    store = request.session_store
    for name in ("policy", "git_credentials"):
        if getattr(request, name) is not None:
            raise NotRemotableError(f"{name} is an object of this process", hint=f"Configure {name} on the server.")
    if isinstance(store, str):
        store = StoreConfig(kind=store)
    elif store is not None and not isinstance(store, StoreConfig):
        raise NotRemotableError("session_store is an object of this process", hint="Name one that the server has.")
    identity: dict[str, Any] = {"source": request.source}
    if loader is not None:
        identity["loader"] = _named(loader, "identity_loader")
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
        "sessionStore": store,
        "budgetMaxUsd": request.budget_max_usd,
        "hosted": request.hosted,
    }
    return body | {key: value for key, value in optional.items() if value is not None}


def _named(choice: object, what: str) -> str:
    if isinstance(choice, str):
        return choice
    raise NotRemotableError(f"{what} is an object of this process", hint="Name one that the server has.")
