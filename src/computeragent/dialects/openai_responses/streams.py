"""The event stream of OpenAI Responses: `response.created` to `response.completed`, as server-sent events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from computeragent.dialects.events import (
    Ended,
    Failed,
    InputDelta,
    ModelEvent,
    OtherDelta,
    OtherEvent,
    PartEnded,
    PartStarted,
    SignatureDelta,
    Started,
    Stopped,
    TextDelta,
    ThinkingDelta,
)
from computeragent.dialects.fields import Fields, read_body
from computeragent.dialects.model import Part, Text, Thinking, ToolCall
from computeragent.dialects.openai_responses.content import parse_part
from computeragent.dialects.openai_responses.errors import parse_failure
from computeragent.dialects.openai_responses.items import CUSTOM_CALL, NAME, parse_output_item
from computeragent.dialects.openai_responses.responses import parse_usage, response_extra, stop_reason
from computeragent.dialects.sse import SseStreamParser
from computeragent.dialects.streams import arguments_text
from computeragent.wire.encoding import to_json
from computeragent.wire.sse import Frame


def stream_parser() -> SseStreamParser:
    """A reader of one streamed answer."""
    return SseStreamParser(EventReader())


@dataclass
class _Open:
    """A part that is being written: its number, and what of it was said by deltas."""

    index: int
    part: Part
    said: bool = False


@dataclass
class _Item:
    """An item that is being written. A message has a part for each of its contents, every other item at most one."""

    kind: str
    id: str | None
    parts: dict[int, _Open] = field(default_factory=dict[int, _Open])
    ended: int = 0


class EventReader:
    """Reads the events. Items that this wire writes at once (computer calls, web search) come when complete."""

    def __init__(self) -> None:
        self._items: dict[int, _Item] = {}
        self._count = 0
        self._parts: list[Part] = []
        self._started = False

    def read(self, frame: Frame) -> Iterator[ModelEvent]:
        """The events of one server-sent event."""
        if frame.data.strip() == "[DONE]":  # some compatible servers end like Chat Completions
            return
        fields = read_body(frame.data.encode())
        name = fields.string("type")
        match name:
            case "response.created":
                yield from self._start(fields)
            case "response.in_progress" | "response.queued":
                pass
            case "response.output_item.added":
                yield from self._add_item(fields)
            case "response.output_item.done":
                yield from self._end_item(fields)
            case "response.completed" | "response.incomplete":
                yield from self._end(fields)
            case "response.failed":
                response = fields.object("response") or Fields({})
                yield Failed(parse_failure(response.object("error") or Fields({})))
            case "error":
                yield Failed(parse_failure(fields))
            case _:
                yield from self._read_inner(name, fields)

    def finish(self) -> Iterator[ModelEvent]:
        """Nothing is held back."""
        return iter(())

    def _start(self, fields: Fields) -> Iterator[ModelEvent]:
        self._started = True
        response = fields.object("response") or Fields({})
        answer_id, model = response.optional_string("id") or "", response.optional_string("model") or ""
        yield Started(id=answer_id, model=model, dialect=NAME, extra=response_extra(response))

    def _read_inner(self, name: str, fields: Fields) -> Iterator[ModelEvent]:
        """The events inside an item."""
        match name:
            case "response.content_part.added":
                yield from self._add_content(fields)
            case "response.output_text.delta" | "response.refusal.delta":
                yield from self._text(fields, refusal="refusal" in name)
            case "response.content_part.done":
                yield from self._end_content(fields)
            case "response.reasoning_summary_part.added" | "response.custom_tool_call_input.delta":
                yield from self._single(name, fields)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                yield from self._single(name, fields)
            case "response.function_call_arguments.delta":
                yield from self._single(name, fields)
            case _ if name.endswith(".done") or name == "response.output_text.annotation.added":
                pass  # the item itself says it again
            case _:
                yield OtherEvent(name, fields.whole())

    def _single(self, name: str, fields: Fields) -> Iterator[ModelEvent]:
        """The events of an item that is one part."""
        item = self._items.get(fields.integer("output_index") or 0)
        open_part = None if item is None else item.parts.get(0)
        if open_part is None:
            return
        said, text = open_part.said, fields.optional_string("delta") or ""
        open_part.said = said or bool(text)
        if name == "response.reasoning_summary_part.added":
            if said:  # a further paragraph
                yield ThinkingDelta(open_part.index, "\n\n")
        elif name == "response.custom_tool_call_input.delta":
            # The JSON of an input with the one field `input`, which grows.
            start = "" if said else '{"input":"'
            yield InputDelta(open_part.index, start + to_json(text).decode()[1:-1])
        elif name == "response.function_call_arguments.delta":
            yield InputDelta(open_part.index, text)
        else:
            yield ThinkingDelta(open_part.index, text)

    def _open(self, item: _Item, place: int, part: Part) -> Iterator[ModelEvent]:
        item.parts[place] = _Open(self._count, part)
        self._count += 1
        self._parts.append(part)
        yield PartStarted(self._count - 1, part)

    def _add_item(self, fields: Fields) -> Iterator[ModelEvent]:
        number, inner = fields.integer("output_index") or 0, fields.object("item") or Fields({})
        kind, item_id = inner.string("type"), inner.optional_string("id")
        item = self._items[number] = _Item(kind, item_id)
        extra = {} if item_id is None else {"id": item_id}
        match kind:
            case "reasoning":
                yield from self._open(item, 0, Thinking("", extra=extra))
            case "function_call":
                call = ToolCall(id=inner.string("call_id"), name=inner.string("name"), extra=extra)
                yield from self._open(item, 0, call)
            case "custom_tool_call":
                extra = {"type": kind, **extra}
                call = ToolCall(id=inner.string("call_id"), name=inner.string("name"), extra=extra)
                yield from self._open(item, 0, call)
            case _:
                pass

    def _message(self, fields: Fields) -> _Item:
        number = fields.integer("output_index") or 0
        return self._items.setdefault(number, _Item("message", fields.optional_string("item_id")))

    def _add_content(self, fields: Fields) -> Iterator[ModelEvent]:
        item, place = self._message(fields), fields.integer("content_index") or 0
        if item.kind != "message" or place in item.parts:
            return
        part = parse_part(fields.take("part"), "part")
        if isinstance(part, Text):
            extra = {**part.extra, **({} if item.id is None else {"message": {"id": item.id}})}
            part = Text("", extra)
        yield from self._open(item, place, part)

    def _text(self, fields: Fields, *, refusal: bool) -> Iterator[ModelEvent]:
        item, place = self._message(fields), fields.integer("content_index") or 0
        if place not in item.parts:  # a server that does not announce its parts
            yield from self._open(item, place, Text("", {"type": "refusal"} if refusal else {}))
        item.parts[place].said = True
        yield TextDelta(item.parts[place].index, fields.string("delta"))

    def _end_content(self, fields: Fields) -> Iterator[ModelEvent]:
        item, place = self._message(fields), fields.integer("content_index") or 0
        if item.kind != "message" or place not in item.parts:
            return
        open_part, part = item.parts[place], parse_part(fields.take("part"), "part")
        if isinstance(part, Text):
            yield from self._late_text(open_part, part)
        if isinstance(part, Text) and part.extra.keys() - {"type"}:
            yield OtherDelta(open_part.index, {"extra": part.extra})
        item.ended += 1
        yield PartEnded(open_part.index)

    def _late_text(self, open_part: _Open, part: Text) -> Iterator[ModelEvent]:
        if part.text and not open_part.said:
            open_part.said = True
            yield TextDelta(open_part.index, part.text)

    def _end_item(self, fields: Fields) -> Iterator[ModelEvent]:
        number, inner = fields.integer("output_index") or 0, fields.object("item") or Fields({})
        kind = inner.string("type")
        item = self._items.setdefault(number, _Item(kind, None))
        parts = parse_output_item(kind, inner)
        for place, part in enumerate(parts):
            open_part = item.parts.get(place)
            if open_part is None:
                yield from self._whole(item, place, part)
            elif kind != "message":
                yield from self._complete(open_part, part)
                yield PartEnded(open_part.index)
            elif item.ended <= place and isinstance(part, Text):
                yield from self._late_text(open_part, part)
                yield PartEnded(open_part.index)

    def _whole(self, item: _Item, place: int, part: Part) -> Iterator[ModelEvent]:
        """A part that comes at once."""
        match part:
            case ToolCall():
                yield from self._open(item, place, ToolCall(id=part.id, name=part.name, extra=part.extra))
                yield InputDelta(item.parts[place].index, arguments_text(part))
            case _:
                yield from self._open(item, place, part)
        yield PartEnded(item.parts[place].index)

    def _complete(self, open_part: _Open, part: Part) -> Iterator[ModelEvent]:
        """What the deltas have not said of a part that is complete now."""
        index, begun = open_part.index, open_part.part
        if isinstance(part, ToolCall):
            if not open_part.said:
                yield InputDelta(index, arguments_text(part))
            elif part.extra.get("type") == CUSTOM_CALL:
                yield InputDelta(index, '"}')
        if isinstance(part, Thinking):
            if part.text and not open_part.said:
                yield ThinkingDelta(index, part.text)
            if part.signature is not None:
                yield SignatureDelta(index, part.signature)
        if isinstance(part, (ToolCall, Thinking)) and isinstance(begun, (ToolCall, Thinking)):
            more = {name: value for name, value in part.extra.items() if begun.extra.get(name) != value}
            if more:
                yield OtherDelta(index, {"extra": more})

    def _end(self, fields: Fields) -> Iterator[ModelEvent]:
        response = fields.object("response") or Fields({})
        if not self._started:
            yield from self._start(Fields({"response": response.whole()}))
        if not self._items:  # a server that tells everything at the end
            for number, (path, value) in enumerate(response.items("output")):
                inner = Fields(value, path)
                item = self._items[number] = _Item(inner.string("type"), None)
                for place, part in enumerate(parse_output_item(item.kind, inner)):
                    yield from self._whole(item, place, part)
        reason, usage = stop_reason(response, self._parts), parse_usage(response.object("usage"))
        yield Stopped(stop_reason=reason, usage=usage, extra=response_extra(response))
        yield Ended()
