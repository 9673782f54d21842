"""A computer that is functions of this file: a screen of one colour, and what was done to it."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from computeragent.computer.custom import CustomComputer
from computeragent.errors import ComputerActionError, ComputerError


class Drawn:
    """Its screen has the colour `colour`; `shots` counts how often somebody looked."""

    def __init__(self) -> None:
        self.colour = (0, 0, 0)
        self.shots = 0
        self.done: list[tuple[str, Any]] = []
        self.dead = False
        self.busy = False
        self.opened = 0
        self.closed = 0

    def shot(self) -> bytes:
        if self.dead:
            raise ComputerError("the display is gone", hint="Start it again.")
        if self.busy:
            raise ComputerActionError("the page does not answer")
        self.shots += 1
        out = io.BytesIO()
        Image.new("RGB", (320, 200), self.colour).save(out, "PNG")
        return out.getvalue()

    def _did(self, name: str) -> Any:
        return lambda *values, **named: self.done.append((name, (*values, *named.values())))

    def _close(self) -> None:
        self.closed += 1

    async def open(self) -> CustomComputer:
        names = ("click", "move", "type", "keypress", "scroll", "drag", "left_mouse_down", "left_mouse_up")
        acts = {name: self._did(name) for name in names}
        computer = await CustomComputer.make({"screenshot": self.shot, "close": self._close, **acts})
        self.opened += 1
        return computer


def colour_of(jpeg: bytes) -> tuple[int, int, int]:
    """The colour of a frame, to the tens: JPEG is not exact."""
    with Image.open(io.BytesIO(jpeg)) as image:
        red, green, blue = image.convert("RGB").getpixel((160, 100))
    return round(red / 10) * 10, round(green / 10) * 10, round(blue / 10) * 10
