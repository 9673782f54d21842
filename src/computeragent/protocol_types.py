"""The five axes and the one interface: what plug-in authors implement and what `ComputerAgent` talks to.

Each axis is a small `Protocol`; `plugins.py` registers implementations, `computeragent.testing` checks them.
`SessionStore` and its types are upstream's own objects, loaded on first use.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from computeragent.policy_types import PolicyEngine, PolicyPrincipal
from computeragent.wire.events import Capabilities, CaSessionEnded, CostSemantic, EndReason, Recorded, Risk
from computeragent.wire.identity import GitSource, IdentitySource, InlineSource, LocalSource
from computeragent.wire.policy import PolicyConfig
from computeragent.wire.requests import Attachment, HostedRun, PermissionDecision, StoreConfig, UserInput

if TYPE_CHECKING:
    from claude_agent_sdk import SessionKey, SessionStore, SessionStoreEntry

__all__ = [
    "AgentManifest",
    "AgentTelemetry",
    "Attachment",
    "Capabilities",
    "EngineCapabilities",
    "EngineContext",
    "EngineDriver",
    "EngineEvent",
    "EventStream",
    "FileEntry",
    "GitSource",
    "Harness",
    "IdentityLoader",
    "IdentitySource",
    "InlineSource",
    "LocalSource",
    "PermissionDecision",
    "PermissionRequest",
    "PolicyDecider",
    "PolicyVerdict",
    "Session",
    "SessionKey",
    "SessionRequest",
    "SessionStore",
    "SessionStoreEntry",
    "StoreConfig",
    "Substrate",
    "SubstrateHandle",
    "ToolCallback",
    "UserInput",
    "Workspace",
]

EngineCapabilities = Capabilities


# ── Permissions ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class PermissionRequest:
    """A tool call that asks to run.

    `risk` is the harness's own estimate. Where a policy wants a person's word, `policy` names it and `reason` is why;
    an engine that sets them has a person asked whatever a policy allows.
    """

    call_id: str
    tool_name: str
    input: dict[str, Any]
    risk: Risk | None = None
    policy: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """What a policy says of a call. `ask` wants a person's word; with `abstain` all is as without a policy.

    `input` is the changed input of a ``modify``. `engine` names the policy engine, `code` a fault of it.
    """

    decision: Literal["allow", "deny", "modify", "ask", "abstain"]
    input: dict[str, Any] | None = None
    reason: str | None = None
    rule: str | None = None
    principal: str | None = None
    engine: str | None = None
    code: str | None = None


class PolicyDecider(Protocol):
    """Judges every tool call of a session, before anyone is asked. Raising denies."""

    async def __call__(self, request: PermissionRequest, /) -> PolicyVerdict: ...


ToolCallback = Callable[[PermissionRequest], Any]
"""`on_tool_call`: sync or async; returns a `PermissionDecision`, a dict of that shape, or a bool. Raising denies."""


# ── Who is the agent? ────────────────────────────────────────────────────────────────────────────────────────


def _same(options: dict[str, Any]) -> dict[str, Any]:
    return options


@dataclass(frozen=True)
class AgentManifest:
    """An agent as its loader read it.

    `options` are engine options (snake_case) that the caller's own override; `harden` has the last word over the
    merged options, for what the manifest forbids callers to loosen. `notes` are shown to the user: what the
    manifest asks for and this engine does not have.
    """

    name: str
    version: str = "0.0.0"
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sha: str | None = None
    harden: Callable[[dict[str, Any]], dict[str, Any]] = field(default=_same, compare=False)
    notes: tuple[str, ...] = ()


@runtime_checkable
class IdentityLoader(Protocol):
    """Reads an agent's definition from its workspace.

    `trusted` says that the caller owns the source; `state_dir` is a private folder for files that the engine
    needs and that must not be written into the workspace.
    """

    async def load(
        self, *, source: IdentitySource, target_engine: str, workspace_path: Path, state_dir: Path, trusted: bool
    ) -> AgentManifest: ...


# ── How does it think? ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One thing that an engine has to say.

    `sdk_message` carries `payload`, a JSON value or `msgspec.Raw`, in the engine's own shape. A payload with
    ``"type": "result"``, or ``"type": "system"`` and ``"subtype": "session_end"``, ends the turn, and so does
    `ends_turn=True`; `ends_turn=False` keeps a turn open whatever the payload says. `usage_snapshot` carries the
    token and cost fields and must come before the message that ends the turn. `session_ended` ends the run with
    `reason`; an engine that simply returns has completed.
    """

    kind: Literal["sdk_message", "usage_snapshot", "session_ended"]
    payload: Any = None
    ends_turn: bool | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cost_usd: float | None = None
    cost_semantic: CostSemantic | None = None
    reason: EndReason = "complete"
    error_message: str | None = None


