"""`ComputerAgent`: an agent as its user holds it."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from computeragent.agent_input import (
    AgentInput,
    attachment,
    environment,
    loader_choice,
    one_engine,
    policy_choice,
    principal_choice,
    store_choice,
)
from computeragent.approval import default_answer
from computeragent.chat import ChatHandle
from computeragent.chat_input import ChatInput
from computeragent.chat_result import ChatResult
from computeragent.errors import NotFoundError, ValidationError
from computeragent.eventlog import EventLog
from computeragent.identity.sources import parse_source
from computeragent.ids import check_session_id
from computeragent.logs import Logger, configure_logging
from computeragent.placement import Placement, complete, place
from computeragent.policy.config import AnyPolicy
from computeragent.protocol_types import (
    Attachment,
    EngineDriver,
    FileEntry,
    IdentityLoader,
    IdentitySource,
    PermissionRequest,
    PolicyDecider,
    PolicyPrincipal,
    Session,
    SessionRequest,
    StoreConfig,
    Substrate,
    ToolCallback,
    Workspace,
)
from computeragent.settings import setting
from computeragent.telemetry.audit import AuditSink
from computeragent.telemetry.pipeline import Pipeline
from computeragent.wire.events import HarnessEvent
from computeragent.wire.requests import PermissionDecision

if TYPE_CHECKING:
    from computeragent.protocol_types import SessionStore  # at run time this would import the whole SDK

_log = Logger("client")


class ComputerAgent:
    """An agent: define it once, talk to it turn by turn.

    Args:
        source: A directory (`Path`, or text starting with ``/``, ``./``, ``../`` or ``~``), a git repository
            (``github.com/org/repo``, any git URL, ``?ref=`` for a branch, tag or commit), or a dict of type
            ``git``, ``local`` or ``inline``. A local directory is used in place. May be left out with `agent_id`.
        engine: How it thinks: a registered name or an `EngineDriver`. `harness` is another word for it.
        runtime: Where it runs: a registered substrate or a `Substrate`. ``local`` is this process.
        identity_loader: Who reads the agent's definition. Default: ``gap`` where there is an agent.yaml, else
            ``passthrough``.
        session_store: What remembers: a name (``memory``, ``file``, ``sqlite``), ``{"kind", "options"}``, or any
            object of upstream's `SessionStore` protocol. Default ``memory``.
        session_id: The session to open or resume; generated when absent.
        agent_id: The agent's id at AgentOS, which outlives its name; default ``COMPUTERAGENT_AGENT_ID``. Without
            `source` the agent that is registered under it runs; what is given here wins. Its runs must be told to
            AgentOS or to `telemetry_pipeline`.
        agent_name, agent_description: What telemetry calls it; default what the agent calls itself.
        model, temperature: Override agent.yaml; ``options["model"]`` overrides `model`.
        base_url: An Anthropic-compatible endpoint, in place of the provider's.
        options: The engine's own options; for Claude the fields of `ClaudeAgentOptions`.
        envs: Environment variables for the engine. ``GITHUB_TOKEN`` and ``GIT_TOKEN`` go to git alone.
        attachments: Files written into the working directory before the engine starts.
        on_tool_call: Decides tool calls: sync or async, gets a `PermissionRequest`, returns a decision.
            Without it (and without a policy) calls are allowed, except destructive ones.
        policy: Judges every call before anyone is asked: the path of a rules (.yaml) or Cedar (.cedar) file, a dict
            such as ``{"kind": "opa", "url": …, "policyPath": …}``, a `PolicyEngine`, or a `PolicyDecider`.
            `policy_decider` is another word for it.
        principal: On whose behalf the agent acts, for the policy: a name or a `PolicyPrincipal`. Default: the user of
            this process. A server takes it from the credential instead.
        telemetry: An object with `AgentTelemetry` hooks.
        telemetry_pipeline: Is told of every run; default: the process's own pipeline, see `configure`.
        audit_sinks: Are told of every run as well, each with one method ``emit(event)``; redacted, in order.
        git_credentials: A resolver of ``{"username", "token"}`` by repository URL, for private repositories.
        budget_max_usd: Ends the run when it has cost more.
        approval_timeout: Seconds that a tool call waits for an answer before it is denied.
        event_log: Keeps the events; default in memory.
        harness_url: A server that runs the agent, in place of this process. Default: ``COMPUTERAGENT_HARNESS_URL``,
            unless `runtime` or an engine object is given.
        harness_kind: What is there: ``protocol`` (a harness server), ``server`` (a sandbox server, where `runtime` is
            its substrate) or ``auto``, which asks. Default: ``COMPUTERAGENT_HARNESS_KIND``, else ``auto``.
        harness_token: The key for it and for AgentOS. Default: ``COMPUTERAGENT_HARNESS_TOKEN``, then, on loopback, the
            token that a server of this account has made.
        harness_auth: A user and password, for servers that want those.
        progress: Told about long work, such as a clone.
        debug: Logs every event to stderr, as ``COMPUTERAGENT_LOG=debug`` does.

    Raises a `ComputerAgentError` at once for what can be seen at once, at the first `chat` for the rest.

    """

    def __init__(
        self,
        *,
        source: IdentitySource | Mapping[str, Any] | str | Path | None = None,
        engine: str | EngineDriver | None = None,
        harness: str | None = None,
        runtime: str | Substrate | None = None,
        identity_loader: str | IdentityLoader | None = None,
        session_store: str | StoreConfig | Mapping[str, Any] | SessionStore | None = None,
        session_id: str | None = None,
        agent_id: str | None = None,
        agent_name: str | None = None,
        agent_description: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        base_url: str | None = None,
        options: Mapping[str, Any] | None = None,
        envs: Mapping[str, str] | None = None,
        attachments: Sequence[Attachment | Mapping[str, Any]] = (),
        on_tool_call: ToolCallback | None = None,
        policy: AnyPolicy | None = None,
        policy_decider: PolicyDecider | None = None,
        principal: PolicyPrincipal | str | None = None,
        telemetry: Any = None,
        telemetry_pipeline: Pipeline | None = None,
        audit_sinks: Sequence[AuditSink] = (),
        git_credentials: Callable[[str], Any] | None = None,
        budget_max_usd: float | None = None,
        approval_timeout: float = 600.0,
        project_key: str = "computeragent",
        event_log: EventLog | None = None,
        harness_url: str | None = None,
        harness_kind: Literal["auto", "protocol", "server"] | None = None,
        harness_token: str | None = None,
        harness_auth: tuple[str, str] | None = None,
        progress: Callable[[str], None] | None = None,
        debug: bool = False,
    ) -> None:
        configure_logging("debug" if debug else None)
        registered_as = setting("agent_id", agent_id)
        if source is None and registered_as is None:
            raise ValidationError("an agent needs a source or an agent_id", hint="Pass source=, or agent_id=.")
        chosen = dict(options or {})
        if temperature is not None:
            chosen.setdefault("temperature", temperature)
        given = AgentInput(
            source=None if source is None else parse_source(source),
            engine=one_engine(engine, harness),
            model=model,
            policy=policy_choice(policy, policy_decider),
            principal=principal_choice(principal),
            session_id=check_session_id(session_id) if session_id is not None else None,
            agent_id=registered_as,
            agent_name=agent_name,
            agent_description=agent_description,
            identity_loader=loader_choice(identity_loader),
            session_store=store_choice(session_store),
            envs=environment(envs, base_url),
            options=chosen,
            attachments=[attachment(item) for item in attachments],
            git_credentials=git_credentials,
            budget_max_usd=budget_max_usd,
            approval_timeout=approval_timeout,
            project_key=project_key,
        )
        where = Placement(
            runtime=runtime,
            harness_url=harness_url,
            harness_kind=harness_kind,
            harness_token=harness_token,
            harness_auth=harness_auth,
            asks=on_tool_call is not None,
            event_log=event_log,
            progress=progress,
            telemetry=telemetry_pipeline,
            audit_sinks=audit_sinks,
        )
        self._harness, self._given = place(given, where)
        self._where = where
        self._request: SessionRequest | None = None
        self._on_tool_call = on_tool_call
        self._telemetry = telemetry
        self._session: Session | None = None
        self._fresh = False
        self._handles: set[ChatHandle] = set()  # those that somebody reads, or read and broke off
        self._opening = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()
        self._disposed = False
        self._announced = False

    # ── Talking ──

    def chat(self, message: ChatInput) -> ChatHandle:
        """One turn: iterate the handle for its events, or await it for its result.

        Turns of one agent run one after another. A turn whose iteration was broken off is interrupted as soon as
        another one waits for it, and nothing of it appears in the next.
        """
        return ChatHandle(self, message)

    @property
    def session_id(self) -> str | None:
        """The session's id, once there is one."""
        return self._session.id if self._session is not None else self._given.session_id

    async def cancel(self) -> None:
        """End the run at once. The next `chat` starts the session's next run."""
        if self._session is not None:
            await self._session.cancel()

    async def dispose(self) -> None:
        """End the session and free what it holds. Part of ``async with``; safe to call again."""
        if self._disposed:
            return
        self._disposed = True
        async with self._opening:  # a session that is being opened right now is closed like any other
            try:
                if self._session is not None:
                    await self._session.close()
            finally:
                await self._harness.close()
        await self.tell("on_close")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.dispose()

    # ── Files ──

    async def fetch_artifact(self, path: str) -> bytes | None:
        """The bytes of a file in the agent's working directory, or None when there is none."""
        files = await self._files()
        try:
            return await files.read(path)
        except NotFoundError:
            return None

    async def fetch_artifact_text(self, path: str) -> str | None:
        """The same as text; bytes that are not UTF-8 become U+FFFD."""
        data = await self.fetch_artifact(path)
        return None if data is None else data.decode("utf-8", "replace")

    async def write_artifact(self, path: str, data: bytes | str) -> int:
        """Write a file into the working directory; returns its size in bytes."""
        files = await self._files()
        return await files.write(path, data.encode() if isinstance(data, str) else data)

    async def list_workdir(self, path: str = ".", *, depth: int = 1) -> list[FileEntry]:
        """The entries of a directory; `depth` counts the levels below its direct children."""
        return await (await self._files()).tree(path, depth=depth)

    async def _files(self) -> Workspace:
        """The working directory: of the session that there is, though its run may have ended, else of a new one."""
        if self._session is not None and not self._disposed:
            return self._session.files
        session, _ = await self._ensure()
        return session.files

    # ── For handles ──

    async def claim_session(self) -> tuple[Session, bool]:
        """The live session for a handle's turn, opened if need be, and whether it is the first of its run."""
        if self._ending:
            await asyncio.wait(self._ending)
        return await self._ensure(claim=True)

    def readers_changed(self, handle: ChatHandle) -> None:
        """End the turns that were broken off, as soon as somebody waits for another one."""
        (self._handles.add if handle.awaited or handle.abandoned else self._handles.discard)(handle)
        if not any(other.awaited for other in self._handles):
            return
        for broken_off in [other for other in self._handles if other.abandoned]:
            self._handles.discard(broken_off)
            ending = asyncio.ensure_future(broken_off.abandon())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def answer(self, request: PermissionRequest) -> tuple[PermissionDecision, str]:
        """The answer to a call that nobody answered by hand, and who gave it."""
        return await default_answer(request, self._on_tool_call)

    async def tell(self, hook: str, *args: Any) -> Any:
        """Call a telemetry hook. What it raises is logged and goes no further."""
        method = getattr(self._telemetry, hook, None)
        if method is None:
            return None
        try:
            told = method(*args)
            return await told if inspect.isawaitable(told) else told
        except Exception as error:  # noqa: BLE001 - telemetry never breaks a run
            _log.warn("telemetry_hook_failed", hook=hook, error=repr(error))
            return None

    def trace(self, event: HarnessEvent) -> None:
        """Log one consumed event, at level debug."""
        _log.debug("event", kind=event.kind, session=event.session_id)

    async def _ensure(self, *, claim: bool = False) -> tuple[Session, bool]:
        async with self._opening:
            self._require_undisposed()
            request = await self._known_request()
            if not self._announced:
                self._announced = True
                await self.tell("on_agent_constructed", _info(request))
            if self._session is None or self._session.ended is not None:
                self._session = await self._harness.open(self._next(request))
                self._fresh = True
            fresh = self._fresh
            if claim:
                self._fresh = False
            return self._session, fresh

    def _require_undisposed(self) -> None:
        if self._disposed:
            raise ValidationError("this agent was disposed", hint="Make a new ComputerAgent.")

    async def _known_request(self) -> SessionRequest:
        """The request of the agent's session; the first time, an agent by reference is looked up."""
        if self._request is None:
            self._request = await complete(self._given, self._where, self._harness)
        return self._request

    def _next(self, request: SessionRequest) -> SessionRequest:
        """The request of the session's next run: the same session, without writing the attachments again."""
        if self._session is None:
            return request
        return replace(request, session_id=self._session.id, attachments=())


async def run_task(*, message: ChatInput, **agent: Any) -> ChatResult:
    """One turn with an agent made for it: `ComputerAgent(**agent)`, one `chat`, `dispose`."""
    async with ComputerAgent(**agent) as made:
        return await made.chat(message)


def _info(request: SessionRequest) -> dict[str, Any]:
    engine = request.engine
    return {
        "source": _without_credentials(msgspec.to_builtins(request.source)),
        "engine": engine if isinstance(engine, str) else engine.name,
        "model": request.options.get("model") or request.model,
        "base_url": request.envs.get("ANTHROPIC_BASE_URL"),
    }


def _without_credentials(source: dict[str, Any]) -> dict[str, Any]:
    """A source as telemetry may see it: an address may carry a token."""
    return source | {"url": re.sub(r"//[^/]*@", "//", source["url"])} if "url" in source else source
