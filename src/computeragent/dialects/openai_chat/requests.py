"""Requests of OpenAI Chat Completions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from computeragent.dialects.fields import Fields, absent_if_none, read_body
from computeragent.dialects.model import (
    Message,
    ModelRequest,
    OutputFormat,
    Part,
    ThinkingConfig,
    Tool,
    ToolChoice,
    ToolMode,
)
from computeragent.dialects.openai_chat.content import (
    NAME,
    build_content,
    build_messages,
    parse_assistant,
    parse_content,
    parse_tool_message,
)
from computeragent.dialects.protocol import Body
from computeragent.errors import ValidationError


def parse_request(body: Body) -> ModelRequest:
    """Read the body of `POST /v1/chat/completions`. Raises `ValidationError`.

    Leading system and developer messages become the system prompt; consecutive tool messages one user message.
    """
    fields = read_body(body)
    choice, choice_rest = _parse_tool_choice(fields)
    system, messages = _parse_messages(fields.items("messages"))
    output_format, format_rest = _parse_format(fields)
    options = fields.object("stream_options") or Fields({})
    limit = fields.integer("max_completion_tokens")
    older_limit = fields.integer("max_tokens")
    leftovers = {"tool_choice": choice_rest, "response_format": format_rest}
    return ModelRequest(
        model=fields.string("model"),
        messages=messages,
        system=system,
        tools=tuple(_parse_tool(item, path) for path, item in fields.items("tools")),
        tool_choice=choice,
        parallel_tool_calls=fields.boolean("parallel_tool_calls"),
        max_tokens=limit if limit is not None else older_limit,
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        seed=fields.integer("seed"),
        stop_sequences=_parse_stop(fields),
        effort=fields.optional_string("reasoning_effort"),
        output_format=output_format,
        user=fields.optional_string("user"),
        stream=fields.boolean("stream") or False,
        stream_usage=options.boolean("include_usage") or False,
        dialect=NAME,
        # Last: `rest` is what no line above has taken.
        extra=_gather(fields.rest(), stream_options=options.rest(), **leftovers),
    )


def _gather(rest: dict[str, Any], **leftovers: Any) -> dict[str, Any]:
    return {**rest, **{name: value for name, value in leftovers.items() if value}}


def _parse_messages(items: Iterable[tuple[str, Any]]) -> tuple[tuple[Part, ...], tuple[Message, ...]]:
    system: list[Part] = []
    messages: list[Message] = []
    in_results = False  # whether the last message holds tool results that more may join
    for path, item in items:
        fields = Fields(item, path)
        role = fields.string("role")
        match role:
            case "system" | "developer":
                content = parse_content(fields.take("content"), fields.at("content"))
                if messages:
                    messages.append(Message("system", content, fields.rest()))
                else:
                    system.extend(content)
            case "user":
                content = parse_content(fields.take("content"), fields.at("content"))
                messages.append(Message("user", content, fields.rest()))
            case "assistant":
                messages.append(Message("assistant", parse_assistant(fields), fields.rest()))
            case "tool":
                earlier = messages.pop().content if in_results else ()
                messages.append(Message("user", (*earlier, parse_tool_message(fields))))
            case _:
                raise ValidationError(f"{path}.role: must be system, developer, user, assistant or tool, not {role!r}")
        in_results = role == "tool"
    return tuple(system), tuple(messages)


def _parse_tool(value: Any, path: str) -> Tool:
    fields = Fields(value, path)
    kind = fields.string("type")
    function = fields.object("function")
    if kind != "function" or function is None:
        inner: Any = fields.whole().get(kind)
        name = cast("dict[str, Any]", inner).get("name") if isinstance(inner, dict) else None
        return Tool(name=str(name or kind), kind=kind, extra=fields.rest())
    return Tool(
        name=function.string("name"),
        description=function.optional_string("description"),
        input_schema=function.mapping("parameters"),
        strict=function.boolean("strict"),
        extra=fields.rest(),
    )


def _parse_tool_choice(body: Fields) -> tuple[ToolChoice | None, Any]:
    value = body.take("tool_choice")
    if value is None:
        return None, None
    if isinstance(value, str):
        if value not in {"auto", "none", "required"}:
            raise ValidationError("tool_choice: must be auto, none, required or an object")
        return ToolChoice(cast("ToolMode", value)), None
    fields = Fields(value, "tool_choice")
    function = fields.object("function")
    if function is None:
        return None, fields.whole()
    return ToolChoice("tool", function.string("name")), None


def _parse_stop(body: Fields) -> tuple[str, ...]:
    value = body.take("stop")
    return (value,) if isinstance(value, str) else Fields({"stop": value}).strings("stop")


def _parse_format(body: Fields) -> tuple[OutputFormat | None, dict[str, Any] | None]:
    fields = body.object("response_format")
    if fields is None:
        return None, None
    kind = fields.string("type")
    if kind == "json_object":
        return OutputFormat(), None
    shape = fields.object("json_schema")
    if kind != "json_schema" or shape is None:
        return None, fields.whole()
    name, strict = shape.optional_string("name"), shape.boolean("strict")
    return OutputFormat(schema=shape.mapping("schema"), name=name, strict=strict, extra=shape.rest()), None


def build_request(request: ModelRequest) -> dict[str, Any]:
    """Write the body of `POST /v1/chat/completions`.

    Of another dialect's request, thinking and provider-defined tools are left out, and a thinking budget becomes the
    nearest effort. Raises `ValidationError` for media that this wire cannot carry.
    """
    own = request.dialect == NAME
    body: dict[str, Any] = {**request.extra} if own else {}
    messages: list[dict[str, Any]] = []
    if request.system:
        messages.append({"role": "system", "content": build_content(request.system, own=own)})
    for message in request.messages:
        messages.extend(build_messages(message, own=own))
    body |= {"model": request.model, "messages": messages}
    tools = [_build_tool(tool, own=own) for tool in request.tools if own or tool.kind == "function"]
    if tools:
        body["tools"] = tools
        body |= absent_if_none(parallel_tool_calls=request.parallel_tool_calls)
    if request.tool_choice is not None and (tools or own):
        body["tool_choice"] = _build_tool_choice(request.tool_choice)
    body |= absent_if_none(
        max_completion_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        stop=list(request.stop_sequences) or None,
        reasoning_effort=request.effort or effort_of(request.thinking),
        user=request.user,
        response_format=_build_format(request.output_format, own=own),
        stream=request.stream or None,
    )
    if request.stream and request.stream_usage:
        body["stream_options"] = {**body.get("stream_options", {}), "include_usage": True}
    return body


def request_headers(request: ModelRequest) -> dict[str, str]:
    """This wire has none."""
    del request
    return {}


def _build_tool(tool: Tool, *, own: bool) -> dict[str, Any]:
    if tool.kind != "function":
        return {"type": tool.kind, **tool.extra}
    known = absent_if_none(
        name=tool.name, description=tool.description, parameters=tool.input_schema or None, strict=tool.strict
    )
    return {"type": "function", "function": known, **(tool.extra if own else {})}


def _build_tool_choice(choice: ToolChoice) -> Any:
    return {"type": "function", "function": {"name": choice.name}} if choice.mode == "tool" else choice.mode


def _build_format(shape: OutputFormat | None, *, own: bool) -> dict[str, Any] | None:
    if shape is None:
        return None
    if shape.schema is None:
        return {"type": "json_object"}
    extra = shape.extra if own else {}
    inner = {**absent_if_none(name=shape.name or "answer", schema=shape.schema, strict=shape.strict), **extra}
    return {"type": "json_schema", "json_schema": inner}


def effort_of(thinking: ThinkingConfig | None) -> str | None:
    """The effort that is nearest to a thinking budget; None where there is no budget."""
    if thinking is None or thinking.mode != "enabled" or thinking.budget_tokens is None:
        return None
    return "low" if thinking.budget_tokens < 4_096 else "medium" if thinking.budget_tokens < 16_384 else "high"