@dataclass(slots=True)
class EngineContext:
    """Everything that an engine may know of its run.

    `user_message_queue` yields one message per turn, the next one only after the turn before it has ended, and
    finishes at the end of input. `on_permission_request` must be awaited before any tool runs.
    `cancel_event` ends the run; `interrupt_event` ends the current turn and is cleared at the next one.
    `session_store` is already bound to this session; entries in it mean: resume. `trusted` is False for source
    that the caller does not own, whose settings and hooks must not take effect. `library_mode` is True in the
    caller's own process. `state_dir` is private to the session. `strict` says that every call must pass
    `on_permission_request` as it will run, and that nothing may act beside it: a policy judges, or the caller is not
    whoever owns this machine.
    """

    session_id: str
    manifest: AgentManifest
    workspace_path: Path
    envs: Mapping[str, str] = field(repr=False)  # secrets: never on show
    options: Mapping[str, Any]
    user_message_queue: AsyncIterable[UserInput]
    on_permission_request: Callable[[PermissionRequest], Awaitable[PermissionDecision]]
    cancel_event: asyncio.Event
    interrupt_event: asyncio.Event
    state_dir: Path
    session_store: SessionStore | None = None
    project_key: str = "computeragent"
    budget_max_usd: float | None = None
    approval_timeout: float = 600.0
    trusted: bool = True
    library_mode: bool = True
    strict: bool = False


