"""The real Claude CLI against the model simulator: no key, no network, real tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent
from computeragent.engines.claude_process import RUN_MARK
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


@pytest.fixture
def alive(tmp_path: Path) -> Callable[[], list[int]]:
    """`alive()`: the processes of this test's runs, the CLI and what its tools started, known by their HOME."""
    mark = f"HOME={tmp_path / 'home'}".encode()

    def find() -> list[int]:
        found: list[int] = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                environment = entry.read_bytes().split(b"\0")
                if mark in environment and any(item.startswith(RUN_MARK.encode()) for item in environment):
                    found.append(int(entry.parent.name))
        return sorted(found)

    return find


def init_of(events: Iterable[Any]) -> dict[str, Any]:
    """What the CLI said about itself at the start of a turn."""
    return next(e.payload for e in events if e.kind == "sdk_message" and e.payload.get("subtype") == "init")


def tool_results(call: Any) -> list[tuple[bool, str]]:
    """Every tool result that a request to the model carried: whether it failed, and its text."""
    messages = [m for m in call.json["messages"] if m["role"] == "user" and isinstance(m["content"], list)]
    blocks = [block for message in messages for block in message["content"] if block["type"] == "tool_result"]
    return [(bool(block.get("is_error")), str(block.get("content"))) for block in blocks]
