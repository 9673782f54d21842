"""Pictures that others made: what they are and how large, from their first bytes, without decoding them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import TYPE_CHECKING

from computeragent.computer.types import ImageFormat, Screenshot, Size
from computeragent.errors import ComputerError

if TYPE_CHECKING:
    from computeragent.computer.types import Computer

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # the segments of a JPEG that have its size
MAX_BYTES = 64 * 1024 * 1024


def screenshot_of(image: object) -> Screenshot:
    """A screenshot from an image: bytes, base64 or a ``data:`` URL. Raises `ComputerError` for what is none."""
    data = _bytes(image)
    if len(data) > MAX_BYTES:
        raise ComputerError(f"a screenshot of {len(data)} bytes is too large", hint=f"At most {MAX_BYTES}.")
    if data.startswith(_PNG) and len(data) > 32:
        return _sized(data, int.from_bytes(data[16:20]), int.from_bytes(data[20:24]), "png")
    if data.startswith(_JPEG):
        return _jpeg(data)
    raise ComputerError("the screenshot is neither PNG nor JPEG", hint="Return one of them, as bytes or base64.")


def _bytes(image: object) -> bytes:
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    if not isinstance(image, str):
        raise ComputerError(f"the screenshot is of type {type(image).__name__}", hint="Return bytes, or base64 text.")
    text = image.partition(",")[2] if image.startswith("data:") else image
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ComputerError("the screenshot is no base64", hint="Return bytes, or base64 text.") from None


def _jpeg(data: bytes) -> Screenshot:
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            return _sized(data, width, height, "jpeg")
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    raise ComputerError("the screenshot is a broken JPEG")


def _sized(data: bytes, width: int, height: int, form: ImageFormat) -> Screenshot:
    if not (0 < width <= 65_535 and 0 < height <= 65_535):
        raise ComputerError("the screenshot has no size")
    return Screenshot(data, Size(width, height), form)


async def until_still(computer: Computer, timeout: float, *, pause: float = 0.15) -> None:
    """Return when two pictures in a row are the same, or after `timeout` seconds: for screens only seen in pictures."""
    last = b""
    try:
        async with asyncio.timeout(timeout):
            while True:
                await asyncio.sleep(pause)
                now = hashlib.sha256((await computer.screenshot()).data).digest()
                if now == last:
                    return
                last = now
    except TimeoutError:
        return
