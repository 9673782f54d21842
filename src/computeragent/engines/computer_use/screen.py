"""The one place where a screen is scaled: from the computer's pixels to those that the model is shown, and back.

A computer's actions and screenshots are in its own pixels. A model may be shown a smaller picture, and speaks of that.
"""

from __future__ import annotations

import asyncio
import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import replace

from computeragent.computer.actions import Action, Click, Drag, MouseDown, MouseUp, Move, Scroll, Zoom, points_of
from computeragent.computer.types import Point, Screenshot, Size
from computeragent.dialects.model import Media
from computeragent.errors import ComputerActionError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest picture that a model sees as it is: sides, and pixels in all."""

    width: int
    height: int
    pixels: int


@dataclass(frozen=True, slots=True)
class Screen:
    """A screen of the size `real`, shown to the model in the size `shown`."""

    real: Size
    shown: Size

    @classmethod
    def fit(cls, real: Size, *, limit: Limit | None = None, wanted: Size | None = None) -> Screen:
        """The screen as a model is to see it: in the size `wanted`, else as it is, smaller where it is over `limit`."""
        if wanted is not None:
            return cls(real, wanted)
        if limit is None:
            return cls(real, real)
        factor = min(
            1.0,
            limit.width / real.width,
            limit.height / real.height,
            (limit.pixels / (real.width * real.height)) ** 0.5,
        )
        if factor == 1.0:
            return cls(real, real)
        return cls(real, Size(max(1, int(real.width * factor)), max(1, int(real.height * factor))))

    def to_real(self, action: Action, *, notches: bool = False) -> Action:
        """An action of the model as one on the computer. `notches` says that the model counts the wheel's, not pixels.

        Raises `ComputerActionError` for a point outside of what the model was shown.
        """
        self._check(action)
        match action:
            case Zoom():
                left, top, right, bottom = action.region
                low, high = self._edge(left, top), self._edge(right, bottom)
                return Zoom(region=(low.x, low.y, max(high.x, low.x + 1), max(high.y, low.y + 1)))
            case Drag():
                return replace(action, path=tuple(self._real(point) for point in action.path))
            case Scroll():
                if not notches:
                    dx = round(action.dx * self.real.width / self.shown.width)
                    dy = round(action.dy * self.real.height / self.shown.height)
                    action = replace(action, dx=dx, dy=dy)
                return self._moved(action)
            case Click() | Move() | MouseDown() | MouseUp():
                return self._moved(action)
            case _:
                return action

    def to_shown(self, point: Point) -> Point:
        """A pixel of the computer as the model knows it."""
        x = int((point.x + 0.5) * self.shown.width / self.real.width)
        y = int((point.y + 0.5) * self.shown.height / self.real.height)
        return Point(min(x, self.shown.width - 1), min(y, self.shown.height - 1))

    async def picture(self, shot: Screenshot) -> Media:
        """A screenshot as the model is shown it."""
        if shot.size == self.shown:
            return Media(kind="image", media_type=shot.media_type, data=shot.base64)
        return await asyncio.to_thread(_drawn, shot, self.shown, None)

    async def closeup(self, shot: Screenshot, region: tuple[int, int, int, int]) -> Media:
        """A part of a screenshot, in the computer's pixels, as large as the model may be shown it."""
        left, top, right, bottom = region
        factor = min(self.shown.width / (right - left), self.shown.height / (bottom - top))
        size = Size(max(1, round((right - left) * factor)), max(1, round((bottom - top) * factor)))
        return await asyncio.to_thread(_drawn, shot, size, region)

    def _check(self, action: Action) -> None:
        edge = 1 if isinstance(action, Zoom) else 0
        for x, y in points_of(action):
            if not (0 <= x < self.shown.width + edge and 0 <= y < self.shown.height + edge):
                raise ComputerActionError(
                    f"({x}, {y}) is outside the screen",
                    hint=f"The screen is {self.shown.width}x{self.shown.height}, from (0, 0) at the top left.",
                )
        if isinstance(action, Zoom) and not (
            action.region[0] < action.region[2] and action.region[1] < action.region[3]
        ):
            raise ComputerActionError("the region is empty", hint="A region is [left, top, right, bottom].")

    def _moved(self, action: Click | Move | MouseDown | MouseUp | Scroll) -> Action:
        if action.x is None or action.y is None:
            return action
        x, y = self._real(Point(action.x, action.y))
        return replace(action, x=x, y=y)

    def _real(self, point: Point) -> Point:
        """The pixel under the middle of the model's own."""
        x = int((point.x + 0.5) * self.real.width / self.shown.width)
        y = int((point.y + 0.5) * self.real.height / self.shown.height)
        return Point(min(x, self.real.width - 1), min(y, self.real.height - 1))

    def _edge(self, x: int, y: int) -> Point:
        return Point(round(x * self.real.width / self.shown.width), round(y * self.real.height / self.shown.height))


def opened(data: bytes) -> Image:
    """An encoded picture, decoded. Raises `MissingExtraError` without Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError(
            f"pictures need the [computer] extra: {error}", hint="pip install 'computer-agent-py[computer]'"
        ) from error
    return Image.open(io.BytesIO(data))


def encoded(image: Image) -> bytes:
    """A picture as PNG, quickly rather than small."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _drawn(shot: Screenshot, size: Size, region: tuple[int, int, int, int] | None) -> Media:
    image = opened(shot.data).convert("RGB")
    if region is not None:
        image = image.crop(region)
    resampling = 1 if size.width < image.width else 3  # Lanczos for what becomes smaller, bicubic for what is enlarged
    resize = cast("Any", image).resize  # whose type names numpy's, which need not be there
    data = encoded(resize(size, resampling))
    return Media(kind="image", media_type="image/png", data=base64.b64encode(data).decode("ascii"))
