"""The end of a process gives delivery the time that its environment says."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

PROGRAM = """
import asyncio
from computeragent import configure, get_pipeline
from computeragent.telemetry import TelemetryEvent

class Slow:
    async def emit(self, event):
        await asyncio.sleep(0.6)
        print("delivered", flush=True)
    async def flush(self, timeout=5.0):
        pass
    async def aclose(self):
        pass

configure(sinks=[Slow()])
asyncio.run(get_pipeline().emit(TelemetryEvent(kind="system_message", session_id="s")))
"""


def test_a_process_waits_as_long_as_it_is_told_to() -> None:
    assert run("20").stdout == "delivered\n"
    assert run("0").stdout == ""


def test_a_time_that_is_none_is_said_and_ignored() -> None:
    done = run("soon")
    assert done.stdout == "delivered\n"
    assert "exit_timeout_ignored" in done.stderr
    assert "soon" in done.stderr


def run(seconds: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM)],
        env={**os.environ, "COMPUTERAGENT_EXIT_TIMEOUT": seconds},
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
