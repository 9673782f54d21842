"""What a message says, whichever form it came in: upstream's Python objects or the CLI's stream-json.

The neutral form is all that the story of a session is told from, so that the drop-in and the harness tell the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, cast

Json = dict[str, Any]


@dataclass(slots=True)
class Block:
    """A piece of a message. `server` marks tools that run at the provider."""

    kind: Literal["text", "thinking", "tool_use", "tool_result", "other"]
    text: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    content: Any = None
    is_error: bool = False
    server: bool = False


@dataclass(slots=True)
class Assistant:
    """A message of the model, or one block of it: `message_id` tells which belong together."""

    blocks: list[Block]
    model: str | None = None
    message_id: str | None = None
    stop_reason: str | None = None
    usage: Json | None = None
    parent: str | None = None
    error: str | None = None


@dataclass(slots=True)
class User:
    """A message in the user's place: typed, injected by the CLI (`origin`), or the results of tools."""

    blocks: list[Block]
    parent: str | None = None
    origin: str | None = None


@dataclass(slots=True)
class System:
    """A notice of the CLI."""

    subtype: str
    data: Json


@dataclass(slots=True)
class Delta:
    """A piece of a streamed reply: only its time is of interest, and the usage that ends it."""

    first: bool = False
    message_id: str | None = None
    model: str | None = None
    usage: Json | None = None
    stop_reason: str | None = None
    parent: str | None = None


@dataclass(slots=True)
class Result:
    """The end of a turn, with what it cost. `fields` holds the rest by upstream's names."""

    subtype: str
    is_error: bool
    result: str | None = None
    total_cost_usd: float | None = None
    usage: Json | None = None
    model_usage: Json | None = None
    session_id: str | None = None
    permission_denials: list[Any] = field(default_factory=list[Any])
    fields: Json = field(default_factory=dict[str, Any])


Seen = Assistant | User | System | Delta | Result

RESULT_FIELDS = (
    "num_turns",
    "duration_ms",
    "duration_api_ms",
    "stop_reason",
    "terminal_reason",
    "api_error_status",
    "errors",
)


# ── Upstream's objects ──


def from_upstream(message: object) -> Seen | None:
    """What one of `claude_agent_sdk`'s messages, or a subclass of one, says; None for what tells nothing."""
    reader = _reader(type(message))
    return None if reader is None else reader(message)


@lru_cache(maxsize=256)
def _reader(kind: type) -> Callable[[Any], Seen | None] | None:
    for base in kind.__mro__:
        if base.__module__.startswith("claude_agent_sdk") and base.__name__ in _READERS:
            return _READERS[base.__name__]
    return None


def _assistant(message: Any) -> Seen:
    return Assistant(
        blocks=_blocks(message.content),
        model=message.model,
        message_id=getattr(message, "message_id", None),
        stop_reason=getattr(message, "stop_reason", None),
        usage=getattr(message, "usage", None),
        parent=message.parent_tool_use_id,
        error=getattr(message, "error", None),
    )


def _user(message: Any) -> Seen:
    return User(
        blocks=_blocks(message.content),
        parent=message.parent_tool_use_id,
        origin=_origin(getattr(message, "origin", None)),
    )


def _result(message: Any) -> Seen:
    return Result(
        subtype=message.subtype,
        is_error=bool(message.is_error),
        result=message.result,
        total_cost_usd=message.total_cost_usd,
        usage=message.usage,
        model_usage=getattr(message, "model_usage", None),
        session_id=message.session_id,
        permission_denials=list(getattr(message, "permission_denials", None) or ()),
        fields={name: getattr(message, name, None) for name in RESULT_FIELDS},
    )


_READERS: dict[str, Callable[[Any], Seen | None]] = {
    "AssistantMessage": _assistant,
    "UserMessage": _user,
    "SystemMessage": lambda message: System(message.subtype, message.data),
    "ResultMessage": _result,
    "StreamEvent": lambda message: _delta(message.event, message.parent_tool_use_id),
}


def _blocks(content: object) -> list[Block]:
    if isinstance(content, str):
        return [Block("text", text=content)]
    return [read_block(item) for item in cast("Sequence[object]", content or ())]


def read_block(item: Any) -> Block:
    """One block of a message's content, in either form."""
    if isinstance(item, Mapping):
        return _json_block(cast("Mapping[str, Any]", item))
    kind = next((base.__name__ for base in type(item).__mro__ if base.__name__ in _BLOCKS), "")
    return _BLOCKS[kind](item) if kind else Block("other", name=type(item).__name__)


