"""The long ones: memory over many turns, and a reader that is cut off at every single event."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from pathlib import Path

from run import BurstEngine

from computeragent.eventlog import EventLog, MemoryEventLog, SqliteEventLog
from computeragent.harness import LocalHarness
from computeragent.protocol_types import LocalSource, SessionRequest, UserInput

SESSIONS = 1_000
TURNS = 60


def main() -> None:
    asyncio.run(flat_memory())
    for name, log in (("memory", MemoryEventLog()), ("sqlite", SqliteEventLog(Path(tempfile.mkdtemp(), "s.db")))):
        asyncio.run(cut_everywhere(name, log))


async def flat_memory() -> None:
    print(f"{SESSIONS} sessions, {TURNS} turns of 50 events each: resident memory must level off")
    harness = LocalHarness()
    with tempfile.TemporaryDirectory() as folder:
        request = SessionRequest(source=LocalSource(path=folder), engine=BurstEngine(50))
        sessions = [await harness.open(request) for _ in range(SESSIONS)]
        for turn in range(TURNS):
            began = time.perf_counter()
            await asyncio.gather(*(one_turn(session) for session in sessions))
            if turn % 6 == 5:
                gc.collect()
                print(f"  turn {turn + 1:3}: {time.perf_counter() - began:5.2f} s, {resident() / 1024:7.1f} MB")
        await harness.close()


async def one_turn(session: object) -> None:
    stream = session.events(session.newest)  # type: ignore[attr-defined]
    await session.send(UserInput(content="go"))  # type: ignore[attr-defined]
    async for recorded in stream:
        if getattr(recorded.event, "ends_turn", False):
            break
    stream.close()


async def cut_everywhere(name: str, log: EventLog) -> None:
    """Read a run of 500 events to its end, cutting the reader off after each number of events."""
    harness = LocalHarness(log=log)
    with tempfile.TemporaryDirectory() as folder:
        session = await harness.open(SessionRequest(source=LocalSource(path=folder), engine=BurstEngine(500)))
        await session.send(UserInput(content="go"))
        await session.end_input()
        whole = [recorded.data async for recorded in session.events()]
        wrong = 0
        for cut in range(1, len(whole)):
            seen: list[bytes] = []
            last = -1
            while len(seen) < len(whole):
                stream = session.events(last)
                for _ in range(cut):
                    recorded = await anext(stream, None)
                    if recorded is None:
                        break
                    seen.append(recorded.data)
                    last = recorded.id
                stream.close()
            wrong += seen != whole
        print(f"{name} log: {len(whole) - 1} ways to cut a run of {len(whole)} events, {wrong} came out different")
        await harness.close()


def resident() -> float:
    """Resident memory in kB."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    return 0.0


if __name__ == "__main__":
    main()
