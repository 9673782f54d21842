"""Parts that many tests need: agents that play a script, engines made of one function, and short look-ups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from computeragent import ComputerAgent
from computeragent.engines.scripted import ScriptedEngine
from computeragent.protocol_types import EngineCapabilities, EngineContext, EngineEvent, LocalSource, SessionRequest
from computeragent.wire.events import Recorded

Play = Callable[[EngineContext], AsyncIterator[EngineEvent]]
BASH = {"tool": "Bash", "input": {"command": "ls"}}
RESULT = EngineEvent("sdk_message", {"type": "result", "result": "done"})


class Puppet:
    """An engine that is one function: an async generator of events over its context."""

    name = "puppet"
    capabilities = EngineCapabilities(
        streaming_input=True, partial_messages=False, permission_callback=True, sessions=False, budget=False
    )

    def __init__(self, play: Play) -> None:
        self.start_session = play


def scripted(folder: Path, script: Any = None, **options: Any) -> ComputerAgent:
    """An agent whose engine plays a script."""
    return ComputerAgent(source=folder, engine=ScriptedEngine(script), **options)


def request(folder: Path, engine: Any = None, **fields: Any) -> SessionRequest:
    """What opens a session on a folder; the scripted engine unless another is given."""
    return SessionRequest(source=LocalSource(path=str(folder)), engine=engine or ScriptedEngine(), **fields)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is so; the test's time limit is the limit."""
    while not condition():
        await asyncio.sleep(0.001)


async def drain(stream: AsyncIterator[Recorded]) -> list[Recorded]:
    """All that a stream has until it ends."""
    return [recorded async for recorded in stream]


def kinds(events: Any) -> list[str]:
    """The kinds of events, recorded or not."""
    return [getattr(item, "event", item).kind for item in events]
