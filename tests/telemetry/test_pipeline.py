"""What a pipeline promises: order, isolation, bounds, nothing lost that was committed, and a run that never waits."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import anyio
import pytest

from computeragent.errors import ValidationError
from computeragent.telemetry import PiiRedactor, Pipeline, TelemetryEvent
from computeragent.telemetry.event import decode
from computeragent.telemetry.lane import MAX_ITEMS
from computeragent.telemetry.spool import Spool
from computeragent.telemetry.steps import Step

from .listening import Depot, Listener, Stuck

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


def event(number: int = 0, session: str = "s1", **payload: Any) -> TelemetryEvent:
    return TelemetryEvent(kind="user_message", session_id=session, payload={"number": number, **payload})


async def test_events_arrive_in_order_and_redacted(tmp_path: Path) -> None:
    plain, depot = Listener(), Depot()
    pipeline = Pipeline(sinks=[plain, depot], spool_dir=tmp_path)
    for number in range(500):
        await pipeline.emit(event(number, text="mail ada@example.com"))
    assert await pipeline.flush()
    for events in (plain.events, depot.events):
        assert [one.payload["number"] for one in events] == list(range(500))
        assert {one.payload["text"] for one in events} == {"mail [REDACTED:EMAIL]"}
    assert plain.flushed == 1
    await pipeline.aclose()
    assert plain.closed
    assert depot.closed
    assert list(tmp_path.iterdir()) == []  # all delivered: nothing stays on disk


async def test_each_sink_has_events_of_its_own() -> None:
    class Meddler(Listener):
        async def emit(self, event: TelemetryEvent) -> None:
            event.payload = {"gone": True}
            await super().emit(event)

    meddler, other = Meddler(), Listener()
    pipeline = Pipeline(sinks=[meddler, other], middleware=[])
    for number in range(50):
        await pipeline.emit(event(number))
    await pipeline.flush()
    assert [one.payload["number"] for one in other.events] == list(range(50))
    await pipeline.aclose()


async def test_middleware_drops_replaces_and_its_faults_drop() -> None:
    async def picky(event: TelemetryEvent) -> TelemetryEvent | None:
        number = event.payload["number"]
        if number == 1:
            return None
        if number == 2:
            raise RuntimeError("broken middleware")
        if number == 3:
            return TelemetryEvent(kind="user_message", session_id="s1", payload={"number": 33})
        return event

    sink = Listener()
    pipeline = Pipeline(middleware=[picky], sinks=[sink])
    for number in range(5):
        await pipeline.emit(event(number))
    await pipeline.flush()
    assert [one.payload["number"] for one in sink.events] == [0, 33, 4]
    assert pipeline.stats()["failed"] == {"function": 1}
    await pipeline.aclose()


async def test_fail_open_lets_through_what_middleware_failed_on() -> None:
    async def broken(event: TelemetryEvent) -> TelemetryEvent | None:
        raise RuntimeError("broken middleware")

    sink = Listener()
    pipeline = Pipeline(middleware=[broken], sinks=[sink], fail_open=True)
    await pipeline.emit(event(7))
    await pipeline.flush()
    assert [one.payload["number"] for one in sink.events] == [7]
    await pipeline.aclose()


async def test_a_stuck_sink_holds_up_nobody_and_is_bounded() -> None:
    stuck, healthy, depot = Stuck(), Listener(), Depot()
    pipeline = Pipeline(middleware=[], sinks=[stuck, healthy, depot])
    for number in range(MAX_ITEMS + 3_000):
        await pipeline.emit(event(number))
        if number % 2_000 == 0:
            await pipeline.settle(10)
    assert not await pipeline.flush(0.5)
    with anyio.move_on_after(30):
        while len(healthy.events) < MAX_ITEMS + 3_000:
            await anyio.sleep(0.01)
    assert [e.payload["number"] for e in healthy.events if e.kind == "user_message"] == list(range(MAX_ITEMS + 3_000))
    stats = pipeline.stats()["sinks"]["Stuck"]
    assert stats["waiting"] <= MAX_ITEMS
    assert stats["dropped"] >= 2_000
    pipeline.close(0.1)


async def test_a_sink_that_raises_gets_the_next_event_all_the_same() -> None:
    class Moody(Listener):
        async def emit(self, event: TelemetryEvent) -> None:
            if event.payload["number"] % 2:
                raise OSError("not now")
            await super().emit(event)

    sink = Moody()
    pipeline = Pipeline(middleware=[], sinks=[sink])
    for number in range(10):
        await pipeline.emit(event(number))
    await pipeline.flush()
    assert [one.payload["number"] for one in sink.events] == [0, 2, 4, 6, 8]
    assert pipeline.stats()["sinks"]["Moody"]["failures"] == 5
    await pipeline.aclose()


async def test_overflow_drops_the_oldest_counts_them_and_says_so() -> None:
    entered, release = threading.Event(), threading.Event()

    async def slow(event: TelemetryEvent) -> TelemetryEvent | None:
        if event.payload.get("number") == 0:
            entered.set()
            release.wait(20)
        return event

    sink = Listener()
    pipeline = Pipeline(middleware=[slow], sinks=[sink])
    await pipeline.emit(event(0))
    assert entered.wait(10)
    vital = TelemetryEvent(kind="session_started", session_id="s1", payload={"number": -1})
    pipeline.offer(Step(1, lambda _: (vital,), vital=True))
    began = time.thread_time()
    for number in range(1, MAX_ITEMS + 501):
        await pipeline.emit(event(number))
    assert time.thread_time() - began < 5
    release.set()
    await pipeline.flush(20)
    numbers = [one.payload["number"] for one in sink.events if one.kind == "user_message"]
    assert numbers[-1] == MAX_ITEMS + 500
    assert "session_started" in sink.kinds  # what a session cannot be understood without is not dropped
    told = [one for one in sink.events if one.payload.get("subtype") == "telemetry_loss"]
    dropped = pipeline.stats()["dropped"]
    assert dropped == MAX_ITEMS + 501 - len(numbers)
    assert sum(one.payload["data"]["dropped"] for one in told) <= dropped
    assert told
    pipeline.close(1)


async def test_what_cannot_be_delivered_waits_and_goes_out_when_the_other_side_is_back(tmp_path: Path) -> None:
    depot = Depot()
    depot.broken = True
    pipeline = Pipeline(middleware=[], sinks=[depot], spool_dir=tmp_path)
    for number in range(100):
        await pipeline.emit(event(number))
    assert not await pipeline.flush(5)
    assert depot.events == []
    stats = pipeline.stats()["sinks"]["depot test"]
    assert stats["waiting"] == 100
    assert "nobody there" in stats["failing"]
    depot.broken = False
    assert await pipeline.flush()
    assert [one.payload["number"] for one in depot.events] == list(range(100))
    await pipeline.aclose()


async def test_the_next_pipeline_delivers_what_one_left_behind(tmp_path: Path) -> None:
    broken = Depot()
    broken.broken = True
    first = Pipeline(middleware=[], sinks=[broken], spool_dir=tmp_path)
    for number in range(10):
        await first.emit(event(number))
    first.close(1)
    depot = Depot()
    second = Pipeline(middleware=[], sinks=[depot], spool_dir=tmp_path)
    await second.emit(event(10))
    assert await second.flush()
    assert [one.payload["number"] for one in depot.events] == list(range(11))
    await second.aclose()
    assert list(tmp_path.iterdir()) == []


async def test_a_spool_for_another_destination_is_left_alone(tmp_path: Path) -> None:
    broken = Depot()
    broken.broken = True
    broken.destination = "somebody else"
    first = Pipeline(middleware=[], sinks=[broken], spool_dir=tmp_path)
    await first.emit(event(1))
    first.close(1)
    depot = Depot()
    second = Pipeline(middleware=[], sinks=[depot], spool_dir=tmp_path)
    await second.emit(event(2))
    await second.flush()
    await second.aclose()
    assert [one.payload["number"] for one in depot.events] == [2]
    (left,) = tmp_path.glob("*.db")
    kept = Spool(left)
    assert kept.pending("somebody else") == 1
    kept.close()


async def test_a_full_disk_is_survived_in_memory(tmp_path: Path) -> None:
    depot = Depot()
    depot.broken = True
    pipeline = Pipeline(middleware=[], sinks=[depot], spool_dir=tmp_path)
    await pipeline.emit(event(0))
    await pipeline.settle(5)
    (file,) = tmp_path.glob("*.db")
    # SQLite's own limit stands for the disk's: the same error, "database or disk is full"
    spool: Spool = pipeline._outlets.storage.spools()[-1]
    assert spool.path == file
    spool._db.execute("PRAGMA max_page_count = 1")
    for number in range(1, 200):
        await pipeline.emit(event(number, text="x" * 1_000))
    await pipeline.settle(5)
    assert pipeline.stats()["disk_failures"] == 1
    depot.broken = False
    assert await pipeline.flush()
    assert [one.payload["number"] for one in depot.events] == list(range(200))
    await pipeline.aclose()


async def test_a_folder_that_cannot_be_made_is_survived_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    depot = Depot()
    pipeline = Pipeline(middleware=[], sinks=[depot], spool_dir=tmp_path / "file" / "spool")
    await pipeline.emit(event(1))
    assert await pipeline.flush()
    assert len(depot.events) == 1
    await pipeline.aclose()


def test_a_killed_process_loses_nothing_committed_and_its_session_is_ended(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys, time
        from computeragent.telemetry import Pipeline, TelemetryEvent
        from tests.telemetry.listening import Depot
        depot = Depot()
        depot.broken = True
        pipeline = Pipeline(sinks=[depot], spool_dir=sys.argv[1])
        import anyio
        async def main():
            await pipeline.emit(TelemetryEvent(kind="session_started", session_id="lost", agent_name="triage"))
            for number in range(1000):
                await pipeline.emit(TelemetryEvent(kind="user_message", session_id="lost", payload={"number": number}))
            assert await pipeline.settle(20)
            print("committed", flush=True)
            time.sleep(60)
        anyio.run(main)
    """)
    run = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with run:
        assert run.stdout is not None
        assert run.stdout.readline() == "committed\n"
        run.send_signal(signal.SIGKILL)
    depot = Depot()
    pipeline = Pipeline(sinks=[depot], spool_dir=tmp_path)

    async def trigger() -> None:
        await pipeline.emit(event(5))
        assert await pipeline.flush(20)
        await pipeline.aclose()

    asyncio.run(trigger())
    told = depot.events
    lost = [one for one in told if one.session_id == "lost"]
    assert [one.payload["number"] for one in lost if one.kind == "user_message"] == list(range(1000))
    ends = [one for one in lost if one.kind == "session_ended"]
    assert [(end.agent_name, end.payload["subtype"], end.payload["is_error"]) for end in ends] == [
        ("triage", "process_lost", True)
    ]
    assert len({one.event_id for one in told}) == len(told)


