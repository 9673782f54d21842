"""Sessions recorded for real: the scripted engine through `ComputerAgent` and the harness into the durable log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from computeragent import ComputerAgent
from computeragent.eventlog import SqliteEventLog
from computeragent.policy.recorded import GivenCalls, RecordedCall

Call = tuple[str, dict[str, Any]]


def step(tool: str, **given: Any) -> dict[str, Any]:
    return {"tool": tool, "input": given}


async def record(folder: Path, *calls: dict[str, Any], name: str = "coder", **agent: Any) -> str:
    """Have an agent make these calls in a folder, in one turn; the session's id. They are recorded in `sessions.db`."""
    folder.mkdir(exist_ok=True)
    async with (
        SqliteEventLog() as log,
        ComputerAgent(
            source=folder,
            engine="scripted",
            options={"script": [list(calls)]},
            event_log=log,
            agent_name=name,
            **agent,
        ) as made,
    ):
        events = [event async for event in made.chat("go")]
    return events[0].session_id


def made(*calls: Call, cwd: str | None = "/work/shop", **fields: Any) -> GivenCalls:
    """Calls that were allowed and ran, of one session."""
    return GivenCalls(
        [
            RecordedCall("s1", f"c{at}", tool, given, **({"decision": "allow", "cwd": cwd, "ran": True} | fields))
            for at, (tool, given) in enumerate(calls)
        ]
    )


async def all_of(calls: Any) -> list[RecordedCall]:
    return [call async for call in calls]
