"""Until a page stands still: it draws no more frames and loads nothing more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from computeragent.errors import ComputerError

if TYPE_CHECKING:
    from computeragent.computer.browser.pages import DevTools, Pages

QUIET = 0.1
"""Seconds without a frame and without network that count as standing still. A blinking caret takes 0.5."""
_LOOK = 0.02
_TINY: dict[str, Any] = {"format": "jpeg", "quality": 1, "maxWidth": 32, "maxHeight": 32}


async def until_quiet(pages: Pages, timeout: float) -> None:
    """Return when the tab that is looked at stands still, or after `timeout` seconds."""
    from playwright.async_api import Error

    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    try:
        async with asyncio.timeout(timeout):
            while loop.time() < end and not await _is_quiet(pages, end):
                pass
    except TimeoutError:
        return
    except Error as error:
        if not pages.count:
            raise ComputerError("the browser was closed while it was waited for") from error


async def _is_quiet(pages: Pages, end: float) -> bool:
    """Watch one tab; False when another one is looked at now."""
    loop = asyncio.get_running_loop()
    page = await pages.active()
    frames = _Frames(await pages.session(page))
    await frames.start()
    try:
        while loop.time() < end:
            await asyncio.sleep(_LOOK)
            if await pages.active() is not page:
                return False
            now = loop.time()
            if now - max(frames.last, pages.changed) >= QUIET and not pages.is_loading(now):
                return True
        return True
    finally:
        await frames.stop()


class _Frames:
    """A tiny picture for every frame that a tab draws, to hear that it draws."""

    def __init__(self, session: DevTools) -> None:
        self.last = asyncio.get_running_loop().time()
        self._session = session
        self._acks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._session.on("Page.screencastFrame", self._drawn)
        await self._session.send("Page.startScreencast", _TINY)

    async def stop(self) -> None:
        from playwright.async_api import Error

        self._session.remove_listener("Page.screencastFrame", self._drawn)
        with suppress(Error):  # the tab may have gone
            await self._session.send("Page.stopScreencast")
        await asyncio.gather(*self._acks, return_exceptions=True)

    def _drawn(self, event: dict[str, Any]) -> None:
        self.last = asyncio.get_running_loop().time()
        ack = asyncio.create_task(self._ack(event["sessionId"]))
        self._acks.add(ack)
        ack.add_done_callback(self._acks.discard)

    async def _ack(self, session_id: int) -> None:
        from playwright.async_api import Error

        with suppress(Error):
            await self._session.send("Page.screencastFrameAck", {"sessionId": session_id})
