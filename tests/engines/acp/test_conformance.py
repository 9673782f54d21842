"""The engine holds what every engine promises. Its agent is the stand-in, which does what each plan says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from computeragent.engines.acp import AcpEngine
from computeragent.testing.conformance import Plan, Prepared, Probe, Say, Spend, Wait, Write, engine_invariants

from .agents import KEY, as_row, write_plan

NOT_OF_THIS_PROTOCOL = {"a_modified_input_is_what_runs"}  # a changed call is denied: see test_permissions
INVARIANTS = [each for each in engine_invariants() if each.__name__ not in NOT_OF_THIS_PROTOCOL]


class AcpCase:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def prepare(self, plan: Plan, workspace: Path) -> AsyncIterator[Prepared]:
        turns = [[_move(move) for move in turn] for turn in plan.turns]
        envs = {"PLAN": str(write_plan(self._folder, *turns)), "ANTHROPIC_API_KEY": KEY}
        yield Prepared(AcpEngine(), options={"cli": "stand_in"}, envs=envs)


def _move(move: Any) -> dict[str, Any]:
    match move:
        case Say(text):
            return {"say": text}
        case Write(path, content):
            return {"write": [path, content]}
        case Wait(seconds):
            return {"wait": seconds}
        case Spend(usd):
            return {"spend": usd}
    raise AssertionError(move)


@pytest.mark.anyio
@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.__name__)
async def test_acp_engine(
    invariant: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("stand-in")
    as_row(monkeypatch, folder)
    await invariant(Probe(AcpCase(folder), tmp_path))
