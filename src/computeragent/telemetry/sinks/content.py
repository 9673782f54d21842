"""Prompts and replies in the shape of the GenAI semantic conventions: messages with a role and typed parts.

Where content ends up is not decided here; this module knows the shapes only and needs no OpenTelemetry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

GEN_AI_INPUT_MESSAGES = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES = "gen_ai.output.messages"
GEN_AI_SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
EVENT_GEN_AI_CLIENT_INFERENCE_OPERATION_DETAILS = "gen_ai.client.inference.operation.details"

Json = dict[str, Any]

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "stop": "stop",
    "max_tokens": "length",
    "length": "length",
    "tool_use": "tool_call",
    "tool_calls": "tool_call",
    "refusal": "content_filter",
    "content_filter": "content_filter",
}


def map_finish_reason(stop_reason: str | None, has_tool_use: bool) -> str:
    """Why a reply ended, in the conventions' words. A reason that they have no word for stays as it is."""
    if stop_reason:
        return _FINISH_REASONS.get(stop_reason, stop_reason)
    return "tool_call" if has_tool_use else "stop"


def block_to_part(block: Mapping[str, Any]) -> Json | None:
    """A content block of Anthropic's messages as a part; None for a block that has no counterpart."""
    match block.get("type"):
        case "text":
            return {"type": "text", "content": block.get("text", "")}
        case "thinking":
            return {"type": "reasoning", "content": block.get("thinking", "")}
        case "tool_use":
            return tool_call(block.get("id"), block.get("name"), block.get("input"))
        case "tool_result":
            return tool_response(block.get("tool_use_id"), block.get("content"))
        case _:
            return None


def blocks_to_parts(blocks: Sequence[Mapping[str, Any]] | None) -> list[Json]:
    """The parts of the blocks that have a counterpart, in order."""
    return [part for part in map(block_to_part, blocks or ()) if part is not None]


def text_part(text: str) -> Json:
    """What was said."""
    return {"type": "text", "content": text}


def reasoning_part(text: str) -> Json:
    """What was thought."""
    return {"type": "reasoning", "content": text}


def tool_call(call_id: Any, name: Any, arguments: Any, *, server: bool = False) -> Json:
    """A tool that the model asks for; with `server`, one that runs at the provider."""
    if server:
        called = {"type": str(name), "arguments": arguments}
        return {"type": "server_tool_call", "id": call_id, "name": str(name), "server_tool_call": called}
    part: Json = {"type": "tool_call", "name": str(name)}
    if call_id:
        part["id"] = call_id
    if arguments is not None:
        part["arguments"] = arguments
    return part


def tool_response(call_id: Any, response: Any, *, server: bool = False) -> Json:
    """What a tool answered."""
    if server:
        answer = {"type": _kind_of(response), "response": response}
        return {"type": "server_tool_call_response", "id": call_id, "server_tool_call_response": answer}
    part: Json = {"type": "tool_call_response", "response": response}
    if call_id:
        part["id"] = call_id
    return part


def _kind_of(response: Any) -> str:
    if isinstance(response, Mapping):
        return str(cast("Mapping[str, Any]", response).get("type", "tool_result"))
    return "tool_result"
