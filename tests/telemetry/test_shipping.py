"""What the shipper promises: all of it, in order, in batches, as often as it takes; a black hole holds up nobody."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from computeragent.telemetry import shipping
from computeragent.telemetry.protocols import BatchLimits, RetryLater
from computeragent.telemetry.shipping import Shipper
from computeragent.telemetry.spool import Spool, Spooled, adopt, orphans

from .sinks.ingest import wait_until

ROOT = Path(__file__).parents[2]
SOON = 20.0
"""Seconds for what is bound to happen."""


class Depot:
    """A sink that keeps what it is given; `trouble` may raise, `needed` says what it returns."""

    def __init__(self, name: str = "depot", *, events: int = 500, octets: int = 4_000_000, linger: float = 0.0) -> None:
        self.destination = name
        self.limits = BatchLimits(events=events, bytes=octets, linger=linger)
        self.batches: list[list[Spooled]] = []
        self.attempts = 0
        self.opened = 0
        self.trouble: Callable[[int], object] = lambda _: None
        self.needed: Callable[[Sequence[Spooled]], Spooled | None] = lambda _: None

    def open(self) -> None:
        self.opened += 1

    def deliver(self, batch: Sequence[Spooled]) -> Spooled | None:
        self.attempts += 1
        self.trouble(self.attempts)
        self.batches.append(list(batch))
        return self.needed(batch)

    def close(self) -> None:
        return None

    @property
    def numbers(self) -> list[int]:
        return [int(one.data.split(b".")[0]) for batch in self.batches for one in batch]


@pytest.fixture
def started() -> Iterator[list[Shipper]]:
    """The shippers of a test: their threads end with it."""
    shippers: list[Shipper] = []
    yield shippers
    for shipper in shippers:
        assert shipper.close(time.monotonic() + SOON)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool.create(tmp_path)
    made.subscribe(["depot"])
    yield made
    made.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(shipping, "LONGEST_PAUSE", 0.05)


def put(spool: Spool, *numbers: int, size: int = 0) -> None:
    spool.append([f"{number}.".encode().ljust(size, b".") for number in numbers])


def shipped(shipper: Shipper) -> bool:
    return shipper.flush(time.monotonic() + SOON)


def failing(_: int) -> None:
    raise ConnectionError("nobody there")


# ── Batches ──


def test_everything_arrives_in_order_in_batches_within_the_limits(spool: Spool, started: list[Shipper]) -> None:
    depot = Depot(events=10, octets=500)
    shipper = Shipper(depot, lambda: [spool])
    started.append(shipper)
    put(spool, *range(25))
    put(spool, *range(25, 45), size=100)
    put(spool, 45, size=2_000)
    assert shipped(shipper)
    assert depot.numbers == list(range(46))
    assert max(map(len, depot.batches)) == 10
    assert all(sum(len(one.data) for one in batch) <= 500 for batch in depot.batches[:-1])
    assert [len(one.data) for one in depot.batches[-1]] == [2_000]  # alone, though it is larger than the limit
    assert (depot.opened, shipper.state.delivered, shipper.state.failures) == (1, 46, 0)
    assert spool.drained


def test_a_small_batch_waits_for_more_until_somebody_is_in_a_hurry(spool: Spool, started: list[Shipper]) -> None:
    depot = Depot(linger=3600.0)
    shipper = Shipper(depot, lambda: [spool])
    started.append(shipper)
    put(spool, 1)
    shipper.notify()
    put(spool, 2)
    shipper.notify()
    assert depot.batches == []
    put(spool, 3)
    shipper.notify(hurry=True)
    wait_until(lambda: depot.numbers == [1, 2, 3])
    assert len(depot.batches) == 1
    put(spool, 4)
    shipper.notify()
    time.sleep(0.05)
    assert depot.numbers == [1, 2, 3]  # the hurry was for what there was
    assert shipped(shipper)


def test_a_flush_is_in_a_hurry_until_all_of_it_is_there(spool: Spool, started: list[Shipper]) -> None:
    depot = Depot(events=10, linger=3600.0)
    shipper = Shipper(depot, lambda: [spool])
    started.append(shipper)
    put(spool, *range(35))  # three whole batches, and one that would linger
    assert shipped(shipper)
    assert [len(batch) for batch in depot.batches] == [10, 10, 10, 5]


def test_events_of_earlier_processes_go_first_and_do_not_linger(tmp_path: Path, started: list[Shipper]) -> None:
    spools = [Spool.create(tmp_path) for _ in range(3)]
    for index, each in enumerate(spools):
        each.subscribe(["depot"])
        put(each, index * 2, index * 2 + 1)
    depot = Depot(linger=3600.0)
    shipper = Shipper(depot, lambda: spools)
    started.append(shipper)
    shipper.notify()
    wait_until(lambda: depot.numbers == [0, 1, 2, 3])
    assert shipped(shipper)
    assert depot.numbers == list(range(6))
    for each in spools:
        each.close()
    assert list(tmp_path.iterdir()) == []


def test_a_spool_of_other_sinks_is_not_touched(tmp_path: Path, started: list[Shipper]) -> None:
    other = Spool.create(tmp_path)
    other.subscribe(["somebody else"])
    put(other, 1, 2)
    depot = Depot()
    shipper = Shipper(depot, lambda: [other])
    started.append(shipper)
    assert shipped(shipper)
    assert depot.batches == []
    assert other.pending("somebody else") == 2
    other.close()


# ── Failures ──


def test_it_is_tried_again_until_it_works_with_the_same_events(spool: Spool, started: list[Shipper]) -> None:
    depot = Depot(events=4)

    def moody(attempt: int) -> None:
        if attempt % 3:
            raise [ConnectionError("refused"), RetryLater("busy", after=0.0), TimeoutError()][attempt % 3]

    depot.trouble = moody
    shipper = Shipper(depot, lambda: [spool])
    started.append(shipper)
    put(spool, *range(20))
    shipper.notify()
    wait_until(lambda: spool.drained)
    assert depot.numbers == list(range(20))
    assert (shipper.state.failures, shipper.state.failing) == (10, None)


def test_a_flush_does_not_wait_for_a_sink_that_fails(spool: Spool, started: list[Shipper]) -> None:
    depot = Depot()
    depot.trouble = failing
    shipper = Shipper(depot, lambda: [spool])
    started.append(shipper)
    put(spool, 1)
    assert not shipper.flush(time.monotonic() + 3600)
    assert shipper.state.failing == "nobody there"
    assert spool.pending("depot") == 1
    depot.trouble = lambda _: None
    wait_until(lambda: spool.drained)
    assert depot.numbers == [1]


def test_pauses_grow_are_jittered_and_respect_what_the_server_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "FIRST_PAUSE", 0.5)
    monkeypatch.setattr(shipping, "LONGEST_PAUSE", 60.0)
    refused = ConnectionError("refused")
    for streak, longest in [(1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (1_000_000, 60.0)]:
        pauses = [shipping._pause(refused, streak) for _ in range(200)]
        assert longest / 2 <= min(pauses)
        assert max(pauses) <= longest
        assert len(set(pauses)) > 100
    asked = [shipping._pause(RetryLater("busy", after=30.0), 1) for _ in range(200)]
    assert min(asked) >= 30.0
    assert max(asked) <= 36.0
    assert shipping._pause(RetryLater("busy", after=1e9), 1) <= shipping.LONGEST_ASKED * 1.2
    assert shipping._pause(RetryLater("busy", after=0.0), 1) >= 0.5  # a server in trouble is not hammered
    assert shipping._pause(RetryLater("busy"), 1) <= 0.5


def test_one_sink_fails_and_the_other_has_everything(tmp_path: Path, started: list[Shipper]) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["well", "ill"])
    well, ill = Depot("well"), Depot("ill")
    ill.trouble = failing
    shippers = [Shipper(sink, lambda: [spool]) for sink in (well, ill)]
    put(spool, *range(50))
    assert [shipper.flush(time.monotonic() + SOON) for shipper in shippers] == [True, False]
    assert well.numbers == list(range(50))
    for shipper in shippers:
        assert shipper.close(time.monotonic() + SOON)
    spool.close()
    (left,) = orphans(tmp_path)
    again = adopt(left)
    assert again is not None
    assert (again.pending("well"), again.pending("ill")) == (0, 50)
    again.close(delete=True)


def test_what_overflows_while_a_sink_fails_is_counted_and_the_rest_arrives(
    tmp_path: Path, started: list[Shipper]
) -> None:
    spool = Spool.create(tmp_path, max_bytes=1_000)
    spool.subscribe(["depot"])
    depot = Depot(events=5)
    depot.trouble = failing
    shipper = Shipper(depot, lambda: [spool])
    started.append(shipper)
    put(spool, 0, size=100)
    shipper.notify()
    wait_until(lambda: depot.attempts)
    for number in range(1, 100):
        put(spool, number, size=100)
        shipper.notify()
    depot.trouble = lambda _: None
    wait_until(lambda: spool.drained)
    assert depot.numbers == [0, *range(90, 100)]  # the batch under way, and what there was room for
    assert spool.dropped == 90
    assert spool.size <= 1_000
    spool.close()


def test_a_disk_that_is_full_makes_nothing_go_twice_in_this_process(
    tmp_path: Path, started: list[Shipper], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["depot"])
    depot = Depot()
    shipper = Shipper(depot, lambda: [spool])

    def full(sink: str, position: int) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(spool, "acknowledge", full)
        put(spool, 1, 2)
        assert shipped(shipper)
        put(spool, 3)
        assert shipped(shipper)
        assert depot.numbers == [1, 2, 3]
        assert shipper.close(time.monotonic() + SOON)
    spool.close()
    (left,) = orphans(tmp_path)  # nobody wrote down that they arrived: the next process sends them again
    again = adopt(left)
    assert again is not None
    assert again.pending("depot") == 3
    again.close(delete=True)


def test_a_spool_that_cannot_be_read_does_not_stop_the_others(
    tmp_path: Path, started: list[Shipper], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, fine = Spool.create(tmp_path), Spool.create(tmp_path)
    for each in (broken, fine):
        each.subscribe(["depot"])
        put(each, 1, 2)

    def unreadable(**_: object) -> list[Spooled]:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(broken, "read", unreadable)
    depot = Depot()
    shipper = Shipper(depot, lambda: [broken, fine])
    started.append(shipper)
    assert shipped(shipper)
    assert depot.numbers == [1, 2]
    assert fine.drained
    broken.close(delete=True)
    fine.close()


def test_events_that_are_gone_are_not_waited_for(spool: Spool, started: list[Shipper]) -> None:
    put(spool, 1, 2, 3)
    spool._db.execute("DELETE FROM spool_events WHERE position > 1")
    depot = Depot()
    shipper = Shipper(depot, lambda: [spool])
    started.append(shipper)
    assert shipped(shipper)
    put(spool, 4)
    assert shipped(shipper)
    assert depot.numbers == [1, 4]


def test_a_sink_that_cannot_be_opened_is_tried_all_the_same(spool: Spool, started: list[Shipper]) -> None:
    class Late(Depot):
        def open(self) -> None:
            raise OSError("not yet")

    depot = Late()
    shipper = Shipper(depot, lambda: [spool])
    started.append(shipper)
    put(spool, 1)
    assert shipped(shipper)


def test_a_thread_that_cannot_start_starts_later(
    spool: Spool, started: list[Shipper], monkeypatch: pytest.MonkeyPatch
) -> None:
    depot = Depot()
    shipper = Shipper(depot, lambda: [spool])
    started.append(shipper)
    put(spool, 1)

    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        shipper.notify()
    assert depot.batches == []
    assert shipped(shipper)


# ── What a sink still needs ──


def test_what_a_sink_still_needs_is_sent_again_by_the_next_process(tmp_path: Path, started: list[Shipper]) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["depot"])
    depot = Depot()
    depot.needed = lambda batch: next((one for one in batch if one.position == 3), None)
    shipper = Shipper(depot, lambda: [spool])
    put(spool, 1, 2, 3, 4)
    assert shipped(shipper)
    assert spool.sinks == {"depot": 2}
    assert shipped(shipper)
    assert depot.numbers == [1, 2, 3, 4]  # in this process, once
    assert shipper.close(time.monotonic() + SOON)
    spool.close()
    (left,) = orphans(tmp_path)
    again = adopt(left)
    assert again is not None
    heir = Depot()
    second = Shipper(heir, lambda: [again])
    started.append(second)
    assert shipped(second)
    assert heir.numbers == [3, 4]
    again.close()
    assert list(tmp_path.iterdir()) == []


def test_a_need_that_is_over_lets_go_of_earlier_spools(tmp_path: Path, started: list[Shipper]) -> None:
    older, newer = Spool.create(tmp_path), Spool.create(tmp_path)
    for each in (older, newer):
        each.subscribe(["depot"])
    depot = Depot()
    needs: list[Spooled] = []

    def needed(batch: Sequence[Spooled]) -> Spooled | None:
        if batch[0].spool == older.name and not needs:
            needs.append(batch[0])
        return needs[0] if needs else None

    depot.needed = needed
    shipper = Shipper(depot, lambda: [older, newer])
    started.append(shipper)
    put(older, 1, 2)
    put(newer, 3)
    assert shipped(shipper)
    assert older.sinks == {"depot": 0}
    assert newer.sinks == {"depot": 0}
    needs.clear()
    put(newer, 4)
    assert shipped(shipper)
    assert older.drained
    assert newer.drained
    older.close()
    newer.close()
    assert list(tmp_path.iterdir()) == []


# ── The end ──


def test_nobody_waits_for_a_delivery_into_a_black_hole(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["depot"])
    depot, entered, release = Depot(), threading.Event(), threading.Event()

    def black_hole(_: int) -> None:
        entered.set()
        assert release.wait(SOON)
        raise TimeoutError("no answer")

    depot.trouble = black_hole
    shipper = Shipper(depot, lambda: [spool])
    put(spool, 1)
    shipper.notify(hurry=True)
    assert entered.wait(SOON)
    assert not shipper.flush(time.monotonic())
    assert not shipper.close(time.monotonic())
    release.set()
    wait_until(lambda: shipper.close(time.monotonic()))  # it ends by itself, and does not try again
    assert depot.attempts == 1
    assert spool.pending("depot") == 1
    spool.close()
    assert len(orphans(tmp_path)) == 1


def test_closing_interrupts_a_pause_and_a_linger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(shipping, "LONGEST_PAUSE", 3600.0)
    spool = Spool.create(tmp_path)
    spool.subscribe(["failing", "lingering"])
    put(spool, 1)
    pausing, lingering = Depot("failing"), Depot("lingering", linger=3600.0)
    pausing.trouble = failing
    for sink in (pausing, lingering):
        shipper = Shipper(sink, lambda: [spool])
        shipper.notify()
        if sink is pausing:
            wait_until(lambda: pausing.attempts)
        assert shipper.close(time.monotonic() + SOON)
    assert pausing.attempts == 1
    spool.close(delete=True)


def test_one_that_never_had_anything_to_do_has_no_thread() -> None:
    shipper = Shipper(Depot(), list)
    assert shipper.flush(time.monotonic())
    assert shipper.close(time.monotonic())
    assert shipper._thread is None


PROGRAM = """
    import os, sys
    from pathlib import Path
    from computeragent.telemetry.protocols import BatchLimits
    from computeragent.telemetry.shipping import Shipper
    from computeragent.telemetry.spool import Spool, adopt, orphans

    class Writer:
        destination = "writer"
        limits = BatchLimits(events=20, linger=0.0)
        def open(self): pass
        def close(self): pass
        def deliver(self, batch):
            with open(sys.argv[2], "ab", buffering=0) as file:
                file.write(b"".join(one.data + b"\\n" for one in batch))

    folder, first = Path(sys.argv[1]), int(sys.argv[3])
    spools = [spool for path in orphans(folder) if (spool := adopt(path)) is not None]
    spools.append(Spool.create(folder))
    spools[-1].subscribe(["writer"])
    shipper = Shipper(Writer(), lambda: spools)
    number = first
    while number < first + 3000:
        spools[-1].append([b"%d" % (number + index) for index in range(5)])
        shipper.notify()
        number += 5
        print(number, flush=True)
    import time
    assert shipper.flush(time.monotonic() + 60)
    shipper.close(time.monotonic() + 60)
    for spool in spools:
        spool.close()
    print("done", flush=True)
"""


def test_killed_again_and_again_in_the_middle_of_shipping_nothing_is_lost(tmp_path: Path) -> None:
    folder, out = tmp_path / "spool", tmp_path / "out"
    committed: list[range] = []
    for turn in range(5):
        first = turn * 1_000_000
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder), str(out), str(first)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process:
            assert process.stdout is not None
            until = first + random.randint(200, 2_000) if turn < 4 else None
            said = first
            for line in process.stdout:
                said = int(line) if line.strip().isdigit() else said
                if until is not None and said >= until:
                    process.send_signal(signal.SIGKILL)
                    until = None
            committed.append(range(first, said))
        assert process.returncode == (0 if turn == 4 else -signal.SIGKILL)
    arrived = list(dict.fromkeys(int(line) for line in out.read_bytes().splitlines()))
    assert {number for part in committed for number in part} <= set(arrived)
    for part in committed:  # without the repeats, in order
        mine = [number for number in arrived if part.start <= number < part.start + 1_000_000]
        assert mine == list(range(part.start, part.start + len(mine)))
    assert list(folder.iterdir()) == []
