"""The pointer of a display, moved and pressed through XTEST."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise

from computeragent.computer.types import Button, Point
from computeragent.computer.x11 import xlib
from computeragent.computer.x11.connection import Connection

_BUTTONS: dict[Button, int] = {"left": 1, "middle": 2, "right": 3, "back": 8, "forward": 9}
_UP, _DOWN, _LEFT, _RIGHT = 4, 5, 6, 7
_NOTCH = 120  # pixels that Chromium scrolls for one turn of the wheel
_BETWEEN_NOTCHES = 0.016  # seconds; of notches within one picture Chromium sometimes loses some
_LONGEST_SCROLL = 2.0
_BETWEEN_CLICKS = 0.008  # seconds; without a gap programs take two clicks for one
_STEP, _STEP_TIME = 12, 0.008  # pixels and seconds of a drag's steps; in one leap nothing is dragged


class Pointer:
    """The pointer. Points are checked by whoever calls."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held: set[Button] = set()

    async def position(self) -> Point:
        """Where it is."""

        def ask() -> Point:
            found = self._connection.root.query_pointer()
            return Point(found.root_x, found.root_y)

        return await self._connection.run(ask)

    async def move(self, point: Point) -> None:
        """Move it."""

        def move() -> None:
            self._move(point)
            self._connection.display.sync()

        await self._connection.run(move)

    async def click(self, point: Point, button: Button, count: int) -> None:
        """Move it, and click."""
        number = _BUTTONS[button]

        def click() -> None:
            self._move(point)
            for turn in range(count):
                if turn:
                    time.sleep(_BETWEEN_CLICKS)
                self._press(number)
                self._release(number)
                self._connection.display.sync()

        await self._connection.run(click)

    async def down(self, button: Button) -> None:
        """Press a button and hold it."""
        self._held.add(button)
        await self._connection.run(lambda: self._now(xlib.X.ButtonPress, _BUTTONS[button]))

    async def up(self, button: Button) -> None:
        """Let a button go."""
        self._held.discard(button)
        await self._connection.run(lambda: self._now(xlib.X.ButtonRelease, _BUTTONS[button]))

    async def release_all(self) -> None:
        """Let go what is held."""
        for button in tuple(self._held):
            await self.up(button)

    async def drag(self, path: Sequence[Point], button: Button) -> None:
        """Press at the first point, go along the others, let go at the last."""
        await self.move(path[0])
        await self.down(button)
        try:
            await asyncio.sleep(_STEP_TIME)
            for start, end in pairwise(path):
                for point in _between(start, end):
                    await self.move(point)
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

    def _move(self, point: Point) -> None:
        xlib.xtest.fake_input(self._connection.display, xlib.X.MotionNotify, x=point.x, y=point.y)

    def _press(self, button: int) -> None:
        xlib.xtest.fake_input(self._connection.display, xlib.X.ButtonPress, button)

    def _release(self, button: int) -> None:
        xlib.xtest.fake_input(self._connection.display, xlib.X.ButtonRelease, button)

    def _turn(self, button: int) -> None:
        self._press(button)
        self._release(button)
        self._connection.display.sync()

    def _now(self, kind: int, button: int) -> None:
        xlib.xtest.fake_input(self._connection.display, kind, button)
        self._connection.display.sync()


def _notches(pixels: int) -> int:
    return max(1, round(abs(pixels) / _NOTCH)) if pixels else 0


def _between(start: Point, end: Point) -> list[Point]:
    """Points from after `start` to `end`."""
    steps = max(3, max(abs(end.x - start.x), abs(end.y - start.y)) // _STEP)
    return [
        Point(round(start.x + (end.x - start.x) * step / steps), round(start.y + (end.y - start.y) * step / steps))
        for step in range(1, steps + 1)
    ]
