"""What the engine says of a turn, in the stream-json shape that every reader of a run knows."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from computeragent.dialects.model import Media, Part, Text, Thinking
from computeragent.protocol_types import EngineEvent

Json = dict[str, Any]


def said(payload: Json) -> EngineEvent:
    """A message of the engine's that ends no turn."""
    return EngineEvent("sdk_message", payload, ends_turn=False)


def system(subtype: str, **fields: Any) -> EngineEvent:
    """A note of the engine's own."""
    return said({"type": "system", "subtype": subtype, **fields})


def assistant(blocks: Sequence[Json], *, message_id: str, model: str, usage: Json | None = None) -> EngineEvent:
    """Something that the model said; blocks of one answer share `message_id`."""
    message: Json = {"id": message_id, "role": "assistant", "model": model, "content": list(blocks)}
    if usage is not None:
        message["usage"] = usage
    return said({"type": "assistant", "message": message, "parent_tool_use_id": None, "uuid": str(uuid.uuid4())})


def spoken(parts: Iterable[Part]) -> list[Json]:
    """The blocks of what a model said and thought; calls are told one by one, as they are asked for."""
    blocks: list[Json] = []
    for part in parts:
        if isinstance(part, Text) and part.text:
            blocks.append({"type": "text", "text": part.text})
        elif isinstance(part, Thinking) and part.text:
            blocks.append({"type": "thinking", "thinking": part.text})
    return blocks


def tool_use(call_id: str, name: str, arguments: Json) -> Json:
    """The block of a call."""
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def tool_result(call_id: str, parts: Sequence[Part], *, failed: bool, **more: Any) -> EngineEvent:
    """What came of a call. `more` is told beside the block's own fields."""
    content = [block for part in parts if (block := _block(part)) is not None]
    told: Json = {"type": "tool_result", "tool_use_id": call_id, "content": content, "is_error": failed, **more}
    message = {"role": "user", "content": [told]}
    return said({"type": "user", "message": message, "parent_tool_use_id": None, "uuid": str(uuid.uuid4())})


def text_delta(message_id: str, text: str) -> EngineEvent:
    """A piece of text as it is written."""
    return _stream(
        message_id, {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    )


def stream_started(message_id: str, model: str) -> EngineEvent:
    """An answer begins."""
    return _stream(message_id, {"type": "message_start", "message": {"id": message_id, "model": model}})


def text_ended(message_id: str) -> EngineEvent:
    """A text is complete."""
    return _stream(message_id, {"type": "content_block_stop", "index": 0})


def _stream(message_id: str, event: Json) -> EngineEvent:
    return said({"type": "stream_event", "event": event, "message_id": message_id, "parent_tool_use_id": None})


def _block(part: Part) -> Json | None:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Media(kind="image", data=str(data)):
            source = {"type": "base64", "media_type": part.media_type or "image/png", "data": data}
            return {"type": "image", "source": source}
        case _:
            return None
