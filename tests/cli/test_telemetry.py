"""`computeragent telemetry`: what is told, what waits, and telling it again."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from tests.telemetry.listening import Depot
from tests.telemetry.sinks.ingest import Ingest

from computeragent.telemetry import Pipeline, TelemetryEvent

from .conftest import Cli, script


@pytest.fixture
def left_behind(cli: Cli) -> None:
    """Three events of a process that is gone, for an ingest that it could not reach."""
    depot = Depot()
    depot.broken = True
    depot.destination = "agentos http://127.0.0.1:9/ingest"
    pipeline = Pipeline(sinks=[depot], spool_dir=cli.state / "spool")

    async def tell() -> None:
        for number in range(3):
            text = f"number {number} for ada@example.com"
            await pipeline.emit(TelemetryEvent(kind="user_message", session_id="s1", payload={"text": text}))
        await pipeline.settle(10)

    anyio.run(tell)
    pipeline.close(1)


def test_nothing_waits(cli: Cli) -> None:
    done = cli("telemetry")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing waits" in done.stderr


@pytest.mark.usefixtures("left_behind")
def test_stats_say_what_waits_for_whom(cli: Cli) -> None:
    shown = cli("telemetry", "stats").stdout
    assert "gone" in shown
    assert "agentos http://127.0.0.1:9/ingest" in shown
    assert "computeragent telemetry replay" in shown
    (line,) = cli("telemetry", "stats", "--json").stdout.splitlines()
    assert json.loads(line)["waiting"] == {"agentos http://127.0.0.1:9/ingest": 3}


@pytest.mark.usefixtures("left_behind")
def test_tail_shows_what_is_told(cli: Cli) -> None:
    lines = cli("telemetry", "tail", "--no-follow").stdout.splitlines()
    assert [line.split("user_message")[1].strip() for line in lines] == [
        f"number {number} for [REDACTED:EMAIL]" for number in range(3)
    ]
    told = cli("telemetry", "tail", "--no-follow", "--json", "--session", "s1").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in told] == ["user_message"] * 3
    assert cli("telemetry", "tail", "--no-follow", "--kind", "tool_use").stdout == ""


@pytest.mark.usefixtures("left_behind")
def test_replay_sends_what_was_left_behind_once_its_destination_is_there(cli: Cli) -> None:
    nowhere = cli("telemetry", "replay")
    assert nowhere.returncode == 1
    assert "no destination is configured" in nowhere.stderr
    unreachable = cli("telemetry", "replay", "--timeout", "2", AGENTOS_INGEST_URL="http://127.0.0.1:9/ingest")
    assert unreachable.returncode == 1
    assert "error[NOT_DELIVERED]" in unreachable.stderr
    assert "Connection refused" in unreachable.stderr


@pytest.mark.usefixtures("left_behind")
def test_what_waits_can_be_written_to_a_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "waiting.jsonl"
    done = cli("telemetry", "replay", "--to", str(file))
    assert "wrote 3 events" in done.stderr
    assert [json.loads(line)["session_id"] for line in file.read_text().splitlines()] == ["s1"] * 3


def test_a_recorded_session_is_told_again_with_the_same_ids(cli: Cli, tmp_path: Path) -> None:
    cli("run", *script([{"text": "Hello."}]), "--session-id", "told-again", "-m", "hi")
    with Ingest() as ingest:
        for _ in range(2):
            done = cli("telemetry", "replay", "told", AGENTOS_INGEST_URL=ingest.url)
            assert done.returncode == 0, done.stderr
        events = ingest.events
        assert ingest.repeats == len(events) > 3
    assert {event["session_id"] for event in events} == {"told-again"}
    assert events[-1]["kind"] == "session_ended"


def test_a_run_of_the_command_line_is_told(cli: Cli) -> None:
    with Ingest() as ingest:
        cli("run", *script([{"text": "Hello."}]), "-m", "hi", AGENTOS_INGEST_URL=ingest.url)
        kinds = [event["kind"] for event in ingest.events]
    assert kinds[0] == "session_started"
    assert kinds[-1] == "session_ended"


@pytest.mark.usefixtures("left_behind")
def test_entries_that_are_no_events_are_passed_over(cli: Cli, tmp_path: Path) -> None:
    (spool,) = (cli.state / "spool").glob("*.db")
    with closing(sqlite3.connect(spool)) as db, db:
        for position, data in enumerate([b"junk", b"\xff", b'{"kind": 1}', b"[]"], start=100):
            db.execute("INSERT INTO spool_events VALUES (?, 1.0, 4, ?)", (position, data))
    shown = cli("telemetry", "tail", "--no-follow")
    assert (shown.returncode, len(shown.stdout.splitlines())) == (0, 3)
    assert "passed over 4 entries" in shown.stderr
    assert cli("telemetry", "replay", "--to", str(tmp_path / "waiting.jsonl")).returncode == 0
    assert len((tmp_path / "waiting.jsonl").read_text().splitlines()) == 3
