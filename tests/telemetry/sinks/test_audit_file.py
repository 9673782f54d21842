"""AuditFileSink: what is decided is in the file, whatever happens to the disk or the process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import computeragent
from computeragent import configure
from computeragent.errors import AuditFileError, ValidationError
from computeragent.settings import home
from computeragent.telemetry import Pipeline, TelemetryEvent
from computeragent.telemetry.audit import audit_pipeline
from computeragent.telemetry.chain.key import known_key
from computeragent.telemetry.chain.verify import verify
from computeragent.telemetry.sinks import AuditFileSink

from .ingest import wait_until

pytestmark = pytest.mark.anyio


def decision(number: int = 0, **payload: Any) -> TelemetryEvent:
    payload = {"number": number, "tool_name": "Bash", "decision": "allow", **payload}
    return TelemetryEvent(kind="policy_decision", session_id="s", payload=payload)


def told(path: Path) -> list[Any]:
    """The events of an audit file, which is intact."""
    report = verify(path, known_key())
    assert (report.findings, report.unchecked) == ([], 0)
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [row["event"] for row in rows if "event" in row]


async def test_what_a_pipeline_tells_is_in_the_file_redacted(tmp_path: Path) -> None:
    sink = AuditFileSink(tmp_path / "deep" / "audit.jsonl")
    pipeline = Pipeline(sinks=[sink])
    event = decision(tool_input={"command": "mail ada@example.com"})
    await pipeline.emit(event)
    assert await pipeline.flush(10)
    (row,) = told(sink.path)
    assert row["event_id"] == event.event_id
    assert row["payload"]["tool_input"] == {"command": "mail [REDACTED:EMAIL]"}
    await pipeline.aclose()


async def test_who_it_was_is_told_as_it_is_where_an_audit_asks(tmp_path: Path) -> None:
    sink = AuditFileSink(tmp_path / "audit.jsonl")
    pipeline = audit_pipeline([sink])
    assert pipeline is not None
    who = {"principal_id": "ada@example.com", "decided_by": "user-bob@example.com"}
    await pipeline.emit(decision(tool_input={"to": "ada@example.com"}, **who))
    await pipeline.aclose(10)
    (row,) = told(sink.path)
    assert who.items() <= row["payload"].items()
    assert row["payload"]["tool_input"] == {"to": "[REDACTED:EMAIL]"}


@pytest.mark.parametrize(
    ("kinds", "kept"),
    [
        pytest.param({}, ["session_started", "policy_decision", "system_message", "session_ended"], id="by default"),
        pytest.param({"kinds": ["tool_use"]}, ["tool_use", "system_message"], id="those that are named"),
        pytest.param(
            {"kinds": None},
            ["session_started", "tool_use", "policy_decision", "system_message", "system_message", "session_ended"],
            id="all",
        ),
    ],
)
def test_the_kinds_that_are_kept(kinds: Any, kept: list[str], tmp_path: Path) -> None:
    sink = AuditFileSink(tmp_path / "audit.jsonl", **kinds)
    events: list[tuple[Any, dict[str, Any]]] = [
        ("session_started", {}),
        ("tool_use", {}),
        ("policy_decision", {}),
        ("system_message", {"subtype": "init"}),
        ("system_message", {"subtype": "telemetry_loss", "data": {"dropped": 3}}),
        ("session_ended", {}),
    ]
    for kind, payload in events:
        sink.emit(TelemetryEvent(kind=kind, session_id="s", payload=payload))
    assert [row["kind"] for row in told(sink.path)] == kept


async def test_what_the_disk_does_not_take_is_kept_counted_and_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = AuditFileSink(tmp_path / "audit.jsonl")
    sink.path.mkdir()  # no file can be there
    pipeline = Pipeline(sinks=[sink])
    await pipeline.emit(decision(1))
    assert not await pipeline.flush(5)
    (state,) = pipeline.stats()["sinks"].values()
    assert (state["delivered"], state["waiting"], state["failures"] > 0) == (0, 1, True)
    assert sink.failing is not None
    assert "sink_failing" in caplog.text
    sink.path.rmdir()
    await pipeline.emit(decision(2))
    assert await pipeline.flush(10)
    assert sink.failing is None
    assert [row["payload"]["number"] for row in told(sink.path)] == [1, 2]
    await pipeline.aclose()


def test_what_a_killed_process_had_spooled_the_next_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.mkdir()  # so that nothing can be written before it is killed
    code = f"""
    import asyncio, os, time
    from computeragent.telemetry import Pipeline, TelemetryEvent
    from computeragent.telemetry.sinks import AuditFileSink

    async def main():
        pipeline = Pipeline(sinks=[AuditFileSink({str(path)!r})])
        for number in range(10):
            payload = {{"number": number}}
            await pipeline.emit(TelemetryEvent(kind="policy_decision", session_id="s", payload=payload))
        assert await pipeline.settle(10)
        os.write(1, b"safe")
        time.sleep(60)

    asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.read(4) == b"safe"
        run.send_signal(signal.SIGKILL)
    path.rmdir()
    sink = AuditFileSink(path)
    pipeline = Pipeline(sinks=[sink])
    pipeline.adopt()
    wait_until(lambda: path.exists() and len(path.read_bytes().splitlines()) == 11)
    assert [row["payload"]["number"] for row in told(path)] == list(range(10))
    pipeline.close()


async def test_it_is_had_by_name_in_the_state_folder() -> None:
    pipeline = configure(sinks=["audit"])
    try:
        await pipeline.emit(decision())
        assert await pipeline.flush(10)
        assert len(told(home() / "audit.jsonl")) == 1
    finally:
        pipeline.close()
        configure(sinks=[])


def test_its_key_is_made_once_and_private(tmp_path: Path) -> None:
    for name in ("one.jsonl", "two.jsonl"):
        AuditFileSink(tmp_path / name).emit(decision())
    key = home("keys") / "audit.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32
    began = [json.loads(path.read_bytes().splitlines()[0])["audit"] for path in sorted(tmp_path.glob("*.jsonl"))]
    assert [each["key"] for each in began] == [began[0]["key"]] * 2
    assert began[0]["chain"] != began[1]["chain"]


def test_a_key_that_is_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="too short"):
        AuditFileSink(tmp_path / "audit.jsonl", key=b"short")
    AuditFileSink(tmp_path / "audit.jsonl", key=b"0123456789abcdef").emit(decision())
    with pytest.raises(AuditFileError, match="another key"):
        AuditFileSink(tmp_path / "audit.jsonl").emit(decision())


def test_it_is_an_audit_sink_of_an_agent(tmp_path: Path) -> None:
    sink: computeragent.AuditSink = AuditFileSink(tmp_path / "audit.jsonl")
    assert repr(sink) == f"AuditFileSink({str(tmp_path / 'audit.jsonl')!r})"
