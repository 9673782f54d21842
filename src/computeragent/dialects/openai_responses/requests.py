"""Requests of OpenAI Responses."""

from __future__ import annotations

from typing import Any, cast

from computeragent.dialects.fields import Fields, absent_if_none, read_body
from computeragent.dialects.model import Message, ModelRequest, OutputFormat, Part, Text, Tool, ToolChoice, ToolMode
from computeragent.dialects.openai_chat.requests import effort_of
from computeragent.dialects.openai_responses.content import build_content
from computeragent.dialects.openai_responses.items import COMPUTER, NAME, build_items, parse_items
from computeragent.dialects.protocol import Body
from computeragent.errors import ValidationError

COMPUTER_TOOLS = frozenset({"computer", "computer_use", "computer_use_preview"})
"""The provider's own computer tools; all are called `computer` in the neutral model."""

_PREVIEW = "computer_use_preview"


def parse_request(body: Body) -> ModelRequest:
    """Read the body of `POST /v1/responses`. Raises `ValidationError`.

    `instructions` and leading system and developer messages become the system prompt.
    """
    fields = read_body(body)
    system, messages = _parse_input(fields)
    choice, choice_rest = _parse_tool_choice(fields)
    reasoning = fields.object("reasoning") or Fields({})
    text = fields.object("text") or Fields({})
    output_format, format_rest = _parse_format(text)
    effort = reasoning.optional_string("effort")
    text_rest = {**text.rest(), **absent_if_none(format=format_rest)}
    leftovers = {"tool_choice": choice_rest, "reasoning": reasoning.rest(), "text": text_rest}
    return ModelRequest(
        model=fields.string("model"),
        messages=messages,
        system=system,
        tools=tuple(_parse_tool(item, path) for path, item in fields.items("tools")),
        tool_choice=choice,
        parallel_tool_calls=fields.boolean("parallel_tool_calls"),
        max_tokens=fields.integer("max_output_tokens"),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        effort=effort,
        output_format=output_format,
        user=fields.optional_string("user"),
        stream=fields.boolean("stream") or False,
        dialect=NAME,
        # Last: `rest` is what no line above has taken.
        extra={**fields.rest(), **{name: rest for name, rest in leftovers.items() if rest}},
    )


def _parse_input(fields: Fields) -> tuple[tuple[Part, ...], tuple[Message, ...]]:
    instructions = fields.optional_string("instructions")
    system: list[Part] = [Text(instructions)] if instructions else []
    value: Any = fields.take("input")
    if isinstance(value, str):
        return tuple(system), (Message("user", (Text(value),) if value else ()),)
    messages = list(parse_items(Fields({"input": value}).items("input")))
    while messages and messages[0].role == "system":
        system.extend(messages.pop(0).content)
    return tuple(system), tuple(messages)


def _parse_tool(value: Any, path: str) -> Tool:
    fields = Fields(value, path)
    kind = fields.string("type")
    if kind == "function":
        return Tool(
            name=fields.string("name"),
            description=fields.optional_string("description"),
            input_schema=fields.mapping("parameters"),
            strict=fields.boolean("strict"),
            extra=fields.rest(),
        )
    named = fields.whole().get("name")
    name = COMPUTER if kind in COMPUTER_TOOLS else named if isinstance(named, str) else kind
    return Tool(name=name, kind=kind, extra=fields.rest())


def _parse_tool_choice(body: Fields) -> tuple[ToolChoice | None, Any]:
    value = body.take("tool_choice")
    if value is None:
        return None, None
    if isinstance(value, str):
        if value not in {"auto", "none", "required"}:
            raise ValidationError("tool_choice: must be auto, none, required or an object")
        return ToolChoice(cast("ToolMode", value)), None
    fields = Fields(value, "tool_choice")
    kind, name = fields.string("type"), fields.optional_string("name")
    if kind in {"function", "custom"} and name:
        return ToolChoice("tool", name), None
    if kind in COMPUTER_TOOLS:
        return ToolChoice("tool", COMPUTER), None
    return None, fields.whole()


