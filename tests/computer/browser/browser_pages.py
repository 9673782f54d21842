"""Pages that tell what happens to them: the oracle of the tests of browsers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from playwright.async_api import Error
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from computeragent.computer.browser import BrowserComputer

PAGE = """<!doctype html><meta charset=utf-8><title>all</title>
<body style="margin:0;height:4000px">
<textarea id=text style="position:absolute;left:10px;top:10px;width:600px;height:200px"></textarea>
<div id=pad style="position:absolute;left:650px;top:10px;width:200px;height:200px;background:#ddd"></div>
<select id=list style="position:absolute;left:10px;top:250px;width:150px"><option>one<option>two<option>three</select>
<button id=ask style="position:absolute;left:200px;top:250px" onclick="told.confirm = confirm('Really?')">ask</button>
<button id=hi style="position:absolute;left:300px;top:250px" onclick="alert('hi'); told.alerted = true">hi</button>
<a id=tab style="position:absolute;left:400px;top:250px" href=/second target=_blank>tab</a>
<input id=file type=file style="position:absolute;left:500px;top:250px;width:200px">
<button id=small style="position:absolute;left:760px;top:250px"
 onclick="open('/second', '', 'width=300,height=200')">small</button>
<script>
const told = {events: []};
for (const kind of ['click', 'dblclick', 'contextmenu', 'auxclick', 'mousedown', 'mouseup'])
  document.getElementById('pad').addEventListener(kind, e => { e.preventDefault();
    told.events.push([kind, e.button, e.detail, e.clientX, e.clientY, e.shiftKey, e.ctrlKey]) });
document.addEventListener('keydown', e => { told.key = [e.key, e.ctrlKey, e.shiftKey, e.altKey];
  if (e.key == 'F7') e.preventDefault() });
</script>"""


def app() -> Starlette:
    async def first(request: Request) -> Response:
        response = HTMLResponse(PAGE)
        response.set_cookie("who", "the last one")
        return response

    async def second(request: Request) -> Response:
        return HTMLResponse(f"<title>second</title><body><p>second: {request.cookies.get('who')}</p>")

    async def slow(request: Request) -> Response:
        return HTMLResponse(
            "<body><p id=p>waiting</p><script>fetch('/late').then(r => r.text()).then(t => {"
            "document.getElementById('p').textContent = t})</script>"
        )

    async def late(request: Request) -> Response:
        await asyncio.sleep(0.6)
        return Response("loaded")

    async def busy(request: Request) -> Response:
        wait = int(request.query_params["ms"])
        return HTMLResponse(
            f"<meta charset=utf-8><body><textarea id=text style='width:800px;height:400px'></textarea><script>"
            f"for (const kind of ['keydown', 'input']) document.addEventListener(kind, () => {{"
            f"const end = performance.now() + {wait}; while (performance.now() < end); }})</script>"
        )

    return Starlette(
        routes=[
            Route("/", first),
            Route("/second", second),
            Route("/slow", slow),
            Route("/late", late),
            Route("/busy", busy),
        ]
    )


async def ask(computer: BrowserComputer, script: str) -> Any:
    """What the page that is looked at says."""
    return await (await computer._pages.active()).evaluate(script)


async def until(computer: BrowserComputer, script: str) -> Any:
    """Wait until the page says something that counts as true."""
    answer: Any = None
    async with asyncio.timeout(10):
        while not answer:
            await asyncio.sleep(0.02)
            with suppress(Error):  # between two pages there is none to ask
                answer = await ask(computer, script)
    return answer
