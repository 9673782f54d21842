"""A turn's events as OpenAI's Responses has them: output items, and the events that stream them.

Items are after the published Responses API. Of ours are the actions that it has no word for (``triple_click``,
``hold_key``, ``zoom`` …) and what `computer_call_output` says beside the picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from computeragent.wire.events import (
    CaPermissionDecision,
    CaPermissionRequest,
    CaSessionEnded,
    CaUsageSnapshot,
    HarnessEvent,
    SdkMessage,
)

Json = dict[str, Any]
Emit = Callable[[str, Json], None]

COMPUTER_TOOL = "computer"
_CLICKS = {1: "click", 2: "double_click", 3: "triple_click"}


class Projection:
    """Turns the events of one turn into `output`, told to `emit` event by event. Deterministic: replay gives the same.

    `emit` gets an event's type and its fields, without `type` and `sequence_number`. `key` makes the ids of items.
    Without `results` there are no items of what calls brought; without `images` they have no pictures.
    """

    def __init__(self, emit: Emit, key: str, *, results: bool = True, images: bool = True) -> None:
        self.output: list[Json] = []
        self.usage: Json = {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
        }
        self.cost: float | None = None
        self.cost_before = 0.0
        """What the run had cost before this turn: snapshots tell the run's total."""
        self.waiting: dict[str, Json] = {}
        """Calls that wait for somebody's word, by call id."""
        self._emit = emit
        self._key = key
        self._results = results
        self._images = images
        self._calls: dict[str, Json] = {}
        self._open: dict[str, Json] | None = None
        self._streamed: list[Json] = []  # the texts of the answer that is being written
        self._written = False  # whether the open text has its end, which may be that of an answer that broke off

    def take(self, event: HarnessEvent) -> Json | None:
        """Take the next event; returns the engine's result message if this is it."""
        match event:
            case SdkMessage():
                payload: object = event.payload
                return self._message(cast("Json", payload)) if isinstance(payload, dict) else None
            case CaUsageSnapshot():
                self._count(event)
            case CaPermissionRequest():
                self._ask(event)
            case CaPermissionDecision():
                if self.waiting.pop(event.call_id, None) is not None:  # of most actions nobody was asked
                    self._decided(event)
            case CaSessionEnded():
                self.close()
            case _:
                pass
        return None

    def close(self) -> None:
        """The turn is over: what was under way is not any more."""
        self._close_text("incomplete")
        for call in self._calls.values():
            if call["status"] == "in_progress":
                call["status"] = "incomplete"

    # ── What the model says ──

    def _message(self, payload: Json) -> Json | None:
        kind = payload.get("type")
        if payload.get("parent_tool_use_id") is not None:
            return None
        if kind == "stream_event":
            self._delta(payload.get("event") or {})
        elif kind == "assistant":
            self._close_text("completed")
            for block in _blocks(payload):
                self._said(block)
            self._streamed = []
        elif kind == "system" and payload.get("subtype") == "api_retry":
            self._take_back()
        elif kind == "user":
            for block in _blocks(payload):
                if block.get("type") == "tool_result":
                    self._returned(block)
        return payload if kind == "result" else None

    def _delta(self, event: Json) -> None:
        delta: Json = event.get("delta") or {}
        if event.get("type") == "message_start":
            self._streamed = []
        elif event.get("type") == "content_block_delta" and delta.get("type") == "text_delta":
            if self._written:
                self._close_text("completed")
            self._text(str(delta.get("text", "")), self._streamed)
        elif event.get("type") == "content_block_stop":
            self._written = self._open is not None

    def _take_back(self) -> None:
        """The answer broke off, and is asked for again: what there was of it is not said."""
        self._close_text("incomplete")
        for item in self._streamed:
            item["status"], item["content"] = "incomplete", []
        self._streamed = []

    def _said(self, block: Json) -> None:
        match block.get("type"):
            case "text" if not self._streamed:
                self._text(str(block.get("text", "")))
                self._close_text("completed")
            case "thinking":
                text = str(block.get("thinking", ""))
                self._add({"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}, "rs")
            case "tool_use":
                self._called(block)
            case _:
                pass

    def _text(self, text: str, streamed: list[Json] | None = None) -> None:
        if self._open is None:
            item = self._new({"type": "message", "role": "assistant", "status": "in_progress", "content": []}, "msg")
            part: Json = {"type": "output_text", "text": "", "annotations": []}
            self._open = {"item": item, "part": part}
            if streamed is not None:
                streamed.append(item)
            self._tell("output_item.added", item=dict(item))
            self._tell("content_part.added", **self._place(), part=dict(part))
            item["content"] = [part]
        if text:
            self._open["part"]["text"] += text
            self._tell("output_text.delta", **self._place(), delta=text, logprobs=[])

    def _close_text(self, status: str) -> None:
        if self._open is None:
            return
        place, item, part = self._place(), self._open["item"], self._open["part"]
        item["status"] = status
        self._tell("output_text.done", **place, text=part["text"], logprobs=[])
        self._tell("content_part.done", **place, part=part)
        self._tell("output_item.done", item=item)
        self._open, self._written = None, False

    def _place(self) -> Json:
        assert self._open is not None
        return {"item_id": self._open["item"]["id"], "content_index": 0}

    # ── What it does ──

    def _called(self, block: Json) -> None:
        call_id, name = str(block.get("id", "")), str(block.get("name", ""))
        given: Json = block.get("input") or {}
        if name == COMPUTER_TOOL:
            checks: object = given.get("pending_safety_checks")
            item: Json = {
                "type": "computer_call",
                "call_id": call_id,
                "action": wire_action(given),
                "pending_safety_checks": checks if isinstance(checks, list) else [],
            }
            prefix = "cu"
        else:
            item = {"type": "function_call", "call_id": call_id, "name": name, "arguments": _json(given)}
            prefix = "fc"
        self._calls[call_id] = self._new({**item, "status": "in_progress"}, prefix)
        self._tell("output_item.added", item=dict(self._calls[call_id]))

    def _returned(self, block: Json) -> None:
        call_id = str(block.get("tool_use_id", ""))
        call = self._calls.get(call_id)
        if call is None:
            return
        failed = bool(block.get("is_error"))
        call["status"] = "incomplete" if failed else "completed"
        self._tell("output_item.done", item=call)
        if not self._results:
            return
        text, image = _result(block.get("content"))
        if call["type"] == "function_call":
            item: Json = {"type": "function_call_output", "call_id": call_id, "output": text}
            self._add({**item, "status": call["status"]}, "fco")
            return
        item = {"type": "computer_call_output", "call_id": call_id, "status": call["status"]}
        item["acknowledged_safety_checks"] = [] if failed else call["pending_safety_checks"]
        item["output"] = {"type": "computer_screenshot", **({"image_url": image} if image and self._images else {})}
        if text:
            item["error" if failed else "text"] = text
        self._add(item, "cuo")

    def _ask(self, event: CaPermissionRequest) -> None:
        asked = {
            "call_id": event.call_id,
            "tool": event.tool_name,
            "input": event.input,
            "risk": event.risk,
            "reason": event.reason,
        }
        self.waiting[event.call_id] = asked
        self._emit("response.approval.requested", {"approval": asked})

    def _decided(self, event: CaPermissionDecision) -> None:
        decided = {"call_id": event.call_id, "decision": event.decision, "reason": event.reason}
        self._emit("response.approval.decided", {"approval": {**decided, "decided_by": event.decided_by}})

    # ── Items ──

    def _new(self, item: Json, prefix: str) -> Json:
        item = {"id": f"{prefix}_{self._key}_{len(self.output)}", **item}
        self.output.append(item)
        return item

    def _add(self, item: Json, prefix: str) -> None:
        made = self._new(item, prefix)
        self._tell("output_item.added", item=without_image(made))
        self._tell("output_item.done", item=made)

    def _tell(self, what: str, **fields: Any) -> None:
        item: Json | None = fields.get("item")
        of = fields.get("item_id") if item is None else item["id"]
        index = next(n for n, each in enumerate(self.output) if each["id"] == of)
        self._emit(f"response.{what}", {"output_index": index, **fields})

    # ── What it cost ──

    def _count(self, event: CaUsageSnapshot) -> None:
        read, written = event.cache_read_input_tokens or 0, event.cache_creation_input_tokens or 0
        fresh, out = event.input_tokens or 0, event.output_tokens or 0
        usage = self.usage
        usage["input_tokens"] += fresh + read + written
        usage["output_tokens"] += out
        usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]
        usage["input_tokens_details"]["cached_tokens"] += read
        usage["input_tokens_details"]["cache_write_tokens"] += written
        if event.cost_usd is not None:
            self._charge(event.cost_usd, is_total=event.cost_semantic != "delta")

    def _charge(self, amount: float, *, is_total: bool) -> None:
        if is_total:
            self.cost = max(self.cost or 0.0, amount - self.cost_before)
        else:
            self.cost = (self.cost or 0.0) + amount
        self.usage["response_cost"] = round(self.cost, 10)


def wire_action(action: Json) -> Json:
    """One of our actions (`computer.actions`) in the words of OpenAI's computer tool; nonsense as the model said it."""
    try:
        return _wired(action)
    except (TypeError, ValueError, OverflowError):
        return {**action, "type": action["action"]}


def _wired(action: Json) -> Json:
    rest = {name: value for name, value in action.items() if name not in {"action", "pending_safety_checks"}}
    match action.get("action"):
        case "click":
            count = int(rest.pop("count", 1))
            button = rest.pop("button", "left")
            wired = {"type": _CLICKS.get(count, "click"), "button": "wheel" if button == "middle" else button, **rest}
            if wired["type"] == "double_click" and wired["button"] == "left":
                del wired["button"]
            return wired
        case "drag":
            path = [{"x": x, "y": y} for x, y in rest.pop("path", ())]
            return {"type": "drag", "path": path, **rest}
        case "scroll":
            return {"type": "scroll", "scroll_x": rest.pop("dx", 0), "scroll_y": rest.pop("dy", 0), **rest}
        case "wait":
            return {"type": "wait", "ms": round(float(rest.pop("seconds", 1.0)) * 1000)}
        case "mouse_down" | "mouse_up" as name:
            return {"type": f"left_{name}" if rest.get("button", "left") == "left" else name, **rest}
        case name:
            return {"type": name, **rest}


def without_image(item: Json) -> Json:
    """An item without its picture, which is large."""
    output = item.get("output")
    if isinstance(output, dict) and "image_url" in output:
        kept = {name: value for name, value in cast("Json", output).items() if name != "image_url"}
        return {**item, "output": kept}
    return item


def output_text(output: list[Json]) -> str:
    """All that the model said."""
    return "".join(part["text"] for item in output if item["type"] == "message" for part in item["content"])


def now() -> int:
    """Epoch seconds, as the API counts."""
    return int(time.time())


def _blocks(payload: Json) -> Iterator[Json]:
    message: object = payload.get("message")
    content: object = cast("Json", message).get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    elif isinstance(content, list):
        yield from (block for block in cast("list[Any]", content) if isinstance(block, dict))


def _result(content: object) -> tuple[str, str | None]:
    if isinstance(content, str):
        return content, None
    texts: list[str] = []
    image: str | None = None
    for part in cast("list[Json]", content) if isinstance(content, list) else ():
        if part.get("type") == "text":
            texts.append(str(part.get("text", "")))
        elif part.get("type") == "image":
            source: Json = part.get("source") or {}
            image = source.get("url") or f"data:{source.get('media_type')};base64,{source.get('data')}"
    return "\n".join(texts), image


def _json(value: Any) -> str:
    from computeragent.wire.encoding import to_json

    return to_json(value).decode()
