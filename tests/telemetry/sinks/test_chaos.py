"""Processes that are killed while the ingest server comes and goes: what was committed arrives, once, in order."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from .ingest import Answer, Asked, Ingest, healthy

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[3]
SECONDS = 40.0
AT_ONCE = 3

PROGRAM = textwrap.dedent("""
    import asyncio, random, sys
    from dataclasses import replace
    from computeragent.telemetry import Pipeline, TelemetryEvent, shipping
    from computeragent.telemetry.sinks import AgentOSHttpSink

    shipping.FIRST_PAUSE, shipping.LONGEST_PAUSE = 0.02, 0.2
    url, folder, session, last = sys.argv[1:]

    async def main():
        sink = AgentOSHttpSink(url=url, timeout=2.0)
        sink.limits = replace(sink.limits, linger=0.05, events=50)
        pipeline = Pipeline(middleware=[], sinks=[sink], spool_dir=folder)

        async def tell(kind, **payload):
            await pipeline.emit(TelemetryEvent(kind=kind, session_id=session, payload=payload))

        if last:
            await tell("system_message")
            while not await pipeline.flush(5):
                await asyncio.sleep(0.05)
            await pipeline.aclose()
            return
        await tell("session_started")
        number = 0
        while True:
            for _ in range(random.randint(1, 80)):
                await tell("user_message", number=number, text="x" * random.randint(1, 300))
                number += 1
            assert await pipeline.settle(20)
            print(number, flush=True)
            await asyncio.sleep(random.random() * 0.2)

    asyncio.run(main())
""")


def moody(_: Asked) -> Answer:
    odds = random.random()
    for limit, answer in [
        (0.10, Answer(503)),
        (0.15, Answer(429, {"retry-after": "0"})),
        (0.20, Answer(lose=True)),
        (0.25, Answer(delay=0.3)),
        (0.27, Answer(500)),
    ]:
        if odds < limit:
            return answer
    return Answer()


def run(server: Ingest, folder: Path, session: str, *, last: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url, str(folder), session, "last" if last else ""],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_nothing_that_was_committed_is_lost_whoever_is_killed(tmp_path: Path) -> None:
    committed: dict[str, int] = {}
    with Ingest(moody) as server:
        until = time.monotonic() + SECONDS

        def live_and_die(worker: int) -> None:
            turn = 0
            while time.monotonic() < until:
                session = f"s{worker}-{turn}"
                turn += 1
                with run(server, tmp_path, session) as process:
                    timer = threading.Timer(random.uniform(1.5, 5.0), process.kill)
                    timer.start()
                    assert process.stdout is not None
                    for line in process.stdout:
                        if line.endswith("\n"):
                            committed[session] = int(line)
                    timer.join()

        def come_and_go() -> None:
            while time.monotonic() < until:
                time.sleep(random.uniform(2.0, 5.0))
                server.stop()
                time.sleep(random.uniform(0.2, 1.5))
                server.start()

        threads = [threading.Thread(target=live_and_die, args=(worker,)) for worker in range(AT_ONCE)]
        threads.append(threading.Thread(target=come_and_go))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.behave = healthy
        for attempt in range(5):
            with run(server, tmp_path, f"last{attempt}", last=True) as process:
                assert process.wait(120) == 0
            if not list(tmp_path.iterdir()):
                break
        assert list(tmp_path.iterdir()) == []
        ends = Counter(one["session_id"] for one in server.events if one["kind"] == "session_ended")
        assert len(committed) > AT_ONCE
        for session, count in committed.items():
            arrived = server.numbers(session)
            assert set(range(count)) <= set(arrived)
            assert arrived == sorted(arrived)
            assert ends[session] == 1