def test_a_forked_child_has_a_pipeline_of_its_own(tmp_path: Path) -> None:
    depot = Depot()
    pipeline = Pipeline(middleware=[], sinks=[depot], spool_dir=tmp_path)

    async def tell(number: int) -> bool:
        await pipeline.emit(event(number))
        return await pipeline.flush(20)

    assert asyncio.run(tell(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads: this is one
        child = os.fork()
    if child == 0:
        code = 1
        try:
            depot.batches.clear()
            if asyncio.run(tell(2)) and [one.payload["number"] for one in depot.events] == [2]:
                pipeline.close(5)
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asyncio.run(tell(3))
    assert [one.payload["number"] for one in depot.events] == [1, 3]
    pipeline.close(5)


def test_what_is_told_last_is_delivered_at_exit_without_anybody_waiting(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys
        import anyio
        from computeragent.telemetry import Pipeline, TelemetryEvent
        from computeragent.telemetry.event import encode
        class Writer:
            destination = "file"
            from computeragent.telemetry import BatchLimits
            limits = BatchLimits(linger=30)
            def open(self):
                pass
            def deliver(self, batch):
                with open(sys.argv[2], "ab") as file:
                    file.write(b"".join(one.data + b"\\n" for one in batch))
            def close(self):
                pass
        pipeline = Pipeline(sinks=[Writer()], spool_dir=sys.argv[1])
        async def main():
            for number in range(5):
                await pipeline.emit(TelemetryEvent(kind="user_message", session_id="s", payload={"number": number}))
        anyio.run(main)
    """)
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "spool"), str(tmp_path / "out")], check=True)
    lines = (tmp_path / "out").read_bytes().splitlines()
    assert [decode(line).payload["number"] for line in lines] == list(range(5))


async def test_a_pipeline_with_nobody_to_tell_is_inactive() -> None:
    assert not Pipeline().active
    assert not Pipeline(sinks=[]).active
    assert Pipeline(sinks=[Listener()]).active
    assert Pipeline(middleware=[PiiRedactor()]).active  # yours may have effects of its own


async def test_what_is_no_sink_or_middleware_is_refused_with_a_hint() -> None:
    with pytest.raises(ValidationError) as no_sink:
        Pipeline(sinks=[object()])  # type: ignore[list-item]
    assert "emit" in (no_sink.value.hint or "")
    with pytest.raises(ValidationError, match="two sinks deliver to depot test"):
        Pipeline(sinks=[Depot(), Depot()])
    with pytest.raises(ValidationError):
        Pipeline(middleware=["redact"])  # type: ignore[list-item]


async def test_events_that_json_cannot_express_are_told_as_text(tmp_path: Path) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    depot = Depot()
    pipeline = Pipeline(middleware=[], sinks=[depot], spool_dir=tmp_path)
    loop: list[Any] = []
    loop.append(loop)
    await pipeline.emit(event(1, odd=Odd(), big=10**30, key={(1, 2): b"\xff"}, loop=loop, lone="\ud800"))
    await pipeline.emit(event(2))
    assert await pipeline.flush()
    assert [one.payload["number"] for one in depot.events] == [1, 2]
    assert depot.events[0].payload["big"] == str(10**30)
    await pipeline.aclose()


async def test_a_session_under_way_goes_on_in_the_pipeline_that_takes_over(tmp_path: Path) -> None:
    first, second = Listener(), Listener()
    before, after = Pipeline(middleware=[], sinks=[first]), Pipeline(middleware=[], sinks=[second])
    await before.emit(event(1))
    before.close(5, successor=after)
    await before.emit(event(2))
    await after.flush()
    assert [one.payload["number"] for one in first.events] == [1]
    assert [one.payload["number"] for one in second.events] == [2]
    await after.aclose()
    await before.emit(event(3))
    assert after.stats()["dropped"] == 1


async def test_nothing_that_middleware_or_a_sink_raises_ends_the_pipeline() -> None:
    class Leaving(Listener):
        async def emit(self, event: TelemetryEvent) -> None:
            if event.payload["number"] == 1:
                raise asyncio.CancelledError
            await super().emit(event)

    async def exits(event: TelemetryEvent) -> TelemetryEvent | None:
        if event.payload["number"] == 0:
            raise asyncio.CancelledError
        return event

    sink = Leaving()
    pipeline = Pipeline(middleware=[exits], sinks=[sink])
    for number in range(3):
        await pipeline.emit(event(number))
    assert await pipeline.flush()
    assert [one.payload["number"] for one in sink.events] == [2]
    await pipeline.aclose()
