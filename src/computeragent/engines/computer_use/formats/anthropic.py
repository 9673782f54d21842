"""Anthropic's computer tools: the versions with one tool of many actions, and the toolset with a tool per action."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from computeragent.computer.actions import (
    Action,
    Click,
    CursorPosition,
    Drag,
    HoldKey,
    MouseDown,
    MouseUp,
    Move,
    Scroll,
    Shot,
    Type,
    Wait,
    Zoom,
)
from computeragent.computer.types import Environment, Size
from computeragent.dialects.model import Part, Tool, ToolCall, ToolResult
from computeragent.engines.computer_use.formats.reading import Arguments, checked, combo, notches, presses
from computeragent.engines.computer_use.formats.types import (
    NO_SETTINGS,
    TOOL,
    ComputerCall,
    SafetyCheck,
    Sight,
    plain_result,
)
from computeragent.engines.computer_use.screen import Limit
from computeragent.errors import ComputerActionError

_OLDER = Limit(1280, 800, 1280 * 800)
_NEWER = Limit(1568, 1568, 1_150_000)  # larger pictures are made smaller by the provider, and points go astray
_ZOOMS = "computer_20251124"


class AnthropicComputer:
    """The tool ``computer`` of one version; `name` is its type, such as ``computer_20250124``."""

    notches = True
    needs_picture = False
    settings: Mapping[str, Any] = NO_SETTINGS

    def __init__(self, name: str) -> None:
        self.name = name
        self.limit = _NEWER if name == _ZOOMS else _OLDER

    def tools(self, size: Size, environment: Environment) -> tuple[Tool, ...]:
        """See `ToolFormat.tools`."""
        del environment
        extra: dict[str, Any] = {"display_width_px": size.width, "display_height_px": size.height}
        if self.name == _ZOOMS:
            extra["enable_zoom"] = True
        return (Tool(name=TOOL, kind=self.name, extra=extra),)

    def claims(self, call: ToolCall) -> bool:
        """See `ToolFormat.claims`."""
        return call.name == TOOL

    async def read(self, call: ToolCall, sight: Sight) -> ComputerCall:
        """See `ToolFormat.read`."""
        del sight
        return ComputerCall(call, _actions(call.input.get("action"), call.input))

    def result(
        self, call: ToolCall, parts: Sequence[Part], *, failed: bool, acknowledged: Sequence[SafetyCheck]
    ) -> ToolResult:
        """See `ToolFormat.result`."""
        del acknowledged
        return plain_result(call, parts, failed=failed)


class AnthropicToolset:
    """``computer_toolset_20260801``: one entry without a name on the wire, and calls that are named by their action."""

    name = "computer_toolset_20260801"
    notches = True
    needs_picture = False
    settings: Mapping[str, Any] = NO_SETTINGS
    limit = _NEWER

    def tools(self, size: Size, environment: Environment) -> tuple[Tool, ...]:
        """See `ToolFormat.tools`."""
        del size, environment
        return (Tool(name=TOOL, kind=self.name),)

    def claims(self, call: ToolCall) -> bool:
        """See `ToolFormat.claims`."""
        return call.name in _READERS

    async def read(self, call: ToolCall, sight: Sight) -> ComputerCall:
        """See `ToolFormat.read`."""
        del sight
        return ComputerCall(call, _actions(call.name, call.input))

    def result(
        self, call: ToolCall, parts: Sequence[Part], *, failed: bool, acknowledged: Sequence[SafetyCheck]
    ) -> ToolResult:
        """See `ToolFormat.result`."""
        del acknowledged
        return plain_result(call, parts, failed=failed)


def _actions(name: Any, values: Mapping[str, Any]) -> tuple[Action, ...]:
    reader = _READERS.get(name) if isinstance(name, str) else None
    if reader is None:
        raise ComputerActionError(f"there is no action {str(name)[:40]!r}", hint=f"Actions: {', '.join(_READERS)}.")
    return checked(reader(Arguments(values, str(name))))


Reader = Callable[[Arguments], tuple[Action, ...]]


def _click(button: Any, count: int) -> Reader:
    def read(given: Arguments) -> tuple[Action, ...]:
        x, y = given.optional_point("coordinate") or (None, None)
        return (Click(x=x, y=y, button=button, count=count, keys=given.held("text", "key")),)

    return read


def _drag(given: Arguments) -> tuple[Action, ...]:
    end, start = given.point("coordinate"), given.optional_point("start_coordinate")
    if start is None:  # the oldest version drags from where the pointer is
        return (MouseDown(), Move(x=end.x, y=end.y), MouseUp(x=end.x, y=end.y))
    return (Drag(path=(start, end), keys=given.held("text", "key")),)


def _move(given: Arguments) -> tuple[Action, ...]:
    x, y = given.point("coordinate")
    return (Move(x=x, y=y),)


def _hold_button(kind: type[MouseDown | MouseUp]) -> Reader:
    def read(given: Arguments) -> tuple[Action, ...]:
        x, y = given.optional_point("coordinate") or (None, None)
        return (kind(x=x, y=y),)

    return read


def _scroll(given: Arguments) -> tuple[Action, ...]:
    x, y = given.optional_point("coordinate") or (None, None)
    dx, dy = notches(given.get("scroll_direction"), given.number("scroll_amount", 3.0))
    return (Scroll(x=x, y=y, dx=dx, dy=dy, keys=given.held("text", "key")),)


_READERS: dict[str, Reader] = {
    "screenshot": lambda _: (Shot(),),
    "left_click": _click("left", 1),
    "right_click": _click("right", 1),
    "middle_click": _click("middle", 1),
    "double_click": _click("left", 2),
    "triple_click": _click("left", 3),
    "left_click_drag": _drag,
    "left_mouse_down": _hold_button(MouseDown),
    "left_mouse_up": _hold_button(MouseUp),
    "mouse_move": _move,
    "cursor_position": lambda _: (CursorPosition(),),
    "key": lambda given: presses(given.text("text"), given.whole("repeat", 1)),
    "hold_key": lambda given: (HoldKey(keys=combo(given.text("text")), seconds=given.number("duration", 1.0)),),
    "type": lambda given: (Type(text=given.text("text")),),
    "scroll": _scroll,
    "wait": lambda given: (Wait(seconds=given.number("duration", 1.0)),),
    "zoom": lambda given: (Zoom(region=given.region("region")),),
}
