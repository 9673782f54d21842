"""A web page that tells what its DOM saw, with points of the whole screen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from loopback import loopback

PAGE = """<!doctype html><meta charset="utf-8"><title>oracle</title><link rel="icon" href="data:,">
<style>body{margin:0;height:4000px;background:linear-gradient(#def,#fed)}
textarea{position:fixed;left:0;top:0;width:60%;height:100px;font:20px sans-serif}</style>
<textarea autofocus></textarea>
<script>
const told = [];
let sending = false;
const tell = async (event) => {
  told.push(event);
  if (sending) return;
  sending = true;
  while (told.length) await fetch("/told", {method: "POST", body: JSON.stringify(told.splice(0))});
  sending = false;
};
for (const type of ["click", "dblclick", "contextmenu", "mousedown", "mouseup"]) addEventListener(type, (event) => {
  tell({type, x: event.screenX, y: event.screenY, button: event.button, ctrl: event.ctrlKey});
  if (type === "contextmenu") event.preventDefault();
}, true);
addEventListener("keydown", (event) => tell({type: "keydown", key: event.key, ctrl: event.ctrlKey}), true);
addEventListener("input", (event) => tell({type: "input", text: event.target.value}), true);
addEventListener("scroll", () => tell({type: "scroll", y: scrollY}), true);
addEventListener("load", () => requestAnimationFrame(() => setTimeout(() => tell({type: "ready"}), 50)));
</script>"""


class Oracle:
    """What the page saw, in order."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.url = ""
        self._news = asyncio.Condition()

    async def told(self, request: Request) -> Response:
        async with self._news:
            self.events += await request.json()
            self._news.notify_all()
        return Response()

    async def until(self, seen: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event like that, once there is one."""
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: any(seen(event) for event in self.events))
        return next(event for event in self.events if seen(event))

    async def ready(self) -> None:
        await self.until(lambda event: event["type"] == "ready")

    async def text(self, text: str) -> None:
        """Wait until the page's field holds this text."""
        await self.until(lambda event: event["type"] == "input" and event["text"] == text)


@asynccontextmanager
async def oracle() -> AsyncIterator[Oracle]:
    """The page, served on loopback."""
    found = Oracle()

    async def page(_: Request) -> Response:
        return HTMLResponse(PAGE)

    app = Starlette(routes=[Route("/", page), Route("/told", found.told, methods=["POST"])])
    async with loopback(app) as found.url:
        yield found
