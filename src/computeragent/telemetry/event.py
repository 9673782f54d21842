"""`TelemetryEvent`: one thing that an agent did, as middleware and sinks see it, and its form on the ingest wire."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast

from computeragent.wire.encoding import from_json, to_json

EventKind = Literal[
    "session_started",
    "turn_started",
    "user_message",
    "assistant_message",
    "system_message",
    "tool_use",
    "tool_result",
    "usage_snapshot",
    "session_ended",
    "policy_decision",
    "response_first_token",
]
"""What an event tells; the names are those of the AgentOS ingest protocol."""

SESSION_PREFIX = "ca_"


_SHAPE = {"kind": str, "session_id": str, "event_id": str, "timestamp": datetime, "payload": dict}
_WHO = ("agent_name", "agent_id", "agent_description")


def new_session_id() -> str:
    """A fresh id for a session of the drop-in: ``ca_`` and 32 hex digits."""
    return f"{SESSION_PREFIX}{uuid.uuid4().hex}"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True, kw_only=True)
class TelemetryEvent:
    """One event. Middleware may change it or put another one in its place.

    `timestamp` is when it happened, in UTC. `event_id` is given at birth and stays the same however often the event
    is sent, so receivers can drop repeats. `raw` is what the event was made of, an upstream message for instance; it
    stays in the process and is seen by middleware only.
    """

    kind: EventKind
    session_id: str
    timestamp: datetime = field(default_factory=_now)
    agent_name: str | None = None
    agent_id: str | None = None
    agent_description: str | None = None
    payload: dict[str, Any] = field(default_factory=dict[str, Any])
    event_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    raw: Any = field(default=None, repr=False, compare=False)

    def to_wire(self) -> dict[str, Any]:
        """The event as the ingest protocol spells it, without ``host``, which the sink adds."""
        return {
            "event_id": self.event_id,
            "kind": self.kind,
            "session_id": self.session_id,
            "agent_id": self.agent_id,
            "timestamp": self.timestamp.isoformat(),
            "agent_name": self.agent_name,
            "agent_description": self.agent_description,
            "payload": self.payload,
        }


def checked(event: object) -> TelemetryEvent:
    """The event, if it is one: what middleware, sinks and the spool can rely on. Raises `TypeError` otherwise."""
    if not isinstance(event, TelemetryEvent):
        raise TypeError(f"{type(event).__name__} is no TelemetryEvent")
    for name, kind in _SHAPE.items():
        if not isinstance(getattr(event, name), kind):
            raise TypeError(f"{name} of a TelemetryEvent is {type(getattr(event, name)).__name__}")
    for name in _WHO:
        value = getattr(event, name)
        if value is not None and not isinstance(value, str):
            setattr(event, name, str(value))  # an id is a UUID as often as not
    return event


def encode(event: TelemetryEvent) -> bytes:
    """The event as one line of JSON. What JSON has no form for is written as text; nothing is refused."""
    wire = event.to_wire()
    try:
        return to_json(wire)
    except (TypeError, ValueError, RecursionError):
        return to_json(_plain(wire, depth=0))


def decode(data: bytes) -> TelemetryEvent:
    """The event of a line written by `encode`. Raises `msgspec.DecodeError`, `KeyError` or `ValueError`."""
    wire = cast("Mapping[str, Any]", from_json(data))
    return TelemetryEvent(
        kind=wire["kind"],
        session_id=wire["session_id"],
        timestamp=datetime.fromisoformat(wire["timestamp"]),
        agent_name=wire["agent_name"],
        agent_id=wire["agent_id"],
        agent_description=wire["agent_description"],
        payload=wire["payload"],
        event_id=wire["event_id"],
    )


_DEEPEST = 64


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, float):
        return value
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {str(key): _plain(item, depth + 1) for key, item in items}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth + 1) for item in cast("list[Any]", value)]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        return f"<{type(value).__name__}>"
