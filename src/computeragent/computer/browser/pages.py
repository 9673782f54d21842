"""The tabs of a browser computer: which one is looked at, what opened and closed, what they asked for meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from computeragent.logs import Logger

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Dialog, Page, Request

    from computeragent.computer.types import Size

Answer = Literal["dismiss", "accept"]

# A list that drops down is a window of its own, in no picture of the page; drawn by the page, it is in every one.
_IN_EVERY_PAGE = """(() => {
  window.print = () => {};
  try {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync('select:not([multiple], [size]), ::picker(select) { appearance: base-select }');
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  } catch {}
})()"""
# The clipboard belongs to the whole browser, not to a context.
_EMPTY_CLIPBOARD = """document.addEventListener('copy', event => {
  event.clipboardData.setData('text/plain', ''); event.preventDefault();
}, {once: true}); document.execCommand('copy')"""
_WAITED_FOR = frozenset({"document", "stylesheet", "script", "image", "font", "xhr", "fetch"})
_TOO_LONG = 2.0  # seconds: what takes longer than that is no longer waited for, such as a long poll
_MOST_TOLD = 20
_log = Logger("computer.browser")


class DevTools(Protocol):
    """The way to a tab's DevTools: Playwright's `CDPSession`, with types."""

    async def send(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask for something."""
        ...

    def on(self, event: str, f: Any) -> None:
        """Hear of an event."""
        ...

    def remove_listener(self, event: str, f: Any) -> None:
        """Hear no more of it."""
        ...


class Pages:
    """One context of a browser: its tabs, of which the newest is looked at, and what no screenshot shows of them."""

    def __init__(self, context: BrowserContext, size: Size, answer: Answer) -> None:
        self.context = context
        self.changed = 0.0  # when the network was last heard of
        self._size = size
        self._answer: Answer = answer
        self._tabs: list[Page] = []
        self._sessions: dict[Page, DevTools] = {}
        self._requests: dict[Request, float] = {}
        self._notices: deque[str] = deque(maxlen=_MOST_TOLD)
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, browser: Browser, size: Size, answer: Answer) -> Pages:
        """A new context, of which nothing is shared with another one, with one empty tab."""
        context = await browser.new_context(
            viewport={"width": size.width, "height": size.height}, device_scale_factor=1, accept_downloads=False
        )
        try:
            await context.add_init_script(_IN_EVERY_PAGE)
            pages = cls(context, size, answer)
            context.on("page", pages._opened)
            context.on("request", pages._asked)
            context.on("requestfinished", pages._answered)
            context.on("requestfailed", pages._answered)
            page = await context.new_page()
            session = await pages.session(page)
            await session.send("Runtime.evaluate", {"expression": _EMPTY_CLIPBOARD, "userGesture": True})
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(context.close()))
            raise
        pages._notices.clear()
        return pages

    async def active(self) -> Page:
        """The tab that is looked at; a new one when all were closed."""
        if not self._tabs:
            self.tell("The last tab was closed; an empty one is open.")
            await self.context.new_page()
        return self._tabs[-1]

    @property
    def url(self) -> str | None:
        """The address of the tab that is looked at."""
        return self._tabs[-1].url if self._tabs else None

    @property
    def count(self) -> int:
        """How many tabs there are."""
        return len(self._tabs)

    async def session(self, page: Page) -> DevTools:
        """The way to a tab's DevTools."""
        if page not in self._sessions:
            self._sessions[page] = cast("Any", await self.context.new_cdp_session(page))
        return self._sessions[page]

    def is_loading(self, now: float) -> bool:
        """Whether something is being loaded that is worth waiting for."""
        return any(now - since < _TOO_LONG for since in self._requests.values())

    def tell(self, notice: str) -> None:
        """Note something that no screenshot shows."""
        self._notices.append(notice)

    def take_notices(self) -> list[str]:
        """What was noted since it was last asked."""
        taken = list(self._notices)
        self._notices.clear()
        return taken

    async def close(self) -> None:
        """Close every tab, and forget all that they kept."""
        self._tabs.clear()
        await self.context.close()

    # ── What tabs do by themselves ──

    def _opened(self, page: Page) -> None:
        self._tabs.append(page)
        page.on("close", self._closed)
        page.on("crash", self._crashed)
        page.on("dialog", self._dialog)
        page.on("filechooser", lambda _: self.tell("The page asked for a file; no file was chosen."))
        page.on("download", lambda load: self.tell(f"A download was refused: {load.suggested_filename[:200]!r}."))
        if len(self._tabs) > 1:
            self.tell("A new tab opened and is shown. Going back from its first page closes it.")
            width, height = self._size
            self._later(page.set_viewport_size({"width": width, "height": height}))

    def _closed(self, page: Page) -> None:
        self._sessions.pop(page, None)
        if page in self._tabs:
            self._tabs.remove(page)
            if self._tabs:
                self.tell("A tab was closed; the one before it is shown.")

    def _crashed(self, page: Page) -> None:
        self._tabs = [each for each in self._tabs if each is not page]
        self._sessions.pop(page, None)
        self.tell("The tab crashed and was closed.")
        self._later(page.close())

    def _dialog(self, dialog: Dialog) -> None:
        """A dialog stops its page, so it is answered at once; leaving a page is always agreed to."""
        kind = dialog.type
        agreed = kind in {"alert", "beforeunload"} or self._answer == "accept"
        done = "accepted" if agreed else "dismissed"
        if kind != "beforeunload":
            self.tell(f"The page showed a dialog ({kind}: {dialog.message[:500]!r}), which was {done}.")
        self._later(dialog.accept() if agreed else dialog.dismiss())

    def _asked(self, request: Request) -> None:
        if request.resource_type in _WAITED_FOR:
            self.changed = self._requests[request] = asyncio.get_running_loop().time()

    def _answered(self, request: Request) -> None:
        if self._requests.pop(request, None) is not None:
            self.changed = asyncio.get_running_loop().time()

    def _later(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_quietly(doing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(doing: Coroutine[Any, Any, None]) -> None:
    try:
        await doing
    except Exception as error:  # noqa: BLE001 - the tab may be gone by now
        _log.debug("tab", error=str(error)[:200])
