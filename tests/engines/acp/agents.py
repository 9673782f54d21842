"""Runs the engine with an agent: the stand-in as a row of the table, or by its command."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from computeragent.clis import CLIS, AcpForm, AcpTerms, Cli, cli
from computeragent.engines.acp import AcpEngine, launch
from computeragent.eventlog import MemoryEventLog
from computeragent.harness import LocalHarness, LocalSession
from computeragent.protocol_types import LocalSource, SessionRequest

STAND_IN = Path(__file__).parent / "stand_in.py"
KEY = "sk-a-secret-of-the-run"
COMMAND = [sys.executable, "-I", "-S", str(STAND_IN)]


def write_plan(folder: Path, *turns: list[dict[str, Any]], **more: Any) -> Path:
    """A plan of the stand-in's."""
    path = folder / f"plan-{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps({"turns": list(turns), **more}))
    return path


def as_row(monkeypatch: pytest.MonkeyPatch, bin_folder: Path, **form: Any) -> None:
    """Put the stand-in into the table of agents, as `stand_in`."""
    program = bin_folder / "stand-in"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STAND_IN} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_folder), prepend=":")
    terms = {"asks": AcpTerms(), "closed": AcpTerms(), **form}
    claude = CLIS["claude_code"]
    row = Cli(
        name="stand_in",
        title="Stand-in",
        program="stand-in",
        package=claude.package,
        dialect="anthropic",
        model="claude-sonnet-4-5",
        shell_tool="Bash",
        arguments=lambda _run: (),
        environment=lambda run: {"HOME": run.home, "ANTHROPIC_API_KEY": run.api_key},
        files=lambda _run: {},
        acp=AcpForm(**terms),
    )
    monkeypatch.setattr(launch, "cli", lambda name: row if name == "stand_in" else cli(name))


@asynccontextmanager
async def session_of(
    workspace: Path, plan: Path, *, options: dict[str, Any] | None = None, **request: Any
) -> AsyncIterator[LocalSession]:
    """A live session of the engine. By default the stand-in is run by its command."""
    harness = LocalHarness(log=MemoryEventLog())
    session = await harness.open(
        SessionRequest(
            source=LocalSource(path=str(workspace)),
            engine=AcpEngine(),
            options={"command": COMMAND, **(options or {})} if "cli" not in (options or {}) else options or {},
            envs={"PLAN": str(plan), "HOME": str(workspace), "ANTHROPIC_API_KEY": KEY, **request.pop("envs", {})},
            **request,
        )
    )
    try:
        yield session
    finally:
        await harness.close()
