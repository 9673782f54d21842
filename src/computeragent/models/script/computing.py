"""Computer actions of a script as the calls that a model would make of them: in the words of the tool it was offered.

What a tool has no word for is no call: a model cannot ask for it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from computeragent.computer.actions import (
    Action,
    Click,
    CursorPosition,
    Drag,
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
    to_dict,
)
from computeragent.dialects.model import Tool

NAME = "computer"
_NOTCH = 120
_OLDEST = "computer_20241022"
_XDOTOOL = {
    "enter": "Return", "tab": "Tab", "escape": "Escape", "backspace": "BackSpace", "delete": "Delete",
    "pageup": "Page_Up", "pagedown": "Page_Down", "home": "Home", "end": "End", "up": "Up", "down": "Down",
    "left": "Left", "right": "Right", "+": "plus", "-": "minus",
}  # fmt: skip
_CLICKS = {
    ("left", 1): "left_click", ("left", 2): "double_click", ("left", 3): "triple_click",
    ("right", 1): "right_click", ("middle", 1): "middle_click",
}  # fmt: skip

Input = dict[str, Any]


class Call(Struct, frozen=True):
    """One call: the tool's name, its input, and what the wire says beside it."""

    name: str
    input: Input
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


def calls_of(actions: tuple[Action, ...], checks: tuple[dict[str, Any], ...], tool: Tool) -> list[Call] | None:
    """The calls of `tool` that stand for the actions; None where it has no word for one of them."""
    if tool.kind in {"computer", "computer_use_preview"}:
        return _openai(actions, checks, batch=tool.kind == "computer")
    if tool.kind == "function":
        return [Call(tool.name, to_dict(action)) for action in actions]
    found: list[Call] = []
    for action in actions:
        inputs = _anthropic(action, oldest=tool.kind == _OLDEST)
        if inputs is None:
            return None
        found.extend(_member(tool, value) for value in inputs)
    return found


def is_member(tool: Tool, name: str) -> bool:
    """Whether a tool is a set that has a tool of this name."""
    return tool.kind.startswith("computer_toolset_") and name in _MEMBERS


def _member(tool: Tool, value: Input) -> Call:
    if not tool.kind.startswith("computer_toolset_"):
        return Call(tool.name, value)
    return Call(
        value["action"],
        {name: item for name, item in value.items() if name != "action"},
        {"toolset_name": tool.name},
    )


_MEMBERS = frozenset(
    {"key", "hold_key", "type", "cursor_position", "mouse_move", "left_mouse_down", "left_mouse_up", "left_click"}
    | {"left_click_drag", "right_click", "middle_click", "double_click", "triple_click", "scroll", "wait"}
    | {"screenshot", "zoom"}
)


def _anthropic(action: Action, *, oldest: bool) -> list[Input] | None:
    match action:
        case Shot():
            return [{"action": "screenshot"}]
        case CursorPosition():
            return [{"action": "cursor_position"}]
        case Type():
            return [{"action": "type", "text": action.text}]
        case Keypress():
            repeat = {"repeat": action.repeat} if action.repeat > 1 else {}
            return [{"action": "key", "text": _combo(action.keys), **repeat}]
        case Move():
            return [{"action": "mouse_move", "coordinate": [action.x, action.y]}]
        case Click():
            return _click(action, oldest=oldest)
        case Drag():
            return _drag(action, oldest=oldest)
        case _:
            return None if oldest else _newer(action)


def _newer(action: Action) -> list[Input] | None:
    """What the first version of the tool did not have."""
    match action:
        case HoldKey():
            return [{"action": "hold_key", "text": _combo(action.keys), "duration": action.seconds}]
        case Wait():
            return [{"action": "wait", "duration": action.seconds}]
        case Scroll():
            return _scroll(action)
        case Zoom():
            return [{"action": "zoom", "region": list(action.region)}]
        case MouseDown(button="left") | MouseUp(button="left"):
            name = "left_mouse_down" if isinstance(action, MouseDown) else "left_mouse_up"
            return [*_there(action.x, action.y), {"action": name}]
        case _:
            return None


