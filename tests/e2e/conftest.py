"""The real Claude CLI against the model simulator: no key, no network, real tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent
from computeragent.testing.models import ModelSimulator, parse_script


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "README.md").write_text("# Widgets\nWidgets are made on Tuesdays.\n")
    return folder


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "claude"
    folder.mkdir()
    return folder


Start = Callable[..., Any]


@pytest.fixture
def start(workdir: Path, config_dir: Path, tmp_path: Path) -> Start:
    """`async with start(script, **agent) as (agent, sim)`: an agent whose model plays the script."""

    @asynccontextmanager
    async def begin(script: str, **agent: Any) -> AsyncIterator[tuple[ComputerAgent, ModelSimulator]]:
        parsed = parse_script(script.replace("WORK", str(workdir)))
        async with ModelSimulator(parsed) as sim:
            # A home of its own: the start-up files of whoever runs the tests are not part of them.
            (tmp_path / "home").mkdir(exist_ok=True)
            envs = sim.claude_environment(config_dir) | {"HOME": str(tmp_path / "home")} | agent.pop("envs", {})
            agent.setdefault("source", workdir)
            async with ComputerAgent(envs=envs, **agent) as made:
                yield made, sim

    return begin
