"""A plain function as the computer tool, for any vision model that calls functions.

Models spell actions as they learned them elsewhere; what can only mean one thing is understood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from computeragent.computer.actions import (
    Action,
    Back,
    Click,
    CursorPosition,
    Drag,
    Goto,
    HoldKey,
    Keypress,
    MouseDown,
    MouseUp,
    Move,
    Scroll,
    Shot,
    Type,
    Wait,
    Zoom,
)
from computeragent.computer.types import Environment, Point, Size
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

LIMIT = Limit(1568, 1568, 1_150_000)
_POINT: dict[str, Any] = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}}
_ACTIONS = (
    "screenshot", "click", "double_click", "triple_click", "right_click", "move", "drag", "scroll", "type", "keypress",
    "hold_key", "wait", "mouse_down", "mouse_up", "cursor_position", "zoom", "goto", "back",
)  # fmt: skip


class FunctionTool:
    """The function ``computer``."""

    name = "function"
    notches = False
    needs_picture = False
    settings: Mapping[str, Any] = NO_SETTINGS
    limit: Limit | None = LIMIT

    def tools(self, size: Size, environment: Environment) -> tuple[Tool, ...]:
        """See `ToolFormat.tools`."""
        return (Tool(name=TOOL, description=describe(size, environment), input_schema=schema()),)

    def claims(self, call: ToolCall) -> bool:
        """See `ToolFormat.claims`."""
        return call.name == TOOL

    async def read(self, call: ToolCall, sight: Sight) -> ComputerCall:
        """See `ToolFormat.read`."""
        del sight
        return ComputerCall(call, read_actions(call.input))

    def result(
        self, call: ToolCall, parts: Sequence[Part], *, failed: bool, acknowledged: Sequence[SafetyCheck]
    ) -> ToolResult:
        """See `ToolFormat.result`."""
        del acknowledged
        return plain_result(call, parts, failed=failed)


def describe(size: Size, environment: Environment) -> str:
    """What the model is told of the tool."""
    what = "a web browser" if environment == "browser" else f"a computer with {environment.capitalize()}"
    return (
        f"Use {what} by its screen, mouse and keyboard. The screen is {size.width}x{size.height} pixels, (0, 0) at the "
        "top left; x and y are pixels of the screenshots. Each action is answered with a screenshot of what it did. "
        "Begin with a screenshot, and look at the last one before you act."
    )


def schema() -> dict[str, Any]:
    """The arguments, as JSON Schema."""
    number = {"type": "integer"}
    return {
        "type": "object",
        "properties": {
            "action": {"type": "string", "enum": list(_ACTIONS)},
            "x": number,
            "y": number,
            "button": {"type": "string", "enum": ["left", "right", "middle", "back", "forward"]},
            "path": {"type": "array", "items": _POINT, "description": "drag: where it leads, two points or more"},
            "dx": {"type": "integer", "description": "scroll: pixels to the right"},
            "dy": {"type": "integer", "description": "scroll: pixels down; negative is up"},
            "text": {"type": "string", "description": "type: the text"},
            "keys": {
                "type": "array",
                "items": {"type": "string"},
                "description": 'keypress: keys pressed together, such as ["ctrl", "c"]; with a click: keys held',
            },
            "seconds": {"type": "number", "description": "wait, hold_key: how long"},
            "region": {"type": "array", "items": number, "description": "zoom: [left, top, right, bottom]"},
            "url": {"type": "string", "description": "goto: the address, on a browser"},
        },
        "required": ["action"],
    }


def read_actions(values: Mapping[str, Any]) -> tuple[Action, ...]:
    """The actions that arguments spell. Raises `ComputerActionError`."""
    name: object = values.get("action") or values.get("type")
    if isinstance(name, dict):  # the arguments one level further down
        return read_actions(cast("dict[str, Any]", name))
    reader = _READERS.get(name.strip().lower()) if isinstance(name, str) else None
    if reader is None:
        raise ComputerActionError(f"there is no action {str(name)[:40]!r}", hint=f"Actions: {', '.join(_ACTIONS)}.")
    return checked(reader(Arguments(values, str(name))))


Reader = Callable[[Arguments], tuple[Action, ...]]


def where(given: Arguments) -> Point | None:
    """The point of an action, in any of its spellings."""
    for name in ("coordinate", "coordinates", "point", "position"):
        if name in given:
            return given.point(name)
    if "x" in given or "y" in given:
        return Arguments({"x, y": [given.number("x"), given.number("y")]}, "point").point("x, y")
    return None


def _click(count: int, button: Any = None) -> Reader:
    def read(given: Arguments) -> tuple[Action, ...]:
        x, y = where(given) or (None, None)
        times = given.whole("count", count) if count == 1 else count
        return (Click(x=x, y=y, button=button or given.button(), count=times, keys=given.held("keys", "modifiers")),)

    return read


def _move(given: Arguments) -> tuple[Action, ...]:
    x, y = _needed(given)
    return (Move(x=x, y=y, keys=given.held("keys")),)


def _needed(given: Arguments) -> Point:
    point = where(given)
    if point is None:
        raise given.wrong("x, y", "is missing")
    return point


def _button(kind: type[MouseDown | MouseUp]) -> Reader:
    def read(given: Arguments) -> tuple[Action, ...]:
        x, y = where(given) or (None, None)
        return (kind(x=x, y=y, button=given.button()),)

    return read


def _drag(given: Arguments) -> tuple[Action, ...]:
    if "path" in given:
        path = given.path("path")
    else:
        names = (("start_coordinate", "coordinate"), ("start", "end"), ("from", "to"))
        start, end = next((pair for pair in names if pair[0] in given), ("path", "path"))
        path = (given.point(start), given.point(end))
    return (Drag(path=path, button=given.button(), keys=given.held("keys")),)


def _scroll(given: Arguments) -> tuple[Action, ...]:
    x, y = where(given) or (None, None)
    if direction := given.get("direction") or given.get("scroll_direction"):
        dx, dy = notches(direction, given.number("amount", given.number("scroll_amount", 3.0)))
    else:
        dx = given.whole("dx", given.whole("scroll_x", 0))
        dy = given.whole("dy", given.whole("scroll_y", 0))
    return (Scroll(x=x, y=y, dx=dx, dy=dy, keys=given.held("keys")),)


def _keypress(given: Arguments) -> tuple[Action, ...]:
    keys, repeat = given.get("keys") or given.get("key") or given.get("text"), given.whole("repeat", 1)
    return presses(keys, repeat) if isinstance(keys, str) else (Keypress(keys=combo(keys), repeat=repeat),)


def _seconds(given: Arguments, default: float = 1.0) -> float:
    if "ms" in given:
        return given.number("ms") / 1000
    return given.number("seconds", given.number("duration", default))


def _hold(given: Arguments) -> tuple[Action, ...]:
    keys = given.get("keys") or given.get("key") or given.get("text")
    return (HoldKey(keys=combo(keys), seconds=_seconds(given)),)


_READERS: dict[str, Reader] = {
    "screenshot": lambda _: (Shot(),),
    **dict.fromkeys(("click", "left_click"), _click(1)),
    **dict.fromkeys(("double_click", "left_double", "doubleclick"), _click(2)),
    "triple_click": _click(3),
    **dict.fromkeys(("right_click", "right_single"), _click(1, "right")),
    "middle_click": _click(1, "middle"),
    **dict.fromkeys(("move", "mouse_move", "hover"), _move),
    **dict.fromkeys(("mouse_down", "left_mouse_down"), _button(MouseDown)),
    **dict.fromkeys(("mouse_up", "left_mouse_up"), _button(MouseUp)),
    **dict.fromkeys(("drag", "left_click_drag"), _drag),
    "scroll": _scroll,
    **dict.fromkeys(("type", "type_text", "input_text"), lambda given: (Type(text=given.text("text")),)),
    **dict.fromkeys(("keypress", "key", "hotkey", "press", "press_key"), _keypress),
    "hold_key": _hold,
    "wait": lambda given: (Wait(seconds=_seconds(given)),),
    "cursor_position": lambda _: (CursorPosition(),),
    "zoom": lambda given: (Zoom(region=given.region("region")),),
    **dict.fromkeys(("goto", "open_url", "navigate"), lambda given: (Goto(url=given.text("url")),)),
    **dict.fromkeys(("back", "go_back"), lambda _: (Back(),)),
}
