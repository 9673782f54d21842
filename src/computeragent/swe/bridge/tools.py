"""The tools that an agent declares to the model, as Inspect has them, and how their calls are called on the wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from inspect_ai.tool import Tool as InspectTool
from inspect_ai.tool import ToolChoice, ToolFunction, ToolInfo, ToolParams, WebSearchProviders, web_search
from inspect_ai.util import JSONSchema

from computeragent.dialects import openai_responses
from computeragent.dialects.model import ModelRequest, Opaque, Tool, ToolCall
from computeragent.errors import ValidationError
from computeragent.logs import Logger
from computeragent.swe.bridge.schemas import tool_params

SEARCHES: WebSearchProviders = {"openai": True, "anthropic": True, "gemini": True, "grok": True, "perplexity": True}
"""What `web_search=True` grants: the search of the model's own provider."""

_CUSTOM, _NAMESPACE, _ADDITIONAL = "custom", "namespace", "additional_tools"
_CUSTOM_CALL = "custom_tool_call"
_SEARCH_NAMES = ("web_search", "google_search", "googlesearch")
_INPUT = JSONSchema(type="string", description="The whole input, as it is.")
_log = Logger("swe.bridge")


@dataclass(frozen=True)
class WireTool:
    """What a tool is on the wire: its name there, and what its calls carry beside it."""

    tool: Tool
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Declared:
    """The tools of one request. `wire` has each by the name that the model knows it by."""

    tools: tuple[ToolInfo | InspectTool, ...]
    choice: ToolChoice | None
    wire: Mapping[str, WireTool]

    @property
    def spaces(self) -> dict[str, str]:
        """The namespaces of those that have one, by the names that the model knows them by."""
        return {name: str(each.extra["namespace"]) for name, each in self.wire.items() if "namespace" in each.extra}

    def name_of(self, call: ToolCall) -> str:
        """The name that the model knows the tool of this call by."""
        space = call.extra.get("namespace")
        for name, known in self.wire.items():
            if known.tool.name == call.name and known.extra.get("namespace") == space:
                return name
        return call.name


def declared(request: ModelRequest, grant: WebSearchProviders | None) -> Declared:
    """The tools of a request. Those of the provider are withheld, but for the web search where `grant` allows it."""
    found = list(_flat(_all(request)))
    counts = Counter(each.tool.name for each in found)
    wire: dict[str, WireTool] = {}
    tools: list[ToolInfo | InspectTool] = []
    for each in found:
        space = each.extra.get("namespace")
        name = each.tool.name if counts[each.tool.name] == 1 or not space else f"{space}__{each.tool.name}"
        if name in wire:
            continue
        if (info := _info(name, each.tool)) is not None:
            wire[name] = each
            tools.append(info)
        elif grant and _is_search(each.tool):
            tools.append(web_search(grant))
        else:
            _log.info("withheld", tool=each.tool.name, kind=each.tool.kind)
    return Declared(tuple(tools), _choice(request, wire), wire)


def _all(request: ModelRequest) -> Iterator[Tool]:
    yield from request.tools
    # Some agents declare tools in the midst of the conversation.
    for message in request.messages:
        for part in message.content:
            if isinstance(part, Opaque) and part.kind == _ADDITIONAL:
                yield from _parsed(part.data.get("tools"))


def _flat(tools: Iterable[Tool]) -> Iterator[WireTool]:
    for tool in tools:
        if tool.kind != _NAMESPACE:
            yield WireTool(tool, {"type": _CUSTOM_CALL} if tool.kind == _CUSTOM else {})
            continue
        for each in _flat(_parsed(tool.extra.get("tools"))):
            space = tool.extra.get("name") or tool.name
            yield replace(each, extra={**each.extra, "namespace": space})


def _parsed(tools: Any) -> tuple[Tool, ...]:
    if not isinstance(tools, list):
        return ()
    body: dict[str, Any] = {"model": "", "input": [], "tools": cast("list[Any]", tools)}
    try:
        return openai_responses.parse_request(body).tools
    except ValidationError:
        return ()


def _info(name: str, tool: Tool) -> ToolInfo | None:
    description = tool.description or str(tool.extra.get("description") or name)
    if tool.kind == "function":
        return ToolInfo(name=name, description=description, parameters=tool_params(tool.input_schema))
    if tool.kind == _CUSTOM:
        shape: Any = tool.extra.get("format")
        if isinstance(shape, dict) and (grammar := cast("dict[str, Any]", shape).get("definition")):
            description = f"{description}\n\nThe input must follow this grammar:\n{grammar}"
        parameters = ToolParams(properties={"input": _INPUT}, required=["input"])
        return ToolInfo(name=name, description=description, parameters=parameters)
    return None


def _is_search(tool: Tool) -> bool:
    return tool.kind.lower().startswith(_SEARCH_NAMES)


def _choice(request: ModelRequest, wire: Mapping[str, WireTool]) -> ToolChoice | None:
    choice = request.tool_choice
    if choice is None:
        return None
    match choice.mode:
        case "required":
            return "any"
        case "tool":
            # To force what is withheld would take all the other tools away, too.
            name = next((name for name, each in wire.items() if each.tool.name == choice.name), None)
            return "auto" if name is None else ToolFunction(name=name)
        case mode:
            return mode
