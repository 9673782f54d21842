"""A window manager that looks at each click before the window gets it, and takes its time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest

from computeragent.computer.types import Point
from computeragent.computer.x11 import X11Computer, pointer, xlib
from computeragent.errors import ComputerError

pytestmark = pytest.mark.anyio

X = xlib.X
_SEEN = X.ButtonPressMask | X.ButtonReleaseMask | X.PointerMotionMask


class SlowManager:
    """A window over the whole screen, and whoever grabs its clicks; `seen` is what the window is told."""

    def __init__(self, display: str, delay: float) -> None:
        self.delay = delay
        self.seen: list[tuple[str, int, int]] = []
        self._ended = threading.Event()
        self._shows, self._grabs = xlib.Display(display), xlib.Display(display)
        screen = self._shows.screen()
        size = (0, 0, screen.width_in_pixels, screen.height_in_pixels, 0, screen.root_depth)
        window = screen.root.create_window(*size, override_redirect=True, event_mask=_SEEN)
        window.map()
        self._shows.sync()
        theirs = self._grabs.create_resource_object("window", window.id)
        theirs.grab_button(
            X.AnyButton, X.AnyModifier, False, X.ButtonPressMask, X.GrabModeSync, X.GrabModeAsync, X.NONE, X.NONE
        )
        self._grabs.sync()
        self._threads = [threading.Thread(target=self._manage), threading.Thread(target=self._note)]
        for thread in self._threads:
            thread.start()

    def _manage(self) -> None:
        for _event in self._events(self._grabs):
            self._ended.wait(self.delay)
            self._grabs.allow_events(X.ReplayPointer, X.CurrentTime)
            self._grabs.sync()

    def _note(self) -> None:
        for event in self._events(self._shows):
            self.seen.append((type(event).__name__, event.event_x, event.event_y))

    def _events(self, display: Any) -> Iterator[Any]:
        while not self._ended.is_set():
            while display.pending_events():
                yield display.next_event()
            time.sleep(0.001)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for display in (self._grabs, self._shows):
            with suppress(OSError):
                display.close()


@contextmanager
def manager(computer: X11Computer, delay: float) -> Iterator[SlowManager]:
    made = SlowManager(computer.display, delay)
    try:
        yield made
    finally:
        made.end()


async def test_each_step_is_told_where_it_was_done(desktop: X11Computer):
    await desktop.move(5, 5)
    with manager(desktop, delay=0.25) as slow:
        await desktop.drag([Point(100, 100), Point(160, 130)])
        await desktop.click(300, 50)
        await desktop.click(400, 60, count=2)
        async with asyncio.timeout(20):
            while len(buttons := [seen for seen in slow.seen if seen[0] != "MotionNotify"]) < 8:
                await asyncio.sleep(0.01)
    there = [(100, 100), (160, 130), (300, 50), (300, 50), *[(400, 60)] * 4]
    kinds = ["ButtonPress", "ButtonRelease"] * 4
    assert buttons == [(kind, *place) for kind, place in zip(kinds, there, strict=True)]


async def test_a_display_that_holds_the_pointer_back_for_good_is_an_error(
    desktop: X11Computer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pointer, "_HELD_BACK", 0.3)
    with manager(desktop, delay=3600):
        with pytest.raises(ComputerError, match="holds the pointer back") as failure:
            await desktop.click(300, 50)
        assert "window manager" in str(failure.value.hint)
    await desktop.click(20, 20)  # it was let go, and nothing is held
    with closing(xlib.Display(desktop.display)) as other:
        assert other.screen().root.query_pointer().mask & 0b11111 << 8 == 0
