"""Writers of a chained file: many at once, killed at any moment, on a full disk; and what they will not cover up."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from computeragent.errors import AuditFileError
from computeragent.telemetry.chain import files, writer
from computeragent.telemetry.chain.key import Key
from computeragent.telemetry.chain.writer import ChainFile

from .conftest import KEY, Chained

PRELUDE = """
import os, sys
from pathlib import Path
from computeragent.telemetry.chain.key import Key
from computeragent.telemetry.chain.writer import ChainFile
chain = ChainFile(Path(sys.argv[1]), Key(b"a key that is long enough"))
"""


def python(code: str, *args: object) -> subprocess.Popen[bytes]:
    """A process that has a `chain`; it ends with its block."""
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def rows(chained: Chained) -> list[Any]:
    """The lines that are rows."""
    found: list[Any] = []
    for line in chained.lines:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def events(chained: Chained) -> list[Any]:
    return [row["event"] for row in rows(chained) if "event" in row]


def notices(chained: Chained) -> list[str]:
    return [row["audit"]["what"] for row in rows(chained) if row.get("audit", {}).get("kind") == "notice"]


def test_rows_follow_one_another(empty: Chained) -> None:
    empty.write(1, 2)
    empty.file.begin()  # nothing to say
    empty.write(3)
    found = rows(empty)
    assert [row["seq"] for row in found] == [1, 2, 3, 4]
    assert [row["prev"] for row in found[1:]] == [row["hash"] for row in found[:-1]]
    assert events(empty) == [{"number": 1}, {"number": 2}, {"number": 3}]
    assert empty.check().intact
    assert empty.check().notes == []


def test_only_its_owner_may_read_it(empty: Chained) -> None:
    before = os.umask(0)
    try:
        empty.write(1)
    finally:
        os.umask(before)
    for path in (empty.path, empty.head, *files.witness_path(empty.path).parent.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_one_file_has_one_head_whatever_it_is_called(empty: Chained, tmp_path: Path) -> None:
    empty.write(1)
    (tmp_path / "link.jsonl").symlink_to(empty.path)
    ChainFile(tmp_path / "link.jsonl", KEY).append([b"{}"])
    assert empty.check().rows == 3
    assert empty.check().intact
    assert not (tmp_path / "link.jsonl.head").exists()


def test_several_processes_write_one_chain(empty: Chained) -> None:
    code = """
    for number in range(40):
        chain.append([b'{"by":%s,"number":%d}' % (sys.argv[2].encode(), number)])
    """
    with ExitStack() as stack:
        running = [stack.enter_context(python(code, empty.path, name)) for name in range(4)]
        assert [each.wait(50) for each in running] == [0] * 4
    assert empty.check().intact
    assert empty.check().notes == []
    for name in range(4):
        assert [event["number"] for event in events(empty) if event["by"] == name] == list(range(40))


def test_a_writer_that_is_killed_leaves_what_it_had_committed(empty: Chained) -> None:
    code = """
    number = int(sys.argv[2])
    while True:
        chain.append([b'{"number":%d,"much":"%s"}' % (number, b"x" * 50_000)])
        os.write(1, b"%d\\n" % number)
        number += 1
    """
    chance, committed = random.Random(7), -1
    for _ in range(6):
        with python(code, empty.path, committed + 1) as run:
            assert run.stdout is not None
            first = run.stdout.readline()
            time.sleep(chance.uniform(0, 0.05))
            run.send_signal(signal.SIGKILL)
            committed = int((first + run.stdout.read()).split()[-1])
        empty.file.begin()
        assert empty.check().findings == []
        numbers = [event["number"] for event in events(empty)]
        assert numbers == list(range(len(numbers)))
        assert committed <= numbers[-1] <= committed + 1  # one may be committed that it did not come to tell of
        committed = numbers[-1]


# ── Unfinished writes ────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_that_was_cut_short_is_removed_and_that_is_said(chained: Chained) -> None:
    with chained.path.open("ab") as file:
        file.write(b'{"seq":21,"at":"2026')
    report = chained.check()
    assert report.intact
    assert report.notes == ["an unfinished write of 20 bytes follows the last row"]
    chained.write(100)
    report = chained.check()
    assert report.intact
    assert report.notes == ["row 21: an unfinished write of 20 bytes was removed before this row"]
    assert notices(chained) == ["repaired"]


def test_a_row_that_was_never_committed_is_told_until_it_is_removed(chained: Chained) -> None:
    head = chained.head.read_bytes()
    witness = files.witness_path(chained.path)
    kept = witness.read_bytes()
    chained.write(100)
    chained.head.write_bytes(head)  # as if it had been killed just before
    witness.write_bytes(kept)
    (finding,) = chained.check().findings
    assert (finding.line, finding.seq) == (21, 21)
    assert "beyond the signed head" in finding.problem
    chained.write(101)
    assert chained.check().intact
    assert [event["number"] for event in events(chained)][-2:] == [18, 101]


def _killed(file: int, data: bytes) -> None:
    raise KeyboardInterrupt


def test_a_writer_killed_while_it_began_leaves_no_trace(empty: Chained, monkeypatch: pytest.MonkeyPatch) -> None:
    empty.write(1)
    began = empty.lines[0]
    for left in (b"", began[:50], began):
        for path in (empty.path, empty.head, files.witness_path(empty.path)):
            path.unlink()
        with monkeypatch.context() as killed:
            killed.setattr(writer, "write_all", _killed)
            with pytest.raises(KeyboardInterrupt):
                empty.write(1)
        assert b'"seq":0' in empty.head.read_bytes()
        empty.path.write_bytes(left)
        empty.write(1)
        assert (empty.check().findings, empty.check().notes, empty.check().rows) == ([], [], 2)


# ── What a writer will not cover up ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("torn", [False, True])
def test_rows_that_were_cut_off_stay_missing_when_others_follow(chained: Chained, torn: bool) -> None:
    chained.put(*chained.lines[:15], *([chained.lines[15][:40]] if torn else []))
    chained.write(100, 101)
    report = chained.check()
    assert (report.findings[0].line, report.findings[0].seq) == (16, 16)
    assert notices(chained) == ["truncated"]
    assert [event["number"] for event in events(chained)][-2:] == [100, 101]
    chained.write(102)  # from here on it is whole again, and still found
    assert chained.check().findings == report.findings


def test_a_head_that_was_taken_away_stays_missing(chained: Chained) -> None:
    chained.put(*chained.lines[:15])
    chained.head.unlink()
    chained.write(100)
    assert notices(chained) == ["head_missing"]
    findings = chained.check().findings
    assert (findings[0].line, findings[0].problem) == (16, "rows 16 to 20 are missing: row 21 stands here")
    assert findings[1].problem == "a writer found no head before this row: rows may have been taken away"


def test_a_head_that_is_no_head_is_told(chained: Chained) -> None:
    chained.head.write_bytes(chained.head.read_bytes().replace(b'"seq":20', b'"seq":19'))
    chained.write(100)
    assert notices(chained) == ["head_invalid"]
    assert chained.check().findings[0].seq == 21


def test_an_older_head_does_not_make_a_writer_cut_rows_off(chained: Chained) -> None:
    old = chained.head.read_bytes()
    chained.write(100, 101)
    chained.head.write_bytes(old)
    chained.write(102)
    assert [event["number"] for event in events(chained)][-3:] == [100, 101, 102]
    assert notices(chained) == ["rolled_back"]
    assert not chained.check().intact


def test_a_file_that_is_deleted_goes_on_with_a_gap(chained: Chained) -> None:
    chained.path.unlink()
    chained.write(100)
    assert chained.check().findings[0].problem == "rows 1 to 20 are missing: row 21 stands here"


def test_files_that_are_moved_away_together_are_spoken_of_by_the_next(chained: Chained) -> None:
    last = chained.check().last_hash
    moved = Chained(chained.path.with_name("audit.1.jsonl"))
    chained.path.rename(moved.path)
    chained.head.rename(moved.head)
    chained.write(100)
    report = chained.check()
    assert report.intact
    assert report.notes == [f"another file was here before, up to row 20, hash {last}: see that it is kept"]
    assert moved.check().intact


# ── When it cannot be written ────────────────────────────────────────────────────────────────────────────────


def test_another_key_s_file_is_refused_and_stays_as_it_is(chained: Chained) -> None:
    before = chained.path.read_bytes()
    with pytest.raises(AuditFileError, match="signed with another key"):
        ChainFile(chained.path, Key(b"another key that is long enough")).append([b"{}"])
    assert chained.path.read_bytes() == before
    assert chained.check().intact


def test_a_full_disk_is_an_error_and_what_fits_later_is_whole(empty: Chained) -> None:
    empty.write(1)
    code = """
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = os.path.getsize(sys.argv[1])
    for room in (0, 1, 100, 5_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))
        try:
            chain.append([b'{"much":"%s"}' % (b"x" * 10_000)])
        except OSError as error:
            print(error.strerror)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    chain.append([b'{"number":2}'])
    """
    with python(code, empty.path) as run:
        assert run.stdout is not None
        assert run.stdout.read().splitlines() == [b"File too large"] * 4
    assert run.returncode == 0
    assert events(empty) == [{"number": 1}, {"number": 2}]
    assert (empty.check().findings, empty.check().notes) == ([], [])


def test_a_file_that_somebody_holds_is_an_error_and_no_hang(empty: Chained, monkeypatch: pytest.MonkeyPatch) -> None:
    empty.write(1)
    monkeypatch.setattr(files, "LOCK_TIMEOUT", 0.05)
    with empty.path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AuditFileError, match="held by another process"):
            empty.write(2)
    empty.write(2)
    assert empty.check().rows == 3