_BLOCKS: dict[str, Callable[[Any], Block]] = {
    "TextBlock": lambda item: Block("text", text=item.text),
    "ThinkingBlock": lambda item: Block("thinking", text=item.thinking),
    "ToolUseBlock": lambda item: Block("tool_use", id=item.id, name=item.name, input=item.input),
    "ToolResultBlock": lambda item: Block(
        "tool_result", id=item.tool_use_id, content=item.content, is_error=bool(item.is_error)
    ),
    "ServerToolUseBlock": lambda item: Block("tool_use", id=item.id, name=item.name, input=item.input, server=True),
    "ServerToolResultBlock": lambda item: _server_result(item.tool_use_id, item.content),
}


# ── Stream-json ──


def from_payload(payload: object) -> Seen | None:
    """What a stream-json object of the CLI says; None for what tells nothing, or is not one."""
    if not isinstance(payload, Mapping):
        return None
    given = cast("Mapping[str, Any]", payload)
    match given.get("type"):
        case "assistant" | "user" as kind:
            message = given.get("message")
            if not isinstance(message, Mapping):
                return None
            return _json_message(kind, given, cast("Mapping[str, Any]", message))
        case "system":
            return System(str(given.get("subtype", "")), dict(given))
        case "stream_event":
            event = given.get("event")
            if not isinstance(event, Mapping):
                return None
            return _delta(cast("Mapping[str, Any]", event), given.get("parent_tool_use_id"))
        case "result":
            return Result(
                subtype=str(given.get("subtype", "")),
                is_error=bool(given.get("is_error")),
                result=given.get("result"),
                total_cost_usd=given.get("total_cost_usd"),
                usage=given.get("usage"),
                model_usage=given.get("modelUsage"),
                session_id=given.get("session_id"),
                permission_denials=list(given.get("permission_denials") or ()),
                fields={name: given.get(name) for name in RESULT_FIELDS},
            )
        case _:
            return None


def _json_message(kind: str, outer: Mapping[str, Any], message: Mapping[str, Any]) -> Seen:
    content: Any = message.get("content")
    blocks = [Block("text", text=content)] if isinstance(content, str) else [read_block(item) for item in content or ()]
    parent = outer.get("parent_tool_use_id")
    if kind == "user":
        return User(blocks, parent=parent, origin=_origin(outer.get("origin")))
    return Assistant(
        blocks,
        model=message.get("model"),
        message_id=message.get("id"),
        stop_reason=message.get("stop_reason"),
        usage=message.get("usage"),
        parent=parent,
        error=outer.get("error"),
    )


def _json_block(item: Mapping[str, Any]) -> Block:
    kind = str(item.get("type", ""))
    if kind == "text":
        return Block("text", text=str(item.get("text", "")))
    if kind == "thinking":
        return Block("thinking", text=str(item.get("thinking", "")))
    if kind in {"tool_use", "server_tool_use", "mcp_tool_use"}:
        server = kind != "tool_use"
        return Block("tool_use", id=_id(item, "id"), name=str(item.get("name")), input=item.get("input"), server=server)
    if kind == "tool_result":
        is_error = bool(item.get("is_error"))
        return Block("tool_result", id=_id(item, "tool_use_id"), content=item.get("content"), is_error=is_error)
    if kind.endswith("_tool_result"):
        return _server_result(_id(item, "tool_use_id"), item.get("content"))
    return Block("other", name=kind)


def _server_result(tool_use_id: str, content: Any) -> Block:
    inner = cast("Mapping[str, Any]", content).get("type", "") if isinstance(content, Mapping) else ""
    failed = str(inner).endswith("_error")
    return Block("tool_result", id=tool_use_id, content=content, is_error=failed, server=True)


def _id(item: Mapping[str, Any], key: str) -> str:
    return str(item.get(key) or "")


def _origin(origin: Any) -> str | None:
    """Who put a user message there, where it was not the user."""
    if isinstance(origin, Mapping):
        return str(cast("Mapping[str, Any]", origin).get("kind") or "") or None
    return None if origin is None else str(getattr(origin, "kind", origin))


def _delta(event: Mapping[str, Any], parent: str | None) -> Seen | None:
    kind = event.get("type")
    if kind == "content_block_delta":
        return Delta(first=True, parent=parent)
    if kind == "message_start":
        message: Json = event.get("message") or {}
        return Delta(message_id=message.get("id"), model=message.get("model"), parent=parent)
    if kind == "message_delta":
        delta: Json = event.get("delta") or {}
        return Delta(usage=event.get("usage"), stop_reason=delta.get("stop_reason"), parent=parent)
    return None
