"""The servers that `streams.py` compares, each in a process of its own: ``python stream_servers.py KIND FOLDER``.

``memory`` and ``sqlite`` are the harness server as `computeragent serve` runs it. ``plain`` and ``sse`` are the least
that Starlette and sse-starlette need to send the same events: a list, or a queue for each subscriber.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

TOKEN = "a-token-of-the-benchmark"
EVENTS_FILE = "events.json"
GROUP = 10
"""Events that come at once in a run under way, before others have their turn."""
WORDS = "some words here " * 13
Event = tuple[str, int, str]  # its name, id and data


class Ticker:
    """An engine that says what the clock shows, `rate` times a second."""

    name = "ticker"

    def __init__(self) -> None:
        from computeragent.protocol_types import EngineCapabilities

        self.capabilities = EngineCapabilities(
            streaming_input=True, partial_messages=False, permission_callback=False, sessions=False, budget=False
        )

    async def start_session(self, ctx: Any) -> AsyncIterator[Any]:
        from computeragent.protocol_types import EngineEvent

        async for _ in ctx.user_message_queue:
            async for stamp in ticks(ctx.options["rate"], ctx.options["count"]):
                yield EngineEvent("sdk_message", assistant(f"~{stamp}~ {WORDS}"))
            yield EngineEvent("sdk_message", {"type": "result", "subtype": "success"})


def assistant(text: str) -> dict[str, Any]:
    """An assistant's message in the shape of Claude's."""
    return {"type": "assistant", "message": {"role": "assistant", "content": [{"type": "text", "text": text}]}}


async def ticks(rate: float, count: int) -> AsyncIterator[int]:
    """The clock's nanoseconds, evenly spaced."""
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield time.monotonic_ns()


def harness(log: str) -> Any:
    """The harness server with what `computeragent serve` gives it."""
    from computeragent import plugins
    from computeragent.eventlog import MemoryEventLog, SharedSqliteEventLog
    from computeragent.server import bearer, create_harness_server

    plugins.register_engine("ticker", Ticker)
    return create_harness_server(
        auth=bearer([TOKEN]), log=SharedSqliteEventLog() if log == "sqlite" else MemoryEventLog()
    )


class Comparison:
    """A server without a harness: it has the events, and hands them out."""

    def __init__(self, events: list[Event], *, sse: bool) -> None:
        self._sse = sse
        self._events = events
        self._ready = [self._made(event) for event in events]
        self._queues: set[asyncio.Queue[Any]] = set()
        self._producing: set[asyncio.Task[None]] = set()
        self.app = Starlette(
            routes=[
                Route("/whole", self.whole),
                Route("/live", self.live),
                Route("/idle", self.idle),
                Route("/go", self.go, methods=["POST"]),
            ]
        )

    async def whole(self, request: Request) -> Response:
        """All events."""
        count = int(request.query_params["count"])

        async def each() -> AsyncIterator[Any]:
            for event in self._ready[:count]:
                yield event

        return self._streamed(each())

    async def live(self, _: Request) -> Response:
        """Events as they come, from now to the end."""
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._queues.add(queue)

        async def each() -> AsyncIterator[Any]:
            while (event := await queue.get()) is not None:
                yield event

        return self._streamed(each())

    async def idle(self, _: Request) -> Response:
        """An event, and then nothing."""

        async def each() -> AsyncIterator[Any]:
            yield self._ready[0]
            await asyncio.Event().wait()

        return self._streamed(each())

    async def go(self, request: Request) -> Response:
        """Make events: all that there are in groups, or stamped ones at a rate."""
        told = await request.json()
        make = self._at_a_rate(told["rate"], told["count"]) if "rate" in told else self._in_groups(told["count"])
        task = asyncio.create_task(make)
        self._producing.add(task)
        task.add_done_callback(self._producing.discard)
        return JSONResponse({})

    async def _in_groups(self, count: int) -> None:
        for number, event in enumerate(self._ready[:count]):
            self._publish(event)
            if number % GROUP == GROUP - 1:
                await asyncio.sleep(0)
        self._end()

    async def _at_a_rate(self, rate: float, count: int) -> None:
        name, _, data = self._events[len(self._events) // 2]
        head, _, tail = data.partition(WORDS)
        number = 0
        async for stamp in ticks(rate, count):
            self._publish(self._made((name, number, f"{head}~{stamp}~ {WORDS}{tail}")))
            number += 1
        self._end()

    def _publish(self, event: Any) -> None:
        for queue in self._queues:
            queue.put_nowait(event)

    def _end(self) -> None:
        self._publish(None)
        self._queues.clear()

    def _made(self, event: Event) -> Any:
        """An event as its response wants it."""
        name, number, data = event
        if self._sse:
            return {"event": name, "id": str(number), "data": data}
        return f"event: {name}\nid: {number}\ndata: {data}\n\n".encode()

    def _streamed(self, events: AsyncIterator[Any]) -> Response:
        if self._sse:
            from sse_starlette import EventSourceResponse

            return EventSourceResponse(events, sep="\n")
        return StreamingResponse(events, media_type="text/event-stream")


def main(kind: str, folder: Path) -> None:
    """Serve on a free port, which is printed."""
    os.environ["COMPUTERAGENT_HOME"] = str(folder / f"home-{kind}-{os.getpid()}")
    kinds: dict[str, Callable[[], Any]] = {
        "memory": lambda: harness("memory"),
        "sqlite": lambda: harness("sqlite"),
        "plain": lambda: Comparison(json.loads((folder / EVENTS_FILE).read_text()), sse=False).app,
        "sse": lambda: Comparison(json.loads((folder / EVENTS_FILE).read_text()), sse=True).app,
    }
    app = kinds[kind]()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
