"""Many sessions at once, each with canaries of its own: none ever meets another's."""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import AsyncExitStack
from typing import Any

import pytest

from computeragent import ComputerAgent
from computeragent.substrates import LocalSubstrate
from computeragent.substrates.bwrap import BwrapSubstrate

pytestmark = pytest.mark.anyio
CANARY = re.compile(r"canary-\d+-[a-z]+")


async def meet(number: int, session_id: str, places: asyncio.Semaphore, runtime: Any) -> list[str]:
    """One session of two turns; what is wrong about the canaries that it met."""
    mine = {f"canary-{number}-{each}" for each in ("file", "made", "first", "second", "later")}
    source = {"type": "inline", "manifest": {"name": "crossing"}, "files": {"own.txt": f"canary-{number}-file"}}
    write = {"tool": "Write", "input": {"file_path": "made.txt", "content": f"canary-{number}-made"}}
    read = [{"tool": "Read", "input": {"file_path": name}} for name in ("own.txt", "made.txt", "later.txt")]
    script = [[{"text": "{message}"}, write], [*read, {"text": "first {user}, then {message}"}]]
    chance = random.Random(number)
    async with (
        places,
        ComputerAgent(
            source=source, engine="scripted", options={"script": script}, runtime=runtime, session_id=session_id
        ) as agent,
    ):
        seen = [event async for event in agent.chat(f"canary-{number}-first")]
        await asyncio.sleep(chance.random() / 20)
        await agent.write_artifact("later.txt", f"canary-{number}-later")
        await asyncio.sleep(chance.random() / 20)
        seen += [event async for event in agent.chat(f"canary-{number}-second")]
        files = sorted(each.path for each in await agent.list_workdir())
        found = set(CANARY.findall(" ".join(f"{event} {getattr(event, 'payload', '')}" for event in seen)))
        strangers = [event for event in seen if event.session_id != session_id]
        files = [] if files == ["agent.yaml", "later.txt", "made.txt", "own.txt"] else files
        return [str(each) for each in (*(found ^ mine), *strangers, *files)]


@pytest.mark.parametrize(
    ("place", "sessions", "at_once"),
    [
        pytest.param("local", 200, 200, id="local"),
        pytest.param("bwrap", 8, 4, id="bwrap"),
        pytest.param("bwrap", 200, 12, id="bwrap-200", marks=pytest.mark.soak),
    ],
)
async def test_no_session_meets_anothers_canaries(place: str, sessions: int, at_once: int) -> None:
    async with AsyncExitStack() as stack:
        runtime = LocalSubstrate() if place == "local" else await stack.enter_async_context(BwrapSubstrate(pool=2))
        places = asyncio.Semaphore(at_once)
        wrong = await asyncio.gather(
            *(meet(each, f"{place}-{sessions}-{each}", places, runtime) for each in range(sessions))
        )
    assert wrong == [[]] * sessions
