"""Writes the event stream of OpenAI Responses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from msgspec.structs import replace

from computeragent.dialects.events import (
    Ended,
    Failed,
    InputDelta,
    ModelEvent,
    OtherEvent,
    PartEnded,
    PartStarted,
    Started,
    Stopped,
    TextDelta,
    ThinkingDelta,
)
from computeragent.dialects.model import ModelRequest, ModelResponse, Part, Text, Thinking, ToolCall
from computeragent.dialects.openai_chat.errors import build_error
from computeragent.dialects.openai_responses.content import REFUSAL, build_part
from computeragent.dialects.openai_responses.items import COMPUTER_CALL, CUSTOM_CALL, NAME, build_item, build_message
from computeragent.dialects.openai_responses.responses import finished, id_maker, response_object
from computeragent.dialects.sse import sse
from computeragent.dialects.streams import ResponseAssembler
from computeragent.wire.encoding import to_json


def stream_builder(request: ModelRequest | None = None) -> OpenAIResponsesStreamBuilder:
    """A writer of one streamed answer; this dialect needs nothing from the request."""
    del request
    return OpenAIResponsesStreamBuilder()


class OpenAIResponsesStreamBuilder:
    """Writes the events of one answer.

    Neighbouring texts of one message stay one item, so a message ends when something else begins. Parts that this wire
    cannot take over from another dialect are left out, with all their events.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._assembler = ResponseAssembler()
        self._own = False
        self._make_id = id_maker("")
        self._output: list[dict[str, Any]] = []  # what is complete
        self._message: list[Text] | None = None  # the texts of the message that is open
        self._message_item: dict[str, Any] = {}
        self._open: PartStarted | None = None
        self._item_id = ""
        self._length = 0  # of what the open part has said

    def encode(self, event: ModelEvent) -> bytes:
        """The server-sent events of one event."""
        self._assembler.add(event)
        return b"".join(self._frame(data) for data in self._objects(event))

    def _frame(self, data: dict[str, Any]) -> bytes:
        data = {**data, "sequence_number": self._sequence}
        self._sequence += 1
        return sse(to_json(data), str(data["type"]))

    def _objects(self, event: ModelEvent) -> Iterator[dict[str, Any]]:
        match event:
            case Started():
                yield from self._start(event)
            case PartStarted():
                yield from self._start_part(event)
            case TextDelta() | ThinkingDelta() | InputDelta():
                yield from self._delta(event)
            case PartEnded():
                yield from self._end_part(event.index)
            case Stopped():
                yield from self._close_message()
            case Ended():
                yield from self._end()
            case Failed():
                said = build_error(event.error)["error"]
                code = event.error.code or said["code"] or said["type"]
                yield {"type": "error", "code": code, "message": event.error.message, "param": None}
            case OtherEvent() if self._own:
                yield {"type": event.name, **event.data}
            case _:
                pass  # signatures and the like are said by the item when it is complete

    def _start(self, event: Started) -> Iterator[dict[str, Any]]:
        self._own = event.dialect == NAME
        self._make_id = id_maker(event.id)
        begun = ModelResponse(id=event.id, model=event.model, dialect=event.dialect, extra=event.extra)
        response = {**response_object(begun, []), "status": "in_progress", "usage": None}
        yield {"type": "response.created", "response": response}
        yield {"type": "response.in_progress", "response": response}

    def _start_part(self, event: PartStarted) -> Iterator[dict[str, Any]]:
        self._open, self._length = event, 0
        part = event.part
        extra = cast("dict[str, Any]", getattr(part, "extra", {})) if self._own else {}
        if isinstance(part, Text):
            yield from self._start_text(part, extra)
            return
        yield from self._close_message()
        match part:
            case Thinking():
                self._item_id = extra.get("id") or self._make_id("rs_")
                yield self._added({"type": "reasoning", "id": self._item_id, "summary": [], "status": "in_progress"})
            case ToolCall() if extra.get("type") != COMPUTER_CALL:
                custom = extra.get("type") == CUSTOM_CALL
                self._item_id = extra.get("id") or self._make_id("ctc_" if custom else "fc_")
                kind, field = (CUSTOM_CALL, "input") if custom else ("function_call", "arguments")
                head = {"type": kind, "id": self._item_id, "call_id": part.id, "name": part.name, field: ""}
                yield self._added({**head, "status": "in_progress"})
            case _:
                self._item_id = ""  # comes at once, when it is complete

    def _start_text(self, part: Text, extra: dict[str, Any]) -> Iterator[dict[str, Any]]:
        item = cast("dict[str, Any]", extra.get("message") or {})
        if self._message is not None and item != self._message_item:
            yield from self._close_message()
        if self._message is None:
            self._message, self._message_item = [], item
            self._item_id = item.get("id") or self._make_id("msg_")
            head: dict[str, Any] = {"type": "message", "id": self._item_id, "role": "assistant", "content": [], **item}
            yield self._added({**head, "status": "in_progress"})
        block = build_part(replace(part, text=""), own=self._own, output=True)
        yield {"type": "response.content_part.added", **self._place(), "part": block}
        if part.text:
            yield self._text_delta(part.text)

    def _delta(self, event: TextDelta | ThinkingDelta | InputDelta) -> Iterator[dict[str, Any]]:
        if self._open is None or self._open.index != event.index:
            return
        part = self._open.part
        match event:
            case TextDelta() if isinstance(part, Text):
                yield self._text_delta(event.text)
            case ThinkingDelta() if isinstance(part, Thinking):
                place = {"item_id": self._item_id, "output_index": len(self._output), "summary_index": 0}
                if not self._length:
                    empty = {"type": "summary_text", "text": ""}
                    yield {"type": "response.reasoning_summary_part.added", **place, "part": empty}
                yield {"type": "response.reasoning_summary_text.delta", **place, "delta": event.text}
                self._length += len(event.text)
            case InputDelta() if isinstance(part, ToolCall) and not self._special(part):
                yield {
                    "type": "response.function_call_arguments.delta",
                    "item_id": self._item_id,
                    "output_index": len(self._output),
                    "delta": event.json,
                }
                self._length += len(event.json)
            case _:
                pass

    def _special(self, part: ToolCall) -> bool:
        return self._own and part.extra.get("type") in {COMPUTER_CALL, CUSTOM_CALL}

    def _text_delta(self, text: str) -> dict[str, Any]:
        if self._is_refusal():
            return {"type": "response.refusal.delta", **self._place(), "delta": text}
        return {"type": "response.output_text.delta", **self._place(), "delta": text, "logprobs": []}

    def _is_refusal(self) -> bool:
        part = self._open.part if self._open is not None else None
        return self._own and isinstance(part, Text) and part.extra.get("type") == REFUSAL

    def _place(self) -> dict[str, Any]:
        position = len(self._message or ())
        return {"item_id": self._item_id, "output_index": len(self._output), "content_index": position}

    def _end_part(self, index: int) -> Iterator[dict[str, Any]]:
        if self._open is None or self._open.index != index:
            return
        part = self._assembler.part(index)
        if isinstance(part, Text):
            block = build_part(part, own=self._own, output=True)
            if self._is_refusal():
                yield {"type": "response.refusal.done", **self._place(), "refusal": part.text}
            else:
                yield {"type": "response.output_text.done", **self._place(), "text": part.text, "logprobs": []}
            yield {"type": "response.content_part.done", **self._place(), "part": block}
            (self._message if self._message is not None else []).append(part)
        else:
            yield from self._end_single(part)
        self._open = None

    def _end_single(self, part: Part) -> Iterator[dict[str, Any]]:
        at_once = not isinstance(part, Thinking) and not (isinstance(part, ToolCall) and self._item_id)
        item = build_item(part, own=self._own, make_id=self._make_id if at_once else lambda _: self._item_id)
        if item is None:
            return
        place = {"item_id": item.get("id"), "output_index": len(self._output)}
        match item["type"]:
            case "reasoning" if self._length:
                text = cast("Thinking", part).text
                place = {**place, "summary_index": 0}
                yield {"type": "response.reasoning_summary_text.done", **place, "text": text}
                block = {"type": "summary_text", "text": text}
                yield {"type": "response.reasoning_summary_part.done", **place, "part": block}
            case "reasoning":
                pass
            case "function_call":
                if not self._length and item["arguments"]:
                    yield {
                        "type": "response.function_call_arguments.delta",
                        **place,
                        "delta": item["arguments"],
                    }
                done = {"name": item["name"], "arguments": item["arguments"]}
                yield {"type": "response.function_call_arguments.done", **place, **done}
            case "custom_tool_call":
                yield {"type": "response.custom_tool_call_input.delta", **place, "delta": item["input"]}
                yield {"type": "response.custom_tool_call_input.done", **place, "input": item["input"]}
            case "computer_call":
                yield self._added({**item, "status": "in_progress"})
            case _:
                yield self._added(item)
        yield self._done(item)

    def _close_message(self) -> Iterator[dict[str, Any]]:
        if self._message is None:
            return
        texts, item = tuple(self._message), {"id": self._item_id, **self._message_item}
        self._message, self._message_item = None, {}
        yield self._done(build_message(texts, item, own=self._own, make_id=None, status="completed"))

    def _added(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"type": "response.output_item.added", "output_index": len(self._output), "item": item}

    def _done(self, item: dict[str, Any]) -> dict[str, Any]:
        self._output.append(item)
        return {"type": "response.output_item.done", "output_index": len(self._output) - 1, "item": item}

    def _end(self) -> Iterator[dict[str, Any]]:
        yield from self._close_message()
        response = self._assembler.response
        status, _ = finished(response.stop_reason)
        yield {"type": f"response.{status}", "response": response_object(response, self._output)}
