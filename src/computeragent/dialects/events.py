"""The events of a streamed answer, in the neutral model.

Order: `Started`, then for each part `PartStarted`, its deltas and `PartEnded`, then `Stopped` and `Ended`.
`Failed` ends a stream at any point. `Ping` and `OtherEvent` may stand anywhere.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from computeragent.dialects.model import ModelError, Part, Usage


class Started(Struct, frozen=True, kw_only=True, tag_field="event", tag="started", omit_defaults=True):
    """The answer begins. `usage` holds what is known by now, usually the input.

    `dialect` names the wire whose spelling every `extra` of this stream is in.
    """

    id: str
    model: str
    usage: Usage = field(default_factory=Usage)
    dialect: str = ""
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class PartStarted(Struct, frozen=True, tag_field="event", tag="part_started"):
    """Part number `index` begins; `part` holds what is known by now: its kind, a tool call's id and name."""

    index: int
    part: Part


class TextDelta(Struct, frozen=True, tag_field="event", tag="text_delta"):
    """More text."""

    index: int
    text: str


class ThinkingDelta(Struct, frozen=True, tag_field="event", tag="thinking_delta"):
    """More reasoning."""

    index: int
    text: str


class SignatureDelta(Struct, frozen=True, tag_field="event", tag="signature_delta"):
    """The signature of a thinking part."""

    index: int
    signature: str


class InputDelta(Struct, frozen=True, tag_field="event", tag="input_delta"):
    """More of a tool call's input: a fragment of JSON text."""

    index: int
    json: str


class OtherDelta(Struct, frozen=True, tag_field="event", tag="other_delta"):
    """A delta that only one dialect knows (citations), kept whole; its object `extra` is added to that of the part."""

    index: int
    data: dict[str, Any]


class PartEnded(Struct, frozen=True, tag_field="event", tag="part_ended"):
    """Part number `index` is complete."""

    index: int


class Stopped(Struct, frozen=True, kw_only=True, tag_field="event", tag="stopped", omit_defaults=True):
    """Why the model stopped, and the usage up to here (running totals, to be merged with what `Started` said)."""

    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class Ended(Struct, frozen=True, tag_field="event", tag="ended"):
    """The answer is complete."""


class Failed(Struct, frozen=True, tag_field="event", tag="failed"):
    """The answer ends here with an error."""

    error: ModelError


class Ping(Struct, frozen=True, tag_field="event", tag="ping"):
    """A sign of life."""


class OtherEvent(Struct, frozen=True, tag_field="event", tag="other"):
    """An event that only one dialect knows, kept whole. `name` is the wire's name for it."""

    name: str
    data: dict[str, Any]


ModelEvent = (
    Started
    | PartStarted
    | TextDelta
    | ThinkingDelta
    | SignatureDelta
    | InputDelta
    | OtherDelta
    | PartEnded
    | Stopped
    | Ended
    | Failed
    | Ping
    | OtherEvent
)
