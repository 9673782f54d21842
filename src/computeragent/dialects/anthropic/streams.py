"""The event stream of Anthropic Messages: `message_start` to `message_stop`, as server-sent events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from computeragent.dialects.anthropic.content import NAME, build_part, parse_part
from computeragent.dialects.anthropic.errors import build_error, parse_error_object
from computeragent.dialects.anthropic.responses import build_response, build_usage, parse_message, parse_usage
from computeragent.dialects.events import (
    Ended,
    Failed,
    InputDelta,
    ModelEvent,
    OtherDelta,
    OtherEvent,
    PartEnded,
    PartStarted,
    Ping,
    SignatureDelta,
    Started,
    Stopped,
    TextDelta,
    ThinkingDelta,
)
from computeragent.dialects.fields import Fields, read_body
from computeragent.dialects.model import ModelRequest, ModelResponse, ToolCall, Usage
from computeragent.dialects.sse import SseStreamParser, sse
from computeragent.dialects.streams import arguments_text
from computeragent.errors import ValidationError
from computeragent.wire.encoding import to_json
from computeragent.wire.sse import Frame

_BESIDE_DELTA = frozenset({"context_management"})  # in `message_delta` it stands next to the delta, not inside


def stream_parser() -> SseStreamParser:
    """A reader of one streamed answer."""
    return SseStreamParser(EventReader())


def stream_builder(request: ModelRequest | None = None) -> AnthropicStreamBuilder:
    """A writer of one streamed answer; this dialect needs nothing from the request."""
    del request
    return AnthropicStreamBuilder()


class EventReader:
    """Reads the events, whatever frames carry them (SSE here, AWS event-stream for Bedrock)."""

    def read(self, frame: Frame) -> Iterator[ModelEvent]:
        """The events of one server-sent event."""
        yield from self.read_object(read_body(frame.data.encode()))

    def finish(self) -> Iterator[ModelEvent]:
        """Nothing is held back."""
        return iter(())

    def read_object(self, fields: Fields) -> Iterator[ModelEvent]:
        """The events of one event object. Raises `ValidationError`."""
        name = fields.string("type")
        match name:
            case "message_start":
                yield _started(parse_message(_required(fields, "message")))
            case "content_block_start":
                yield PartStarted(_index(fields), parse_part(fields.take("content_block"), "content_block"))
            case "content_block_delta":
                yield _delta(_index(fields), _required(fields, "delta"))
            case "content_block_stop":
                yield PartEnded(_index(fields))
            case "message_delta":
                yield _stopped(fields)
            case "message_stop":
                yield Ended()
            case "ping":
                yield Ping()
            case "error":
                yield Failed(parse_error_object(_required(fields, "error")))
            case _:
                yield OtherEvent(name, fields.whole())


def _required(fields: Fields, name: str) -> Fields:
    value = fields.object(name)
    if value is None:
        raise ValidationError(f"{fields.at(name)}: field required")
    return value


def _index(fields: Fields) -> int:
    return fields.integer("index") or 0


def _started(message: ModelResponse) -> Started:
    extra = message.extra
    return Started(id=message.id, model=message.model, usage=message.usage, dialect=NAME, extra=extra)


def _delta(index: int, delta: Fields) -> ModelEvent:
    match delta.string("type"):
        case "text_delta":
            return TextDelta(index, delta.string("text"))
        case "thinking_delta":
            return ThinkingDelta(index, delta.string("thinking"))
        case "signature_delta":
            return SignatureDelta(index, delta.string("signature"))
        case "input_json_delta":
            return InputDelta(index, delta.string("partial_json"))
        case _:
            return OtherDelta(index, delta.whole())


def _stopped(fields: Fields) -> Stopped:
    delta = fields.object("delta") or Fields({})
    usage = parse_usage(fields.object("usage"))
    reason, sequence = delta.optional_string("stop_reason"), delta.optional_string("stop_sequence")
    extra = {**delta.rest(), **fields.rest()}
    return Stopped(stop_reason=reason, stop_sequence=sequence, usage=usage, extra=extra)


class AnthropicStreamBuilder:
    """Writes the events of one answer.

    Parts that this wire cannot take over from another dialect are left out, with all their events.
    """

    def __init__(self) -> None:
        self._own = False
        self._usage = Usage()
        self._indexes: dict[int, int] = {}

    def encode(self, event: ModelEvent) -> bytes:
        """The server-sent events of one event."""
        return b"".join(sse(to_json(data), data["type"]) for data in self.objects(event))

    def objects(self, event: ModelEvent) -> Iterator[dict[str, Any]]:
        """The event objects of one event; usually one, none for what this wire has no word for."""
        match event:
            case Started():
                yield self._start(event)
            case PartStarted():
                yield from self._start_part(event)
            case TextDelta():
                yield from self._delta(event.index, {"type": "text_delta", "text": event.text})
            case ThinkingDelta():
                yield from self._delta(event.index, {"type": "thinking_delta", "thinking": event.text})
            case SignatureDelta():
                yield from self._delta(event.index, {"type": "signature_delta", "signature": event.signature})
            case InputDelta():
                yield from self._delta(event.index, {"type": "input_json_delta", "partial_json": event.json})
            case OtherDelta():
                yield from self._delta(event.index, event.data) if self._own else ()
            case PartEnded():
                if event.index in self._indexes:
                    yield {"type": "content_block_stop", "index": self._indexes[event.index]}
            case Stopped():
                yield self._stop(event)
            case _:
                yield from self._simple(event)

    def _simple(self, event: ModelEvent) -> Iterator[dict[str, Any]]:
        match event:
            case Ended():
                yield {"type": "message_stop"}
            case Ping():
                yield {"type": "ping"}
            case Failed():
                yield build_error(event.error)
            case OtherEvent() if self._own:
                yield event.data
            case _:
                pass

    def _start(self, event: Started) -> dict[str, Any]:
        self._own = event.dialect == NAME
        self._usage = event.usage
        message = ModelResponse(
            id=event.id, model=event.model, usage=event.usage, dialect=event.dialect, extra=event.extra
        )
        return {"type": "message_start", "message": build_response(message)}

    def _start_part(self, event: PartStarted) -> Iterator[dict[str, Any]]:
        part = event.part
        block = build_part(replace(part, input={}) if isinstance(part, ToolCall) else part, own=self._own)
        if block is None:
            return
        index = self._indexes[event.index] = len(self._indexes)
        yield {"type": "content_block_start", "index": index, "content_block": block}
        if isinstance(part, ToolCall) and (part.input or part.malformed):
            # Clients of this wire read a call's input from deltas alone.
            yield from self._delta(event.index, {"type": "input_json_delta", "partial_json": arguments_text(part)})

    def _delta(self, index: int, delta: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if index in self._indexes:
            yield {"type": "content_block_delta", "index": self._indexes[index], "delta": delta}

    def _stop(self, event: Stopped) -> dict[str, Any]:
        # Some clients read the input count from here, so the start's counts are repeated.
        self._usage = self._usage.merge(event.usage) if event.usage else self._usage
        delta: dict[str, Any] = {"stop_reason": event.stop_reason, "stop_sequence": event.stop_sequence}
        beside: dict[str, Any] = {}
        for name, value in event.extra.items() if self._own else ():
            (beside if name in _BESIDE_DELTA else delta)[name] = value
        usage = build_usage(self._usage, own=self._own)
        return {"type": "message_delta", "delta": delta, "usage": usage, **beside}
