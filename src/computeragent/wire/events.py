"""The seven harness events: the one stream that every reader of a run sees.

Every event carries `kind` and `sessionId`; every event of a turn carries that turn's `turnIndex`.
Names and fields are those of the harness protocol; optional fields are absent rather than null.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import Raw, Struct, field

from computeragent.wire.encoding import clean_json, from_json, one_line, to_json
from computeragent.wire.requests import UserInput

PROTOCOL_VERSION = "1"
"""The version of this protocol, carried by `ca_session_started`."""

Risk = Literal["low", "medium", "high", "destructive"]
Verdict = Literal["allow", "deny", "modify"]
EndReason = Literal["complete", "cancelled", "error", "budget_exceeded"]
CostSemantic = Literal["cumulative", "delta"]


class Capabilities(Struct, frozen=True, kw_only=True, rename="camel"):
    """What an engine can do.

    `streaming_input`: messages in mid-session. `partial_messages`: token deltas. `permission_callback`:
    every tool call is asked. `sessions`: resume from a store. `budget`: a hard cost cap is honoured.
    """

    streaming_input: bool
    partial_messages: bool
    permission_callback: bool
    sessions: bool
    budget: bool


class AgentIdentity(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who runs: the agent's name and version, and the commit of its source where there is one."""

    name: str
    version: str
    sha: str | None = None


class _Event(Struct, frozen=True, kw_only=True, tag_field="kind", rename="camel", omit_defaults=True):
    kind: ClassVar[str]
    session_id: str


class CaSessionStarted(_Event, frozen=True, kw_only=True, tag="ca_session_started"):
    """The first event of a run. `cwd` is the agent's working folder, as the agent and its policy see it."""

    kind: ClassVar[str] = "ca_session_started"
    engine: str
    identity: AgentIdentity
    capabilities: Capabilities
    protocol_version: str = field(default_factory=lambda: PROTOCOL_VERSION)
    resumed: bool = False
    cwd: str | None = None


class CaTurnStarted(_Event, frozen=True, kw_only=True, tag="ca_turn_started"):
    """A user message reached the engine; the turn lasts until its terminating `sdk_message` or the run's end."""

    kind: ClassVar[str] = "ca_turn_started"
    turn_index: int
    message: UserInput | None = None
    user_text_len: int | None = None


class SdkMessage(_Event, frozen=True, kw_only=True, tag="sdk_message", dict=True):
    """One message in the engine's own shape, relayed as it is. `ends_turn` marks the last one of its turn."""

    kind: ClassVar[str] = "sdk_message"
    raw: Raw = field(name="payload")
    ends_turn: bool = False
    turn_index: int | None = None

    @cached_property
    def payload(self) -> Any:
        """The engine's own object, decoded on first use."""
        return from_json(bytes(self.raw))


class CaPermissionRequest(_Event, frozen=True, kw_only=True, tag="ca_permission_request"):
    """A tool call waits for an answer. Where a policy wants a person's word, `policy` names it, `reason` says why."""

    kind: ClassVar[str] = "ca_permission_request"
    call_id: str
    tool_name: str
    input: Any
    risk: Risk | None = None
    policy: str | None = None
    reason: str | None = None
    turn_index: int | None = None


class CaPermissionDecision(_Event, frozen=True, kw_only=True, tag="ca_permission_decision"):
    """The answer to a tool call, whoever gave it, and why. `latency_ms` counts from the engine's question.

    `engine` and `rule` are the policy's, `code` names its fault, `principal` is on whose behalf the agent acts.
    """

    kind: ClassVar[str] = "ca_permission_decision"
    call_id: str
    decision: Verdict
    reason: str | None = None
    tool_name: str | None = None
    input: Any = None
    decided_by: str | None = None
    engine: str | None = None
    rule: str | None = None
    code: str | None = None
    principal: str | None = None
    latency_ms: float | None = None
    turn_index: int | None = None


class CaUsageSnapshot(_Event, frozen=True, kw_only=True, tag="ca_usage_snapshot"):
    """Tokens since the last snapshot, and cost: a running total (`cumulative`) or an increment (`delta`)."""

    kind: ClassVar[str] = "ca_usage_snapshot"
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cost_usd: float | None = None
    cost_semantic: CostSemantic | None = None
    turn_index: int | None = None


class CaSessionEnded(_Event, frozen=True, kw_only=True, tag="ca_session_ended"):
    """The last event of a run."""

    kind: ClassVar[str] = "ca_session_ended"
    reason: EndReason
    error_message: str | None = None
    error_code: str | None = None
    error_hint: str | None = None
    turn_index: int | None = None


class UnknownEvent(Struct, frozen=True, kw_only=True):
    """An event of a kind that this version does not know, kept whole so that it can be relayed."""

    kind: str
    session_id: str
    raw: Raw
    turn_index: int | None = None


KnownEvent = (
    CaSessionStarted
    | CaTurnStarted
    | SdkMessage
    | CaPermissionRequest
    | CaPermissionDecision
    | CaUsageSnapshot
    | CaSessionEnded
)
HarnessEvent = KnownEvent | UnknownEvent


class Recorded(Struct, frozen=True):
    """An event with its place in the session's log: gap-free `id`, epoch seconds, and its JSON, encoded once."""

    id: int
    at: float
    event: HarnessEvent
    data: bytes


class _Head(Struct, rename="camel"):
    kind: str
    session_id: str = ""
    turn_index: int | None = None


_known: msgspec.json.Decoder[KnownEvent] = msgspec.json.Decoder(KnownEvent)
_head: msgspec.json.Decoder[_Head] = msgspec.json.Decoder(_Head)
_KINDS = frozenset(
    {
        "ca_session_started",
        "ca_turn_started",
        "sdk_message",
        "ca_permission_request",
        "ca_permission_decision",
        "ca_usage_snapshot",
        "ca_session_ended",
    }
)


def encode_event(event: HarnessEvent) -> bytes:
    """The event as one line of JSON, `kind` included."""
    return one_line(bytes(event.raw)) if isinstance(event, UnknownEvent) else to_json(event)


def decode_event(data: bytes) -> HarnessEvent:
    """Read one event. An unknown kind is kept as `UnknownEvent`.

    Raises `msgspec.ValidationError` for a known kind with wrong fields, `msgspec.DecodeError` for bad JSON.
    """
    try:
        return _known.decode(data)
    except msgspec.ValidationError:
        head = _head.decode(data)
        if head.kind in _KINDS:
            raise
        return UnknownEvent(kind=head.kind, session_id=head.session_id, raw=Raw(data), turn_index=head.turn_index)


def raw_payload(payload: Any) -> Raw:
    """An `sdk_message` payload as one line of JSON; lone surrogates become U+FFFD.

    Raises `msgspec.DecodeError` for a `Raw` that is not JSON, `TypeError` for a value that JSON cannot express.
    """
    if isinstance(payload, Raw):
        return Raw(one_line(clean_json(bytes(payload))))
    return Raw(to_json(payload))
