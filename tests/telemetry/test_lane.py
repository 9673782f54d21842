"""Lanes and feeders: whoever puts something in goes on at once; what is in comes out in order, whatever happens."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from computeragent.telemetry import TelemetryEvent
from computeragent.telemetry.feeding import Feeder
from computeragent.telemetry.lane import Lane

from .listening import Listener


class Work:
    """What a lane does in these tests: it keeps what it is given, once it is let."""

    def __init__(self) -> None:
        self.turns: list[list[Any]] = []
        self.entered = threading.Event()
        self.let = threading.Event()
        self.let.set()

    async def __call__(self, items: list[Any]) -> None:
        self.entered.set()
        while not self.let.is_set():
            await asyncio.sleep(0.001)
        self.turns.append(items)
        for item in items:
            if isinstance(item, BaseException):
                raise item

    @property
    def items(self) -> list[Any]:
        return [item for turn in self.turns for item in turn]

    def block(self, lane: Lane[Any]) -> None:
        """Have the lane busy with an item of its own until `let` is set."""
        self.let.clear()
        lane.put("first")
        assert self.entered.wait(20)


def finish(lane: Lane[Any]) -> None:
    lane.close()
    assert lane.join(20)


def wait_until(true: Callable[[], Any]) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.001)


def test_items_come_out_in_order_and_those_put_meanwhile_together() -> None:
    work = Work()
    lane: Lane[Any] = Lane("test", work)
    assert not lane.started
    work.block(lane)
    for number in range(1_000):
        lane.put(number)
    assert len(lane) == 1_000
    work.let.set()
    finish(lane)
    assert work.turns == [["first"], list(range(1_000))]
    assert len(lane) == 0
    assert lane.dropped == 0


def test_beyond_its_length_the_oldest_go_and_are_counted() -> None:
    work = Work()
    lane: Lane[Any] = Lane("test", work, max_items=100)
    work.block(lane)
    for number in range(1_000):
        lane.put(number)
    assert len(lane) == 100
    work.let.set()
    finish(lane)
    assert work.items == ["first", *range(900, 1_000)]
    assert lane.dropped == 900


def test_what_must_stay_outlives_an_overflow_in_its_place() -> None:
    work = Work()
    lane: Lane[Any] = Lane("test", work, max_items=100, keep=lambda item: item in {7, 950})
    work.block(lane)
    for number in range(1_000):
        lane.put(number)
    work.let.set()
    finish(lane)
    assert work.items == ["first", 7, *range(900, 1_000)]
    assert lane.dropped == 899


def test_beyond_its_weight_the_oldest_go() -> None:
    work = Work()
    lane: Lane[Any] = Lane("test", work, max_bytes=1_000, weigh=lambda item: 0 if item == "first" else len(item))
    work.block(lane)
    for number in range(500):
        lane.put(str(number).ljust(100))
    work.let.set()
    finish(lane)
    kept = [int(item) for item in work.items[1:]]
    assert kept == list(range(500 - len(kept), 500))
    assert len(kept) < 100  # a few are in before any is weighed
    assert lane.dropped == 500 - len(kept)


def test_an_item_that_cannot_be_weighed_is_taken_all_the_same() -> None:
    def weigh(item: Any) -> int:
        raise TypeError("what is this?")

    work = Work()
    lane: Lane[Any] = Lane("test", work, weigh=weigh)
    work.block(lane)
    for number in range(200):
        lane.put(number)
    work.let.set()
    finish(lane)
    assert work.items == ["first", *range(200)]


@pytest.mark.parametrize("error", [RuntimeError("bad"), asyncio.CancelledError(), SystemExit(3)])
def test_a_turn_that_fails_does_not_end_the_lane(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    lane: Lane[Any] = Lane("test", work)
    lane.put(error)
    wait_until(lambda: "lane_failed" in caplog.text)
    lane.put("next")
    wait_until(lambda: "next" in work.items)
    finish(lane)


def test_many_threads_fill_it_at_once_and_nothing_is_lost() -> None:
    work = Work()
    lane: Lane[Any] = Lane("test", work, max_items=100_000, pause=0.0)

    def put(writer: int) -> None:
        for number in range(2_000):
            lane.put((writer, number))

    writers = [threading.Thread(target=put, args=(writer,)) for writer in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    finish(lane)
    assert len(work.items) == 16_000
    for writer in range(8):
        assert [number for each, number in work.items if each == writer] == list(range(2_000))


def test_many_threads_overflow_it_at_once_and_all_are_counted() -> None:
    work = Work()
    lane: Lane[Any] = Lane("test", work, max_items=50, pause=0.0, weigh=lambda _: 1)

    def put() -> None:
        for number in range(5_000):
            lane.put(number)

    writers = [threading.Thread(target=put) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    finish(lane)
    assert len(work.items) + lane.dropped == 20_000


def test_an_item_is_handled_soon_after_a_rest() -> None:
    work = Work()
    lane: Lane[Any] = Lane("test", work)
    for number in range(50):  # each time, the lane is about to sleep, or sleeps
        lane.put(number)
        wait_until(lambda number=number: number in work.items)
    finish(lane)


def test_joining_says_whether_it_has_ended() -> None:
    work = Work()
    lane: Lane[Any] = Lane("test", work)
    assert lane.join(0.0)  # it never began
    work.block(lane)
    lane.close()
    assert not lane.join(0.01)
    work.let.set()
    assert lane.join(20)
    lane.put("too late")  # no error
    lane.close()
    assert lane.join(0.0)


def test_a_forked_child_starts_with_nothing_and_works() -> None:
    work = Work()
    lane: Lane[Any] = Lane("test", work)
    work.block(lane)
    lane.put("the parent's")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work.let.set()
            work.turns.clear()
            lane.put("the child's")
            finish(lane)
            code = 0 if work.items == ["the child's"] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    work.let.set()
    finish(lane)
    assert work.items == ["first", "the parent's"]


def test_putting_something_while_the_interpreter_goes_down_is_no_error() -> None:
    program = textwrap.dedent("""
        import atexit
        from computeragent.telemetry.lane import Lane
        async def handle(items):
            pass
        lanes = [Lane(str(number), handle) for number in range(4)]
        lanes[0].put("before")
        def late():
            for lane in lanes:
                lane.put("late")
        atexit.register(late)
        class AtTheVeryEnd:
            def __del__(self):
                late()
        keep = AtTheVeryEnd()
    """)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0
    assert "Traceback" not in run.stderr


# ── Feeders ──


def event(number: int) -> TelemetryEvent:
    return TelemetryEvent(kind="user_message", session_id="s", payload={"number": number})


def flushed(feeder: Feeder, *, closing: bool = False, seconds: float = 20.0) -> bool:
    return feeder.end_flush(feeder.begin_flush(time.monotonic() + seconds, closing=closing))


def test_a_flush_comes_after_what_was_put_before_it() -> None:
    sink = Listener()
    feeder = Feeder(sink)
    for number in range(500):
        feeder.put(event(number))
    assert flushed(feeder)
    assert [one.payload["number"] for one in sink.events] == list(range(500))
    assert flushed(feeder, closing=True)
    assert (sink.flushed, sink.closed) == (2, True)
    feeder.close(time.monotonic() + 20)


def test_a_flush_that_fails_says_so_and_the_sink_is_closed_all_the_same() -> None:
    class Leaky(Listener):
        async def flush(self, timeout: float = 5.0) -> None:
            raise OSError("cannot flush")

    sink = Leaky()
    feeder = Feeder(sink)
    feeder.put(event(1))
    assert not flushed(feeder, closing=True)
    assert sink.closed
    assert "cannot flush" in (feeder.state.failing or "")
    feeder.close(time.monotonic() + 20)


def test_a_sink_that_cancels_or_exits_gets_the_next_event() -> None:
    class Wild(Listener):
        async def emit(self, event: TelemetryEvent) -> None:
            number = event.payload["number"]
            if number < 2:
                raise asyncio.CancelledError if number else SystemExit(1)
            await super().emit(event)

    sink = Wild()
    feeder = Feeder(sink)
    for number in range(3):
        feeder.put(event(number))
    assert flushed(feeder)
    assert [one.payload["number"] for one in sink.events] == [2]
    assert (feeder.state.failures, feeder.state.delivered, feeder.state.failing) == (2, 1, None)
    feeder.close(time.monotonic() + 20)


def test_a_flush_of_a_stuck_sink_ends_at_its_deadline() -> None:
    class Stuck(Listener):
        async def emit(self, event: TelemetryEvent) -> None:
            await asyncio.sleep(3600)

    feeder = Feeder(Stuck())
    feeder.put(event(1))
    assert not flushed(feeder, seconds=0.05)
    feeder.close(time.monotonic() + 0.05)
    feeder.put(event(2))  # no error
