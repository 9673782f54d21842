"""What the drop-in costs an agent: µs per message beside the bare upstream stream, memory over many events, import.

The stream is fake, 3,002 messages (a third text, a third tool calls, a third results of 2 kB), so that only the
wrapper is measured: CPU time of the caller's thread, the best of several runs of each case, interleaved.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

os.environ.setdefault("COMPUTERAGENT_HOME", tempfile.mkdtemp())

import claude_agent_sdk as upstream
from claude_agent_sdk import (
    AssistantMessage,
    ResultMessage,
    SystemMessage,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

import computeragent
from computeragent.telemetry import Pipeline

TURNS = 1_000


class Nowhere:
    """A sink that takes everything and does nothing."""

    def __init__(self) -> None:
        self.events = 0

    async def emit(self, event: Any) -> None:
        self.events += 1

    async def flush(self, timeout: float = 5.0) -> None:
        return None

    async def aclose(self) -> None:
        return None


def messages(turns: int = TURNS) -> list[Any]:
    """A run: its messages as upstream yields them."""
    found: list[Any] = [SystemMessage(subtype="init", data={"model": "claude-opus-5-5"})]
    body = "line of output, nothing to see here\n" * 56
    for turn in range(turns):
        found.append(AssistantMessage(content=[TextBlock(text=f"Step {turn}: looking at the file.")], model="m"))
        call = ToolUseBlock(id=f"t{turn}", name="Bash", input={"command": f"cat file{turn}.txt"})
        found.append(AssistantMessage(content=[call], model="m"))
        found.append(UserMessage(content=[ToolResultBlock(tool_use_id=f"t{turn}", content=body)]))
    found.append(
        ResultMessage(
            subtype="success",
            duration_ms=1,
            duration_api_ms=1,
            is_error=False,
            num_turns=turns,
            session_id="s",
            total_cost_usd=0.1,
            usage={"input_tokens": 1, "output_tokens": 1},
            result="done",
        )
    )
    return found


async def drain(stream: AsyncIterator[Any]) -> tuple[float, float]:
    """CPU seconds of this thread, and wall seconds, from the first message to the end of the stream."""
    began, wall = time.thread_time(), time.perf_counter()
    async for _ in stream:
        pass
    return time.thread_time() - began, time.perf_counter() - wall


def measure(case: str, listing: list[Any], pipeline: Pipeline | None) -> tuple[float, float]:
    """One run of a case: µs of CPU and of wall time per message, in the caller's thread."""
    del case

    async def fake(**_: Any) -> AsyncIterator[Any]:
        for message in listing:
            yield message

    original = upstream.query
    upstream.query = fake
    try:
        if pipeline is None:
            cpu, wall = asyncio.run(drain(fake()))
        else:
            cpu, wall = asyncio.run(drain(computeragent.query(prompt="go")))
    finally:
        upstream.query = original
    return cpu / len(listing) * 1e6, wall / len(listing) * 1e6


def hot_path(rounds: int) -> None:
    """The table of costs per message."""
    cases: dict[str, Any] = {
        "upstream alone": None,
        "telemetry, nobody listens": {"sinks": []},
        "no middleware, 1 sink": {"sinks": 1, "middleware": []},
        "redaction, 1 sink": {"sinks": 1},
        "redaction, 2 sinks": {"sinks": 2},
    }
    listing = messages()
    results: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case, settings in cases.items():
            pipeline = None
            if settings is not None:
                given = dict(settings)
                given["sinks"] = [Nowhere() for _ in range(given["sinks"])] if given["sinks"] else []
                pipeline = computeragent.configure(**given, tail_timeout=0)
            results[case].append(measure(case, listing, pipeline))
            if pipeline is not None:
                pipeline.flush_sync(30)
    base = min(cpu for cpu, _ in results["upstream alone"])
    print(f"{'µs per message, caller thread':34}{'CPU':>8}{'above upstream':>16}{'wall':>8}")
    for case, runs in results.items():
        cpu = min(cpu for cpu, _ in runs)
        wall = statistics.median(wall for _, wall in runs)
        print(f"{case:34}{cpu:8.2f}{cpu - base:16.2f}{wall:8.2f}")


def memory(events: int) -> None:
    """Growth of the process over many events."""
    pipeline = computeragent.configure(sinks=[Nowhere()], tail_timeout=0)
    listing = messages(events // 3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    per_run = 30_000
    done = 0
    while done < events:
        measure("", listing[:per_run], pipeline)
        pipeline.flush_sync(60)
        done += per_run
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"memory: {grown:.1f} MB more after {done:,} messages; dropped {pipeline.stats()['dropped']:,}")


def imports(rounds: int) -> None:
    """The time of an import, in fresh interpreters."""
    for module in ("claude_agent_sdk", "computeragent", "computeragent; computeragent.query"):
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            times.append(time.perf_counter() - began)
        print(f"import {module:36}{statistics.median(times) * 1e3:8.0f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    chosen = parser.parse_args()
    hot_path(3 if chosen.quick else 9)
    memory(100_000 if chosen.quick else 1_000_000)
    imports(3 if chosen.quick else 10)
