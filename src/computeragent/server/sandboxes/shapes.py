"""The shapes of requests and answers of the sandbox server. Names on the wire are camelCase, dates ISO 8601 in UTC."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Raw, Struct

from computeragent.wire.identity import IdentitySource
from computeragent.wire.policy import PolicyConfig
from computeragent.wire.requests import Attachment, StoreConfig, UserInput
from computeragent.wire.usage import UsageRollup


class _Wire(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    pass


class Tags(_Wire, frozen=True, kw_only=True):
    """Whose run it is, in the caller's own terms."""

    agent_id: str | None = None
    group_id: str | None = None
    owner_id: str | None = None
    actor_id: str | None = None


class AutoSave(_Wire, frozen=True, kw_only=True):
    """Where a snapshot goes before a sandbox is disposed of."""

    state_store: StoreConfig


class AgentRequest(_Wire, frozen=True, kw_only=True):
    """What ``/run``, ``/tasks`` and ``/sandboxes`` have in common. `source` and `harness` are required."""

    source: str | IdentitySource | None = None
    harness: str | None = None
    runtime: str | None = None
    envs: dict[str, str] = {}
    options: dict[str, Any] = {}
    model: str | None = None
    temperature: float | None = None
    base_url: str | None = None
    git_token: str | None = None
    session_id: str | None = None
    debug: bool = False
    session_store: StoreConfig | None = None
    identity: Tags | None = None
    agent_name: str | None = None
    attachments: list[Attachment] = []
    policy: PolicyConfig | None = None
    budget_max_usd: float | None = None


class RunRequest(AgentRequest, frozen=True, kw_only=True):
    """``POST /run``."""

    message: str | list[UserInput] | UserInput | None = None


class TaskRequest(RunRequest, frozen=True, kw_only=True):
    """``POST /tasks``."""

    task_store: StoreConfig | None = None


class SandboxRequest(AgentRequest, frozen=True, kw_only=True):
    """``POST /sandboxes``."""

    ttl_ms: float | None = None
    idle_ttl_ms: float | None = None
    auto_save: AutoSave | None = None


class ChatRequest(_Wire, frozen=True, kw_only=True):
    """``POST /sandboxes/{id}/chat``."""

    message: str | list[UserInput] | UserInput | None = None
    attachments: list[Attachment] = []


class SnapshotRequest(_Wire, frozen=True, kw_only=True):
    """``POST /sandboxes/{id}/snapshot``."""

    state_store: StoreConfig | None = None
    snapshot_id: str | None = None


class RestoreRequest(_Wire, frozen=True, kw_only=True):
    """``POST /sandboxes/restore``. What a snapshot does not keep, secrets above all, is given anew."""

    snapshot_id: str | None = None
    state_store: StoreConfig | None = None
    target: str = "new"
    ttl_ms: float | None = None
    idle_ttl_ms: float | None = None
    runtime: str | None = None
    envs: dict[str, str] = {}
    options: dict[str, Any] = {}
    git_token: str | None = None
    session_store: StoreConfig | None = None
    policy: PolicyConfig | None = None
    auto_save: AutoSave | None = None


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────────────


