"""What the spool promises: committed is kept, in order, within its bounds, for whoever takes it over."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from computeragent.telemetry import spool as module
from computeragent.telemetry.spool import Spool, adopt, is_orphan, orphans

ROOT = Path(__file__).parents[2]


def lines(*numbers: int, size: int = 0) -> list[bytes]:
    return [str(number).encode().ljust(size, b".") for number in numbers]


def numbers(spool: Spool, after: int = 0) -> list[int]:
    return [int(one.data.rstrip(b".")) for one in spool.read(after=after, limit=1_000_000, max_bytes=1 << 40)]


def open_files() -> int:
    """How many files this process has open; 0 where the kernel does not tell."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def run(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


# ── One process ──


def test_what_is_appended_is_read_in_order_and_in_portions(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["a"])
    assert spool.append(lines(*range(10), size=10)) == 10
    assert [one.position for one in spool.read(after=3, limit=4, max_bytes=1_000)] == [4, 5, 6, 7]
    assert [one.position for one in spool.read(after=0, limit=100, max_bytes=25)] == [1, 2]
    assert [one.position for one in spool.read(after=0, limit=100, max_bytes=1)] == [1]  # however large
    assert spool.read(after=10, limit=100, max_bytes=1_000) == []
    assert spool.size == 100
    spool.close()


def test_files_are_private(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "new")
    spool.append([b"{}"])
    assert {file.stat().st_mode & 0o077 for file in (tmp_path / "new").iterdir()} == {0}
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    spool.close()


def test_it_is_deleted_once_every_sink_has_everything(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["a", "b"])
    spool.append(lines(1, 2))
    spool.acknowledge("a", 2)
    spool.acknowledge("b", 1)
    assert (spool.drained, spool.pending("a"), spool.pending("b")) == (False, 0, 1)
    spool.close()
    (left,) = tmp_path.glob("*.db")
    again = adopt(left)
    assert again is not None
    assert again.sinks == {"a": 2, "b": 1}
    assert numbers(again, after=again.sinks["b"]) == [2]
    again.acknowledge("b", 2)
    again.close()
    assert list(tmp_path.iterdir()) == []


def test_an_acknowledgement_never_goes_back(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["a"])
    spool.append(lines(1, 2, 3))
    spool.acknowledge("a", 2)
    spool.acknowledge("a", 1)
    assert spool.sinks == {"a": 2}
    spool.close()


def test_a_sink_that_comes_later_has_what_comes_later(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["a"])
    spool.append(lines(1, 2))
    spool.subscribe(["a", "b"])
    spool.append(lines(3))
    assert (spool.pending("a"), spool.pending("b"), spool.pending("nobody")) == (3, 1, 0)
    spool.close()


def test_places_are_not_used_twice_though_all_was_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_SENT", -1.0)
    spool = Spool.create(tmp_path)
    spool.subscribe(["a"])
    spool.append(lines(1, 2, 3))
    spool.acknowledge("a", 3)
    assert spool.size == 0
    spool.close(delete=False)
    (left,) = tmp_path.glob("*.db")
    again = Spool(left)
    assert again.append(lines(4)) == 4
    assert again.pending("a") == 1
    again.close()


def test_what_was_delivered_stays_for_a_while_and_then_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1_000.0
    monkeypatch.setattr(module.time, "time", lambda: clock)
    spool = Spool.create(tmp_path)
    spool.subscribe(["a", "b"])
    for number in range(20):
        clock += 10.0
        spool.append(lines(number, size=10))
        spool.acknowledge("a", spool.newest)
        if number < 15:
            spool.acknowledge("b", spool.newest)
    # both have the first 15, of which those are kept that are no older than a minute
    assert numbers(spool) == list(range(13, 20))
    assert spool.size == 70
    clock += 100.0
    spool.acknowledge("b", spool.newest)
    assert numbers(spool) == []
    assert spool.size == 0
    assert spool.drained
    spool.close()


def test_a_clock_that_is_set_back_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 10_000.0
    monkeypatch.setattr(module.time, "time", lambda: clock)
    spool = Spool.create(tmp_path)
    spool.subscribe(["a"])
    spool.append(lines(0, 1))
    clock -= 9_000.0
    spool.append(lines(2, 3))
    spool.acknowledge("a", 3)
    clock += 50_000.0
    spool.acknowledge("a", 3)
    assert numbers(spool, after=3) == [3]
    spool.close()


# ── Bounds ──