@runtime_checkable
class EngineDriver(Protocol):
    """An agent loop. `start_session` is called once per run and yields until the input ends or it is cancelled."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def start_session(self, ctx: EngineContext) -> AsyncIterator[EngineEvent]: ...


# ── Where does it run? ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class SubstrateHandle:
    """A booted substrate. `workspace_path` is the workspace as this process sees it.

    Where the engine runs in a sandbox, `harness` is the engine host in it, `envs` what the engine gets there,
    `inside` where folders of this machine are in it, and `ended` returns, once the sandbox has ended by itself, why.
    Where the workspace is on another machine while the sandbox runs, `files` is it; `close` brings it back here.
    """

    workspace_path: Path
    close: Callable[[], Awaitable[None]]
    harness: Harness | None = None
    revision: str | None = None
    envs: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    inside: Mapping[Path, str] = field(default_factory=dict[Path, str])
    ended: Callable[[], Awaitable[str]] | None = None
    files: Workspace | None = None


@runtime_checkable
class Substrate(Protocol):
    """A place to run engines, given a workspace that the host has fetched already.

    `state_dir` is private to the session, beside the workspace; `envs` are the session's, provider keys included,
    which an isolating substrate keeps outside. `limits` may set ``memory`` (bytes), ``pids`` and ``cpus``.
    """

    async def boot(
        self, *, workspace: Path, state_dir: Path, envs: Mapping[str, str], limits: Mapping[str, Any]
    ) -> SubstrateHandle: ...


# ── Who is told? ─────────────────────────────────────────────────────────────────────────────────────────────


class AgentTelemetry(Protocol):
    """Hooks of library mode. Every method is optional, sync or async; exceptions never reach the agent.

    `on_chat_start` may return a context that `on_chat_end` gets back.
    """

    def on_agent_constructed(self, info: Mapping[str, Any]) -> Any: ...
    def on_chat_start(self, info: Mapping[str, Any]) -> Any: ...
    def on_chat_end(self, info: Mapping[str, Any], context: Any = None) -> Any: ...
    def on_close(self) -> Any: ...


# ── The one interface ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class SessionRequest:
    """All that opens a session. Pure data, except in library mode, where an engine, loader, store or policy may
    be the object itself.

    `options` are the engine's own; `model` stands below ``options["model"]`` and above the manifest's. `hosted` is
    for engine hosts alone: what the harness outside has prepared. `principal` is on whose behalf the agent acts, where
    a policy asks (default: the user of this process). The agent's id, name and description are for
    telemetry.
    """

    source: IdentitySource
    engine: str | EngineDriver = "claude-agent-sdk"
    identity_loader: str | IdentityLoader | None = None
    envs: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    model: str | None = None
    session_id: str | None = None
    session_store: str | StoreConfig | SessionStore | None = None
    attachments: Sequence[Attachment] = ()
    policy: PolicyDecider | PolicyEngine | PolicyConfig | None = None
    principal: PolicyPrincipal | None = None
    git_credentials: Callable[[str], Any] | None = None
    budget_max_usd: float | None = None
    approval_timeout: float = 600.0
    project_key: str = "computeragent"
    hosted: HostedRun | None = None
    agent_id: str | None = None
    agent_name: str | None = None
    agent_description: str | None = None


class EventStream(Protocol):
    """A reader of a session's events: registered when made, so nothing committed later is missed or dropped."""

    def __aiter__(self) -> AsyncIterator[Recorded]: ...
    async def __anext__(self) -> Recorded: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file or directory in a workspace. `path` is relative to the listed directory; `mtime` is in milliseconds."""

    path: str
    type: Literal["file", "dir", "symlink"]
    size: int
    mtime: int
    mode: int


class Workspace(Protocol):
    """The agent's working directory, confined: no path leaves it."""

    async def tree(self, path: str = ".", *, depth: int = 1) -> list[FileEntry]: ...
    async def read(self, path: str) -> bytes: ...
    async def write(self, path: str, data: bytes) -> int: ...
    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> int: ...
    async def mkdir(self, path: str, *, parents: bool = False) -> None: ...
    async def move(self, source: str, target: str) -> None: ...
    async def delete(self, path: str, *, recursive: bool = False) -> None: ...


class Session(Protocol):
    """A conversation with an agent: runs of turns, recorded as one list of events."""

    @property
    def id(self) -> str: ...

    @property
    def files(self) -> Workspace: ...

    @property
    def cost_so_far(self) -> float:
        """The running total in US dollars that the engine has reported in this run."""
        ...

    @property
    def newest(self) -> int:
        """The newest event id that is known here, -1 when there is none."""
        ...

    @property
    def ended(self) -> CaSessionEnded | None:
        """The event that ended the current run, or None while it is live."""
        ...

    async def send(self, message: UserInput) -> int:
        """Queue a message and return its turn's index, which every event that it causes carries."""
        ...

    def events(self, after: int | None = None) -> EventStream:
        """Events after an id, or from the start of the current run; the stream ends with the run."""
        ...

    async def decide(self, call_id: str, decision: PermissionDecision, *, by: str = "manual") -> None:
        """Answer a pending permission request; the first answer wins."""
        ...

    async def interrupt(self, turn_index: int | None = None) -> bool:
        """End the current turn, or take back a turn that still waits; the session goes on.

        True when the turn was taken back: then no event of it exists. Otherwise its end is in the log.
        """
        ...

    async def end_input(self) -> None:
        """No more messages: the run ends when the turns that wait are done."""
        ...

    async def cancel(self) -> None:
        """End the run."""
        ...

    async def close(self) -> None:
        """End the input, let an idle engine finish, cancel a busy one, and free what the session holds."""
        ...


class Harness(Protocol):
    """The only thing that `ComputerAgent` talks to, in this process or on another machine."""

    async def open(self, request: SessionRequest) -> Session: ...
    async def close(self) -> None: ...


def __getattr__(name: str) -> Any:
    if name in {"SessionKey", "SessionStore", "SessionStoreEntry"}:
        import claude_agent_sdk

        return getattr(claude_agent_sdk, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
