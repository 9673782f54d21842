"""A deterministic estimate of tokens, about four characters each; for simulation, budgets and planning, not billing."""

from __future__ import annotations

from collections.abc import Iterable

from computeragent.dialects.model import Media, ModelRequest, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from computeragent.wire.encoding import to_json

_MEDIA_CHARACTERS = 6_000  # an ordinary screenshot costs about 1,500 tokens
_MESSAGE_CHARACTERS = 12  # role and separators


def estimate_request_tokens(request: ModelRequest) -> int:
    """Input tokens of a request: system prompt, tools and conversation."""
    characters = _characters(request.system)
    characters += sum(_MESSAGE_CHARACTERS + _characters(message.content) for message in request.messages)
    for tool in request.tools:
        characters += len(tool.name) + len(tool.description or "") + len(to_json(tool.input_schema))
    return _tokens(characters)


def estimate_output_tokens(parts: Iterable[Part]) -> int:
    """Output tokens of an answer; at least one."""
    return _tokens(_characters(parts))


def _tokens(characters: int) -> int:
    return max(1, (characters + 3) // 4)


def _characters(parts: Iterable[Part]) -> int:
    return sum(_size(part) for part in parts)


def _size(part: Part) -> int:
    match part:
        case Text() | Thinking():
            return len(part.text)
        case Media(text=str(text)):
            return len(text)
        case Media():
            return _MEDIA_CHARACTERS
        case ToolCall():
            return len(part.name) + len(to_json(part.input))
        case ToolResult():
            return _characters(part.content)
        case Opaque():
            return len(to_json(part.data))