def test_beyond_its_size_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, max_bytes=1_000)
    spool.subscribe(["a", "b"])
    for number in range(30):
        spool.append(lines(number, size=100))
        assert spool.size <= 1_000
        if number == 9:
            spool.acknowledge("a", 5)
            spool.acknowledge("b", 3)
    assert numbers(spool) == list(range(20, 30))
    assert spool.dropped == 17  # all but the three that both had
    assert spool.pending("a") == spool.pending("b") == 10
    spool.close()


def test_an_event_larger_than_the_spool_goes_and_nobody_waits_for_it(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, max_bytes=1_000)
    spool.subscribe(["a"])
    spool.append(lines(1, size=100))
    spool.append(lines(2, size=2_000))
    assert (numbers(spool), spool.size, spool.dropped, spool.drained) == ([], 0, 2, True)
    spool.append(lines(3, size=100))
    assert numbers(spool) == [3]
    spool.acknowledge("a", spool.newest)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_batch_larger_than_the_spool_keeps_its_end(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, max_bytes=1_000)
    spool.subscribe(["a"])
    spool.append(lines(*range(25), size=100))
    assert numbers(spool) == list(range(15, 25))
    assert spool.dropped == 15
    spool.close()


def test_the_file_stays_bounded_while_events_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_SENT", -1.0)
    spool = Spool.create(tmp_path, max_bytes=200_000)
    spool.subscribe(["a"])
    for turn in range(400):
        spool.append(lines(*range(20), size=1_000))
        if turn % 10 == 9:
            spool.acknowledge("a", spool.newest)
    assert spool.dropped == 0
    on_disk = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert on_disk < 200_000 * 4 + 5_000_000  # 8 MB went through; SQLite's log takes 4 MB by itself
    spool.close()


def test_a_full_disk_is_an_error_and_leaves_the_spool_as_it_was(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["a"])
    spool.append(lines(1))
    pages = spool._db.execute("PRAGMA page_count").fetchone()[0]
    spool._db.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        spool.append(lines(2, size=100_000))
    assert (spool.newest, spool.size, numbers(spool), spool.dropped) == (1, 1, [1], 0)
    spool._db.execute("PRAGMA max_page_count = 1000000")
    assert spool.append(lines(3)) == 2
    assert numbers(spool) == [1, 3]
    spool.close()


# ── Threads ──