def _click(action: Click, *, oldest: bool) -> list[Input] | None:
    name = _CLICKS.get((action.button, action.count))
    if name is None or (oldest and (name == "triple_click" or action.keys)):
        return None
    if oldest:  # it clicks where the pointer is
        return [*_there(action.x, action.y), {"action": name}]
    return [{"action": name, **_at(action.x, action.y), **_held(action.keys)}]


def _drag(action: Drag, *, oldest: bool) -> list[Input] | None:
    start, end = action.path[0], action.path[-1]
    if len(action.path) != 2 or action.button != "left":
        return None
    if oldest:
        return [*_there(start.x, start.y), {"action": "left_click_drag", "coordinate": list(end)}]
    given = {"start_coordinate": list(start), "coordinate": list(end)}
    return [{"action": "left_click_drag", **given, **_held(action.keys)}]


def _scroll(action: Scroll) -> list[Input]:
    found: list[Input] = []
    for amount, forth, back in ((action.dy, "down", "up"), (action.dx, "right", "left")):
        if amount:
            count = max(1, round(abs(amount) / _NOTCH))
            turn = {"scroll_direction": forth if amount > 0 else back, "scroll_amount": count}
            found.append({"action": "scroll", **_at(action.x, action.y), **turn, **_held(action.keys)})
    return found


def _at(x: int | None, y: int | None) -> Input:
    return {} if x is None or y is None else {"coordinate": [x, y]}


def _there(x: int | None, y: int | None) -> list[Input]:
    return [] if x is None or y is None else [{"action": "mouse_move", "coordinate": [x, y]}]


def _held(keys: tuple[str, ...]) -> Input:
    return {"text": _combo(keys)} if keys else {}


def _combo(keys: tuple[str, ...]) -> str:
    return "+".join(_XDOTOOL.get(key, key) for key in keys)


def _openai(actions: tuple[Action, ...], checks: tuple[dict[str, Any], ...], *, batch: bool) -> list[Call] | None:
    built: list[Input] = []
    for action in actions:
        value = _openai_action(action)
        if value is None:
            return None
        built.append(value)
    extra = {"type": "computer_call", "status": "completed", "pending_safety_checks": list(checks)}
    inputs: list[Input] = [{"actions": built}] if batch else [{"action": value} for value in built]
    return [Call(NAME, value, extra) for value in inputs]


def _openai_action(action: Action) -> Input | None:
    match action:
        case Shot() | Wait():
            return {"type": "screenshot" if isinstance(action, Shot) else "wait"}
        case Type():
            return {"type": "type", "text": action.text}
        case Keypress(repeat=1):
            return {"type": "keypress", "keys": [key.upper() for key in action.keys]}
        case Drag(button="left"):
            return {"type": "drag", "path": [{"x": x, "y": y} for x, y in action.path], **_keys(action.keys)}
        case Move():
            return {"type": "move", "x": action.x, "y": action.y, **_keys(action.keys)}
        case Click(x=int(x), y=int(y)):
            return _openai_click(action, x, y)
        case Scroll(x=int(x), y=int(y)):
            turn = {"scroll_x": action.dx, "scroll_y": action.dy}
            return {"type": "scroll", "x": x, "y": y, **turn, **_keys(action.keys)}
        case _:
            return None


def _openai_click(action: Click, x: int, y: int) -> Input | None:
    if action.count == 1:
        button = "wheel" if action.button == "middle" else action.button
        return {"type": "click", "button": button, "x": x, "y": y, **_keys(action.keys)}
    if action.count == 2 and action.button == "left":
        return {"type": "double_click", "x": x, "y": y, **_keys(action.keys)}
    return None


def _keys(keys: tuple[str, ...]) -> Input:
    return {"keys": [key.upper() for key in keys]} if keys else {}
