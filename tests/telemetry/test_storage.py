"""The spools of a pipeline together: those of dead processes, their bounds, damage, and a disk that fails."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import pytest

from computeragent.telemetry.event import decode
from computeragent.telemetry.inspection import SpoolReader, spool_states
from computeragent.telemetry.spool import Spool, adopt, is_orphan, orphans
from computeragent.telemetry.storage import FORGET_AFTER, Storage

ROOT = Path(__file__).parents[2]
DAY = 86_400.0


def lines(count: int, size: int = 10, start: int = 0) -> list[bytes]:
    return [str(number).encode().ljust(size) for number in range(start, start + count)]


def everything(spool: Spool, after: int = 0) -> list[int]:
    return [int(one.data) for one in spool.read(after=after, limit=100_000, max_bytes=2**40)]


def left_behind(folder: Path, count: int = 3, sink: str = "a") -> Path:
    """A spool with events that wait, whose process is gone."""
    spool = Spool.create(folder)
    spool.subscribe([sink])
    spool.append(lines(count))
    spool.close()
    assert spool.path is not None
    return spool.path


def storage(folder: Path, *destinations: str, max_bytes: int = 10_000_000) -> Storage:
    return Storage(lambda: folder, destinations or ("a",), max_bytes=max_bytes, changed=lambda: None)


# ── One spool ──


def test_overflow_drops_the_oldest_and_counts_what_was_not_delivered(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, max_bytes=100)
    spool.subscribe(["a", "b"])
    spool.append(lines(10))
    spool.acknowledge("a", 6)
    spool.acknowledge("b", 4)
    spool.append(lines(6, start=10))
    assert everything(spool) == list(range(6, 16))
    assert spool.dropped == 2  # of the six that went, both had four
    assert (spool.pending("a"), spool.pending("b")) == (10, 10)
    assert spool.size == 100
    spool.close(delete=True)


def test_nobody_waits_for_what_overflow_dropped(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, max_bytes=100)
    spool.subscribe(["a"])
    spool.append([b"x" * 500])  # one event that is too large by itself
    assert (spool.dropped, spool.size, spool.pending("a")) == (1, 0, 0)
    assert spool.drained
    spool.append(lines(1))
    assert everything(spool) == [0]
    spool.close()
    (path,) = tmp_path.glob("*.db")
    again = Spool(path)
    assert again.sinks == {"a": 1}
    again.close(delete=True)


def test_an_overflow_that_could_not_be_committed_is_not_counted(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, max_bytes=20_000)
    spool.subscribe(["a"])
    spool.append(lines(2, size=9_000))
    spool._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.Error):
        spool.append(lines(3, size=19_000, start=2))
    assert (spool.dropped, spool.newest, spool.size) == (0, 2, 18_000)
    assert everything(spool) == [0, 1]
    spool.close(delete=True)


# ── Spools of processes that are gone ──


def test_a_spool_is_an_orphan_when_its_process_is_gone(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["a"])
    spool.append(lines(1))
    assert spool.path is not None
    assert orphans(tmp_path) == []
    assert adopt(spool.path) is None
    spool.close()
    assert orphans(tmp_path) == [spool.path]
    adopted = adopt(spool.path)
    assert adopted is not None
    assert orphans(tmp_path) == []
    adopted.close(delete=True)


def test_looking_at_a_spool_that_has_just_gone_leaves_nothing(tmp_path: Path) -> None:
    assert not is_orphan(tmp_path / "gone.db")
    assert list(tmp_path.iterdir()) == []


def test_each_orphan_goes_to_one_of_many_processes(tmp_path: Path) -> None:
    for number in range(30):
        spool = Spool.create(tmp_path)
        spool.subscribe(["file"])
        spool.append(lines(10, start=number * 10))
        spool.close()
    program = textwrap.dedent("""
        import sys
        from computeragent.telemetry import BatchLimits, Pipeline
        class Writer:
            destination = "file"
            limits = BatchLimits(events=7, linger=0)
            def deliver(self, batch):
                for one in batch:
                    print(one.data.decode().strip())
            def open(self):
                pass
            def close(self):
                pass
        pipeline = Pipeline(sinks=[Writer()], spool_dir=sys.argv[1])
        sys.stdin.readline()
        pipeline.adopt()
        assert pipeline.flush_sync(30)
        pipeline.close()
    """)
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    told = [run.communicate(timeout=60)[0].split() for run in runs]
    assert [run.returncode for run in runs] == [0] * 4
    assert sorted(int(number) for one in told for number in one) == list(range(300))
    assert list(tmp_path.glob("*.db")) == []


def test_a_fork_leaves_the_spool_to_the_parent(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["a"])
    spool.append(lines(5))
    assert spool.path is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            spool.leave()
            code = 0 if orphans(tmp_path) == [] and adopt(spool.path) is None else 2  # the parent lives
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    spool.append(lines(5, start=5))
    assert everything(spool) == list(range(10))
    spool.close(delete=True)


@pytest.mark.parametrize("damage", ["empty", "nonsense", "truncated", "newer", "folder"])
def test_a_damaged_spool_is_left_and_keeps_nobody_from_work(tmp_path: Path, damage: str) -> None:
    path = left_behind(tmp_path, count=2_000)
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "nonsense":
        path.write_bytes(b"no database at all " * 100)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:9_000])
    elif damage == "newer":
        with sqlite3.connect(path) as db:
            db.execute("UPDATE spool_meta SET value = 99")
        db.close()
    else:
        path.unlink()
        path.mkdir()
    stored = storage(tmp_path)
    stored.commit([b"1"], {}, [])
    assert stored.spools()[-1].pending("a") == 1
    assert stored.failures == 0
    spool_states(tmp_path)
    reader = SpoolReader(tmp_path)
    list(reader.read())
    reader.close()
    stored.spools()[-1].acknowledge("a", 1)
    stored.close()


def test_a_spool_that_nobody_can_read_is_forgotten_in_the_end(tmp_path: Path) -> None:
    path = left_behind(tmp_path)
    path.write_bytes(b"no database at all " * 100)
    for age in (DAY, FORGET_AFTER + DAY):
        assert path.exists()
        os.utime(path, (time.time() - age,) * 2)
        stored = storage(tmp_path)
        stored.open()
        stored.close()
    assert not path.exists()


def test_a_session_whose_process_died_is_ended_once(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["a"])
    spool.append(lines(2), opened={"s1": b'["triage",null,null]', "s2": b'[null,"id","what it is"]'})
    spool.append(lines(1), ended=["s1"])
    assert list(spool.open_sessions()) == ["s2"]
    spool.close()
    for _ in range(2):  # the one that adopts it may be killed, too
        stored = storage(tmp_path)
        stored.open()
        (adopted,) = stored.spools()[:-1]
        told = adopted.read(after=3, limit=9, max_bytes=9_999)
        assert adopted.open_sessions() == {}
        stored.close()
        (end,) = [decode(one.data) for one in told]
        assert (end.kind, end.session_id, end.agent_id) == ("session_ended", "s2", "id")
        assert end.payload["subtype"] == "process_lost"


def test_what_the_dead_left_behind_is_bounded_together(tmp_path: Path) -> None:
    for number in range(5):
        spool = Spool.create(tmp_path)
        spool.subscribe(["a"])
        spool.append(lines(10, start=number * 10))
        spool.close()
        time.sleep(0.001)
    stored = storage(tmp_path, max_bytes=60)
    stored.open()
    kept = [number for one in stored.spools() for number in everything(one)]
    assert kept == list(range(26, 50))  # four times as much as one spool holds
    assert stored.dropped == 26
    for one in stored.spools():
        one.acknowledge("a", one.newest)
    stored.close()


def test_a_disk_that_comes_and_goes_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = Spool.create

    def full(folder: Path, *, max_bytes: int) -> Spool:
        made = create(folder, max_bytes=max_bytes)
        made._db.execute("PRAGMA max_page_count = 1")
        return made

    monkeypatch.setattr(Spool, "create", full)
    stored = storage(tmp_path, max_bytes=300_000)
    for number in range(50):
        stored._retry_at = 0.0  # it is time to try the disk again
        stored.commit([str(number).encode().ljust(20_000)], {}, [])
    assert sum(spool.size for spool in stored.spools()) <= 300_000
    assert len(stored.spools()) < 4
    kept = [number for spool in stored.spools() for number in everything(spool)]
    assert kept == list(range(50 - len(kept), 50))
    assert stored.dropped == 50 - len(kept)
    for spool in stored.spools():
        spool.acknowledge("a", spool.newest)
    stored.close()


def test_states_tell_what_waits_for_whom(tmp_path: Path) -> None:
    gone = left_behind(tmp_path, count=4)
    live = Spool.create(tmp_path)
    live.subscribe(["a", "b"])
    live.append(lines(3), opened={"s": b"[null,null,null]"})
    live.acknowledge("a", 2)
    first, second = sorted(spool_states(tmp_path), key=lambda state: state.live)
    assert (first.path, first.live, first.waiting, first.size) == (gone, False, {"a": 4}, 40)
    assert (second.live, second.events, second.waiting, second.open_sessions) == (True, 3, {"a": 1, "b": 3}, 1)
    assert second.oldest is not None
    live.close(delete=True)


def test_a_reader_sees_the_last_events_of_a_spool_that_is_gone(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path)
    spool.subscribe(["sink"])
    spool.append([b"1"])
    reader = SpoolReader(tmp_path)
    assert [one.data for one in reader.read()] == [b"1"]
    spool.acknowledge("sink", spool.append([b"2"]))
    spool.close()
    assert list(tmp_path.glob("*.db")) == []
    assert [one.data for one in reader.read()] == [b"2"]
    assert list(reader.read()) == []
    reader.close()
