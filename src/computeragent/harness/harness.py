"""`LocalHarness`: opens sessions in this process. Finds the agent, its engine and its memory, and starts the run."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from computeragent import credentials, plugins
from computeragent.errors import UnsupportedRuntimeError, ValidationError
from computeragent.eventlog import Channel, EventLog, MemoryEventLog
from computeragent.harness.hosted import HostedEngine
from computeragent.harness.session import GRACE, LocalSession
from computeragent.harness.workspace import LocalWorkspace
from computeragent.ids import check_session_id, new_id
from computeragent.logs import Logger
from computeragent.policy.config import AnyPolicy, SessionPolicy, session_policy, shared_policy
from computeragent.policy_types import PolicyEngine, PolicyResource
from computeragent.protocol_types import (
    AgentManifest,
    EngineContext,
    EngineDriver,
    IdentityLoader,
    SessionRequest,
    Substrate,
    SubstrateHandle,
)
from computeragent.settings import home
from computeragent.stores.binding import BoundStore, engine_session_id, resolve_store
from computeragent.wire.events import CaSessionEnded
from computeragent.wire.identity import LocalSource
from computeragent.wire.requests import Attachment

if TYPE_CHECKING:
    from computeragent.harness.told import RunTelemetry
    from computeragent.identity.sources import Fetched
    from computeragent.protocol_types import SessionStore  # at run time this would import the whole SDK
    from computeragent.telemetry.audit import AuditSink
    from computeragent.telemetry.pipeline import Pipeline

_log = Logger("harness")
_GIT_SECRETS = frozenset({"GITHUB_TOKEN", "GIT_TOKEN"})
_SESSION_KEY: Any = {"project_key": "", "session_id": ""}  # a bound store means its session whatever the key
_CAMEL = re.compile(r"(?<=[a-z0-9])([A-Z])")


@dataclass(frozen=True, slots=True)
class _Agent:
    """An agent on disk: what was fetched, who it is, and whether the caller owns it."""

    fetched: Fetched
    manifest: AgentManifest
    trusted: bool


class LocalHarness:
    """Runs engines in this process; implements `Harness`.

    `log` keeps the events (default: in memory), `substrate` is where engines run (default ``local``).
    `library_mode` is True in the caller's own process: a local source is used in place and trusted; otherwise the
    agent works on a copy. `progress` is told about long work, such as a clone. Runs are told to `telemetry` (default:
    the process's own pipeline) and, one event after the other, to each of `audit_sinks`. Each session has a folder of
    its id in `work` (default: ``work`` in the state folder, where other projects have other folders).
    `policy` judges the calls of all sessions, beside their own; `owns_policy` has an engine closed with the harness.
    """

    hosts = False  # whether it runs what another harness has prepared

    def __init__(
        self,
        *,
        log: EventLog | None = None,
        substrate: Substrate | None = None,
        library_mode: bool = True,
        progress: Callable[[str], None] | None = None,
        telemetry: Pipeline | None = None,
        audit_sinks: Sequence[AuditSink] = (),
        grace: float = GRACE,
        work: Path | None = None,
        policy: AnyPolicy | None = None,
        owns_policy: bool = False,
    ) -> None:
        self.log: EventLog = log if log is not None else MemoryEventLog()
        self._owns_log = log is None
        self._substrate = substrate
        self._library_mode = library_mode
        self._progress = progress
        self._telemetry = telemetry
        self._audit = None if self.hosts else _audit_pipeline(audit_sinks)
        self._grace = grace
        self._work = work
        self._policy = None if policy is None else shared_policy(policy)
        self._owns_policy = owns_policy or self._policy is not policy
        self._sessions: dict[str, LocalSession] = {}

    async def open(self, request: SessionRequest) -> LocalSession:
        """Start a session's next run. Raises a `ComputerAgentError` for anything that the request gets wrong."""
        _require_asyncio()
        if request.hosted is not None and not self.hosts:
            raise ValidationError("this is no engine host", hint="Leave `hosted` out.")
        engine = _engine(request.engine)
        loader = _loader(request.identity_loader)
        store = _store(request.session_store)
        session_id = new_id("session") if request.session_id is None else check_session_id(request.session_id)
        previous = self._sessions.get(session_id)
        if previous is not None and previous.ended is not None:
            await previous.wait()
        channel = await self.log.open(session_id)
        is_new = not self._folder(session_id, request.project_key).exists()
        try:
            session = await self._start(request, engine, loader, store, channel)
        except BaseException:
            if is_new:
                await self.forget(session_id, request.project_key)
            await self.log.release(channel)
            raise
        self._sessions[session_id] = session
        return session

    def session(self, session_id: str) -> LocalSession | None:
        """A session that was opened here and not closed yet."""
        return self._sessions.get(session_id)

    async def forget(
        self, session_id: str, project_key: str = SessionRequest.project_key, *, transcript: bool = False
    ) -> None:
        """Remove the folder of a session that is closed and will not come back.

        With `transcript`, the ``memory`` store forgets it, too.
        """
        await asyncio.to_thread(shutil.rmtree, self._folder(session_id, project_key), ignore_errors=True)
        if transcript:
            await _store(None).delete({"project_key": project_key, "session_id": session_id})

    async def close(self) -> None:
        """Close every session, and the log unless it was handed in."""
        await asyncio.gather(*(session.close() for session in list(self._sessions.values())))
        if self._audit is not None:
            await self._audit.aclose()
        if self._owns_policy and isinstance(self._policy, PolicyEngine):
            await self._policy.aclose()
        if self._owns_log:
            await self.log.close()

    async def _start(
        self,
        request: SessionRequest,
        engine: EngineDriver,
        loader: IdentityLoader | None,
        store: SessionStore,
        channel: Channel,
    ) -> LocalSession:
        from computeragent.harness.told import run_telemetry

        end_interrupted_run(channel)
        work = self._folder(channel.session_id, request.project_key)
        agent = await self._identify(request, engine, loader, work)
        bound = _bind(store, request, channel.session_id)
        resumed = request.session_id is not None and await _remembers(bound)
        envs = {name: value for name, value in request.envs.items() if name not in _GIT_SECRETS}
        await _attach(LocalWorkspace(agent.fetched.path), request.attachments)
        substrate = self._substrate or plugins.resolve_substrate("local")
        state_dir = _state_dir(work)
        keys = credentials.of_process() if self._library_mode else {}
        placed = await substrate.boot(
            workspace=agent.fetched.path, state_dir=state_dir, envs={**keys, **envs}, limits={}
        )
        options = _merge(agent.manifest, request)
        told = self._pipelines()
        telemetry = run_telemetry(told, request, {**options, "env": request.envs})
        cwd = placed.inside.get(placed.workspace_path, str(placed.workspace_path))
        policy: SessionPolicy | None = None
        try:
            policy = session_policy(
                [self._policy, request.policy],
                principal=request.principal,
                resource=_resource(agent.manifest, request, engine, options, channel.session_id),
                cwd=cwd,
            )
            if placed.harness is not None:
                engine = HostedEngine(request.engine, engine, placed, options)
            session = LocalSession(
                channel=channel,
                engine=engine,
                workspace=placed.files or LocalWorkspace(placed.workspace_path),
                policy=policy,
                approval_timeout=request.approval_timeout,
                released=partial(self._release, channel, placed, policy, telemetry),
                closed=partial(self._discard, channel.session_id, None if _comes_back(request) else (work, bound)),
                telemetry=telemetry,
                grace=self._grace,
            )
            context = EngineContext(
                session_id=channel.session_id,
                manifest=agent.manifest,
                workspace_path=placed.workspace_path,
                envs=envs,
                options=options,
                user_message_queue=session.turns,
                on_permission_request=session.chain.ask,
                cancel_event=session.cancel_event,
                interrupt_event=session.interrupt_event,
                state_dir=state_dir,
                session_store=cast("SessionStore", bound),
                project_key=request.project_key,
                budget_max_usd=_lowest(request.budget_max_usd, *(pipeline.cost_ceiling_usd for pipeline in told)),
                approval_timeout=request.approval_timeout,
                trusted=agent.trusted,
                library_mode=self._library_mode,
                strict=policy is not None or not self._library_mode,
            )
            session.start(context, resumed=resumed, cwd=cwd)
        except BaseException:
            if policy is not None:
                await policy.aclose()
            await placed.close()
            raise
        _log.info("session_start", session=session.id, engine=engine.name, agent=agent.manifest.name, resumed=resumed)
        return session

    def _folder(self, session_id: str, project_key: str) -> Path:
        """A session's folder. In the folder that all share, the same id in another project is another one."""
        if self._work is not None:
            return self._work / session_id
        if project_key == SessionRequest.project_key:
            return home("work") / session_id
        return home("work") / f"{session_id}@{hashlib.sha256(project_key.encode()).hexdigest()[:16]}"

    def _pipelines(self) -> list[Pipeline]:
        """Who is told of a run that begins now."""
        from computeragent.telemetry.config import get_pipeline

        told = [self._telemetry or get_pipeline(), self._audit]
        return [pipeline for pipeline in told if pipeline is not None and pipeline.active]

    async def _release(
        self,
        channel: Channel,
        placed: SubstrateHandle,
        policy: SessionPolicy | None,
        telemetry: RunTelemetry | None,
    ) -> None:
        """A run has ended: commit its events, have it told, give the session back to the log, stop the substrate."""
        try:
            await channel.flush()
            if telemetry is not None:
                await telemetry.finish()
        finally:
            try:
                if policy is not None:
                    await policy.aclose()
                await self.log.release(channel)
            finally:
                await placed.close()

    async def _discard(self, session_id: str, leftovers: tuple[Path, BoundStore] | None) -> None:
        """A session is closed: forget it, and delete the folder and transcript of one that cannot come back."""
        session = self._sessions.get(session_id)
        if session is not None and session.ended is not None:
            del self._sessions[session_id]
        if leftovers is not None:
            work, bound = leftovers
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
            await bound.delete(_SESSION_KEY)

    async def _identify(
        self, request: SessionRequest, engine: EngineDriver, loader: IdentityLoader | None, work: Path
    ) -> _Agent:
        """Bring the source to disk and read who the agent is."""
        from computeragent.identity.loading import default_loader
        from computeragent.identity.sources import fetch

        fetched = await fetch(
            request.source,
            into=work / "source",
            git_credentials=request.git_credentials,
            envs=request.envs,
            in_place=self._library_mode,
            progress=self._progress,
        )
        trusted = self._library_mode and isinstance(request.source, LocalSource)
        chosen = loader or plugins.resolve_identity_loader(default_loader(fetched.path))
        manifest = await chosen.load(
            source=request.source,
            target_engine=engine.name,
            workspace_path=fetched.path,
            state_dir=_state_dir(work),
            trusted=trusted,
        )
        for note in manifest.notes:
            _log.warn("manifest_note", agent=manifest.name, note=note)
            if self._progress is not None:
                self._progress(f"note: {note}")
        return _Agent(fetched, replace(manifest, sha=manifest.sha or fetched.sha), trusted)


def _audit_pipeline(sinks: Sequence[AuditSink]) -> Pipeline | None:
    """The pipeline of audit sinks. Telemetry and sources are imported by who prepares sessions: engine hosts do not."""
    from computeragent.telemetry.audit import audit_pipeline

    return audit_pipeline(sinks)


def end_interrupted_run(channel: Channel) -> None:
    """Write the end of a run whose process was killed before it could: every run has exactly one."""
    if channel.live:
        channel.append(
            CaSessionEnded(
                session_id=channel.session_id,
                reason="error",
                error_message="the process that ran this session ended before the run did",
                error_code="INTERRUPTED",
            )
        )


def _require_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise UnsupportedRuntimeError(
            "ComputerAgent runs under asyncio only",
            hint="Under trio use computeragent.query, or run the agent in a thread with asyncio.run().",
        ) from None


def _engine(choice: str | EngineDriver) -> EngineDriver:
    return plugins.resolve_engine(choice) if isinstance(choice, str) else plugins.engines.check(choice)


def _loader(choice: str | IdentityLoader | None) -> IdentityLoader | None:
    if choice is None:
        return None
    return (
        plugins.resolve_identity_loader(choice) if isinstance(choice, str) else plugins.identity_loaders.check(choice)
    )


def _store(choice: object) -> SessionStore:
    store = resolve_store("memory" if choice is None else choice)
    assert store is not None
    return store


def _bind(store: SessionStore, request: SessionRequest, session_id: str) -> BoundStore:
    engine_id = engine_session_id(session_id)
    return BoundStore(store, project_key=request.project_key, session_id=session_id, engine_id=engine_id)


async def _remembers(bound: BoundStore) -> bool:
    """Whether the store holds anything of its session."""
    return bool(await bound.load(_SESSION_KEY))


def _lowest(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _comes_back(request: SessionRequest) -> bool:
    """Whether the session can be opened again later, so that its folder must stay."""
    return request.session_id is not None or request.session_store is not None


def _resource(
    manifest: AgentManifest, request: SessionRequest, engine: EngineDriver, options: Mapping[str, Any], session_id: str
) -> PolicyResource:
    """The agent, as policies see it."""
    attributes = {"engine": engine.name, "agent_id": request.agent_id, "version": manifest.version, "sha": manifest.sha}
    return PolicyResource(
        agent_name=request.agent_name or manifest.name,
        model=str(options.get("model") or ""),
        session_id=session_id,
        attributes={name: value for name, value in attributes.items() if value is not None},
    )


def _state_dir(work: Path) -> Path:
    path = work / "state"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def _merge(manifest: AgentManifest, request: SessionRequest) -> dict[str, Any]:
    """Options by precedence: the manifest's, then `model`, then the caller's; `harden` has the last word."""
    merged: dict[str, Any] = _snake_case(manifest.options)
    if request.model is not None:
        merged["model"] = request.model
    merged.update(_snake_case(request.options))
    return manifest.harden(merged)


def _snake_case(options: Mapping[str, Any]) -> dict[str, Any]:
    return {_CAMEL.sub(r"_\1", key).lower() if key.isidentifier() else key: value for key, value in options.items()}


async def _attach(workspace: LocalWorkspace, attachments: Sequence[Attachment]) -> None:
    for attachment in attachments:
        if attachment.encoding == "base64":
            try:
                data = base64.b64decode(attachment.content, validate=True)
            except binascii.Error as error:
                raise ValidationError(
                    f"attachment {attachment.path!r} is not valid base64",
                    hint="Encode the file's bytes with base64, or send text with encoding 'utf8'.",
                ) from error
        else:
            data = attachment.content.encode("utf-8", "replace")
        await workspace.write(attachment.path, data)
