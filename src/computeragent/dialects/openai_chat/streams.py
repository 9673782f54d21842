"""The stream of OpenAI Chat Completions: `chat.completion.chunk` objects, then `[DONE]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from computeragent.dialects.events import (
    Ended,
    Failed,
    InputDelta,
    ModelEvent,
    PartEnded,
    PartStarted,
    Started,
    Stopped,
    TextDelta,
    ThinkingDelta,
)
from computeragent.dialects.fields import Fields, absent_if_none, read_body
from computeragent.dialects.model import ModelRequest, Part, Text, Thinking, ToolCall, Usage
from computeragent.dialects.openai_chat.content import NAME
from computeragent.dialects.openai_chat.errors import build_error, parse_error_object
from computeragent.dialects.openai_chat.responses import build_usage, finish_reason, parse_usage, stop_reason
from computeragent.dialects.sse import SseStreamParser, sse
from computeragent.dialects.streams import arguments_text
from computeragent.wire.encoding import to_json
from computeragent.wire.sse import Frame

_DONE = "[DONE]"


def stream_parser() -> SseStreamParser:
    """A reader of one streamed answer."""
    return SseStreamParser(ChunkReader())


def stream_builder(request: ModelRequest | None = None) -> OpenAIChatStreamBuilder:
    """A writer of one streamed answer; usage is written where `request` asks for it."""
    return OpenAIChatStreamBuilder(include_usage=request.stream_usage if request is not None else True)


class ChunkReader:
    """Reads the chunks. This wire does not name its parts, so they are told apart by what the deltas hold.

    The finish reason is held back until usage or the end has come: the neutral model reports both at once.
    """

    def __init__(self) -> None:
        self._started = False
        self._open: tuple[str, int] | None = None
        self._count = 0
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._call_id = ""

    def read(self, frame: Frame) -> Iterator[ModelEvent]:
        """The events of one chunk."""
        if frame.data.strip() == _DONE:
            yield from self._end()
            return
        fields = read_body(frame.data.encode())
        if (error := fields.object("error")) is not None:
            yield Failed(parse_error_object(error))
            return
        if not self._started:
            self._started = True
            yield _started(fields)
        self._usage = parse_usage(fields.object("usage")) or self._usage
        for path, item in fields.items("choices"):
            choice = Fields(item, path)
            if choice.integer("index"):
                continue  # only the first of several answers
            yield from self._read_delta(choice.object("delta") or Fields({}))
            self._reason = stop_reason(choice.optional_string("finish_reason")) or self._reason

    def finish(self) -> Iterator[ModelEvent]:
        """A server that gave its reason and left out `[DONE]` has ended in good order."""
        if self._reason is not None:
            yield from self._end()

    def _end(self) -> Iterator[ModelEvent]:
        yield from self._close()
        yield Stopped(stop_reason=self._reason, usage=self._usage)
        yield Ended()

    def _read_delta(self, delta: Fields) -> Iterator[ModelEvent]:
        if reasoning := delta.optional_string("reasoning_content") or delta.optional_string("reasoning"):
            yield from self._enter("thinking", 0, Thinking(""))
            yield ThinkingDelta(self._count - 1, reasoning)
        if text := delta.optional_string("content"):
            yield from self._enter("text", 0, Text(""))
            yield TextDelta(self._count - 1, text)
        if refusal := delta.optional_string("refusal"):
            self._reason = "refusal"
            yield from self._enter("text", 0, Text(""))
            yield TextDelta(self._count - 1, refusal)
        for path, item in delta.items("tool_calls"):
            yield from self._read_call(Fields(item, path))

    def _read_call(self, call: Fields) -> Iterator[ModelEvent]:
        function = call.object("function") or Fields({})
        number, call_id = call.integer("index") or 0, call.optional_string("id")
        name = function.optional_string("name")
        if self._open != ("tool", number) or (call_id and call_id != self._call_id):
            # Some servers give every call the index 0 and only change the id.
            yield from self._close()
            self._call_id = call_id or ""
            part = ToolCall(id=call_id or f"call_{self._count}", name=name or "")
            yield from self._enter("tool", number, part)
        if arguments := function.optional_string("arguments"):
            yield InputDelta(self._count - 1, arguments)

    def _enter(self, kind: str, number: int, part: Part) -> Iterator[ModelEvent]:
        if self._open == (kind, number):
            return
        yield from self._close()
        self._open = (kind, number)
        self._count += 1
        yield PartStarted(self._count - 1, part)

    def _close(self) -> Iterator[ModelEvent]:
        if self._open is not None:
            self._open = None
            yield PartEnded(self._count - 1)


def _started(fields: Fields) -> Started:
    answer_id, model = fields.optional_string("id") or "", fields.optional_string("model") or ""
    extra = {name: value for name, value in fields.rest().items() if name not in {"object", "choices", "usage"}}
    return Started(id=answer_id, model=model, dialect=NAME, extra=extra)


class OpenAIChatStreamBuilder:
    """Writes the chunks of one answer; usage comes in a chunk of its own at the end, if `include_usage`."""

    def __init__(self, *, include_usage: bool = True) -> None:
        self._include_usage = include_usage
        self._head: dict[str, Any] = {}
        self._usage = Usage()
        self._own = False
        self._calls: dict[int, int] = {}

    def encode(self, event: ModelEvent) -> bytes:
        """The server-sent events of one event."""
        match event:
            case Started():
                return self._start(event)
            case PartStarted():
                return self._start_part(event)
            case TextDelta():
                return self._delta({"content": event.text})
            case ThinkingDelta():
                return self._delta({"reasoning_content": event.text})
            case InputDelta():
                return self._arguments(event.index, event.json)
            case Stopped():
                return self._stop(event)
            case Ended():
                return self._usage_chunk() + sse(_DONE.encode())
            case Failed():
                return sse(to_json(build_error(event.error)))
            case _:
                return b""

    def _start(self, event: Started) -> bytes:
        self._own = event.dialect == NAME
        self._usage = event.usage
        extra = event.extra if self._own else {}
        self._head = {"id": event.id, "object": "chat.completion.chunk", "created": 0, "model": event.model, **extra}
        return self._delta({"role": "assistant", "content": ""})

    def _start_part(self, event: PartStarted) -> bytes:
        match event.part:
            case Text(text=text) if text:
                return self._delta({"content": text})
            case Thinking(text=text) if text:
                return self._delta({"reasoning_content": text})
            case ToolCall() as call:
                number = self._calls[event.index] = len(self._calls)
                text = arguments_text(call) if call.input or call.malformed else ""
                function = {"name": call.name, "arguments": text}
                built = {"index": number, "id": call.id, "type": "function", "function": function}
                return self._delta({"tool_calls": [built]})
            case _:
                return b""

    def _arguments(self, index: int, text: str) -> bytes:
        if index not in self._calls:
            return b""
        return self._delta({"tool_calls": [{"index": self._calls[index], "function": {"arguments": text}}]})

    def _stop(self, event: Stopped) -> bytes:
        self._usage = self._usage.merge(event.usage) if event.usage else self._usage
        return self._delta({}, finish_reason(event.stop_reason, bool(self._calls)))

    def _delta(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "finish_reason": finish}])

    def _usage_chunk(self) -> bytes:
        return self._chunk([], usage=build_usage(self._usage, own=self._own)) if self._include_usage else b""

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        return sse(to_json({**self._head, "choices": choices, **absent_if_none(usage=usage)}))
