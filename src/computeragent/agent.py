"""`ComputerAgent`: an agent as its user holds it."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import msgspec

from computeragent import plugins
from computeragent.approval import default_answer
from computeragent.chat import ChatHandle
from computeragent.chat_input import ChatInput
from computeragent.chat_result import ChatResult
from computeragent.discovery import agent_key
from computeragent.errors import NotFoundError, ValidationError
from computeragent.eventlog import EventLog
from computeragent.harness import LocalHarness
from computeragent.identity.sources import parse_source
from computeragent.ids import check_session_id
from computeragent.logs import Logger, configure_logging
from computeragent.protocol_types import (
    Attachment,
    EngineDriver,
    FileEntry,
    Harness,
    IdentityLoader,
    IdentitySource,
    PermissionRequest,
    PolicyDecider,
    Session,
    SessionRequest,
    StoreConfig,
    Substrate,
    ToolCallback,
    Workspace,
)
from computeragent.settings import setting
from computeragent.stores.binding import resolve_store
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
            ``git``, ``local`` or ``inline``. A local directory is used in place.
        engine: How it thinks: a registered name or an `EngineDriver`. `harness` is another word for it.
        runtime: Where it runs: a registered substrate or a `Substrate`. ``local`` is this process.
        identity_loader: Who reads the agent's definition. Default: ``gap`` where there is an agent.yaml, else
            ``passthrough``.
        session_store: What remembers: a name (``memory``, ``file``, ``sqlite``), ``{"kind", "options"}``, or any
            object of upstream's `SessionStore` protocol. Default ``memory``.
        session_id: The session to open or resume; generated when absent.
        model, temperature: Override agent.yaml; ``options["model"]`` overrides `model`.
        base_url: An Anthropic-compatible endpoint, in place of the provider's.
        options: The engine's own options; for Claude the fields of `ClaudeAgentOptions`.
        envs: Environment variables for the engine. ``GITHUB_TOKEN`` and ``GIT_TOKEN`` go to git alone.
        attachments: Files written into the working directory before the engine starts.
        on_tool_call: Decides tool calls: sync or async, gets a `PermissionRequest`, returns a decision.
            Without it (and without a policy) calls are allowed, except destructive ones.
        policy: A `PolicyDecider` that judges every call before anyone is asked.
        telemetry: An object with `AgentTelemetry` hooks.
        telemetry_pipeline: Is told of every run; default: the process's own pipeline, see `configure`.
        audit_sinks: Are told of every run as well, each with one method ``emit(event)``; redacted, in order.
        git_credentials: A resolver of ``{"username", "token"}`` by repository URL, for private repositories.
        budget_max_usd: Ends the run when it has cost more.
        approval_timeout: Seconds that a tool call waits for an answer before it is denied.
        event_log: Keeps the events; default in memory.
        harness_url: A harness server that runs the agent, in place of this process. Default:
            ``COMPUTERAGENT_HARNESS_URL``, unless `runtime` or an engine object is given.
        harness_token: The bearer token for it. Default: ``COMPUTERAGENT_HARNESS_TOKEN``.
        progress: Told about long work, such as a clone.
        debug: Logs every event to stderr, as ``COMPUTERAGENT_LOG=debug`` does.

    Raises a `ComputerAgentError` at once for what can be seen at once, at the first `chat` for the rest.

    """

    def __init__(
        self,
        *,
        source: IdentitySource | Mapping[str, Any] | str | Path,
        engine: str | EngineDriver | None = None,
        harness: str | None = None,
        runtime: str | Substrate | None = None,
        identity_loader: str | IdentityLoader | None = None,
        session_store: str | StoreConfig | Mapping[str, Any] | SessionStore | None = None,
        session_id: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        base_url: str | None = None,
        options: Mapping[str, Any] | None = None,
        envs: Mapping[str, str] | None = None,
        attachments: Sequence[Attachment | Mapping[str, Any]] = (),
        on_tool_call: ToolCallback | None = None,
        policy: PolicyDecider | None = None,
        telemetry: Any = None,
        telemetry_pipeline: Pipeline | None = None,
        audit_sinks: Sequence[AuditSink] = (),
        git_credentials: Callable[[str], Any] | None = None,
        budget_max_usd: float | None = None,
        approval_timeout: float = 600.0,
        project_key: str = "computeragent",
        event_log: EventLog | None = None,
        harness_url: str | None = None,
        harness_token: str | None = None,
        progress: Callable[[str], None] | None = None,
        debug: bool = False,
    ) -> None:
        configure_logging("debug" if debug else None)
        if policy is not None and not callable(policy):
            raise ValidationError(
                f"policy must be a PolicyDecider, got {type(policy).__name__}",
                hint="Pass an async callable that takes a PermissionRequest and returns a PolicyVerdict.",
            )
        chosen = dict(options or {})
        if temperature is not None:
            chosen.setdefault("temperature", temperature)
        self._request = SessionRequest(
            source=parse_source(source),
            engine=_one_engine(engine, harness),
            identity_loader=_loader_choice(identity_loader),
            envs=_environment(envs, base_url),
            options=chosen,
            model=model,
            session_id=check_session_id(session_id) if session_id is not None else None,
            session_store=_store_choice(session_store),
            attachments=[_attachment(item) for item in attachments],
            policy=policy,
            git_credentials=git_credentials,
            budget_max_usd=budget_max_usd,
            approval_timeout=approval_timeout,
            project_key=project_key,
        )
        url = harness_url or _url_of_environment(runtime, self._request.engine)
        self._harness: Harness
        if url is not None:
            self._harness = _remote(url, harness_token, self._request)
        else:
            chosen_runtime = runtime or "local"
            is_name = isinstance(chosen_runtime, str)
            substrate = plugins.resolve_substrate(chosen_runtime) if is_name else chosen_runtime
            plugins.substrates.check(substrate)
            self._harness = LocalHarness(
                log=event_log,
                substrate=substrate,
                progress=progress,
                telemetry=telemetry_pipeline,
                audit_sinks=audit_sinks,
            )
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
        return self._session.id if self._session is not None else self._request.session_id

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
            if self._session is not None:
                await self._session.close()
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
        return await default_answer(request, self._on_tool_call, policy_bound=self._request.policy is not None)

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
            if not self._announced:
                self._announced = True
                await self.tell("on_agent_constructed", self._info())
            if self._session is None or self._session.ended is not None:
                self._session = await self._harness.open(self._next_request())
                self._fresh = True
            fresh = self._fresh
            if claim:
                self._fresh = False
            return self._session, fresh

    def _require_undisposed(self) -> None:
        if self._disposed:
            raise ValidationError("this agent was disposed", hint="Make a new ComputerAgent.")

    def _next_request(self) -> SessionRequest:
        """The request of the session's next run: the same session, without writing the attachments again."""
        if self._session is None:
            return self._request
        return replace(self._request, session_id=self._session.id, attachments=())

    def _info(self) -> dict[str, Any]:
        engine = self._request.engine
        return {
            "source": _without_credentials(msgspec.to_builtins(self._request.source)),
            "engine": engine if isinstance(engine, str) else engine.name,
            "model": self._request.options.get("model") or self._request.model,
            "base_url": self._request.envs.get("ANTHROPIC_BASE_URL"),
        }


