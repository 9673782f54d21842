"""Requests of Anthropic Messages."""

from __future__ import annotations

import re
from typing import Any, cast, get_args

from msgspec.structs import replace

from computeragent.dialects.anthropic.content import NAME, build_content, parse_content
from computeragent.dialects.fields import Fields, absent_if_none, read_body
from computeragent.dialects.model import (
    Message,
    ModelRequest,
    OutputFormat,
    Part,
    Role,
    Thinking,
    ThinkingConfig,
    Tool,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from computeragent.dialects.protocol import Body
from computeragent.errors import ValidationError

DEFAULT_MAX_TOKENS = 32_000
"""Written where a request of another dialect names no limit, which this wire requires."""

VERSION = "2023-06-01"
"""The version of the API, in the header `anthropic-version`."""

_TOOLSET = re.compile(r"(\w+)_toolset_\d{8}")  # carries no name; its members are called by theirs
_COMPUTER_TOOL = re.compile(r"computer_(\d{4})(\d{2})(\d{2})")
_CHOICES: dict[str, ToolMode] = {"auto": "auto", "any": "required", "none": "none", "tool": "tool"}
_CHOICE_NAMES = {mode: name for name, mode in _CHOICES.items()}


def parse_request(body: Body) -> ModelRequest:
    """Read the body of `POST /v1/messages` or `/v1/messages/count_tokens`. Raises `ValidationError`."""
    fields = read_body(body)
    user, metadata = _parse_metadata(fields)
    effort, output_format, output_rest = _parse_output(fields)
    choice, parallel, choice_rest = _parse_tool_choice(fields)
    leftovers = {"metadata": metadata, "output_config": output_rest, "tool_choice": choice_rest}
    return ModelRequest(
        model=fields.string("model"),
        messages=tuple(_parse_message(item, path) for path, item in fields.items("messages")),
        system=parse_content(fields.take("system"), "system"),
        tools=tuple(_parse_tool(item, path) for path, item in fields.items("tools")),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        max_tokens=fields.integer("max_tokens"),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        top_k=fields.integer("top_k"),
        stop_sequences=fields.strings("stop_sequences"),
        thinking=_parse_thinking(fields),
        effort=effort,
        output_format=output_format,
        user=user,
        stream=fields.boolean("stream") or False,
        dialect=NAME,
        # Last: `rest` is what no line above has taken.
        extra={**fields.rest(), **{name: rest for name, rest in leftovers.items() if rest}},
    )


def _parse_message(value: Any, path: str) -> Message:
    fields = Fields(value, path)
    role = fields.string("role")
    if role not in get_args(Role):
        raise ValidationError(f"{path}.role: must be user, assistant or system, not {role!r}")
    content = parse_content(fields.take("content"), f"{path}.content")
    return Message(cast("Role", role), content, fields.rest())


def _parse_tool(value: Any, path: str) -> Tool:
    fields = Fields(value, path)
    kind = fields.optional_string("type")
    toolset = _TOOLSET.fullmatch(kind or "")
    return Tool(
        name=toolset[1] if toolset else fields.string("name"),
        description=fields.optional_string("description"),
        input_schema=fields.mapping("input_schema"),
        strict=fields.boolean("strict"),
        kind="function" if kind in {None, "custom"} else str(kind),
        extra=fields.rest(),
    )


def _parse_tool_choice(body: Fields) -> tuple[ToolChoice | None, bool | None, dict[str, Any]]:
    fields = body.object("tool_choice")
    if fields is None:
        return None, None, {}
    name = fields.string("type")
    if name not in _CHOICES:
        raise ValidationError(f"{fields.at('type')}: must be one of {', '.join(_CHOICES)}")
    choice = ToolChoice(_CHOICES[name], fields.optional_string("name"))
    disabled = fields.boolean("disable_parallel_tool_use")
    return choice, None if disabled is None else not disabled, fields.rest()


def _parse_thinking(body: Fields) -> ThinkingConfig | None:
    fields = body.object("thinking")
    if fields is None:
        return None
    mode = fields.string("type")
    if mode not in {"enabled", "adaptive", "disabled"}:
        raise ValidationError(f"{fields.at('type')}: must be enabled, adaptive or disabled")
    budget = fields.integer("budget_tokens")
    return ThinkingConfig(mode=cast("Any", mode), budget_tokens=budget, extra=fields.rest())


def _parse_metadata(body: Fields) -> tuple[str | None, dict[str, Any]]:
    fields = body.object("metadata")
    return (None, {}) if fields is None else (fields.optional_string("user_id"), fields.rest())


def _parse_output(body: Fields) -> tuple[str | None, OutputFormat | None, dict[str, Any]]:
    fields = body.object("output_config")
    if fields is None:
        return None, None, {}
    effort = fields.optional_string("effort")
    shape = fields.object("format")
    if shape is None:
        return effort, None, fields.rest()
    if shape.string("type") != "json_schema":
        return effort, None, {**fields.rest(), "format": shape.whole()}
    return effort, OutputFormat(schema=shape.mapping("schema"), extra=shape.rest()), fields.rest()


def build_request(request: ModelRequest) -> dict[str, Any]:
    """Write the body of `POST /v1/messages`.

    Of another dialect's request, thinking is left out (its signatures prove nothing here) and `max_tokens` gets a
    default. Raises `ValidationError` for sound and film.
    """
    own = request.dialect == NAME
    body = build_token_count_request(request)
    limit = request.max_tokens if request.max_tokens is not None or own else DEFAULT_MAX_TOKENS
    body |= absent_if_none(
        max_tokens=limit,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        stop_sequences=list(request.stop_sequences) or None,
        stream=request.stream or None,
    )
    metadata = _with_rest(absent_if_none(user_id=request.user), request, "metadata")
    if metadata:
        body["metadata"] = metadata
    return body


def build_token_count_request(request: ModelRequest) -> dict[str, Any]:
    """Write the body of `POST /v1/messages/count_tokens`: what is counted, without what only steers the answer."""
    own = request.dialect == NAME
    body: dict[str, Any] = {**request.extra} if own else {}
    for elsewhere in ("metadata", "betas"):
        body.pop(elsewhere, None)
    body["model"] = request.model
    messages = _name_toolsets(request.messages) if own else request.messages
    body["messages"] = [_build_message(message, own=own) for message in messages]
    if request.system:
        body["system"] = build_content(request.system, own=own)
    if request.tools:
        body["tools"] = [_build_tool(tool, own=own) for tool in request.tools if own or tool.kind == "function"]
    if (choice := _build_tool_choice(request)) is not None:
        body["tool_choice"] = choice
    if request.thinking is not None:
        thinking = absent_if_none(type=request.thinking.mode, budget_tokens=request.thinking.budget_tokens)
        body["thinking"] = {**thinking, **request.thinking.extra} if own else thinking
    output = _with_rest(absent_if_none(effort=request.effort), request, "output_config")
    if request.output_format is not None and request.output_format.schema is not None:
        extra = request.output_format.extra if own else {}
        output["format"] = {"type": "json_schema", "schema": request.output_format.schema, **extra}
    if output:
        body["output_config"] = output
    return body


def request_headers(request: ModelRequest) -> dict[str, str]:
    """The version of the API, and the betas that a request needs: those of its computer tool, and its extra `betas`."""
    own = request.dialect == NAME
    matches = [_COMPUTER_TOOL.fullmatch(tool.kind) for tool in request.tools] if own else []
    betas = ["computer-use-" + "-".join(match.groups()) for match in matches if match]
    stated: Any = request.extra.get("betas") if own else None
    if isinstance(stated, list):
        betas += [beta for beta in cast("list[Any]", stated) if isinstance(beta, str)]
    headers = {"anthropic-version": VERSION}
    if betas:
        headers["anthropic-beta"] = ",".join(dict.fromkeys(betas))
    return headers


def _with_rest(known: dict[str, Any], request: ModelRequest, name: str) -> dict[str, Any]:
    rest = request.extra.get(name) if request.dialect == NAME else None
    return {**known, **rest} if rest else known


def _name_toolsets(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The result of a call of a toolset names the set, as its call does."""
    calls = [call for message in messages for call in message.tool_calls]
    named = {call.id: {"toolset_name": call.extra["toolset_name"]} for call in calls if "toolset_name" in call.extra}
    if not named:
        return messages

    def marked(part: Part) -> Part:
        known = named.get(part.call_id) if isinstance(part, ToolResult) else None
        return replace(part, extra={**known, **part.extra}) if known and isinstance(part, ToolResult) else part

    return tuple(replace(message, content=tuple(marked(part) for part in message.content)) for message in messages)


def _build_message(message: Message, *, own: bool) -> dict[str, Any]:
    parts: tuple[Part, ...] = message.content
    if not own:
        parts = tuple(part for part in parts if not isinstance(part, Thinking))
    extra = message.extra if own else {}
    return {"role": message.role, "content": build_content(parts, own=own), **extra}


def _build_tool(tool: Tool, *, own: bool) -> dict[str, Any]:
    extra = tool.extra if own else {}
    if _TOOLSET.fullmatch(tool.kind):
        return {"type": tool.kind, **extra}
    if tool.kind != "function":
        return {"type": tool.kind, "name": tool.name, **extra}
    schema = tool.input_schema or {"type": "object", "properties": {}}
    known = absent_if_none(name=tool.name, description=tool.description, input_schema=schema, strict=tool.strict)
    return {**known, **extra}


def _build_tool_choice(request: ModelRequest) -> dict[str, Any] | None:
    choice = request.tool_choice
    if choice is None and (request.parallel_tool_calls is not False or not request.tools):
        return None
    choice = choice or ToolChoice("auto")
    built = absent_if_none(type=_CHOICE_NAMES[choice.mode], name=choice.name)
    if request.parallel_tool_calls is not None and choice.mode != "none":
        built["disable_parallel_tool_use"] = not request.parallel_tool_calls
    return _with_rest(built, request, "tool_choice")
