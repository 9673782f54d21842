"""What our own layers cost, each beside its comparison in the same run."""

from __future__ import annotations

import asyncio
import gc
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from computeragent.eventlog import EventLog, MemoryEventLog, SqliteEventLog
from computeragent.harness import LocalHarness
from computeragent.protocol_types import (
    EngineCapabilities,
    EngineContext,
    EngineEvent,
    LocalSource,
    SessionRequest,
    UserInput,
)

EVENTS = 5_000
TURNS = 200
SESSIONS = 1_000
PAYLOAD = {
    "type": "stream_event",
    "event": {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "some words here "}},
    "session_id": "0b5e9f5c-51f0-4a57-9f5b-1c4b9a7f1d11",
    "parent_tool_use_id": None,
    "uuid": "7c1b2a3d-51f0-4a57-9f5b-1c4b9a7f1d11",
}


class BurstEngine:
    """Yields `count` messages per turn as fast as it can: what remains is the harness."""

    name = "burst"
    capabilities = EngineCapabilities(
        streaming_input=True, partial_messages=True, permission_callback=False, sessions=False, budget=False
    )

    def __init__(self, count: int) -> None:
        self.count = count

    async def start_session(self, ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        async for _ in ctx.user_message_queue:
            for number in range(self.count):
                yield EngineEvent("sdk_message", PAYLOAD)
                if number % 50 == 49:
                    await asyncio.sleep(0)
            yield EngineEvent("sdk_message", {"type": "result", "subtype": "success"})


def main() -> None:
    imports()
    asyncio.run(overhead())
    asyncio.run(many_sessions())


def imports() -> None:
    print("import time, whole process (goal: ours at most 60 ms above bare python)")
    programs = {
        "python": "pass",
        "computeragent": "import computeragent",
        "claude_agent_sdk": "import claude_agent_sdk",
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(7):
        for name, code in programs.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times[name].append(time.perf_counter() - began)
    base = statistics.median(times["python"])
    for name, found in times.items():
        median = statistics.median(found)
        print(f"  {name:18} {median * 1000:7.1f} ms   {(median - base) * 1000:7.1f} ms above python")


async def overhead() -> None:
    print(
        f"harness over bare engine, one reader, {EVENTS} events / {TURNS} turns (goals: 50 µs per event, 5 ms per turn)"
    )
    bare = statistics.median([await _bare() for _ in range(5)])
    print(f"  {'bare engine':18} {bare / EVENTS * 1e6:7.2f} µs per event")
    with tempfile.TemporaryDirectory() as folder:
        logs: dict[str, Callable[[], EventLog]] = {
            "memory log": MemoryEventLog,
            "sqlite log": lambda: SqliteEventLog(Path(folder, f"{time.time_ns()}.db")),
        }
        for name, make in logs.items():
            per_event = statistics.median([await _events(make()) for _ in range(5)]) - bare
            per_turn = statistics.median([await _turns(make()) for _ in range(3)])
            print(f"  {name:18} {per_event / EVENTS * 1e6:7.2f} µs per event   {per_turn * 1000:6.3f} ms per turn")


async def _bare() -> float:
    async def one() -> AsyncIterator[UserInput]:
        yield UserInput(content="go")

    class Context:
        user_message_queue = one()

    began = time.perf_counter()
    async for _ in BurstEngine(EVENTS).start_session(Context()):  # type: ignore[arg-type]
        pass
    return time.perf_counter() - began


async def _events(log: EventLog) -> float:
    harness = LocalHarness(log=log)
    with tempfile.TemporaryDirectory() as folder:
        session = await harness.open(SessionRequest(source=LocalSource(path=folder), engine=BurstEngine(EVENTS)))
        began = time.perf_counter()
        await session.send(UserInput(content="go"))
        async for recorded in session.events():
            if getattr(recorded.event, "ends_turn", False):
                break
        took = time.perf_counter() - began
        await harness.close()
    return took


async def _turns(log: EventLog) -> float:
    harness = LocalHarness(log=log)
    with tempfile.TemporaryDirectory() as folder:
        session = await harness.open(SessionRequest(source=LocalSource(path=folder), engine=BurstEngine(1)))
        stream = session.events()
        began = time.perf_counter()
        for _ in range(TURNS):
            await session.send(UserInput(content="go"))
            async for recorded in stream:
                if getattr(recorded.event, "ends_turn", False):
                    break
        took = (time.perf_counter() - began) / TURNS
        await harness.close()
    return took


async def many_sessions() -> None:
    print(f"{SESSIONS} concurrent sessions in one process, 3 turns of 20 events each")
    harness = LocalHarness()
    with tempfile.TemporaryDirectory() as folder:
        gc.collect()
        before = _rss()
        began = time.perf_counter()
        request = SessionRequest(source=LocalSource(path=folder), engine=BurstEngine(20))
        sessions = [await harness.open(request) for _ in range(SESSIONS)]
        opened, opened_rss = time.perf_counter() - began, _rss()
        for turn in range(3):
            began = time.perf_counter()
            await asyncio.gather(*(_one_turn(session) for session in sessions))
            took = time.perf_counter() - began
            rate = SESSIONS * 23 / took
            grown = (_rss() - before) / SESSIONS
            print(f"  turn {turn}: {took:5.2f} s, {rate:9,.0f} events/s, {grown:6.1f} kB per session")
        print(f"  opening: {opened / SESSIONS * 1000:.2f} ms each, {(opened_rss - before) / SESSIONS:.1f} kB each")
        await harness.close()


async def _one_turn(session: object) -> None:
    stream = session.events(session.newest)  # type: ignore[attr-defined]
    await session.send(UserInput(content="go"))  # type: ignore[attr-defined]
    async for recorded in stream:
        if getattr(recorded.event, "ends_turn", False):
            break
    stream.close()


def _rss() -> float:
    """Peak resident memory in kB."""
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()
