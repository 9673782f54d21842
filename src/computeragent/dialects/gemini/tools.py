"""Tools of Gemini, and which of them the model may call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from computeragent.dialects.fields import Fields, absent_if_none
from computeragent.dialects.gemini.schemas import json_schema
from computeragent.dialects.gemini.spelling import inner, read, several
from computeragent.dialects.model import Tool, ToolChoice, ToolMode

DECLARED = "functionDeclarations"
_MODES: dict[str, ToolMode] = {"AUTO": "auto", "ANY": "required", "NONE": "none"}
_MODE_NAMES = {"auto": "AUTO", "required": "ANY", "none": "NONE", "tool": "ANY"}


def parse_tools(body: Fields) -> tuple[Tool, ...]:
    """The tools of a request: functions, and each tool of the provider's own by its field's name."""
    return tuple(tool for path, item in several(body, "tools") for tool in _parse_tool(read(item, path)))


def _parse_tool(fields: Fields) -> Iterator[Tool]:
    for path, item in several(fields, DECLARED):
        yield _parse_function(read(item, path))
    for name in fields.rest():
        yield Tool(name=name, kind=name, extra=Fields(fields.whole()[name] or {}, fields.at(name)).whole())


def _parse_function(fields: Fields) -> Tool:
    name, description = fields.string("name"), fields.optional_string("description")
    schema = fields.mapping("parametersJsonSchema")
    given = fields.take("parameters")
    extra = fields.rest()
    if given is not None and not schema:
        schema = json_schema(given, fields.at("parameters"))
        extra["parameters"] = given
    return Tool(name=name, description=description, input_schema=schema, extra=extra)


def build_tools(tools: Iterable[Tool], *, own: bool) -> list[dict[str, Any]]:
    """The tools of a request; of another wire's only functions."""
    built: list[dict[str, Any]] = []
    declared: list[dict[str, Any]] = []
    for tool in tools:
        if tool.kind == "function":
            if not declared:
                built.append({DECLARED: declared})
            declared.append(_build_function(tool, own=own))
        elif own:
            built.append({tool.kind: tool.extra})
    return built


def _build_function(tool: Tool, *, own: bool) -> dict[str, Any]:
    extra = dict(tool.extra) if own else {}
    given = extra.pop("parameters", None)
    known = absent_if_none(name=tool.name, description=tool.description)
    if given is not None and json_schema(given, "parameters") == tool.input_schema:
        known["parameters"] = given
    elif tool.input_schema:
        known["parametersJsonSchema"] = tool.input_schema
    return {**known, **extra}


def parse_tool_config(body: Fields) -> tuple[ToolChoice | None, dict[str, Any]]:
    """Which tool may be called, and what of `toolConfig` the neutral model has no word for."""
    fields = inner(body, "toolConfig")
    calling = None if fields is None else inner(fields, "functionCallingConfig")
    if fields is None or calling is None:
        return None, {} if fields is None else fields.rest()
    whole = calling.whole()
    mode = calling.optional_string("mode") or "AUTO"
    allowed = calling.strings("allowedFunctionNames")
    if mode not in _MODES or calling.rest() or len(allowed) > 1 or (allowed and mode != "ANY"):
        choice = ToolChoice(_MODES[mode]) if mode in _MODES else None
        return choice, {**fields.rest(), "functionCallingConfig": whole}
    choice = ToolChoice("tool", allowed[0]) if allowed else ToolChoice(_MODES[mode])
    return choice, fields.rest()


def build_tool_config(choice: ToolChoice | None, more: dict[str, Any]) -> dict[str, Any] | None:
    """`toolConfig`; `more` is what was read of it beyond the choice."""
    if choice is None or parse_tool_config(Fields({"toolConfig": more}))[0] == choice:
        return more or None
    calling: dict[str, Any] = {"mode": _MODE_NAMES[choice.mode]}
    if choice.mode == "tool" and choice.name is not None:
        calling["allowedFunctionNames"] = [choice.name]
    return {**more, "functionCallingConfig": calling}