def test_threads_append_read_and_acknowledge_at_once(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    sinks = ["a", "b"]
    spool.subscribe(sinks)
    writers, each = 4, 300
    seen: dict[str, list[int]] = {sink: [] for sink in sinks}
    wrong: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            for number in range(each):
                spool.append(lines(writer * each + number))
        except BaseException as error:
            wrong.append(error)

    def follow(sink: str) -> None:
        try:
            after = 0
            until = time.monotonic() + 40
            while len(seen[sink]) < writers * each and time.monotonic() < until:
                batch = spool.read(after=after, limit=random.randint(1, 50), max_bytes=1_000)
                if batch:
                    assert [one.position for one in batch] == list(range(after + 1, after + 1 + len(batch)))
                    seen[sink] += [int(one.data) for one in batch]
                    after = batch[-1].position
                    spool.acknowledge(sink, after)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    threads += [threading.Thread(target=follow, args=(sink,)) for sink in sinks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    for sink in sinks:
        assert sorted(seen[sink]) == list(range(writers * each))
        for writer in range(writers):
            mine = [number for number in seen[sink] if number // each == writer]
            assert mine == sorted(mine)
    assert spool.drained
    spool.close()


def test_closing_twice_or_under_a_reader_harms_nothing(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["a"])
    spool.append(lines(1))
    spool.close()
    spool.close()
    assert spool.pending("a") == 0
    with pytest.raises(sqlite3.Error):
        spool.read(after=0, limit=1, max_bytes=1)
    (left,) = tmp_path.glob("*.db")
    assert is_orphan(left)


# ── Processes ──


def test_a_spool_has_one_holder(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.append(lines(1))
    assert spool.path is not None
    assert orphans(tmp_path) == []
    assert adopt(spool.path) is None
    spool.close(delete=False)
    assert orphans(tmp_path) == [spool.path]


def test_killed_in_the_middle_of_writing_all_that_was_committed_is_there(tmp_path: Path) -> None:
    writer = run(
        """
        import sys
        from pathlib import Path
        from computeragent.telemetry.spool import Spool
        spool = Spool.create(Path(sys.argv[1]))
        spool.subscribe(["a"])
        number = 0
        while True:
            spool.append([str(number + index).encode() for index in range(7)], opened={"s": b"header"})
            number += 7
            print(number, flush=True)
        """,
        tmp_path,
    )
    assert writer.stdout is not None
    committed = 0
    with writer:
        for line in writer.stdout:
            committed = int(line)
            if committed >= 700:
                writer.send_signal(signal.SIGKILL)
                break
        for line in writer.stdout:  # what it still said before it died
            committed = int(line) if line.endswith("\n") else committed
    (left,) = orphans(tmp_path)
    spool = adopt(left)
    assert spool is not None
    found = numbers(spool)
    assert found == list(range(len(found)))
    assert len(found) >= committed
    assert len(found) % 7 == 0  # what is appended together is committed together
    assert spool.open_sessions() == {"s": b"header"}
    spool.close()


def _adopt_all(folder: Path, start: object, results: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    taken: list[bytes] = []
    for path in orphans(folder):
        spool = adopt(path)
        if spool is None:
            continue
        batch: Sequence[module.Spooled] = spool.read(after=spool.sinks.get("a", 0), limit=1_000, max_bytes=1 << 30)
        taken += [one.data for one in batch]
        if batch:
            spool.acknowledge("a", batch[-1].position)
        spool.close()
    results.put(taken)  # type: ignore[attr-defined]


def test_of_many_processes_that_adopt_at_once_each_orphan_has_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for number in range(40):
        spool = Spool.create(tmp_path)
        spool.subscribe(["a"])
        spool.append(lines(*range(number * 5, number * 5 + 5)))
        spool.close()
    start, results = context.Event(), context.Queue()
    workers = [context.Process(target=_adopt_all, args=(tmp_path, start, results)) for _ in range(5)]
    for worker in workers:
        worker.start()
    start.set()
    taken = [int(data) for _ in workers for data in results.get(timeout=50)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(taken) == len(set(taken))  # nothing twice
    missed = orphans(tmp_path)  # one that somebody only looked at just then may wait for the next process
    for path in missed:
        spool = adopt(path)
        assert spool is not None
        taken += numbers(spool)
        spool.close(delete=True)
    assert sorted(taken) == list(range(200))
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_deleted_with_its_spool_holds_nothing(tmp_path: Path) -> None:
    """Between opening the lock file and locking it, its owner may delete it, and somebody else make a new one."""
    spool = Spool.create(tmp_path)
    assert spool.path is not None
    path = spool.path
    stale = os.open(path.with_suffix(".lock"), os.O_RDWR)
    spool.close()
    assert list(tmp_path.iterdir()) == []
    os.close(stale)
    assert adopt(path) is None  # what is gone is not made again
    assert list(tmp_path.iterdir()) == []


# ── Files that are not as they should be ──


def test_a_file_that_is_no_spool_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1-bad.db").write_bytes(b"this is not a database, but it is long enough to look like a file" * 50)
    assert adopt(tmp_path / "1-bad.db") is None
    assert "orphan_unreadable" in caplog.text
    assert (tmp_path / "1-bad.db").exists()


@pytest.mark.parametrize("where", [0, 100, 4_096, 5_000, -4_096])
def test_damage_anywhere_raises_or_reads_but_never_hangs(where: int, tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["a"])
    spool.append(lines(*range(200), size=200))
    spool.close(delete=False)
    (path,) = tmp_path.glob("*.db")
    data = bytearray(path.read_bytes())
    data[where : where + 2_000 if where >= 0 else where + 2_000 or None] = b"\xa5" * 2_000
    path.write_bytes(data)
    again = adopt(path)
    if again is None:
        return
    try:
        again.read(after=0, limit=1_000, max_bytes=1 << 30)
        again.append(lines(1))
    except sqlite3.DatabaseError:
        pass
    again.close(delete=True)


def test_a_spool_of_a_newer_version_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool.create(tmp_path)
    assert spool.path is not None
    spool._db.execute("UPDATE spool_meta SET value = 99 WHERE name = 'schema_version'")
    spool.close(delete=False)
    assert adopt(spool.path) is None
    assert "newer" in caplog.text or "99" in caplog.text
    assert is_orphan(spool.path)  # not held by us either


def test_opening_what_cannot_be_read_leaves_nothing_open(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    assert spool.path is not None
    spool._db.execute("DROP TABLE spool_cursors")
    spool.close(delete=False)
    before = open_files()
    assert adopt(spool.path) is None
    assert open_files() == before
    assert is_orphan(spool.path)
