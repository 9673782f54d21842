"""Two models as one: the second thinks and names what it means, the first says where on the screen that is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from computeragent.computer.types import Environment, Point, Size
from computeragent.dialects.model import Media, Message, ModelRequest, Part, Text, Tool, ToolCall, ToolResult
from computeragent.dialects.streams import ResponseAssembler
from computeragent.engines.computer_use.formats.function import LIMIT, describe, read_actions, schema
from computeragent.engines.computer_use.formats.types import (
    NO_SETTINGS,
    TOOL,
    ComputerCall,
    SafetyCheck,
    Sight,
    plain_result,
)
from computeragent.errors import ComputerActionError
from computeragent.models.types import Model

_NUMBER = r"(-?\d{1,5}(?:\.\d+)?)"
_PAIR = re.compile(rf"{_NUMBER}\s*(?:,|;|\s|\]\s*,\s*\[)\s*{_NUMBER}")
_NAMED = re.compile(rf"[\"']?x[\"']?\s*[:=]\s*{_NUMBER}.{{0,20}}?[\"']?y[\"']?\s*[:=]\s*{_NUMBER}", re.DOTALL)
_LONGEST = 2_000
_NEEDS_POINT = ("click", "double_click", "triple_click", "right_click", "move", "mouse_down", "mouse_up", "scroll")


class Composed:
    """The function ``computer``, with elements named where others have points; `grounding` finds them."""

    name = "composed"
    notches = False
    needs_picture = False
    settings: Mapping[str, Any] = NO_SETTINGS
    limit = LIMIT

    def __init__(self, grounding: Model) -> None:
        self._grounding = grounding

    def tools(self, size: Size, environment: Environment) -> tuple[Tool, ...]:
        """See `ToolFormat.tools`."""
        told = describe(size, environment).replace(
            "x and y are pixels of the screenshots",
            "say what to act on in `element`, by what it looks like and where it is, such as: the blue button Save",
        )
        return (Tool(name=TOOL, description=told, input_schema=_schema()),)

    def claims(self, call: ToolCall) -> bool:
        """See `ToolFormat.claims`."""
        return call.name == TOOL

    async def read(self, call: ToolCall, sight: Sight) -> ComputerCall:
        """See `ToolFormat.read`. Asks the grounding model for every element that is named."""
        given = dict(call.input)
        element, start, end = (given.pop(name, None) for name in ("element", "start_element", "end_element"))
        if start is not None or end is not None:
            given["path"] = [await self._find(start, sight), await self._find(end, sight)]
        elif element is not None:
            given["x"], given["y"] = await self._find(element, sight)
        elif given.get("action") in _NEEDS_POINT[:4] and "x" not in given:
            raise ComputerActionError(f"{given['action']}: element is missing", hint="Say what to act on.")
        return ComputerCall(call, read_actions(given))

    def result(
        self, call: ToolCall, parts: Sequence[Part], *, failed: bool, acknowledged: Sequence[SafetyCheck]
    ) -> ToolResult:
        """See `ToolFormat.result`."""
        del acknowledged
        return plain_result(call, parts, failed=failed)

    async def _find(self, element: object, sight: Sight) -> Point:
        if not isinstance(element, str) or not element.strip():
            raise ComputerActionError("an element must be a text that says what it is")
        if sight.picture is None:
            raise ComputerActionError("nothing has been seen of the screen yet", hint="Take a screenshot first.")
        answer = await self._ask(element.strip()[:_LONGEST], sight, sight.picture)
        point = point_in(answer)
        if point is None:
            raise ComputerActionError(f"{element[:100]!r} was not found on the screen", hint="Describe it otherwise.")
        return point

    async def _ask(self, element: str, sight: Sight, picture: Media) -> str:
        question = (
            f"The screenshot is {sight.size.width}x{sight.size.height} pixels. Where is this element: {element}\n"
            "Answer with its middle as (x, y) in pixels, and nothing else."
        )
        request = ModelRequest(
            model=self._grounding.name,
            messages=(Message("user", (picture, Text(question))),),
            max_tokens=256,
            dialect=self._grounding.dialect,
        )
        answer = ResponseAssembler()
        stream: Any = self._grounding.stream(request)
        async with aclosing(stream) as events:
            async for event in events:
                answer.add(event)
        sight.charge(self._grounding.name, answer.response.usage)
        return answer.response.text


def point_in(text: str) -> Point | None:
    """The point that a grounding model's answer names, in any of the spellings that such models have."""
    found = _NAMED.search(text) or _PAIR.search(text)
    return None if found is None else Point(int(float(found[1])), int(float(found[2])))


def _schema() -> dict[str, Any]:
    built = schema()
    properties = cast("Mapping[str, Any]", built["properties"])
    element = {"type": "string", "description": "what to act on: its looks, its text, its place"}
    named = {"element": element, "start_element": element, "end_element": element}
    kept = {name: value for name, value in properties.items() if name not in {"x", "y", "path", "region"}}
    actions = [name for name in properties["action"]["enum"] if name != "zoom"]
    return {**built, "properties": {**kept, "action": {"type": "string", "enum": actions}, **named}}
