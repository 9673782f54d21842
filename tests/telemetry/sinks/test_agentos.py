"""The AgentOS sink through a real pipeline and a real server: nothing lost, nothing doubled, nobody held up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from computeragent.telemetry import Pipeline, TelemetryEvent, shipping
from computeragent.telemetry.sinks import AgentOSHttpSink
from computeragent.telemetry.sinks import agentos as module

from . import ingest
from .ingest import Answer, Asked, Behaviour, Ingest

pytestmark = pytest.mark.anyio
TOKEN = "cak_" + "5ecret" * 8


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(shipping, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(module, "NOT_ALLOWED_PAUSE", 0.02)
    for name in ("AGENTOS_INGEST_URL", "AGENTOS_DISCOVERY_URL", "COMPUTERAGENT_HARNESS_TOKEN", "AGENTOS_INGEST_TOKEN"):
        monkeypatch.delenv(name, raising=False)


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
    assert longest < 1.0


COME_BACK: dict[str, Behaviour] = {
    "healthy": ingest.healthy,
    "503 to the first five": ingest.first(5, 503),
    "500 to the first five": ingest.first(5, 500),
    "429 to every other one": ingest.alternate(429, retry_after="0"),
    "429 with a date": ingest.alternate(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
    "429 with nonsense": ingest.alternate(429, retry_after="soon"),
    "five 502 in the middle": ingest.between(6, 10, 502),
    "401 until the key is known": ingest.first(3, 401),
    "404 until it is deployed": ingest.first(3, 404),
    "a redirect for a while": ingest.first(3, 302),
    "400 to everything for a while": ingest.first(9, 400),
    "slow": ingest.slow(0.03),
    "answers that get lost": lambda asked: Answer(lose=asked.number % 3 == 0),
    "no answer at first": lambda asked: Answer(hang=asked.number <= 2),
    "bodies of 3 kB at most": ingest.largest(3_000),
    "no gzip": lambda asked: Answer(415) if asked.compressed else Answer(),
    "gzip is a bad request": lambda asked: Answer(400) if asked.compressed else Answer(),
    "somebody else's page at first": lambda asked: (
        Answer(200, {"content-type": "text/html"}, b"<html>hello</html>") if asked.number <= 3 else Answer()
    ),
}


@pytest.mark.parametrize("name", COME_BACK)
async def test_a_server_that_comes_back_has_everything_once_in_order(name: str, tmp_path: Path) -> None:
    with Ingest(COME_BACK[name], token=TOKEN) as server:
        sink = sink_for(server, timeout=0.3 if "no answer" in name else 5.0)
        pipeline = Pipeline(middleware=[], sinks=[sink], spool_dir=tmp_path)
        async with ticking():
            await tell(pipeline, 0, 200)
            await pipeline.settle(10)
            await tell(pipeline, 200, 405)
            await delivered(pipeline)
            await pipeline.aclose()
        assert len(server.events) == 405
        for session in (0, 1):
            assert server.numbers(f"s{session}") == list(range(session, 405, 2))
        if name == "healthy":
            assert server.repeats == 0
        assert sink.refused == 0
        assert pipeline.stats()["sinks"][sink.destination]["dropped"] == 0
    assert list(tmp_path.iterdir()) == []
