"""Reading what models write into calls: numbers that are texts, keys in any spelling, points in any bracket."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from computeragent.computer.actions import Action, Keypress
from computeragent.computer.keys import MODIFIERS, split_combo
from computeragent.computer.types import Button, Point
from computeragent.errors import ComputerActionError

NOTCH = 120
"""Pixels that one notch of the wheel scrolls."""

_BUTTONS: dict[str, Button] = {
    "left": "left", "right": "right", "middle": "middle", "wheel": "middle", "back": "back", "forward": "forward",
}  # fmt: skip


class Arguments:
    """The arguments of a call, with errors that the model can act on."""

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        self._values = values
        self._name = name

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def get(self, key: str) -> Any:
        """The value, or None."""
        return self._values.get(key)

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        value = self._values.get(key)
        if value is None:
            if default is None:
                raise self.wrong(key, "is missing")
            return default
        return self._number(key, value)

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        return round(self.number(key, None if default is None else float(default)))

    def text(self, key: str) -> str:
        """A text, which may be empty."""
        value = self._values.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, "must be a text")
        return value

    def point(self, key: str) -> Point:
        """A point: ``[x, y]`` or ``{"x": …, "y": …}``."""
        return self._point(key, self._values.get(key))

    def optional_point(self, key: str) -> Point | None:
        """A point, or None where there is none."""
        return self.point(key) if key in self else None

    def path(self, key: str) -> tuple[Point, ...]:
        """A list of points."""
        value = self._values.get(key)
        if not isinstance(value, (list, tuple)):
            raise self.wrong(key, "must be a list of points")
        return tuple(self._point(key, item) for item in cast("list[Any]", value))

    def region(self, key: str) -> tuple[int, int, int, int]:
        """A region: ``[left, top, right, bottom]``."""
        value = self._values.get(key)
        corners = cast("list[Any]", value) if isinstance(value, (list, tuple)) else []
        if len(corners) != 4:
            raise self.wrong(key, "must be [left, top, right, bottom]")
        low, high = self._point(key, corners[:2]), self._point(key, corners[2:])
        return low.x, low.y, high.x, high.y

    def button(self, key: str = "button") -> Button:
        """A mouse button; the left one where none is named."""
        value = self._values.get(key) or "left"
        if value not in _BUTTONS:
            raise self.wrong(key, f"is no button: {value!r}")
        return _BUTTONS[value]

    def held(self, *names: str) -> tuple[str, ...]:
        """Keys that are held, from the first of these that is given."""
        for name in names:
            if self._values.get(name):
                return combo(self._values[name])
        return ()

    def wrong(self, key: str, what: str) -> ComputerActionError:
        """The error for an argument."""
        return ComputerActionError(f"{self._name}: {key} {what}")

    def _number(self, key: str, value: Any) -> float:
        try:
            number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number) or abs(number) > 1e9:
            raise self.wrong(key, f"must be a number, not {str(value)[:40]!r}")
        return number

    def _point(self, key: str, value: Any) -> Point:
        if isinstance(value, Mapping):
            value = [cast("Mapping[str, Any]", value).get(axis) for axis in ("x", "y")]
        if not isinstance(value, (list, tuple)) or len(cast("list[Any]", value)) != 2:
            raise self.wrong(key, "must be a point [x, y]")
        x, y = cast("list[Any]", value)
        # A point is the pixel that it lies in; rounding up could leave the screen.
        return Point(math.floor(self._number(key, x)), math.floor(self._number(key, y)))


def combo(value: Any) -> tuple[str, ...]:
    """Keys pressed together, of a text (``ctrl+c``) or of a list (``["CTRL", "C"]``), letters as they are unshifted."""
    if isinstance(value, str):
        names = split_combo(value)
    elif isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in cast("list[Any]", value)):
        names = tuple(name for item in cast("list[str]", value) for name in split_combo(item))
    else:
        raise ComputerActionError("keys must be a text such as ctrl+c, or a list of names")
    if not names:
        raise ComputerActionError("no key is named")
    if MODIFIERS.intersection(names):  # CTRL+L is ctrl and the key of l; shift is named where it is meant
        names = tuple(name.lower() if len(name) == 1 else name for name in names)
    return names


def presses(text: str, repeat: int = 1) -> tuple[Action, ...]:
    """The key presses of a text: combinations behind one another stand apart by spaces."""
    words = text.split() or [text]
    if len(set(words)) == 1:
        return (Keypress(keys=combo(words[0]), repeat=_times(repeat * len(words))),)
    return tuple(Keypress(keys=combo(word), repeat=_times(repeat)) for word in words)


def _times(repeat: int) -> int:
    if not 1 <= repeat <= 100:
        raise ComputerActionError("a key can be pressed 1 to 100 times at once")
    return repeat


def notches(direction: Any, amount: float) -> tuple[int, int]:
    """Pixels to the right and down, for a direction and a number of notches."""
    pixels = round(amount) * NOTCH
    steps = {"up": (0, -pixels), "down": (0, pixels), "left": (-pixels, 0), "right": (pixels, 0)}
    if direction not in steps:
        raise ComputerActionError(
            f"scroll: there is no direction {str(direction)[:40]!r}", hint="up, down, left, right"
        )
    return steps[direction]


def checked(actions: Iterable[Action]) -> tuple[Action, ...]:
    """Actions made of a model's values, with every bound checked (how often, how long)."""
    try:
        return tuple(msgspec.convert(msgspec.to_builtins(action), type(action)) for action in actions)
    except msgspec.ValidationError as error:
        raise ComputerActionError(f"this cannot be done: {error}") from None
