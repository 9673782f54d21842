"""Telling a pipeline much, and watching whether it arrives and whether anybody is held up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio

from computeragent.telemetry import Pipeline, TelemetryEvent
from computeragent.telemetry.sinks import AgentOSHttpSink

from .ingest import Ingest

TOKEN = "cak_" + "5ecret" * 8


def sink_for(server: Ingest, **options: Any) -> AgentOSHttpSink:
    sink = AgentOSHttpSink(
        **{"url": server.url, "token": server.token, "flush_threshold": 20, "timeout": 5.0, **options}
    )
    sink.limits = replace(sink.limits, linger=0.0)
    return sink


async def tell(pipeline: Pipeline, start: int, end: int) -> None:
    """Events of two sessions, taking turns."""
    for number in range(start, end):
        payload = {"number": number, "text": f"what was said {number} " * 3}
        session = f"s{number % 2}"
        await pipeline.emit(TelemetryEvent(kind="user_message", session_id=session, agent_name="a", payload=payload))


async def delivered(pipeline: Pipeline) -> None:
    """Flush until it is done, as often as it takes."""
    with anyio.fail_after(30):
        while not await pipeline.flush(5):
            await anyio.sleep(0.01)


@asynccontextmanager
async def ticking() -> AsyncGenerator[None]:
    """The event loop goes on all the while: no turn of it takes long, by a bound far above what is normal."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
    assert longest < 4.0
