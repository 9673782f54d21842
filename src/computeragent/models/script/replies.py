"""The answer that a reply stands for: groups filled in, tools checked against the request, usage computed."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from computeragent.dialects.model import (
    ModelRequest,
    ModelResponse,
    Part,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from computeragent.dialects.tokens import estimate_output_tokens, estimate_request_tokens
from computeragent.models.script.computing import NAME as COMPUTER
from computeragent.models.script.computing import Call, calls_of, is_member
from computeragent.models.script.rules import Reply, Turn
from computeragent.wire.encoding import to_json

_REFERENCE = re.compile(r"\$(?:(\$)|(\d)|\{(\w+)\})")


def build_reply(
    reply: Reply, turn: Turn, key: str, *, id_prefix: str = "msg_", call_prefix: str = "toolu_"
) -> ModelResponse:
    """The response to `turn.request`; `key` makes its ids unique, the prefixes make them look like the wire's."""
    request = turn.request
    chosen, refused = _chosen(reply, request)
    calls = [
        ToolCall(
            id=call_id or _identifier(call_prefix, key, number),
            name=call.name,
            input=cast("dict[str, Any]", _fill(call.input, turn.match)),
            extra=call.extra,
        )
        for number, (call_id, call) in enumerate(chosen)
    ]
    parts: list[Part] = []
    if reply.thinking is not None:
        thinking = expand(reply.thinking, turn.match)
        parts.append(Thinking(thinking, _signature(thinking)))
    if (text := _text(reply, turn, refused=refused, has_calls=bool(calls))) is not None:
        parts.append(Text(text))
    parts.extend(calls)
    return ModelResponse(
        id=_identifier(id_prefix, key),
        model=request.model,
        content=tuple(parts),
        stop_reason=reply.stop_reason or ("tool_use" if calls else "end_turn"),
        usage=reply.usage or _usage(request, parts),
        dialect=request.dialect,
    )


def expand(text: str, match: re.Match[str]) -> str:
    """`text` with `$1`, `${name}`, `$0` and `$$` filled in; a name that is no group stays as it is."""

    def value(reference: re.Match[str]) -> str:
        dollar, number, name = reference.groups()
        if dollar:
            return "$"
        if name is not None:
            return (match[name] or "") if name in match.re.groupindex else reference[0]
        return (match[int(number)] or "") if int(number) <= match.re.groups else reference[0]

    return _REFERENCE.sub(value, text)


def _fill(value: Any, match: re.Match[str]) -> Any:
    if isinstance(value, str):
        return expand(value, match)
    if isinstance(value, dict):
        return {key: _fill(item, match) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_fill(item, match) for item in cast("list[Any]", value)]
    return value


def _chosen(reply: Reply, request: ModelRequest) -> tuple[list[tuple[str | None, Call]], list[str]]:
    """The calls to make, with the ids that they were given, and the names of those that were not offered."""
    forbidden = request.tool_choice is not None and request.tool_choice.mode == "none"
    tools = {} if forbidden else {tool.name: tool for tool in request.tools}
    chosen: list[tuple[str | None, Call]] = []
    refused: list[str] = []
    for use in reply.tools:
        found = tools.get(use.name) or next((tool for tool in tools.values() if is_member(tool, use.name)), None)
        if found is None:
            refused.append(use.name)
        else:
            chosen.append((use.id, Call(use.name, use.input, _beside(found))))
    if reply.computer is not None:
        offered = tools.get(COMPUTER)
        calls = offered and calls_of(reply.computer.actions, reply.computer.safety_checks, offered)
        if calls is None:
            refused.append(COMPUTER)
        chosen.extend((None, call) for call in calls or ())
    return chosen, refused


def _beside(tool: Tool) -> dict[str, Any]:
    """What a call of this tool says beside its input, on the wire that has such tools."""
    if tool.kind in {"computer", "computer_use_preview"}:
        return {"type": "computer_call", "status": "completed", "pending_safety_checks": []}
    if tool.kind == "custom":
        return {"type": "custom_tool_call"}
    return {"toolset_name": tool.name} if tool.kind.startswith("computer_toolset_") else {}


def _text(reply: Reply, turn: Turn, *, refused: list[str], has_calls: bool) -> str | None:
    lines = [] if reply.text is None else [expand(reply.text, turn.match)]
    if reply.echo_tool_results:
        lines.extend(_result_texts(turn.request))
    if lines:
        return "\n".join(lines)
    if has_calls:
        return None
    return f"I would use {', '.join(refused)} here, but it was not offered to me." if refused else "Done."


def _result_texts(request: ModelRequest) -> list[str]:
    for message in reversed(request.messages):
        if message.role == "assistant":
            break
        if message.tool_results:
            return [result.text for result in message.tool_results]
    return []


def _usage(request: ModelRequest, parts: list[Part]) -> Usage:
    return Usage(input_tokens=estimate_request_tokens(request), output_tokens=estimate_output_tokens(parts))


def _signature(text: str) -> str:
    return base64.b64encode(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=48).digest()).decode()


def _identifier(prefix: str, key: str, number: int = 0) -> str:
    return prefix + hashlib.blake2b(f"{prefix}{key}/{number}".encode(), digest_size=12).hexdigest()


def conversation_key(request: ModelRequest) -> str:
    """A digest of what was said, the same for a retry of the same request."""
    digest = hashlib.blake2b(digest_size=16)
    for message in request.messages:
        if message.role != "system":
            content = [msgspec.to_builtins(_bare(part)) for part in message.content]
            digest.update(to_json([message.role, content]))
    return digest.hexdigest()


def _bare(part: Part) -> Part:
    """The part without what clients change from one attempt to the next, such as cache marks."""
    if isinstance(part, ToolResult):
        return replace(part, extra={}, content=tuple(_bare(inner) for inner in part.content))
    return replace(part, extra={}) if hasattr(part, "extra") else part
