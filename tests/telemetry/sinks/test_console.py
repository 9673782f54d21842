"""ConsoleSink: one readable line per event, on standard error, that no payload can turn into something else."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from computeragent.telemetry import Pipeline, TelemetryEvent
from computeragent.telemetry.sinks import ConsoleSink

pytestmark = pytest.mark.anyio
AT = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "100")


def event(kind: Any, payload: Mapping[str, Any], session: str = "ca_0123456789abcdef") -> TelemetryEvent:
    return TelemetryEvent(kind=kind, session_id=session, timestamp=AT, payload=dict(payload))


async def printed(*events: TelemetryEvent, stream: io.StringIO | None = None, verbose: bool = False) -> str:
    stream = stream if stream is not None else io.StringIO()
    sink = ConsoleSink(stream, verbose=verbose)
    for each in events:
        await sink.emit(each)
    await sink.flush()
    await sink.aclose()
    return stream.getvalue()


TOLD = [
    ("session_started", {"model": "claude-x", "prompt": "do it"}, "claude-x  do it"),
    ("session_started", {"model": None, "prompt": ""}, ""),
    ("session_started", {"model": "m", "prompt": [{"type": "text"}]}, 'm  [{"type":"text"}]'),
    ("turn_started", {"prompt": "do it"}, "do it"),
    ("user_message", {"text": "two\nlines\tand more"}, "two lines and more"),
    ("assistant_message", {"text": "done"}, "done"),
    ("assistant_message", {"thinking": "hm"}, "(thinks)"),
    ("assistant_message", {}, "(calls tools)"),
    ("system_message", {"subtype": "init"}, "init"),
    ("tool_use", {"tool_name": "Bash", "tool_input": {"command": "ls"}}, 'Bash  {"command":"ls"}'),
    ("tool_result", {"content": "no such file", "is_error": True}, "failed: no such file"),
    ("usage_snapshot", {"usage": {"input_tokens": 3, "output_tokens": 2}, "cost_usd": 0.5}, "$0.5000  3 in, 2 out"),
    ("usage_snapshot", {}, "cost unknown  0 in, 0 out"),
    ("session_ended", {"subtype": "error", "error_message": "broken"}, "error  broken"),
    ("session_ended", {"subtype": "success"}, "success"),
    ("policy_decision", {"decision": "deny", "tool_name": "Bash", "reason": "no"}, "deny  Bash  no"),
    ("response_first_token", {"time_to_first_token_ms": 12}, "12"),
    ("of_tomorrow", {"a": 1}, '{"a":1}'),
]


@pytest.mark.parametrize(("kind", "payload", "told"), TOLD)
async def test_a_line_says_when_who_what(kind: str, payload: dict[str, Any], told: str) -> None:
    clock = AT.astimezone().strftime("%H:%M:%S")
    assert await printed(event(kind, payload)) == f"{clock}.250 abcdef {kind:18} {told}".rstrip() + "\n"


async def test_long_lines_are_cut_to_the_terminal_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    long = event("user_message", {"text": "x" * 500})
    line = (await printed(long, stream=Terminal())).rstrip("\n")
    assert len(line) == 100
    assert line.endswith("x…")
    assert len((await printed(long)).rstrip("\n")) == 160
    assert "x" * 500 in await printed(long, verbose=True)
    monkeypatch.setenv("COLUMNS", "10")
    assert (await printed(long, stream=Terminal())).count("\n") == 1


async def test_colour_is_for_terminals_and_only_if_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    told = event("tool_result", {"content": "x"})
    failed = event("tool_result", {"content": "x", "is_error": True})
    assert "\033[33m" in await printed(told, stream=Terminal())
    assert "\033[31m" in await printed(failed, stream=Terminal())
    assert "\033" not in await printed(told)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in await printed(told, stream=Terminal())


async def test_no_text_can_move_the_cursor_or_fake_a_line() -> None:
    nasty = "\x1b[2J\r\x08\x7f\x9b31m\u202e\u2028\u2066\x00\n\x0b\x0cend"
    line = await printed(
        event("user_message", {"text": nasty}),
        event(f"odd{nasty}", {"text": nasty}, session=nasty),
        event("tool_use", {"tool_name": nasty, "tool_input": nasty}),
        stream=Terminal(),
        verbose=True,
    )
    plain = re.sub(r"\x1b\[\d+m", "", line)  # our own colours
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", plain)
    assert plain.count("\n") == 3


ODD: list[dict[str, Any]] = [
    {"usage": [1, 2], "cost_usd": "much"},
    {"usage": "none", "cost_usd": []},
    {"cost_usd": float("nan")},
    {"text": {"not": "text"}, "prompt": {}, "model": [], "decision": {"a": 1}, "subtype": ["x"]},
    {"text": "\ud800 lone", "prompt": "\ud800", "content": object(), "tool_input": {1: {2}}},
]


@pytest.mark.parametrize("payload", ODD)
async def test_odd_payloads_are_printed_somehow_and_silence_nothing(payload: dict[str, Any]) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    sink = ConsoleSink(stream)
    kinds = sorted({kind for kind, _, _ in TOLD})
    for kind in kinds:
        await sink.emit(event(kind, payload))
    await sink.emit(event("user_message", {"text": "still here"}))
    lines = raw.getvalue().decode().splitlines()
    assert len(lines) == len(kinds) + 1
    assert lines[-1].endswith("still here")


async def test_a_stream_that_cannot_encode_a_character_gets_its_escape() -> None:
    raw = io.BytesIO()
    sink = ConsoleSink(io.TextIOWrapper(raw, encoding="ascii"))
    await sink.emit(event("user_message", {"text": "café"}))
    await sink.emit(event("user_message", {"text": "plain"}))
    first, second = raw.getvalue().decode("ascii").splitlines()
    assert first.endswith(r"caf\xe9")
    assert second.endswith("plain")


async def test_a_stream_that_is_closed_or_missing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    sink = ConsoleSink(stream)
    stream.close()
    await sink.emit(event("user_message", {"text": "x"}))
    monkeypatch.setattr(sys, "stderr", None)
    pipeline = Pipeline(middleware=[], sinks=[ConsoleSink()])
    await pipeline.emit(event("user_message", {"text": "x"}))
    assert await pipeline.flush()
    assert pipeline.stats()["sinks"]["ConsoleSink"]["failures"] == 0
    await pipeline.aclose()


PROGRAM = textwrap.dedent("""
    import asyncio, sys
    from computeragent.telemetry import Pipeline, TelemetryEvent
    from computeragent.telemetry.sinks import ConsoleSink
    async def main():
        pipeline = Pipeline(sinks=[ConsoleSink()])
        for number in range(2_000):
            await pipeline.emit(TelemetryEvent(kind="user_message", session_id="s", payload={"text": "hello"}))
        assert await pipeline.flush(20)
        failures = pipeline.stats()["sinks"]["ConsoleSink"]["failures"]
        await pipeline.aclose()
        return failures
    failures = asyncio.run(main())
    open(sys.argv[1], "w").write(str(failures))
""")


def test_standard_output_stays_the_programs_own(tmp_path: Any) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "failures")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert run.stdout == ""
    assert run.stderr.count("hello") == 2_000


def test_a_reader_that_is_gone_stops_nothing(tmp_path: Any) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "failures")]
        subprocess.run(command, stderr=writing, timeout=60, check=False)
    finally:
        os.close(writing)
    assert (tmp_path / "failures").read_text() == "0"
