"""What an engine is asked to do in a conformance test, and how an engine's author makes it do so."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from computeragent.protocol_types import EngineDriver


@dataclass(frozen=True)
class Say:
    """The agent says this text."""

    text: str


@dataclass(frozen=True)
class Write:
    """The agent writes a file with its own tool; `path` is relative to the workspace."""

    path: str
    content: str


@dataclass(frozen=True)
class Wait:
    """The agent takes its time: this many seconds pass before its next move."""

    seconds: float


@dataclass(frozen=True)
class Spend:
    """The agent's run has cost this much. Engines whose every turn costs something need do nothing."""

    usd: float


Move = Say | Write | Wait | Spend


@dataclass(frozen=True)
class Plan:
    """What the agent does in each turn. The n-th user message (from 0) is `message(n)`."""

    turns: tuple[tuple[Move, ...], ...] = ((Say("Hello."),),)

    @staticmethod
    def message(turn: int) -> str:
        """The text of a turn's user message; contains nothing that another turn's does."""
        return f"conformance turn {turn}"


@dataclass(frozen=True)
class Prepared:
    """An engine that will follow a plan, with the options and environment that it needs for that."""

    engine: EngineDriver
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    envs: Mapping[str, str] = field(default_factory=dict[str, str])


class EngineCase(Protocol):
    """An engine under test."""

    def prepare(self, plan: Plan, workspace: Path) -> AbstractAsyncContextManager[Prepared]:
        """An engine that will do what the plan says, for as long as the context lasts."""
        ...
