"""What is kept of an agent of ours as long as its sample lives, and what a scorer can read of it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import finalize

from inspect_ai.util import StoreModel, store
from pydantic import Field

from computeragent.eventlog import MemoryEventLog
from computeragent.ids import new_id
from computeragent.settings import home
from computeragent.stores.memory import MemorySessionStore

_KEPT = "__computeragent__"


class ComputerAgentRun(StoreModel):
    """What a `computeragent_agent` did in a sample: ``store_as(ComputerAgentRun)`` in a scorer.

    `denied` has the calls that were denied: ``tool``, ``reason``, and of a policy ``rule`` and ``engine``.
    `cost_usd` is None where the engine does not tell.
    """

    session_id: str = ""
    engine: str = ""
    turns: int = 0
    denied: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None


@dataclass
class SampleMemory:
    """One agent's session in one sample: its id, its transcript and events, a private folder; gone with the sample.

    `cost_usd` is what its earlier runs have cost, `unseen` their tokens and dollars where Inspect does not see them.
    """

    session_id: str
    root: Path
    transcript: MemorySessionStore = field(default_factory=MemorySessionStore)
    log: MemoryEventLog = field(default_factory=MemoryEventLog)
    filled: bool = False
    cost_usd: float = 0.0
    unseen: tuple[int, float] = (0, 0.0)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def memory_of(agent: object) -> SampleMemory:
    """The memory of an agent, by whatever stands for it, in the sample that runs now."""
    sample = store()
    known: dict[object, SampleMemory] | None = getattr(sample, _KEPT, None)
    if known is None:
        # With the store itself, not with the agent: tasks of a session hold on to the store of the sample they ran in.
        known = {}
        setattr(sample, _KEPT, known)
    if agent not in known:
        root = Path(tempfile.mkdtemp(prefix="computeragent-"))
        known[agent] = SampleMemory(new_id("session"), root)
        finalize(sample, _forget, root, home("work") / known[agent].session_id)
    return known[agent]


def unseen() -> tuple[int, float]:
    """Tokens and dollars of earlier runs in this sample, of any agent, that Inspect does not see."""
    known: dict[object, SampleMemory] = getattr(store(), _KEPT, {})
    return sum(each.unseen[0] for each in known.values()), sum(each.unseen[1] for each in known.values())


def _forget(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
