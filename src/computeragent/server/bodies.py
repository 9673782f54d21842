"""The shapes of requests and answers of the harness protocol. Names on the wire are camelCase."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from computeragent.wire.events import AgentIdentity, Capabilities, Risk
from computeragent.wire.identity import IdentitySource
from computeragent.wire.policy import PolicyConfig
from computeragent.wire.requests import Attachment, HostedRun, StoreConfig, UserInput


class _Wire(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    pass


class LoaderAndSource(_Wire, frozen=True, kw_only=True):
    """Where the agent comes from, and who reads it; without a loader, by what the source holds."""

    source: str | IdentitySource
    loader: str | None = None


class OpenSession(_Wire, frozen=True, kw_only=True):
    """``POST /v1/sessions`` and ``/v1/chat``, in two forms.

    `engine` and `identity`, with `messages`; or `source`, `harness` and `message`, which always streams and ends by
    itself. `streamingInput` keeps the session open for more messages. `policy` judges every tool call, beside the
    server's own; on whose behalf the agent acts is who the credential says. `hosted` is for engine hosts alone.
    """

    engine: str | None = None
    identity: LoaderAndSource | None = None
    source: str | IdentitySource | None = None
    harness: str | None = None
    message: str | UserInput | None = None
    messages: list[UserInput] = []
    envs: dict[str, str] = {}
    session_id: str | None = None
    options: dict[str, Any] = {}
    model: str | None = None
    streaming_input: bool = False
    session_store: StoreConfig | None = None
    attachments: list[Attachment] = []
    budget_max_usd: float | None = None
    approval_timeout: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    policy: PolicyConfig | None = None
    hosted: HostedRun | None = None


class SessionOpened(_Wire, frozen=True, kw_only=True):
    """The answer to ``POST /v1/sessions``. `eventsUrl` is relative to the server."""

    session_id: str
    engine: str
    identity: AgentIdentity
    capabilities: Capabilities
    events_url: str
    protocol_version: str


Status = Literal["running", "completed", "cancelled", "errored"]


class SessionState(_Wire, frozen=True, kw_only=True):
    """One session as it is now."""

    session_id: str
    engine: str
    identity: AgentIdentity
    status: Status
    newest: int
    pending_calls: list[str] = []


class SessionList(_Wire, frozen=True, kw_only=True):
    """Sessions, newest first. `next` is the offset of the page after this one, absent on the last."""

    sessions: list[SessionState]
    next: int | None = None


class SendMessage(_Wire, frozen=True, kw_only=True):
    """``POST …/messages``."""

    message: UserInput


class Sent(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """The turn that a message will be."""

    turn_index: int
    ok: bool = True


class Ok(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """Done."""

    ok: bool = True


class CancelScope(_Wire, frozen=True, kw_only=True):
    """What ``POST …/cancel`` ends: the run (the default), or a turn: the one under way, or one that waits."""

    scope: Literal["session", "turn"] = "session"
    turn_index: int | None = None


class Cancelled(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """Done; `withdrawn` when the turn had not begun."""

    withdrawn: bool = False
    ok: bool = True


class Decide(_Wire, frozen=True, kw_only=True):
    """The answer to a permission request. `modify` runs the tool with `input`.

    `by` names the person behind the credential: it is recorded beside who the credential says, as ``token-ab12 (ann)``.
    """

    decision: Literal["allow", "deny", "modify"]
    input: dict[str, Any] | None = None
    reason: str | None = None
    by: Annotated[str, Meta(max_length=100)] | None = None


class Approval(_Wire, frozen=True, kw_only=True):
    """A tool call that waits for an answer. Where a policy wants a person's word, `policy` names it, `reason` says why.

    It is denied at `expiresAt`. Times are ISO 8601.
    """

    session_id: str
    call_id: str
    tool_name: str
    input: Any
    asked_at: str
    expires_at: str
    agent: str
    risk: Risk | None = None
    policy: str | None = None
    reason: str | None = None
    turn_index: int | None = None


class ApprovalList(_Wire, frozen=True, kw_only=True):
    """Calls that wait for an answer, oldest first. `unreachable` are sessions whose server could not be asked."""

    approvals: list[Approval]
    unreachable: list[str] = []


class After(Struct, frozen=True, kw_only=True, rename="camel"):
    """The query of an event stream, where a client cannot send ``Last-Event-ID``."""

    last_event_id: str | None = None


class Page(Struct, frozen=True, kw_only=True):
    """A part of a list."""

    limit: int = 50
    offset: int = 0


class Where(Struct, frozen=True, kw_only=True):
    """A path in the workspace."""

    path: str = ""
    depth: str = "1"
    recursive: str = ""


class Entry(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A file or directory; `mtime` in milliseconds."""

    path: str
    type: Literal["file", "dir", "symlink"]
    size: int
    mtime: int
    mode: int


class Tree(_Wire, frozen=True, kw_only=True):
    """What is in a directory."""

    entries: list[Entry]


class Written(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A file was written; `size` in bytes."""

    size: int
    ok: bool = True


class EditFile(_Wire, frozen=True, kw_only=True):
    """Replace text in a file; by default the first occurrence."""

    path: str
    old_string: str
    new_string: str
    replace_all: bool = False


class Edited(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """How many places were replaced."""

    replacements: int
    ok: bool = True


class MakeDirectory(_Wire, frozen=True, kw_only=True):
    """Make a directory; with `recursive` its parents too."""

    path: str
    recursive: bool = False


class MoveFile(Struct, frozen=True, kw_only=True, rename={"source": "from", "target": "to"}):
    """Rename."""

    source: str
    target: str


class Health(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """What a server has."""

    ok: bool
    version: str
    protocol_version: str
    engines: dict[str, Capabilities]
    loaders: list[str]
    stores: list[str]
