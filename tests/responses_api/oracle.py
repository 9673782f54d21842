"""A page that tells its server what happens in it: what an agent did, as the browser saw it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from loopback import loopback

PAGE = """
<!doctype html><meta charset="utf-8"><title>oracle</title>
<style>body{margin:0;height:4000px;font:16px sans-serif}
 #field{position:absolute;left:20px;top:20px;width:400px;height:40px}
 #button{position:absolute;left:20px;top:100px;width:200px;height:60px}
 #pad{position:absolute;left:20px;top:200px;width:400px;height:200px;background:#cde}</style>
<input id="field" autofocus><button id="button">Press</button><div id="pad"></div>
<script>
 let queue = Promise.resolve();
 const tell = (what) => { queue = queue.then(() => fetch("/event", {method: "POST", body: JSON.stringify(what)})); };
 for (const type of ["click", "dblclick", "mousedown", "mouseup", "keydown"])
   addEventListener(type, (event) => tell({type, target: event.target.id, key: event.key, ctrl: event.ctrlKey,
     x: event.clientX, y: event.clientY, value: field.value}), true);
 addEventListener("input", () => tell({type: "input", value: field.value}), true);
 addEventListener("scroll", () => tell({type: "scroll", y: scrollY}));
 tell({type: "load"});
</script>
"""
FIELD, BUTTON, PAD = (200, 40), (100, 130), (100, 300)


class Oracle:
    """What the page has told. `url` is where it is."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()

    def of(self, *types: str) -> list[dict[str, Any]]:
        """The events of these types, in order."""
        return [event for event in self.seen if event["type"] in types]

    async def until(self, condition: Any) -> None:
        """Wait for a state that is bound to come."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(condition)

    @property
    def value(self) -> str:
        """What is in the field."""
        values = [event["value"] for event in self.of("input")]
        return values[-1] if values else ""

    async def page(self, request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def event(self, request: Request) -> Response:
        async with self._changed:
            self.seen.append(json.loads(await request.body()))
            self._changed.notify_all()
        return Response(status_code=204)


@asynccontextmanager
async def oracle() -> AsyncIterator[Oracle]:
    """A page on a free port of loopback."""
    found = Oracle()
    app = Starlette(
        routes=[Route("/", found.page), Route("/event", found.event, methods=["POST"]), Route("/{rest}", found.page)]
    )
    async with loopback(app) as url:
        found.url = url
        yield found


__all__ = ["BUTTON", "FIELD", "PAD", "Oracle", "oracle"]
