"""What a display shows: grabbed through shared memory in its own thread, encoded there, watched until it is still."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import mss
from mss import ScreenShotError

from computeragent.computer.types import Glimpse, Screenshot, Size
from computeragent.computer.x11.png import encode, encode_jpeg
from computeragent.computer.x11.worker import Worker
from computeragent.errors import ComputerError

T = TypeVar("T")
_PATIENCE = 10.0
_LOOK = 0.016
_ANSWER = 0.25
"""Seconds that a screen has to begin to answer an action."""
_STILL = 0.12
"""Seconds without a change after which it has answered."""


class Screen:
    """One display's pixels. mss keeps its connection and memory to one thread, so there is one."""

    def __init__(self, display: str) -> None:
        self._display = display
        self._worker = Worker(f"screen-{display}")
        self._mss: mss.MSS | None = None
        self._with_pointer: mss.MSS | None = None
        self.size = Size(0, 0)

    @classmethod
    async def open(cls, display: str) -> Screen:
        """Connect. Raises `ComputerError`."""
        screen = cls(display)
        try:
            screen.size = await screen._run(screen._connect)
        except BaseException:
            screen.close()
            raise
        return screen

    async def screenshot(self) -> Screenshot:
        """The screen as a PNG."""
        return Screenshot(await self._run(self._encoded), self.size)

    async def glimpse(self, known: bytes, quality: int) -> Glimpse | None:
        """The screen as a JPEG, with the pointer; None while it is what `known` was of."""
        return await self._run(lambda: self._watched(known, quality))

    async def settle(self, timeout: float) -> None:
        """Wait until nothing has changed for a while, or `timeout` seconds are over."""
        end = time.monotonic() + timeout
        last = await self._run(self._grab)
        changed, patience = time.monotonic(), _ANSWER
        while (now := time.monotonic()) < end and now - changed < patience:
            await asyncio.sleep(_LOOK)
            frame = await self._run(self._grab)
            if frame != last:
                last, changed, patience = frame, time.monotonic(), _STILL

    def close(self) -> None:
        """Disconnect."""
        self._worker.stop(self._disconnect)

    async def _run(self, job: Callable[[], T]) -> T:
        try:
            return await self._worker.run(job, _PATIENCE)
        except TimeoutError:
            raise ComputerError(f"display {self._display} does not answer", hint="Its X server hangs.") from None
        except (ScreenShotError, OSError) as error:
            raise ComputerError(f"display {self._display} shows nothing: {error}") from None
        except AssertionError:  # what mss has for a reply that does not come
            raise ComputerError(f"display {self._display} is gone") from None

    def _connect(self) -> Size:
        self._mss = mss.MSS(display=self._display)
        screen = self._mss.monitors[0]
        return Size(screen["width"], screen["height"])

    def _grab(self) -> bytearray:
        assert self._mss is not None
        return self._mss.grab(self._area).raw

    @property
    def _area(self) -> dict[str, int]:
        return {"left": 0, "top": 0, "width": self.size.width, "height": self.size.height}

    def _watched(self, known: bytes, quality: int) -> Glimpse | None:
        if self._with_pointer is None:
            self._with_pointer = mss.MSS(display=self._display, with_cursor=True)
        pixels = self._with_pointer.grab(self._area).raw
        digest = zlib.crc32(pixels).to_bytes(4)
        return None if digest == known else Glimpse(encode_jpeg(pixels, *self.size, quality), digest)

    def _encoded(self) -> bytes:
        return encode(self._grab(), *self.size)

    def _disconnect(self) -> None:
        for each in (self._mss, self._with_pointer):
            if each is not None:
                with suppress(ScreenShotError, OSError):  # a display that is gone says so once more
                    each.close()
