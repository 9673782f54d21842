"""`BrowserComputer`: a page in Chromium is the screen; Playwright is the pointer and the keyboard."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast
from urllib.parse import urlsplit

from computeragent.computer.addresses import web_address
from computeragent.computer.browser import keyboard, program
from computeragent.computer.browser.pages import Answer, Pages
from computeragent.computer.browser.quiet import until_quiet
from computeragent.computer.reaper import MARK, Claim
from computeragent.computer.types import Button, Glimpse, Point, Screenshot, Size
from computeragent.errors import ComputerActionError, ComputerError, MissingExtraError
from computeragent.logs import Logger
from computeragent.processes import kill_marked

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Playwright

T = TypeVar("T")

START = 30.0
"""Seconds that a start may take."""
_ANSWER = 10.0  # what a page may take to answer one action
_TRIES, _BETWEEN_TRIES = 10, 0.1  # of a picture, which Chromium has none of for a moment, as while a list drops down
_PER_KEY = 0.05
_LOAD = 20.0
_TRAVEL = 5_000.0  # milliseconds
_PNG: dict[str, Any] = {"format": "png", "optimizeForSpeed": True}
_log = Logger("computer.browser")


class BrowserComputer:
    """A browser and nothing else: `dimensions` is its page. Started with `await BrowserComputer.start()`.

    Tabs that open are followed, dialogs are answered at once; `take_notices` tells of both. Text is typed exactly.
    Shortcuts of the browser itself, such as ctrl+t, do nothing.
    """

    kind = "browser"
    environment: Literal["browser"] = "browser"

    def __init__(self, claim: Claim, playwright: Playwright, browser: Browser, pages: Pages, size: Size) -> None:
        self._claim = claim
        self._playwright = playwright
        self._browser = browser
        self._pages = pages
        self._size = size
        self._answer: Answer = "dismiss"
        self._pointer = Point(0, 0)
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        width: int = 1280,
        height: int = 800,
        *,
        display: str | None = None,
        dialogs: Answer = "dismiss",
        executable: str | None = None,
    ) -> Self:
        """Start a Chromium of its own.

        Args:
            width: Pixels of the page.
            height: Likewise.
            display: An X display to show it on, such as ``":1"``; default nowhere (headless).
            dialogs: How confirmations and prompts of pages are answered.
            executable: The program; default `COMPUTERAGENT_CHROMIUM`, else what is installed.

        Raises:
            ComputerError: It is not there, or does not start.
            MissingExtraError: Playwright is not installed.

        """
        try:
            from playwright.async_api import Error, async_playwright
        except ImportError:
            raise MissingExtraError(
                "a browser as computer needs Playwright", hint="pip install 'computer-agent-py[browser]'"
            ) from None
        path = program.find_chromium(executable)
        claim = await Claim.make()
        starting = asyncio.ensure_future(async_playwright().start())
        size = Size(width, height)
        try:
            async with asyncio.timeout(START):
                playwright = await asyncio.shield(starting)
                browser = await playwright.chromium.launch(
                    executable_path=path,
                    headless=display is None,
                    chromium_sandbox=program.may_use_sandbox(),
                    args=[*program.FLAGS, f"--window-size={width},{height}"],
                    env={**program.environment(claim.folder, display=display), **claim.env},
                    artifacts_dir=claim.folder / "artifacts",
                    handle_sigint=False,
                    handle_sigterm=False,
                    handle_sighup=False,
                )
                if profile := await asyncio.to_thread(program.profile_of, claim.mark):
                    claim.also(profile)  # Playwright's driver removes it, unless it is killed with us
                computer = cls(claim, playwright, browser, await Pages.open(browser, size, dialogs), size)
        except BaseException as error:
            await asyncio.shield(asyncio.ensure_future(_abandon(starting, claim)))
            if isinstance(error, TimeoutError):
                raise ComputerError(f"the browser did not start within {START:g} seconds") from None
            if isinstance(error, Error):
                raise program.not_found() if path is None else _failed_start(path, error) from None
            raise
        computer._answer = dialogs
        return computer

    @property
    def dimensions(self) -> Size:
        """The size of the page."""
        return self._size

    async def screenshot(self) -> Screenshot:
        """What the page shows now, without the browser around it."""
        for _ in range(3):
            data = await self._do("take a screenshot", self._capture)
            if data[16:24] == self._size.width.to_bytes(4) + self._size.height.to_bytes(4):
                return Screenshot(data, self._size)
            page = await self._pages.active()  # a tab that opened with a size of its own
            await page.set_viewport_size({"width": self._size.width, "height": self._size.height})
        raise ComputerError("the page does not take the size of the screen")

    async def glimpse(self, known: bytes = b"", *, quality: int = 80) -> Glimpse | None:
        """What the page shows now, as JPEG; None while it is what `known` was of."""
        form = {"format": "jpeg", "quality": quality, "optimizeForSpeed": True}
        jpeg = await self._do("take a screenshot", lambda: self._capture(form))
        digest = hashlib.sha256(jpeg).digest()
        return None if digest == known else Glimpse(jpeg, digest)

    async def settle(self, timeout: float = 3.0) -> None:
        """Wait until the page draws and loads nothing more."""
        self._check()
        await until_quiet(self._pages, timeout)
        self._check()

    # ── Pointer ──

    async def click(self, x: int, y: int, button: Button = "left", *, count: int = 1, keys: Sequence[str] = ()) -> None:
        """Click. The buttons ``back`` and ``forward`` go through the history."""
        self._pointer = Point(x, y)
        if button in {"back", "forward"}:
            await (self.back() if button == "back" else self._forward())
            return

        async def act(page: Page) -> None:
            async with _held(page, keys):
                await page.mouse.click(x, y, button=_pressed(button), click_count=count)

        await self._act("click", act)

    async def move(self, x: int, y: int, *, keys: Sequence[str] = ()) -> None:
        """Move the pointer."""
        self._pointer = Point(x, y)

        async def act(page: Page) -> None:
            async with _held(page, keys):
                await page.mouse.move(x, y)

        await self._act("move the pointer", act)

    async def mouse_down(self, button: Button = "left", *, x: int | None = None, y: int | None = None) -> None:
        """Press a button and hold it."""
        held = _pressed(button)
        self._pointer = self._pointer if x is None or y is None else Point(x, y)

        async def act(page: Page) -> None:
            await page.mouse.move(*self._pointer)
            await page.mouse.down(button=held)

        await self._act("press a button", act)

    async def mouse_up(self, button: Button = "left", *, x: int | None = None, y: int | None = None) -> None:
        """Let a button go."""
        held = _pressed(button)
        self._pointer = self._pointer if x is None or y is None else Point(x, y)

        async def act(page: Page) -> None:
            await page.mouse.move(*self._pointer)
            await page.mouse.up(button=held)

        await self._act("let a button go", act)

    async def drag(self, path: Sequence[Point], *, button: Button = "left", keys: Sequence[str] = ()) -> None:
        """Press at the first point, move along the others, let go at the last."""
        held = _pressed(button)

        async def act(page: Page) -> None:
            async with _held(page, keys):
                await page.mouse.move(*path[0])
                await page.mouse.down(button=held)
                try:
                    for point in path[1:]:
                        await page.mouse.move(*point, steps=4)  # pages see a drag only where something moves
                finally:
                    await page.mouse.up(button=held)

        await self._act("drag", act, _ANSWER + _PER_KEY * 4 * len(path))
        self._pointer = Point(*path[-1])

    async def scroll(self, x: int, y: int, dx: int, dy: int, *, keys: Sequence[str] = ()) -> None:
        """Turn the wheel, to the pixel."""
        self._pointer = Point(x, y)

        async def act(page: Page) -> None:
            async with _held(page, keys):
                await page.mouse.move(x, y)
                await page.mouse.wheel(dx, dy)

        await self._act("scroll", act)

    async def cursor_position(self) -> Point:
        """Where the pointer is."""
        self._check()
        return self._pointer

    # ── Keyboard ──

    async def type(self, text: str) -> None:
        """Type text exactly. Up to 100 characters are typed key by key; longer texts are inserted line by line."""

        async def act(page: Page) -> None:
            for piece, is_pressed in keyboard.pieces(text):
                if piece in {"\n", "\t"}:
                    await page.keyboard.press("Enter" if piece == "\n" else "Tab")
                elif is_pressed:
                    await page.keyboard.type(piece)
                else:
                    await page.keyboard.insert_text(piece)

        pressed = keyboard.MOST_TYPED + text.count("\n") + text.count("\t")
        await self._act("type", act, _ANSWER + _PER_KEY * pressed)

    async def keypress(self, keys: Sequence[str], *, repeat: int = 1) -> None:
        """Press keys together, and let them go."""
        if len(keys) == 1 and len(keys[0]) == 1 and not keyboard.is_on_keyboard(keys[0]):
            await self.type(keys[0] * repeat)
            return
        combo = keyboard.chromium_combo(keys)

        async def act(page: Page) -> None:
            for _ in range(repeat):
                async with _held(page, combo[:-1], spelled=True):
                    await page.keyboard.press(combo[-1])

        await self._act("press keys", act, _ANSWER + _PER_KEY * repeat)

    async def key_down(self, key: str) -> None:
        """Press a key and hold it."""
        name = keyboard.chromium_key(key)
        await self._act("press a key", lambda page: page.keyboard.down(name))

    async def key_up(self, key: str) -> None:
        """Let a key go."""
        name = keyboard.chromium_key(key)
        await self._act("let a key go", lambda page: page.keyboard.up(name))

    # ── Addresses ──

    async def current_url(self) -> str | None:
        """The address of the tab that is looked at."""
        self._check()
        return self._pages.url

    async def goto(self, url: str) -> None:
        """Open an address of the web. Raises `ComputerActionError` when it cannot be opened."""
        from playwright.async_api import Error
        from playwright.async_api import TimeoutError as TooSlow

        address = web_address(url)
        self._check()
        page = await self._pages.active()
        try:
            await page.goto(address, wait_until="domcontentloaded", timeout=_LOAD * 1000)
        except TooSlow:
            raise ComputerActionError(f"the page did not load within {_LOAD:g} seconds", hint="It may yet.") from None
        except Error as error:
            self._check(error)
            raise ComputerActionError(
                f"{urlsplit(address).hostname or address[:80]!r} cannot be opened: {_reason(error)}"
            ) from None

    async def back(self) -> None:
        """Go back in the history; from the first page of a tab that was opened, back to the tab before it."""
        if not await self._travel(-1):
            if self._pages.count < 2:
                raise ComputerActionError("there is no page to go back to")
            page = await self._pages.active()
            await self._do("close the tab", page.close)

    def take_notices(self) -> list[str]:
        """What happened that no screenshot shows, since it was last asked: dialogs and how they were answered, tabs."""
        return self._pages.take_notices()

    # ── Its life ──

    async def reset(self) -> None:
        """Throw the context away, with its tabs, cookies and caches, and open an empty one."""

        async def renew() -> Pages:
            fresh = await Pages.open(self._browser, self._size, self._answer)
            await self._pages.close()
            return fresh

        self._pages = await self._do("be reset", renew, START)
        self._pointer = Point(0, 0)

    async def close(self) -> None:
        """End the browser."""
        if self._closing is None:
            self._closing = asyncio.create_task(_stop(self._playwright, self._claim))
        await asyncio.shield(self._closing)

    def kill(self) -> None:
        """End its processes at once, from any thread; `close` does it in peace."""
        kill_marked(MARK, self._claim.mark)

    # ── How everything is asked of it ──

    async def _capture(self, form: dict[str, Any] = _PNG) -> bytes:
        from playwright.async_api import Error

        tries = _TRIES
        while True:
            session = await self._pages.session(await self._pages.active())
            try:
                return base64.b64decode((await session.send("Page.captureScreenshot", form))["data"])
            except Error as error:
                tries -= 1
                if not tries or "Unable to capture" not in str(error):
                    raise
            await asyncio.sleep(_BETWEEN_TRIES)

    async def _act(self, what: str, act: Callable[[Page], Awaitable[Any]], seconds: float = _ANSWER) -> None:
        async def on_active() -> None:
            await act(await self._pages.active())

        await self._do(what, on_active, seconds)

    async def _do(self, what: str, doing: Callable[[], Awaitable[T]], seconds: float = _ANSWER) -> T:
        """Ask the browser for something: what goes wrong is told in our terms, and nothing waits for ever."""
        from playwright.async_api import Error

        self._check()
        try:
            async with asyncio.timeout(seconds):
                return await doing()
        except TimeoutError:
            self._check()
            raise ComputerActionError(
                f"the page did not answer within {seconds:g} seconds when asked to {what}",
                hint="It may be busy, or hang: wait, or go to another address.",
            ) from None
        except Error as error:
            self._check(error)
            raise ComputerActionError(f"the browser could not {what}: {_reason(error)}") from None

    def _check(self, cause: Exception | None = None) -> None:
        if self._closing is not None or not self._browser.is_connected():
            raise ComputerError("the browser was closed", hint="Open another computer.") from cause
        if cause is not None and "Connection closed" in str(cause):
            raise ComputerError("the browser's driver has ended", hint="Open another computer.") from cause

    async def _forward(self) -> None:
        if not await self._travel(1):
            raise ComputerActionError("there is no page to go forward to")

    async def _travel(self, by: int) -> bool:
        from playwright.async_api import TimeoutError as TooSlow

        async def go() -> bool:
            page = await self._pages.active()
            session = await self._pages.session(page)
            history = await session.send("Page.getNavigationHistory")
            place = history["currentIndex"] + by
            if not 0 <= place < len(history["entries"]):
                return False
            entry = {"entryId": history["entries"][place]["id"]}
            with suppress(TooSlow):  # then it comes later, or not at all: the page may have said no
                async with page.expect_event("framenavigated", lambda frame: not frame.parent_frame, timeout=_TRAVEL):
                    await session.send("Page.navigateToHistoryEntry", entry)
            return True

        return await self._do("go through the history", go)


@asynccontextmanager
async def _held(page: Page, keys: Sequence[str], *, spelled: bool = False) -> AsyncGenerator[None]:
    """Hold keys while the block runs."""
    names = list(keys) if spelled else [keyboard.chromium_key(key) for key in keys]
    down: list[str] = []
    try:
        for name in names:
            await page.keyboard.down(name)
            down.append(name)
        yield
    finally:
        for name in reversed(down):
            await page.keyboard.up(name)


def _pressed(button: Button) -> Literal["left", "right", "middle"]:
    if button not in {"left", "right", "middle"}:
        raise ComputerActionError(f"the button {button!r} cannot be held", hint="Click it.")
    return cast("Literal['left', 'right', 'middle']", button)


def _reason(error: Exception) -> str:
    """What Playwright says, without its call log and without the address."""
    line = str(error).partition("\n")[0].partition(" at ")[0]
    return line.rpartition(": ")[2][:200]


def _failed_start(path: str, error: Exception) -> ComputerError:
    said = [line.strip() for line in str(error).splitlines() if "ERROR" in line or "error" in line]
    return ComputerError(
        f"the browser {path} did not start: {(said[0] if said else _reason(error))[:300]}",
        hint="Try it by hand: `chromium --headless --dump-dom about:blank`; on a display, see that it exists.",
    )


async def _stop(playwright: Playwright, claim: Claim) -> None:
    """End the browser through its driver, and whatever of it is left by its mark."""
    try:
        async with asyncio.timeout(_ANSWER):
            await playwright.stop()
    except Exception as error:  # noqa: BLE001 - a driver that has died is as good as stopped
        _log.debug("driver", error=str(error)[:200])
    finally:
        await claim.release()


async def _abandon(starting: asyncio.Future[Playwright], claim: Claim) -> None:
    """End a browser that did not come to be: its driver would wait for it first."""
    await claim.release()
    try:
        async with asyncio.timeout(_ANSWER):
            playwright = await starting
    except Exception as error:  # noqa: BLE001 - there is no driver to stop
        _log.debug("driver", error=str(error)[:200])
        return
    await _stop(playwright, claim)
