"""A page in a real Chromium on a desktop, and what its DOM has seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

from computeragent.computer.x11 import X11Computer

PAGE = """
<!doctype html><meta charset="utf-8"><title>oracle</title>
<style>body{margin:0;font:16px sans-serif} #field{position:absolute;left:20px;top:20px;width:600px;height:200px}
 #target{position:absolute;left:700px;top:40px;width:120px;height:80px;background:#8cf}
 #list{position:absolute;left:700px;top:200px;width:200px;height:200px;overflow:auto}
 #list div{height:8000px;width:8000px}
</style>
<textarea id="field"></textarea><div id="target"></div><div id="list"><div></div></div>
<script>
 seen = []; busy = 0;
 const note = (event) => seen.push({type: event.type, x: event.clientX, y: event.clientY, button: event.button,
   buttons: event.buttons, detail: event.detail, key: event.key, code: event.code, ctrl: event.ctrlKey,
   shift: event.shiftKey, alt: event.altKey, target: event.target.id, dx: event.deltaX, dy: event.deltaY,
   at: performance.now()});
 for (const type of ["mousedown", "mouseup", "click", "dblclick", "auxclick", "contextmenu", "mousemove", "wheel",
                     "keydown", "keyup"])
   addEventListener(type, note, {capture: true, passive: true});
 field.addEventListener("keydown", (event) => {
   if (event.key == "Tab") { event.preventDefault(); document.execCommand("insertText", false, "\\t"); } });
 addEventListener("contextmenu", (event) => event.preventDefault());
 addEventListener("input", () => { const end = performance.now() + busy; while (performance.now() < end); }, true);
</script>
"""


class ChromiumPage:
    """The page, and the computer that shows it."""

    def __init__(self, computer: X11Computer, page: Page) -> None:
        self.computer = computer
        self.page = page

    async def open(self) -> None:
        """Show the page. Chromium drops what is clicked before the first picture of it."""
        await self.page.set_content(PAGE)
        await self.computer.settle()
        await self.computer.click(*await self.at("#field"))
        await self.until("document.hasFocus() && document.activeElement.id == 'field'")

    async def fresh(self, *, busy: int = 0) -> None:
        """As at first, its main thread busy for so many milliseconds at each input, and its text field focused."""
        await self.page.evaluate(
            """(wanted) => { busy = wanted; seen = []; field.value = ''; field.focus(); list.scrollTo(0, 0) }""", busy
        )

    async def at(self, selector: str, dx: int = 0, dy: int = 0) -> tuple[int, int]:
        """Where the middle of an element is on the screen."""
        x, y = await self.page.evaluate(
            """(selector) => { const box = document.querySelector(selector).getBoundingClientRect();
              const edge = (outerWidth - innerWidth) / 2;
              return [screenX + edge + box.x + box.width / 2,
                      screenY + outerHeight - innerHeight - edge + box.y + box.height / 2] }""",
            selector,
        )
        return round(x) + dx, round(y) + dy

    async def seen(self, *types: str) -> list[dict[str, Any]]:
        """The events of these types, in their order."""
        return [event for event in await self.page.evaluate("seen") if not types or event["type"] in types]

    async def until(self, condition: str) -> None:
        """Wait until an expression is true in the page."""
        await self.page.wait_for_function(condition, timeout=30_000)

    async def text(self, wanted: str) -> str:
        """What is in the text field, as soon as it is what is wanted or has stopped growing."""
        length, still = -1, 0
        while still < 20:
            value = await self.page.evaluate("document.querySelector('#field').value")
            if value == wanted:
                return value
            still = still + 1 if len(value) == length else 0
            length = len(value)
            await asyncio.sleep(0.05)
        return value


@asynccontextmanager
async def chromium_on(computer: X11Computer) -> AsyncIterator[ChromiumPage]:
    """Chromium, started as anybody would start it, and its page."""
    await computer.launch("chromium", ["--remote-debugging-port=0", "about:blank"])
    told = Path(computer.home, ".config/chromium/DevToolsActivePort")
    async with asyncio.timeout(30):
        while not told.is_file() or not await computer.windows():
            await asyncio.sleep(0.05)
    port = told.read_text().split()[0]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{port}")
        found = ChromiumPage(computer, browser.contexts[0].pages[0])
        await found.open()
        yield found
        await browser.close()


def summary(events: list[dict[str, Any]], *fields: str) -> str:
    """Events in a line, for asserting and for reading."""
    return json.dumps([[event[field] for field in fields] for event in events])
