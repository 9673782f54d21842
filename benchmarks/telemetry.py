"""What the drop-in costs an agent: µs per message beside the bare upstream stream, memory over many events, import.

The stream is fake, 3,002 messages (a third text, a third tool calls, a third results of 2 kB), so that only the
wrapper is measured: CPU time of the caller's thread, the best of several runs of each case, interleaved.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
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
from computeragent.telemetry import BatchLimits, Pipeline, Spooled
from computeragent.telemetry.event import decode
from computeragent.telemetry.sinks import AgentOSHttpSink, OtelSink

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


SERVER = """
import http.server, sys
class Taker(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taker)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def taker() -> Iterator[str]:
    """A server that takes whatever is posted, in a process of its own; its URL."""
    run = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert run.stdout is not None
        yield f"http://127.0.0.1:{run.stdout.readline().strip()}"
    finally:
        run.kill()
        run.communicate()


def real_sinks(url: str) -> list[Any]:
    return [OtelSink(endpoint=url), AgentOSHttpSink(url=f"{url}/ingest/events", token="cak_benchmark")]


def stall(rounds: int) -> None:
    """The longest that the caller's event loop stood still while both sinks look into a black hole."""
    hole = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{hole.getsockname()[1]}"
    listing = messages(100)

    async def fake(**_: Any) -> AsyncIterator[Any]:
        for message in listing:
            await asyncio.sleep(0.001)
            yield message

    async def watched() -> float:
        longest = 0.0
        running = True

        async def tick() -> None:
            nonlocal longest
            before = time.perf_counter()
            while running:
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                longest, before = max(longest, now - before), now

        ticking = asyncio.create_task(tick())
        for _ in range(rounds):
            async for _ in computeragent.query(prompt="go"):
                pass
        running = False
        await ticking
        return longest

    original = upstream.query
    upstream.query = fake
    try:
        idle = asyncio.run(watched()) if computeragent.configure(sinks=[]) else 0.0
        computeragent.configure(sinks=real_sinks(url))
        longest = asyncio.run(watched())
    finally:
        upstream.query = original
        hole.close()
    print(
        f"longest stall of the caller's loop, black hole: {longest * 1e3:.1f} ms (nobody listens: {idle * 1e3:.1f} ms)"
    )


def hot_path(rounds: int, url: str) -> None:
    """The table of costs per message."""
    cases: dict[str, Any] = {
        "upstream alone": None,
        "telemetry, nobody listens": {"sinks": []},
        "no middleware, 1 sink": {"sinks": 1, "middleware": []},
        "redaction, 1 sink": {"sinks": 1},
        "redaction, 2 sinks": {"sinks": 2},
        "redaction, OTel and AgentOS": {"sinks": "real"},
    }
    listing = messages()
    results: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case, settings in cases.items():
            pipeline = None
            if settings is not None:
                given = dict(settings)
                given["sinks"] = real_sinks(url) if given["sinks"] == "real" else [Nowhere()] * (given["sinks"] or 0)
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


class Clock:
    """A spooled sink that notes how long each event took from the tap to the disk, in seconds."""

    destination = "clock"
    limits = BatchLimits()

    def __init__(self) -> None:
        self.waits: list[float] = []

    def open(self) -> None:
        return None

    def deliver(self, batch: Sequence[Spooled]) -> None:
        self.waits += [one.at - decode(one.data).timestamp.timestamp() for one in batch]

    def close(self) -> None:
        return None


def commit(rounds: int) -> None:
    """How soon what was told is on the disk, for a stream of a message every few milliseconds."""
    clock = Clock()
    pipeline = computeragent.configure(sinks=[clock])
    listing = messages(100 * rounds)

    async def fake(**_: Any) -> AsyncIterator[Any]:
        for message in listing:
            await asyncio.sleep(0.003)
            yield message

    original = upstream.query
    upstream.query = fake
    try:
        asyncio.run(drain(computeragent.query(prompt="go")))
    finally:
        upstream.query = original
    pipeline.flush_sync(30)
    waits = sorted(clock.waits)
    print(
        f"from the tap to the disk: median {statistics.median(waits) * 1e3:.1f} ms,"
        f" 99 % within {waits[len(waits) * 99 // 100] * 1e3:.1f} ms, all within {waits[-1] * 1e3:.1f} ms"
    )


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
    with taker() as url:
        hot_path(3 if chosen.quick else 9, url)
    stall(5)
    commit(1 if chosen.quick else 10)
    memory(100_000 if chosen.quick else 1_000_000)
    imports(3 if chosen.quick else 10)
