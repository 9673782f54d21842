"""The engine invariants, held by every engine that ships."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from computeragent.engines.claude_agent_sdk import ClaudeAgentEngine
from computeragent.engines.computer_use import ComputerUseEngine
from computeragent.engines.scripted import ScriptedEngine
from computeragent.models.scripted import ScriptedModel
from computeragent.testing.conformance import (
    ConformanceError,
    Plan,
    Prepared,
    Probe,
    Say,
    Spend,
    Wait,
    Write,
    engine_invariants,
    run_engine_conformance,
)
from computeragent.testing.models import ModelSimulator, Reply, Rule, Script, ToolUse

INVARIANTS = engine_invariants()


class ScriptedCase:
    @asynccontextmanager
    async def prepare(self, plan: Plan, workspace: Path) -> AsyncIterator[Prepared]:
        yield Prepared(ScriptedEngine([[self._step(move) for move in turn] for turn in plan.turns]))

    def _step(self, move: Any) -> dict[str, Any]:
        match move:
            case Say(text):
                return {"text": text}
            case Write(path, content):
                return {"tool": "Write", "input": {"file_path": path, "content": content}}
            case Wait(seconds):
                return {"delay": seconds}
            case Spend(usd):
                return {"usage": {"cost_usd": usd, "cost_semantic": "cumulative"}}
        raise AssertionError(move)


class ClaudeCase:
    """The real CLI; its model, the simulator, follows the plan."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def prepare(self, plan: Plan, workspace: Path) -> AsyncIterator[Prepared]:
        rules = [
            Rule(match=f"^{Plan.message(n)}", turns=self._replies(turn, workspace)) for n, turn in enumerate(plan.turns)
        ]
        async with ModelSimulator(Script(rules=tuple(rules))) as sim:
            envs = sim.claude_environment(self._folder) | {"HOME": str(self._folder)}
            yield Prepared(ClaudeAgentEngine(), envs=envs)

    def _replies(self, turn: tuple[Any, ...], workspace: Path) -> tuple[Reply, ...]:
        replies: list[Reply] = []
        delay = 0.0
        for move in turn:
            match move:
                case Say(text):
                    replies.append(Reply(text=text, delay=delay))
                case Write(path, content):
                    call = ToolUse(name="Write", input={"file_path": str(workspace / path), "content": content})
                    replies.append(Reply(tools=(call,), delay=delay))
                case Wait(seconds):
                    delay = seconds
                case Spend():
                    continue
        return tuple(replies)


class ComputerUseCase:
    """A scripted model that uses no computer, but a function that writes."""

    @asynccontextmanager
    async def prepare(self, plan: Plan, workspace: Path) -> AsyncIterator[Prepared]:
        def write_file(path: str, content: str) -> str:
            """Write a file."""
            (workspace / path).write_text(content, "utf-8")
            return f"wrote {path}"

        rules = [Rule(match=f"^{Plan.message(n)}", turns=self._replies(turn)) for n, turn in enumerate(plan.turns)]
        model = ScriptedModel(Script(rules=tuple(rules)))
        options = {"model": "scripted/plan", "tools": [write_file], "price": {"input": 3.0, "output": 15.0}}
        yield Prepared(ComputerUseEngine(model=model), options=options)

    def _replies(self, turn: tuple[Any, ...]) -> tuple[Reply, ...]:
        replies: list[Reply] = []
        delay = 0.0
        for move in turn:
            match move:
                case Say(text):
                    replies.append(Reply(text=text, delay=delay))
                case Write(path, content):
                    call = ToolUse(name="write_file", input={"path": path, "content": content})
                    replies.append(Reply(tools=(call,), delay=delay))
                case Wait(seconds):
                    delay = seconds
                case Spend():
                    continue
        return tuple(replies)


@pytest.mark.anyio
@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.__name__)
async def test_computer_use_engine(invariant: Any, tmp_path: Path) -> None:
    await invariant(Probe(ComputerUseCase(), tmp_path))


@pytest.mark.anyio
@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.__name__)
async def test_scripted_engine(invariant: Any, tmp_path: Path) -> None:
    await invariant(Probe(ScriptedCase(), tmp_path))


@pytest.mark.e2e
@pytest.mark.anyio
@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.__name__)
async def test_claude_engine(invariant: Any, tmp_path: Path) -> None:
    (tmp_path / "claude").mkdir()
    (tmp_path / "work").mkdir()
    await invariant(Probe(ClaudeCase(tmp_path / "claude"), tmp_path / "work"))


@pytest.mark.anyio
async def test_an_engine_that_lies_is_found_out() -> None:
    class Liar(ScriptedCase):
        def _step(self, move: Any) -> dict[str, Any]:
            return {"text": "I did it."}

    with pytest.raises(ConformanceError, match="an_allowed_call_runs: the file was not written"):
        await run_engine_conformance(Liar(), limit=1.0)


def test_there_are_at_least_thirty_invariants() -> None:
    assert len(INVARIANTS) >= 30
    assert len({invariant.__name__ for invariant in INVARIANTS}) == len(INVARIANTS)
