"""`HostHarness`: the harness in a sandbox. It runs an engine that a harness outside has prepared, and judges nothing.

No policy, no memory beyond the run, no telemetry, no keys: a tool call waits until the outside has answered, and
what the engine wants remembered is told outside.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from msgspec import Raw

from computeragent.errors import ValidationError
from computeragent.eventlog import Channel, MemoryEventLog, Retention
from computeragent.harness.harness import LocalHarness
from computeragent.harness.hosted import TRANSCRIPT
from computeragent.harness.session import LocalSession
from computeragent.harness.workspace import LocalWorkspace
from computeragent.protocol_types import AgentManifest, EngineContext, EngineDriver, IdentityLoader, SessionRequest
from computeragent.stores.binding import BoundStore, engine_session_id
from computeragent.stores.memory import MemorySessionStore
from computeragent.wire.encoding import to_json
from computeragent.wire.events import UnknownEvent
from computeragent.wire.identity import LocalSource
from computeragent.wire.requests import HostedRun

if TYPE_CHECKING:
    from claude_agent_sdk import SessionStoreEntry

    from computeragent.protocol_types import SessionStore


class HostHarness(LocalHarness):
    """Opens sessions that say how they were prepared (`SessionRequest.hosted`), in place, and no others."""

    hosts = True

    def __init__(self) -> None:
        # The reader outside keeps up or is gone; what it has read need not stay.
        super().__init__(log=MemoryEventLog(Retention(max_events=256, max_age=5.0)), library_mode=False)

    async def _start(
        self,
        request: SessionRequest,
        engine: EngineDriver,
        loader: IdentityLoader | None,
        store: SessionStore,
        channel: Channel,
    ) -> LocalSession:
        del loader, store
        prepared, source = request.hosted, request.source
        if prepared is None or not isinstance(source, LocalSource):
            raise ValidationError(
                "an engine host runs prepared sessions only", hint="Send it sessions through a harness and a substrate."
            )
        workspace = LocalWorkspace(Path(source.path))
        session = LocalSession(
            channel=channel,
            engine=engine,
            workspace=workspace,
            policy=None,
            approval_timeout=prepared.approval_timeout,
            released=partial(self.log.release, channel),
            closed=partial(self._forget, channel.session_id),
        )
        memory = await _memory(prepared, channel.session_id, session)
        context = EngineContext(
            session_id=channel.session_id,
            manifest=AgentManifest(name=prepared.name, version=prepared.version, sha=prepared.sha),
            workspace_path=workspace.root,
            envs=request.envs,
            options=request.options,
            user_message_queue=session.turns,
            on_permission_request=session.chain.ask,
            cancel_event=session.cancel_event,
            interrupt_event=session.interrupt_event,
            state_dir=Path(prepared.state_dir),
            session_store=cast("SessionStore", memory),
            project_key=prepared.project_key,
            budget_max_usd=request.budget_max_usd,
            approval_timeout=prepared.approval_timeout,
            trusted=prepared.trusted,
            library_mode=False,
            strict=prepared.strict,
        )
        session.start(context, resumed=bool(prepared.transcripts))
        return session

    async def _forget(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)


async def _memory(prepared: HostedRun, session_id: str, session: LocalSession) -> BoundStore:
    """The engine's store here: what was remembered before, and a word outside about all that is added."""
    kept = MemorySessionStore()

    def tell(subpath: str | None, entries: list[SessionStoreEntry]) -> None:
        told: dict[str, Any] = {"kind": TRANSCRIPT, "sessionId": session_id, "entries": entries}
        if subpath is not None:
            told["subpath"] = subpath
        session.record(UnknownEvent(kind=TRANSCRIPT, session_id=session_id, raw=Raw(to_json(told))))

    for transcript in prepared.transcripts:
        key: Any = {"project_key": prepared.project_key, "session_id": session_id}
        if transcript.subpath is not None:
            key["subpath"] = transcript.subpath
        await kept.append(key, cast("Any", transcript.entries))
    return BoundStore(
        cast("SessionStore", kept),
        project_key=prepared.project_key,
        session_id=session_id,
        engine_id=engine_session_id(session_id),
        appended=tell,
    )
