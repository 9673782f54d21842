"""The AgentOS sink through a real pipeline and a real server: nothing lost, nothing doubled, nobody held up."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from computeragent.telemetry import Pipeline

from . import ingest
from .ingest import Answer, Behaviour, Ingest
from .telling import TOKEN, delivered, sink_for, tell, ticking

pytestmark = pytest.mark.anyio


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


async def test_a_port_that_is_closed_and_opens_again(tmp_path: Path) -> None:
    with Ingest(token=TOKEN) as server:
        pipeline = Pipeline(middleware=[], sinks=[sink_for(server)], spool_dir=tmp_path)
        await tell(pipeline, 0, 50)
        await delivered(pipeline)
        server.stop()
        async with ticking():
            await tell(pipeline, 50, 200)
            assert not await pipeline.flush(5)
        server.start()
        await tell(pipeline, 200, 405)
        await delivered(pipeline)
        await pipeline.aclose()
        for session in (0, 1):
            assert server.numbers(f"s{session}") == list(range(session, 405, 2))


STAY_AWAY: dict[str, Behaviour] = {
    "500": ingest.always(500),
    "401": ingest.always(401),
    "429 for an hour": ingest.always(429, retry_after="3600"),
    "400 to everything": ingest.always(400),
    "413 to everything": ingest.always(413),
    "black hole": ingest.black_hole,
}


@pytest.mark.parametrize("name", STAY_AWAY)
async def test_a_server_that_does_not_come_back_holds_up_nobody_and_the_next_process_delivers(
    name: str, tmp_path: Path
) -> None:
    with Ingest(STAY_AWAY[name], token=TOKEN) as server:
        sink = sink_for(server, timeout=30.0)
        pipeline = Pipeline(middleware=[], sinks=[sink], spool_dir=tmp_path)
        async with ticking():
            await tell(pipeline, 0, 405)
            began = time.monotonic()
            assert not await pipeline.flush(1.0)
            await pipeline.aclose(timeout=1.0)
            assert time.monotonic() - began < 15
        assert sink.refused == 0
        assert server.events == []
        server.stop()
        server.behave = ingest.healthy
        server.start()
        ingest.wait_until(
            lambda: not pipeline._outlets.shippers[0]._thread or not pipeline._outlets.shippers[0]._thread.is_alive()
        )
        if name == "black hole":  # its delivery outlived the pipeline: the process would have ended here
            for spool in pipeline._outlets.storage.spools():
                spool.close()
        assert pipeline.stats()["disk_failures"] == 0
        following = Pipeline(middleware=[], sinks=[sink_for(server)], spool_dir=tmp_path)
        following.adopt()
        await following.settle(10)
        await delivered(following)
        await following.aclose()
        asked = [(each.number, [one["payload"].get("number") for one in each.events]) for each in server.asked]
        for session in (0, 1):
            assert server.numbers(f"s{session}") == list(range(session, 405, 2)), asked
    assert list(tmp_path.iterdir()) == []
