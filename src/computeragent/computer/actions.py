"""Every action on a computer, as data: what a policy judges, a trajectory keeps, a replay draws and `perform` does.

In JSON an action is its ``action`` and its fields: ``{"action": "click", "x": 10, "y": 20}``.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta, Struct

from computeragent.computer.types import Button, Computer, HasPages, Point
from computeragent.errors import ComputerActionError, ComputerUnsupportedError

MAX_WAIT = 60.0
"""Seconds that one action may wait or hold a key, at most."""
MAX_TEXT = 100_000

Count = Annotated[int, Meta(ge=1, le=3)]
Repeat = Annotated[int, Meta(ge=1, le=100)]
Keys = Annotated[tuple[str, ...], Meta(min_length=1, max_length=10)]
Held = Annotated[tuple[str, ...], Meta(max_length=10)]
Seconds = Annotated[float, Meta(ge=0, le=MAX_WAIT)]


class _Action(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="action", forbid_unknown_fields=True):
    pass


class Shot(_Action, frozen=True, tag="screenshot"):
    """Look."""


class Click(_Action, frozen=True, tag="click"):
    """Click, `count` times, while `keys` are held. Without a point: where the pointer is."""

    x: int | None = None
    y: int | None = None
    button: Button = "left"
    count: Count = 1
    keys: Held = ()


class Move(_Action, frozen=True, tag="move"):
    """Move the pointer."""

    x: int
    y: int
    keys: Held = ()


class MouseDown(_Action, frozen=True, tag="mouse_down"):
    """Press a button and hold it."""

    x: int | None = None
    y: int | None = None
    button: Button = "left"


class MouseUp(_Action, frozen=True, tag="mouse_up"):
    """Let a button go."""

    x: int | None = None
    y: int | None = None
    button: Button = "left"


class Drag(_Action, frozen=True, tag="drag"):
    """Press at the first point, let go at the last."""

    path: Annotated[tuple[Point, ...], Meta(min_length=2, max_length=1_000)]
    button: Button = "left"
    keys: Held = ()


class Scroll(_Action, frozen=True, tag="scroll"):
    """Turn the wheel: pixels, positive to the right and down. Without a point: where the pointer is."""

    x: int | None = None
    y: int | None = None
    dx: int = 0
    dy: int = 0
    keys: Held = ()


class Type(_Action, frozen=True, tag="type"):
    """Type text."""

    text: Annotated[str, Meta(max_length=MAX_TEXT)]


class Keypress(_Action, frozen=True, tag="keypress"):
    """Press keys together, and let them go."""

    keys: Keys
    repeat: Repeat = 1


class HoldKey(_Action, frozen=True, tag="hold_key"):
    """Hold keys for a while."""

    keys: Keys
    seconds: Seconds


class Wait(_Action, frozen=True, tag="wait"):
    """Do nothing for a while."""

    seconds: Seconds = 1.0


class CursorPosition(_Action, frozen=True, tag="cursor_position"):
    """Ask where the pointer is."""


class Zoom(_Action, frozen=True, tag="zoom"):
    """Look closely at a part of the screen: left, top, right, bottom."""

    region: tuple[int, int, int, int]


class Goto(_Action, frozen=True, tag="goto"):
    """Open an address, on a computer that is a browser."""

    url: str


class Back(_Action, frozen=True, tag="back"):
    """Go back in the browser's history."""


Action = (
    Shot
    | Click
    | Move
    | MouseDown
    | MouseUp
    | Drag
    | Scroll
    | Type
    | Keypress
    | HoldKey
    | Wait
    | CursorPosition
    | Zoom
    | Goto
    | Back
)

ACTION_NAMES: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in get_args(Action))
LOOKS = (Shot, Zoom, CursorPosition, Wait)
"""Actions that change nothing on the computer."""


def parse_action(value: Any) -> Action:
    """An action from plain data. Raises `ComputerActionError`, which says what is wrong in the model's own terms."""
    try:
        return msgspec.convert(value, Action)
    except msgspec.ValidationError as error:
        raise ComputerActionError(f"this is no action: {error}", hint=f"Actions: {', '.join(ACTION_NAMES)}.") from None


def to_dict(action: Action) -> dict[str, Any]:
    """An action as plain data, as JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(action))


async def perform(computer: Computer, action: Action) -> Point | None:
    """Do an action; returns where the pointer is if that was asked. Pictures are taken by whoever wants one after it.

    Raises `ComputerActionError` for a point outside the screen, before anything has happened.
    """
    _check_points(computer, action)
    match action:
        case Shot() | Zoom():
            pass
        case Type():
            await computer.type(action.text)
        case Keypress():
            await computer.keypress(action.keys, repeat=action.repeat)
        case HoldKey():
            await _hold(computer, action)
        case Wait():
            await asyncio.sleep(action.seconds)
        case CursorPosition():
            return await computer.cursor_position()
        case Goto():
            await _pages(computer).goto(action.url)
        case Back():
            await _pages(computer).back()
        case _:
            await _point(computer, action)
    return None


async def _point(computer: Computer, action: Click | Move | MouseDown | MouseUp | Drag | Scroll) -> None:
    match action:
        case Click():
            x, y = await _where(computer, action.x, action.y)
            await computer.click(x, y, action.button, count=action.count, keys=action.keys)
        case Move():
            await computer.move(action.x, action.y, keys=action.keys)
        case MouseDown():
            await computer.mouse_down(action.button, x=action.x, y=action.y)
        case MouseUp():
            await computer.mouse_up(action.button, x=action.x, y=action.y)
        case Drag():
            await computer.drag(action.path, button=action.button, keys=action.keys)
        case Scroll():
            x, y = await _where(computer, action.x, action.y)
            await computer.scroll(x, y, action.dx, action.dy, keys=action.keys)


def points_of(action: Action) -> list[Point]:
    """The points that an action names."""
    match action:
        case Drag():
            return list(action.path)
        case Zoom():
            return [Point(*action.region[:2]), Point(*action.region[2:])]
        case Click() | Move() | MouseDown() | MouseUp() | Scroll():
            return [] if action.x is None or action.y is None else [Point(action.x, action.y)]
        case _:
            return []


def _check_points(computer: Computer, action: Action) -> None:
    width, height = computer.dimensions
    edge = 1 if isinstance(action, Zoom) else 0  # a region ends where its last pixel does
    for x, y in points_of(action):
        if not (0 <= x < width + edge and 0 <= y < height + edge):
            raise ComputerActionError(
                f"({x}, {y}) is outside the screen",
                hint=f"The screen is {width}x{height}, from (0, 0) at the top left.",
            )
    if isinstance(action, Zoom) and not (action.region[0] < action.region[2] and action.region[1] < action.region[3]):
        raise ComputerActionError("the region is empty", hint="A region is [left, top, right, bottom].")


async def _where(computer: Computer, x: int | None, y: int | None) -> Point:
    return await computer.cursor_position() if x is None or y is None else Point(x, y)


async def _hold(computer: Computer, action: HoldKey) -> None:
    held: list[str] = []
    try:
        for key in action.keys:
            await computer.key_down(key)
            held.append(key)
        await asyncio.sleep(action.seconds)
    finally:
        for key in reversed(held):
            await computer.key_up(key)


def _pages(computer: Computer) -> HasPages:
    if isinstance(computer, HasPages):
        return computer
    raise ComputerUnsupportedError(f"a computer of kind {computer.kind} opens no addresses by itself")
