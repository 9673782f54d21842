"""JsonlSink: one line per event, whatever happens to the process, the disk or the size of the file."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from computeragent.errors import ValidationError
from computeragent.telemetry import Pipeline, TelemetryEvent
from computeragent.telemetry.event import decode
from computeragent.telemetry.sinks import JsonlSink

pytestmark = pytest.mark.anyio


def event(number: int, **payload: Any) -> TelemetryEvent:
    return TelemetryEvent(kind="user_message", session_id="s", payload={"number": number, **payload})


def numbers(*files: Path) -> list[int]:
    """Of every line of the files, all of which are events."""
    return [decode(line).payload["number"] for file in files for line in file.read_bytes().splitlines()]


async def test_each_event_is_one_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "telemetry.jsonl"
    sink = JsonlSink(path)
    told = [event(0, text="two\nlines\u2028three"), event(1, odd=object(), lone="\ud800")]
    for one in told:
        await sink.emit(one)
    await sink.flush()
    assert path.read_bytes().count(b"\n") == 2
    assert numbers(path) == [0, 1]
    first = json.loads(path.read_bytes().splitlines()[0])
    assert first == json.loads(json.dumps(told[0].to_wire()))
    await sink.aclose()
    await sink.emit(event(2))  # opened again
    assert numbers(path) == [0, 1, 2]
    await sink.aclose()


async def test_through_a_pipeline_it_is_redacted(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    pipeline = Pipeline(sinks=[JsonlSink(path)])
    for number in range(50):
        await pipeline.emit(event(number, text="mail ada@example.com"))
    assert await pipeline.flush()
    await pipeline.aclose()
    assert numbers(path) == list(range(50))
    assert "ada@" not in path.read_text()


async def test_a_new_file_is_private_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.touch()
    old.chmod(0o640)
    before = os.umask(0)
    try:
        for name, mode in (("new", 0o600), ("old", 0o640)):
            sink = JsonlSink(tmp_path / name)
            await sink.emit(event(0))
            await sink.aclose()
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
    finally:
        os.umask(before)


async def test_files_are_rotated_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    line = len(json.dumps(event(10).to_wire())) + 1
    sink = JsonlSink(path, max_bytes=3 * line, keep=2)
    for number in range(10, 22):
        await sink.emit(event(number))
    await sink.aclose()
    files = [tmp_path / "t.jsonl.2", tmp_path / "t.jsonl.1", path]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    kept = numbers(*files)
    assert kept == list(range(22 - len(kept), 22))
    assert 6 <= len(kept) <= 11
    assert all(file.stat().st_size <= 3 * line for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_with_none_to_keep_the_file_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    sink = JsonlSink(path, max_bytes=1, keep=0)  # less than one event: each has the file to itself
    for number in range(3):
        await sink.emit(event(number))
    await sink.aclose()
    assert numbers(path) == [2]
    assert list(tmp_path.iterdir()) == [path]


async def test_a_file_that_is_full_already_is_rotated_first(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for number in range(2):
        sink = JsonlSink(path, max_bytes=300)
        await sink.emit(event(number))
        await sink.aclose()
    assert numbers(tmp_path / "t.jsonl.1", path) == [0, 1]


async def test_a_line_that_a_crash_cut_short_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    sink = JsonlSink(path)
    await sink.emit(event(0))
    await sink.emit(event(1))
    await sink.aclose()
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    sink = JsonlSink(path)
    await sink.emit(event(2))
    await sink.aclose()
    lines = path.read_bytes().splitlines()
    assert [decode(lines[0]).payload["number"], decode(lines[2]).payload["number"]] == [0, 2]
    assert len(lines) == 3


async def test_two_processes_may_append_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    program = textwrap.dedent("""
        import asyncio, sys
        from computeragent.telemetry import TelemetryEvent
        from computeragent.telemetry.sinks import JsonlSink
        async def main():
            sink = JsonlSink(sys.argv[1])
            for number in range(300):
                await sink.emit(TelemetryEvent(kind="user_message", session_id="s", payload={"number": number}))
        asyncio.run(main())
    """)
    runs = [subprocess.Popen([sys.executable, "-c", program, str(path)]) for _ in range(2)]
    assert [run.wait(60) for run in runs] == [0, 0]
    assert sorted(numbers(path)) == sorted([*range(300)] * 2)


FULL = textwrap.dedent("""
    import asyncio, resource, signal, sys
    from computeragent.telemetry import Pipeline, TelemetryEvent
    from computeragent.telemetry.sinks import JsonlSink
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    pipeline = Pipeline(middleware=[], sinks=[JsonlSink(sys.argv[1])])
    async def tell(*numbers):
        for number in numbers:
            payload = {"number": number, "text": "x" * 300}
            await pipeline.emit(TelemetryEvent(kind="user_message", session_id="s", payload=payload))
        await pipeline.flush(20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))  # in the middle of a line
    asyncio.run(tell(*range(20)))
    state = pipeline.stats()["sinks"]["JsonlSink"]
    print(state["delivered"], state["failures"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    asyncio.run(tell(*range(20, 30)))
    pipeline.close()
""")


def test_a_full_disk_costs_what_did_not_fit_and_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    delivered, failures = map(int, run.stdout.split())
    assert delivered + failures == 20
    assert 1 <= delivered < 10
    lines = path.read_bytes().splitlines()
    whole: list[int] = []
    for line in lines:
        try:
            whole.append(decode(line).payload["number"])
        except ValueError:
            assert len(whole) == delivered  # the one line that was cut short, where the disk was full
    assert whole == [*range(delivered), *range(20, 30)]
    assert len(lines) <= len(whole) + 1


async def test_a_path_that_cannot_be_written_is_an_error_each_time_and_leaves_nothing_open(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path)  # a folder
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(OSError, match="directory"):
            await sink.emit(event(0))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    await sink.aclose()


@pytest.mark.parametrize("wrong", [{"max_bytes": 0}, {"keep": -1}])
def test_what_cannot_be_meant_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        JsonlSink("t.jsonl", **wrong)
