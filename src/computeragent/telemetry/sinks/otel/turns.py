"""What is going on in the sessions that are watched: turns, the calls and tools in them, and who says what to a model.

Data only; `spans` makes spans of it. Times are nanoseconds since the epoch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.spool import Spooled
from computeragent.telemetry.trace_context import ids_of

Json = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")


def nanoseconds(at: datetime) -> int:
    """A time as spans have it, without the rounding of a float."""
    return (at - _EPOCH) // _MICROSECOND * 1_000


@dataclass(slots=True)
class Call:
    """A model call that is under way. `event_id` is that of the first event that told of it."""

    event_id: str
    start: int
    end: int
    message_id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    has_tool_use: bool = False
    usage: Json = field(default_factory=dict[str, Any])
    first_chunk: float | None = None
    error: str | None = None
    inputs: list[Json] = field(default_factory=list[Json])
    parts: list[Json] = field(default_factory=list[Json])


@dataclass(slots=True)
class Thread:
    """A talk with a model: the agent's, or a sub-agent's.

    `asked_at` is when the model was asked last, and `pending` what it is told with the next call, if that is captured.
    """

    asked_at: int
    call: Call | None = None
    pending: list[Json] = field(default_factory=list[Json])


@dataclass(slots=True)
class Tool:
    """A tool that was called and has not answered. `span` and `context` are OpenTelemetry's."""

    name: str
    start: int
    span: Any
    context: Any
    denied: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a turn's root span is: its ids, and the span above it, if it was started inside of one."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    sampled: bool

    @classmethod
    def of(cls, event: TelemetryEvent) -> Place:
        """As the event that starts the turn says, else derived from its id."""
        trace_id, span_id = ids_of(event.event_id)
        given = event.payload
        above = _id(given.get("parent_span_id"), _SPAN_ID)
        trace = _id(given.get("trace_id"), _TRACE_ID)
        return cls(
            trace_id=trace or trace_id,
            span_id=_id(given.get("span_id"), _SPAN_ID) or span_id,
            parent_span_id=above if trace else None,
            sampled=given.get("sampled") is not False,
        )


def _id(value: object, pattern: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


@dataclass(slots=True)
class Turn:
    """A turn that is open. `marks` is where it starts in each spool that tells of it."""

    place: Place
    start: int
    span: Any
    context: Any
    common: Json
    dimensions: Json
    last: int
    prompt: str | None = None
    marks: dict[str, Spooled] = field(default_factory=dict[str, Spooled])
    threads: dict[str | None, Thread] = field(default_factory=dict[str | None, Thread])
    tools: dict[str, Tool] = field(default_factory=dict[str, Tool])
    contexts: dict[str, Any] = field(default_factory=dict[str, Any])
    decisions: dict[str, list[tuple[int, Json]]] = field(default_factory=dict[str, list[tuple[int, Json]]])
    calls: int = 0
    tool_calls: int = 0

    def mark(self, spooled: Spooled | None) -> None:
        """Note the first event of the turn in a spool."""
        if spooled is not None and spooled.spool not in self.marks:
            self.marks[spooled.spool] = spooled

    def thread(self, parent: str | None, at: int) -> Thread:
        """The talk of the agent (None) or of the sub-agent that a tool call started."""
        found = self.threads.get(parent)
        if found is None:
            tool = self.tools.get(parent) if parent is not None else None
            found = self.threads[parent] = Thread(asked_at=at if tool is None else tool.start)
        return found


@dataclass(slots=True)
class Session:
    """A session that is watched."""

    id: str
    agent_name: str | None = None
    agent_id: str | None = None
    description: str | None = None
    engine: str | None = None
    model: str | None = None
    version: str | None = None
    sha: str | None = None
    system_prompt: str | None = None
    started: Spooled | None = None
    turn: Turn | None = None

    def learn(self, event: TelemetryEvent) -> None:
        """What an event says about the agent."""
        self.agent_name = event.agent_name or self.agent_name
        self.agent_id = event.agent_id or self.agent_id
        self.description = event.agent_description or self.description
        if event.kind in {"session_started", "turn_started"}:
            given = event.payload
            self.engine = given.get("engine") or self.engine
            self.model = given.get("model") or self.model
            self.version = given.get("agent_version") or self.version
            self.sha = given.get("agent_sha") or self.sha
