"""A page that tells a loopback server what its DOM has seen, whatever browser on whatever computer shows it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

PAGE = b"""<!doctype html><meta charset="utf-8"><title>oracle</title>
<style>body{margin:0;font:16px sans-serif;height:4000px}
 #field{position:fixed;left:20px;top:20px;width:400px;height:60px}
 #button{position:fixed;left:500px;top:20px;width:120px;height:60px;background:#8cf}
 #thing{position:fixed;left:100px;top:200px;width:60px;height:60px;background:#fc8}</style>
<textarea id="field"></textarea><div id="button"></div><div id="thing"></div>
<script>
 let clicks = 0, doubles = 0, keys = [], moved = null, drag = null;
 button.onclick = () => { clicks++; tell() };
 button.ondblclick = () => { doubles++; tell() };
 thing.onmousedown = (event) => { drag = [event.clientX, event.clientY] };
 addEventListener("mouseup", (event) => {
   if (drag) { moved = [event.clientX - drag[0], event.clientY - drag[1]]; drag = null; tell() } });
 addEventListener("keydown", (event) => {
   if (event.ctrlKey && event.key != "Control") { keys.push(event.key); tell() } });
 addEventListener("input", () => tell());
 addEventListener("scroll", () => tell());
 let last = Promise.resolve();
 function tell() {
   const body = JSON.stringify({clicks, doubles, keys, moved, text: field.value, scroll: scrollY, selected:
     field.value.substring(field.selectionStart, field.selectionEnd), ready: true});
   last = last.then(() => fetch("/seen", {method: "POST", body}));
 }
 document.addEventListener("selectionchange", () => tell());
 requestAnimationFrame(() => requestAnimationFrame(() => tell()));
</script>"""


class Oracle:
    """What the page's DOM has seen."""

    def __init__(self) -> None:
        self.url = ""
        self.state: dict[str, Any] = {}
        self._changed = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()

    async def until(self, condition: Callable[[dict[str, Any]], Any], *, limit: float = 20.0) -> dict[str, Any]:
        """The state, as soon as it is as wanted; after the limit as it is."""
        try:
            async with asyncio.timeout(limit):
                while not (self.state and condition(self.state)):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self.state

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while (line := await reader.readline()).strip():
                size = 0
                while (header := (await reader.readline()).strip().lower()) != b"":
                    if header.startswith(b"content-length:"):
                        size = int(header.partition(b":")[2])
                body = await reader.readexactly(size)
                if line.startswith(b"POST"):
                    self.state = json.loads(body)
                    self._changed.set()
                page = PAGE if line.startswith(b"GET / ") else b""
                head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(page)}\r\n\r\n"
                writer.write(head.encode() + page)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def hang_up(self) -> None:
        """End every connection."""
        for writer in list(self._open):
            writer.transport.abort()
        while self._open:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def oracle() -> AsyncIterator[Oracle]:
    """A page at a loopback address, for as long as the block runs."""
    made = Oracle()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    try:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        yield made
    finally:
        server.close()
        await made.hang_up()
