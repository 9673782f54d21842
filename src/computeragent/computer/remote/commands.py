"""Actions as a cua computer-server takes them: which commands do what one action is."""

from __future__ import annotations

from typing import Any

from computeragent.computer import actions, keys
from computeragent.computer.types import Button, Environment
from computeragent.errors import ComputerActionError, ComputerUnsupportedError

Command = tuple[str, dict[str, Any]]

NOTCH = 120
"""Pixels that a notch of the wheel scrolls."""
_CLICKS = {("left", 1): "left_click", ("left", 2): "double_click", ("right", 1): "right_click"}
_KEYS = {"escape": "esc"}


def commands_of(action: actions.Action, environment: Environment) -> list[Command]:
    """The commands, in order. Raises `ComputerUnsupportedError` for what the protocol has no words for."""
    held = [_key(key, environment) for key in getattr(action, "keys", ())]
    match action:
        case actions.Type():
            return _typed(action.text, environment)
        case actions.Keypress():
            press: Command = ("press_key", {"key": held[0]}) if len(held) == 1 else ("hotkey", {"keys": held})
            return [press] * action.repeat
        case actions.Click():
            does = _click(action)
        case actions.Move():
            does = [_move(action.x, action.y)]
        case actions.MouseDown():
            does = [("mouse_down", _at(action.x, action.y) | {"button": _button(action.button)})]
        case actions.MouseUp():
            does = [("mouse_up", _at(action.x, action.y) | {"button": _button(action.button)})]
        case actions.Drag():
            path = [[x, y] for x, y in action.path]
            does = [("drag", {"path": path, "button": _button(action.button), "duration": 0.3})]
        case actions.Scroll():
            does = [*([_move(action.x, action.y)] if action.x is not None else []), *_wheel(action.dx, action.dy)]
        case _:
            raise ComputerUnsupportedError(f"a computer-server has no command for {actions.to_dict(action)['action']}")
    return [
        *(("key_down", {"key": key}) for key in held),
        *does,
        *(("key_up", {"key": key}) for key in reversed(held)),
    ]


def key_command(command: str, key: str, environment: Environment) -> Command:
    """``key_down`` or ``key_up``."""
    return command, {"key": _key(key, environment)}


def _key(name: str, environment: Environment) -> str:
    key = keys.key(name)
    if key == "super":
        return "command" if environment == "mac" else "win"
    return _KEYS.get(key, key)


def _typed(text: str, environment: Environment) -> list[Command]:
    """Text: typed where keyboards have it; else pasted, since computer-servers are known to mistype the rest."""
    if not text:
        return []
    if text.isascii():
        return [("type_text", {"text": text})]
    paste = "command" if environment == "mac" else "ctrl"
    return [("set_clipboard", {"text": text}), ("hotkey", {"keys": [paste, "v"]})]


def _click(action: actions.Click) -> list[Command]:
    point = _at(action.x, action.y)
    name = _CLICKS.get((action.button, action.count))
    if name is not None:
        return [(name, point)]
    if action.button in {"left", "right"}:
        return [(_CLICKS[action.button, 1], point)] * action.count
    button = _button(action.button)
    press: list[Command] = [("mouse_down", point | {"button": button}), ("mouse_up", point | {"button": button})]
    return press * action.count


def _button(button: Button) -> str:
    if button in {"back", "forward"}:
        raise ComputerActionError(f"the mouse there has no button {button!r}", hint="Use alt+left or alt+right.")
    return button


def _at(x: int | None, y: int | None) -> dict[str, Any]:
    return {} if x is None or y is None else {"x": x, "y": y}


def _move(x: int | None, y: int | None) -> Command:
    return "move_cursor", _at(x, y)


def _wheel(dx: int, dy: int) -> list[Command]:
    found: list[Command] = []
    if dy:
        found.append(("scroll_down" if dy > 0 else "scroll_up", {"clicks": _notches(dy)}))
    if dx:
        found.append(("scroll", {"x": _notches(dx) * (1 if dx > 0 else -1), "y": 0}))
    return found


def _notches(pixels: int) -> int:
    return max(1, round(abs(pixels) / NOTCH))
