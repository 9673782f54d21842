"""Between a stream of events and a whole response, in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from computeragent.dialects.events import (
    Ended,
    Failed,
    InputDelta,
    ModelEvent,
    OtherDelta,
    PartEnded,
    PartStarted,
    SignatureDelta,
    Started,
    Stopped,
    TextDelta,
    ThinkingDelta,
)
from computeragent.dialects.model import ModelError, ModelResponse, Opaque, Part, Text, Thinking, ToolCall, Usage
from computeragent.wire.encoding import from_json, to_json


class ResponseAssembler:
    """Collects the events of one stream into the response that they spell.

    `response` may be read at any time; `ended` says whether it is complete, `error` what broke it off.
    """

    def __init__(self) -> None:
        self._response = ModelResponse(id="", model="")
        self._parts: dict[int, Part] = {}
        self._inputs: dict[int, list[str]] = {}
        self._texts: dict[int, list[str]] = {}
        self.ended = False
        self.error: ModelError | None = None

    def add(self, event: ModelEvent) -> None:
        """Take the next event."""
        match event:
            case Started():
                self._response = ModelResponse(
                    id=event.id, model=event.model, usage=event.usage, dialect=event.dialect, extra=event.extra
                )
            case PartStarted():
                self._parts[event.index] = event.part
            case TextDelta() | ThinkingDelta():
                self._texts.setdefault(event.index, []).append(event.text)
            case SignatureDelta():
                self._sign(event)
            case InputDelta():
                self._inputs.setdefault(event.index, []).append(event.json)
            case OtherDelta():
                self._add_other(event)
            case Stopped():
                self._stop(event)
            case Ended():
                self.ended = True
            case Failed():
                self.error = event.error
            case _:
                pass

    @property
    def response(self) -> ModelResponse:
        """The response as far as it has come."""
        return replace(self._response, content=tuple(self.part(index) for index in sorted(self._parts)))

    def part(self, index: int) -> Part:
        """One part as far as it has come."""
        part = self._parts[index]
        more = "".join(self._texts.get(index, ()))
        if isinstance(part, (Text, Thinking)):
            return replace(part, text=part.text + more) if more else part
        fragments = "".join(self._inputs.get(index, ()))
        if fragments and isinstance(part, ToolCall):
            return with_arguments(part, fragments)
        if fragments and isinstance(part, Opaque):
            return Opaque(part.kind, {**part.data, "input": parse_arguments(fragments) or {}})
        return part

    def _sign(self, event: SignatureDelta) -> None:
        part = self._parts.get(event.index)
        if isinstance(part, (Thinking, ToolCall)):
            self._parts[event.index] = replace(part, signature=(part.signature or "") + event.signature)

    def _add_other(self, event: OtherDelta) -> None:
        part = self._parts.get(event.index)
        if isinstance(part, Text) and "citation" in event.data:
            earlier = cast("list[Any]", part.extra.get("citations") or [])
            citations = [*earlier, event.data["citation"]]
            self._parts[event.index] = replace(part, extra={**part.extra, "citations": citations})
        extra: Any = event.data.get("extra")
        if isinstance(extra, dict) and isinstance(part, (Text, Thinking, ToolCall)):
            more = cast("dict[str, Any]", extra)
            self._parts[event.index] = replace(part, extra={**part.extra, **more})

    def _stop(self, event: Stopped) -> None:
        old = self._response
        self._response = replace(
            old,
            stop_reason=event.stop_reason or old.stop_reason,
            stop_sequence=event.stop_sequence or old.stop_sequence,
            usage=old.usage.merge(event.usage) if event.usage else old.usage,
            extra={**old.extra, **event.extra},
        )


def assemble(events: Iterable[ModelEvent]) -> ModelResponse:
    """The response that a finished stream spells; see `ResponseAssembler` for one that may fail."""
    assembler = ResponseAssembler()
    for event in events:
        assembler.add(event)
    return assembler.response


def response_events(response: ModelResponse, chunk_size: int | None = None) -> Iterator[ModelEvent]:
    """The events that spell `response`; text and inputs in deltas of `chunk_size` characters (default: one each)."""
    start = Usage(
        input_tokens=response.usage.input_tokens,
        cache_read_tokens=response.usage.cache_read_tokens,
        cache_write_tokens=response.usage.cache_write_tokens,
    )
    yield Started(id=response.id, model=response.model, usage=start, dialect=response.dialect, extra=response.extra)
    for index, part in enumerate(response.content):
        yield from _part_events(index, part, chunk_size)
    yield Stopped(stop_reason=response.stop_reason, stop_sequence=response.stop_sequence, usage=response.usage)
    yield Ended()


def _part_events(index: int, part: Part, size: int | None) -> Iterator[ModelEvent]:
    match part:
        case Text():
            yield PartStarted(index, replace(part, text=""))
            for piece in _pieces(part.text, size):
                yield TextDelta(index, piece)
        case Thinking(redacted=False):
            yield PartStarted(index, replace(part, text="", signature=None))
            for piece in _pieces(part.text, size):
                yield ThinkingDelta(index, piece)
            if part.signature is not None:
                yield SignatureDelta(index, part.signature)
        case ToolCall():
            yield PartStarted(index, replace(part, input={}, malformed=None))
            for piece in _pieces(arguments_text(part), size):
                yield InputDelta(index, piece)
        case _:
            yield PartStarted(index, part)
    yield PartEnded(index)


def _pieces(text: str, size: int | None) -> Iterator[str]:
    step = size or max(len(text), 1)
    for start in range(0, len(text), step):
        yield text[start : start + step]


def arguments_text(call: ToolCall) -> str:
    """A tool call's input as JSON text."""
    return call.malformed if call.malformed is not None else to_json(call.input).decode()


def parse_arguments(text: str) -> dict[str, Any] | None:
    """JSON text as a tool input; no text is an empty input, None means that it is not a JSON object."""
    if not text.strip():
        return {}
    try:
        value = from_json(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def with_arguments(call: ToolCall, text: str) -> ToolCall:
    """The call with its input read from JSON text, which is kept as `malformed` where it is no JSON object."""
    value = parse_arguments(text)
    return replace(call, input=value or {}, malformed=text if value is None else None)