async def run_task(*, message: ChatInput, **agent: Any) -> ChatResult:
    """One turn with an agent made for it: `ComputerAgent(**agent)`, one `chat`, `dispose`."""
    async with ComputerAgent(**agent) as made:
        return await made.chat(message)


def _without_credentials(source: dict[str, Any]) -> dict[str, Any]:
    """A source as telemetry may see it: an address may carry a token."""
    return source | {"url": re.sub(r"//[^/]*@", "//", source["url"])} if "url" in source else source


def _url_of_environment(runtime: object, engine: object) -> str | None:
    """The server that the environment names, unless the caller said where or what runs."""
    if runtime is not None or not isinstance(engine, str):
        return None
    return setting("harness_url")


def _remote(url: str, token: str | None, request: SessionRequest) -> Harness:
    """The harness at an address. Raises `NotRemotableError` at once for what cannot travel."""
    from computeragent.client import HarnessClient, RemoteHarness
    from computeragent.client.remote import request_body

    if not _is_http_url(url):
        raise ValidationError(f"harness_url {url!r} is not an http(s) URL", hint="Such as http://127.0.0.1:7700.")
    request_body(request)
    return RemoteHarness(HarnessClient(base_url=url, token=token or agent_key()))


def _one_engine(engine: str | EngineDriver | None, harness: str | None) -> str | EngineDriver:
    if engine is not None and harness is not None and engine != harness:
        raise ValidationError(
            f"engine={engine!r} and harness={harness!r} name two engines", hint="Give one of them; they mean the same."
        )
    chosen = engine if engine is not None else harness
    if chosen is None:
        return "claude-agent-sdk"
    if isinstance(chosen, str):
        plugins.engines.require(chosen)
        return chosen
    return plugins.engines.check(chosen)


def _environment(envs: Mapping[str, str] | None, base_url: str | None) -> dict[str, str]:
    chosen = dict(envs or {})
    for name, value in chosen.items():
        if not isinstance(value, str):
            raise ValidationError(f"envs[{name!r}] must be text, got {type(value).__name__}", hint="Use str(value).")
    if base_url is not None:
        if not _is_http_url(base_url):
            raise ValidationError(f"base_url {base_url!r} is not an http(s) URL", hint="Such as https://host/path.")
        chosen.setdefault("ANTHROPIC_BASE_URL", base_url)
    return chosen


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


def _store_choice(choice: Any) -> Any:
    if isinstance(choice, Mapping):
        try:
            choice = msgspec.convert(choice, StoreConfig)
        except msgspec.ValidationError as error:
            raise ValidationError(
                f"not a session store: {error}", hint='Use a name, {"kind": "sqlite", "options": {…}}, or a store.'
            ) from error
    if isinstance(choice, (str, StoreConfig)):
        plugins.stores.require(choice if isinstance(choice, str) else choice.kind)
        return choice
    return resolve_store(choice)


def _loader_choice(choice: str | IdentityLoader | None) -> str | IdentityLoader | None:
    if isinstance(choice, str):
        plugins.identity_loaders.require(choice)
        return choice
    return None if choice is None else plugins.identity_loaders.check(choice)


def _attachment(item: Attachment | Mapping[str, Any]) -> Attachment:
    if isinstance(item, Attachment):
        return item
    try:
        return msgspec.convert(item, Attachment)
    except msgspec.ValidationError as error:
        raise ValidationError(
            f"not an attachment: {error}", hint='Use {"path": "notes.txt", "content": "…", "encoding": "utf8"}.'
        ) from error
