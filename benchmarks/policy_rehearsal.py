"""A rehearsal of recorded calls: read from the session log on disk, put to rules, compared and grouped."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from computeragent.eventlog import SqliteEventLog
from computeragent.policy import RulesPolicyEngine
from computeragent.policy.recorded import LogCalls
from computeragent.policy.rehearsal import rehearse
from computeragent.policy.risk import parse
from computeragent.policy.risk.classes import script_risks
from computeragent.policy.suggest import suggest
from computeragent.wire.events import (
    AgentIdentity,
    Capabilities,
    CaPermissionDecision,
    CaSessionEnded,
    CaSessionStarted,
    SdkMessage,
    raw_payload,
)

CALLS = 10_000
A_SESSION = 100
GOAL = 5.0
WORK = "/nowhere/shop"
_CAN = Capabilities(streaming_input=True, partial_messages=True, permission_callback=True, sessions=True, budget=True)


def rehearsal(calls: int, rules: list[dict[str, Any]]) -> None:
    """Seconds for so many calls, each with the messages around it. The log is written first, which is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sessions.db"
        asyncio.run(write(path, calls))
        parse.cache_clear()
        script_risks.cache_clear()
        began = time.perf_counter()
        found = asyncio.run(rehearse(RulesPolicyEngine(rules=rules), LogCalls(path)))
        seconds = time.perf_counter() - began
        if found.total.calls != calls:
            raise RuntimeError(f"{found.total.calls} of {calls} calls were read")
        began = time.perf_counter()
        suggested = asyncio.run(suggest(LogCalls(path)))
        suggesting = time.perf_counter() - began
    scale = CALLS / calls
    changed = sum(found.total.changes.values())
    print(f"\n{calls:,} recorded calls, {changed:,} of which would fare otherwise: {len(found.groups)} kinds")
    print(f"{f'rehearsed, seconds for {CALLS:,}':<58}{seconds * scale:>9.2f}{'':>9}   ≤ {GOAL:g}")
    print(f"{f'rules suggested ({suggested.rules}), seconds for {CALLS:,}':<58}{suggesting * scale:>9.2f}")


async def write(path: Path, calls: int) -> None:
    """Sessions of a coding agent: of each call what the engine said, what was decided, and the result."""
    chosen = random.Random(11)
    async with SqliteEventLog(path) as log:
        for session in range(calls // A_SESSION):
            name = f"s{session}"
            channel = await log.open(name)
            who = AgentIdentity(name=f"agent{session % 5}", version="1")
            channel.append(CaSessionStarted(session_id=name, engine="e", identity=who, capabilities=_CAN, cwd=WORK))
            for number in range(A_SESSION):
                call_id, (tool, given) = f"c{number}", call(chosen)
                block = {"type": "tool_use", "id": call_id, "name": tool, "input": given}
                channel.append(SdkMessage(session_id=name, raw=message("assistant", block)))
                channel.append(
                    CaPermissionDecision(
                        session_id=name,
                        call_id=call_id,
                        decision="allow",
                        tool_name=tool,
                        input=given,
                        decided_by="policy",
                    )
                )
                result = {"type": "tool_result", "tool_use_id": call_id, "content": "x" * 2_000}
                channel.append(SdkMessage(session_id=name, raw=message("user", result)))
            channel.append(CaSessionEnded(session_id=name, reason="complete"))
            await channel.flush()
            await log.release(channel)


def message(role: str, block: dict[str, Any]) -> Any:
    return raw_payload({"type": role, "message": {"role": role, "content": [block]}})


def call(chosen: random.Random) -> tuple[str, dict[str, Any]]:
    """A call that was hardly ever made before."""
    at = chosen.randrange(100_000)
    path = f"{WORK}/src/p{at % 40}/m{at}.py"
    return chosen.choice(
        [
            ("Read", {"file_path": path}),
            ("Edit", {"file_path": path, "old_string": "a" * 400, "new_string": "b" * 400}),
            ("Grep", {"pattern": f"def x{at}", "path": f"{WORK}/src"}),
            ("Bash", {"command": f"git log -{at} --oneline | head -{at}"}),
            ("Bash", {"command": f"cd src && pytest -q tests/t{at}.py && git commit -am 'change {at}'"}),
            ("Bash", {"command": f"rm -rf build/{at}; npm run build{at % 7}"}),
            ("WebFetch", {"url": f"https://docs.python.org/3/library/{at}.html", "prompt": "x"}),
            ("mcp__server9__search", {"query": f"q{at}", "limit": 20}),
        ]
    )
