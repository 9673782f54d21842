"""The pointer of a display, moved and pressed through XTEST.

A window manager that wants to know of each click (openbox does) has the server hold back what follows until it has
looked, which takes long on a busy machine. What is held back is later told with the *newest* place of the pointer: a
button let go at one place counts as let go where the next click is. So each step here waits until the server has told
it on, which `XQueryPointer` shows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from computeragent.computer.types import Button, Point
from computeragent.computer.x11 import xlib
from computeragent.computer.x11.connection import Connection
from computeragent.errors import ComputerError

_BUTTONS: dict[Button, int] = {"left": 1, "middle": 2, "right": 3, "back": 8, "forward": 9}
_UP, _DOWN, _LEFT, _RIGHT = 4, 5, 6, 7
_NOTCH = 120  # pixels that Chromium scrolls for one turn of the wheel
_BETWEEN_NOTCHES = 0.016  # seconds; of notches within one picture Chromium sometimes loses some
_LONGEST_SCROLL = 2.0
_BETWEEN_CLICKS = 0.008  # seconds; without a gap programs take two clicks for one
_STEP, _STEP_TIME = 12, 0.008  # pixels and seconds of a drag's steps; in one leap nothing is dragged
_HELD_BACK = 5.0  # seconds that an action waits at most for what the server holds back
_BETWEEN_LOOKS = 0.001
_ANY_BUTTON = 0b11111 << 8  # of the pointer's state


class Pointer:
    """The pointer. Points are checked by whoever calls."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held: set[Button] = set()

    async def position(self) -> Point:
        """Where it is."""
        return await self._connection.run(self._place)

    async def move(self, point: Point) -> None:
        """Move it."""
        until = _soon()
        await self._connection.run(lambda: self._move(point, until))

    async def click(self, point: Point, button: Button, count: int) -> None:
        """Move it, and click."""
        number = _BUTTONS[button]

        def click() -> None:
            until = _soon()
            self._move(point, until)
            for turn in range(count):
                if turn:
                    time.sleep(_BETWEEN_CLICKS)
                try:
                    self._press(number, until)
                finally:
                    self._release(number, until)

        await self._connection.run(click)

    async def down(self, button: Button) -> None:
        """Press a button and hold it."""
        again = button in self._held
        self._held.add(button)
        await self._connection.run(lambda: None if again else self._press(_BUTTONS[button], _soon()))

    async def up(self, button: Button) -> None:
        """Let a button go."""
        self._held.discard(button)
        await self._connection.run(lambda: self._release(_BUTTONS[button], _soon()))

    async def release_all(self) -> None:
        """Let go what is held."""
        for button in tuple(self._held):
            await self.up(button)

    async def drag(self, path: Sequence[Point], button: Button) -> None:
        """Press at the first point, go along the others, let go at the last."""
        until = _soon()
        await self.move(path[0])
        try:
            await self.down(button)
            await asyncio.sleep(_STEP_TIME)
            for start, end in pairwise(path):
                for point in _between(start, end):
                    await self._connection.run(lambda point=point: self._move(point, until))
                    await asyncio.sleep(_STEP_TIME)
            await asyncio.sleep(_STEP_TIME * 4)
        finally:
            await asyncio.shield(self.up(button))

    async def scroll(self, point: Point, dx: int, dy: int) -> None:
        """Move it, and turn the wheel, notch by notch."""
        await self.move(point)
        turns = [_DOWN if dy > 0 else _UP] * _notches(dy) + [_RIGHT if dx > 0 else _LEFT] * _notches(dx)
        for place, button in enumerate(turns):
            if place:
                await asyncio.sleep(min(_BETWEEN_NOTCHES, _LONGEST_SCROLL / len(turns)))
            await self._connection.run(lambda button=button: self._turn(button))

    # ── In the connection's thread ──

    def _move(self, point: Point, until: float) -> None:
        """Move; a pointer that somebody confines stays where it is, and that is no error."""
        before = self._place()
        xlib.xtest.fake_input(self._connection.display, xlib.X.MotionNotify, x=point.x, y=point.y)
        if before != point:
            _wait(lambda: self._place() == before, until)

    def _press(self, number: int, until: float) -> None:
        self._change(xlib.X.ButtonPress, number, until)

    def _release(self, number: int, until: float) -> None:
        self._change(xlib.X.ButtonRelease, number, until)

    def _change(self, kind: int, number: int, until: float) -> None:
        """Press or let go. Raises `ComputerError` where the display goes on holding it back."""
        before = self._state()
        xlib.xtest.fake_input(self._connection.display, kind, number)
        shows = 1 <= number <= 5 and (before != 0 or kind == xlib.X.ButtonPress)
        if shows and not _wait(lambda: self._state() == before, until):
            raise ComputerError(
                f"display {self._connection.name} holds the pointer back",
                hint="A program on it has frozen the pointer, such as a window manager that hangs or a locked screen.",
            )
        self._connection.display.sync()

    def _place(self) -> Point:
        found = self._connection.root.query_pointer()
        return Point(found.root_x, found.root_y)

    def _state(self) -> int:
        """The buttons that are pressed."""
        return int(self._connection.root.query_pointer().mask) & _ANY_BUTTON

    def _turn(self, button: int) -> None:
        xlib.xtest.fake_input(self._connection.display, xlib.X.ButtonPress, button)
        xlib.xtest.fake_input(self._connection.display, xlib.X.ButtonRelease, button)
        self._connection.display.sync()


def _soon() -> float:
    return time.monotonic() + _HELD_BACK


def _wait(held_back: Callable[[], bool], until: float) -> bool:
    """Whether it ended in time."""
    while held_back():
        if time.monotonic() > until:
            return False
        time.sleep(_BETWEEN_LOOKS)
    return True


def _notches(pixels: int) -> int:
    return max(1, round(abs(pixels) / _NOTCH)) if pixels else 0


def _between(start: Point, end: Point) -> list[Point]:
    """Points from after `start` to `end`."""
    steps = max(3, max(abs(end.x - start.x), abs(end.y - start.y)) // _STEP)
    return [
        Point(round(start.x + (end.x - start.x) * step / steps), round(start.y + (end.y - start.y) * step / steps))
        for step in range(1, steps + 1)
    ]