def _parse_format(text: Fields) -> tuple[OutputFormat | None, dict[str, Any] | None]:
    fields = text.object("format")
    if fields is None:
        return None, None
    kind = fields.string("type")
    if kind == "json_object":
        return OutputFormat(), None
    if kind != "json_schema":
        return None, None if kind == "text" else fields.whole()
    name, strict = fields.optional_string("name"), fields.boolean("strict")
    return OutputFormat(schema=fields.mapping("schema"), name=name, strict=strict, extra=fields.rest()), None


def build_request(request: ModelRequest) -> dict[str, Any]:
    """Write the body of `POST /v1/responses`.

    Of another dialect's request, thinking and provider-defined tools are left out, and a thinking budget becomes the
    nearest effort; stop sequences, seed and top-k have no word here. Raises `ValidationError` for media that this wire
    cannot carry, and for a computer call that is answered without a screenshot. With the preview of the computer tool,
    which demands it, `truncation` is ``auto`` where nothing else is said.
    """
    own = request.dialect == NAME
    body: dict[str, Any] = {**request.extra} if own else {}
    items, instructions = _build_system(request.system, own=own)
    calls: dict[str, str] = {}
    for message in request.messages:
        items.extend(build_items(message, calls, own=own))
    body |= {"model": request.model, **absent_if_none(instructions=instructions), "input": items}
    tools = [_build_tool(tool, own=own) for tool in request.tools if own or tool.kind == "function"]
    if tools:
        body["tools"] = tools
        if any(tool["type"] == _PREVIEW for tool in tools):
            body.setdefault("truncation", "auto")
        body |= absent_if_none(parallel_tool_calls=request.parallel_tool_calls)
    if request.tool_choice is not None and (tools or own):
        body["tool_choice"] = _build_tool_choice(request.tool_choice, request.tools)
    body |= absent_if_none(
        max_output_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        user=request.user,
        stream=request.stream or None,
    )
    if effort := request.effort or effort_of(request.thinking):
        body["reasoning"] = {**cast("dict[str, Any]", body.get("reasoning") or {}), "effort": effort}
    if request.output_format is not None:
        text = cast("dict[str, Any]", body.get("text") or {})
        body["text"] = {**text, "format": _build_format(request.output_format, own=own)}
    return body


def request_headers(request: ModelRequest) -> dict[str, str]:
    """This wire has none."""
    del request
    return {}


def _build_system(system: tuple[Part, ...], *, own: bool) -> tuple[list[dict[str, Any]], str | None]:
    if len(system) == 1 and isinstance(system[0], Text) and system[0].text and not (own and system[0].extra):
        return [], system[0].text
    if not system:
        return [], None
    return [{"type": "message", "role": "developer", "content": build_content(system, own=own)}], None


def _build_tool(tool: Tool, *, own: bool) -> dict[str, Any]:
    if tool.kind != "function":
        return {"type": tool.kind, **tool.extra}
    strict = tool.strict if tool.strict is not None or own else False  # unsaid it would be true on this wire
    schema = tool.input_schema or None if own else tool.input_schema or {"type": "object", "properties": {}}
    known = absent_if_none(name=tool.name, description=tool.description, parameters=schema, strict=strict)
    return {"type": "function", **known, **(tool.extra if own else {})}


def _build_tool_choice(choice: ToolChoice, tools: tuple[Tool, ...]) -> Any:
    if choice.mode != "tool":
        return choice.mode
    kind = next((tool.kind for tool in tools if tool.name == choice.name), "function")
    return {"type": kind, "name": choice.name} if kind in {"function", "custom"} else {"type": kind}


def _build_format(shape: OutputFormat, *, own: bool) -> dict[str, Any]:
    if shape.schema is None:
        return {"type": "json_object"}
    known = absent_if_none(name=shape.name or "answer", schema=shape.schema, strict=shape.strict)
    return {"type": "json_schema", **known, **(shape.extra if own else {})}