class Usage(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """Tokens, and cost in US dollars: null when no engine named one."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cost_usd: float | None = None

    @classmethod
    def of(cls, rollup: UsageRollup) -> Usage:
        """What a roll-up has come to."""
        return cls(
            input_tokens=rollup.input_tokens,
            output_tokens=rollup.output_tokens,
            cache_creation_input_tokens=rollup.cache_creation_input_tokens,
            cache_read_input_tokens=rollup.cache_read_input_tokens,
            cost_usd=rollup.cost_usd,
        )

    def __add__(self, other: Usage) -> Usage:
        costs = [each.cost_usd for each in (self, other) if each.cost_usd is not None]
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_creation_input_tokens=self.cache_creation_input_tokens + other.cache_creation_input_tokens,
            cache_read_input_tokens=self.cache_read_input_tokens + other.cache_read_input_tokens,
            cost_usd=sum(costs) if costs else None,
        )


class ServerHealth(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """What the server has, and how busy it is."""

    ok: bool
    version: str
    active_runs: int
    max: int
    runtimes: list[str]
    default_runtime: str
    engines: list[str]


class Entries(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """What is in a working directory."""

    entries: list[Any]


TaskStatus = Literal["queued", "running", "complete", "errored", "cancelled"]


class TaskAccepted(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A task waits for its turn."""

    task_id: str
    session_id: str
    status: TaskStatus


class TaskState(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A task as it is now."""

    task_id: str
    session_id: str
    status: TaskStatus
    event_count: int
    usage: Usage
    created_at: str
    started_at: str | None
    ended_at: str | None
    last_event_at: str | None
    error: str | None
    error_code: str | None
    artifact_refs: list[str]
    pending_calls: list[str]
    config: dict[str, Any]


class TaskList(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """Tasks, newest first."""

    tasks: list[TaskState]


class TaskEvent(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """One event of a task; `ts` in epoch milliseconds, `payload` without the kind."""

    id: int
    ts: int
    kind: str
    payload: Raw | dict[str, Any]


class TaskEvents(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """Events after an id. `nextSince` goes on after them; `done` when there will be no more."""

    events: list[TaskEvent]
    next_since: int
    done: bool
    status: TaskStatus


class TaskDeleted(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A live task was cancelled, or an ended one forgotten."""

    ok: bool
    task_id: str


SandboxPhase = Literal["booting", "ready", "busy", "restoring", "expired", "disposed"]


class SandboxOpened(_Wire, frozen=True, kw_only=True):
    """A sandbox is there. `missing` names what a restored one needs and was not given."""

    sandbox_id: str
    session_id: str
    state: SandboxPhase
    created_at: str
    expires_at: str
    idle_expires_at: str
    idle_ttl_ms: float
    ttl_ms: float
    reused: bool = False
    restored: bool = False
    from_snapshot_id: str | None = None
    missing: list[str] = []


class SandboxState(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A sandbox as it is now."""

    sandbox_id: str
    session_id: str
    state: SandboxPhase
    created_at: str
    last_activity_at: str
    expires_at: str
    idle_expires_at: str
    turn_count: int
    busy: bool
    usage: Usage
    pending_calls: list[str]
    config: dict[str, Any]


class SandboxList(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """The caller's sandboxes."""

    sandboxes: list[SandboxState]


class SandboxAlive(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """The answer to a heartbeat."""

    sandbox_id: str
    state: SandboxPhase
    idle_expires_at: str
    expires_at: str


class SandboxDisposed(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A sandbox is gone. `autoSaved` is the id of the snapshot that was taken, or false."""

    ok: bool
    sandbox_id: str
    final_usage: Usage
    turn_count: int
    auto_saved: str | Literal[False]


class SnapshotTaken(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A snapshot is stored."""

    snapshot_id: str
    size_bytes: int
    taken_at: str
    file_count: int


class SnapshotList(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """Snapshots, newest first."""

    snapshots: list[dict[str, Any]]


# ── Queries ──────────────────────────────────────────────────────────────────────────────────────────────────


class InSession(_Wire, frozen=True, kw_only=True):
    """A file of a run."""

    session_id: str = ""
    path: str = ""


class InFiles(_Wire, frozen=True, kw_only=True):
    """A path in a working directory."""

    path: str = ""
    depth: int = 3


class TaskQuery(_Wire, frozen=True, kw_only=True):
    """Which tasks."""

    task_store: str | None = None
    status: TaskStatus | None = None
    limit: int = 50


class EventQuery(_Wire, frozen=True, kw_only=True):
    """From where on; `since` for JSON, `lastEventId` for a stream."""

    task_store: str | None = None
    since: int = -1
    last_event_id: str | None = None


class DisposeQuery(_Wire, frozen=True, kw_only=True):
    """``save=false`` leaves the snapshot out that `autoSave` would take."""

    save: str = "true"


class SnapshotQuery(_Wire, frozen=True, kw_only=True):
    """Which snapshots."""

    state_store: str | None = None
    source_sandbox_id: str | None = None
    limit: int = 50
