"""The real Claude CLI in a sandbox, on this machine and in a jail, with the model simulator as its model."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from computeragent.testing.models import ModelSimulator, parse_script

from .conftest import agent, eventually, serving

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

SCRIPT = """
rules:
  - match: write it
    turns:
      - {tool: Write, input: {file_path: notes.txt, content: "on Tuesdays"}}
      - text: Written.
  - match: and now
    turns: [{text: Still here.}]
"""


@pytest.mark.parametrize("runtime", ["local", "bwrap"])
async def test_claude_works_in_a_sandbox_and_is_brought_back(runtime: str, tmp_path: Path) -> None:
    if runtime == "bwrap" and shutil.which("bwrap") is None:
        pytest.skip("could not import bwrap: it is not installed")
    async with ModelSimulator(parse_script(SCRIPT)) as sim, serving() as server:
        assert runtime in (await server.get("/health"))["runtimes"]
        (tmp_path / "claude").mkdir()
        envs = sim.claude_environment(tmp_path / "claude") | {"HOME": str(tmp_path)}
        if runtime == "bwrap":
            envs = {name: value for name, value in envs.items() if name not in {"HOME", "CLAUDE_CONFIG_DIR"}}
        body = agent(runtime=runtime, envs=envs) | {"harness": "claude-agent-sdk"}
        sandbox = (await server.post("/sandboxes", body, 201))["sandboxId"]
        first = await server.chat(sandbox, "write it")
        assert first[-1]["kind"] == "ca_done", first[-1]
        assert first[-1]["usage"]["outputTokens"] > 0
        path = f"/sandboxes/{sandbox}"
        assert await server.get(f"{path}/artifact", params={"path": "notes.txt"}) == b"on Tuesdays"
        second = await server.chat(sandbox, "and now")
        assert "Still here." in str(second)
        assert "write it" in str(sim.calls[-1].json), "the same conversation"
        snapshot = (await server.post(f"{path}/snapshot"))["snapshotId"]
        restored: Any = await server.post("/sandboxes/restore", {"snapshotId": snapshot}, 201)
        found = await server.get(f"/sandboxes/{restored['sandboxId']}/artifact", params={"path": "notes.txt"})
        assert found == b"on Tuesdays"


SLOW = """
rules:
  - match: wait
    turns:
      - {tool: Bash, input: {command: "sleep 50"}}
      - text: Slept.
  - match: again
    turns: [{text: Back.}]
"""


async def test_a_cli_that_is_killed_in_a_chat_leaves_the_sandbox_alive(tmp_path: Path) -> None:
    async with ModelSimulator(parse_script(SLOW)) as sim, serving() as server:
        (tmp_path / "claude").mkdir()
        envs = sim.claude_environment(tmp_path / "claude") | {"HOME": str(tmp_path)}
        sandbox = (await server.post("/sandboxes", agent(envs=envs) | {"harness": "claude-agent-sdk"}, 201))[
            "sandboxId"
        ]
        chat = asyncio.create_task(server.chat(sandbox, "wait"))

        async def sleeping() -> Any:
            return next(iter(processes(f"HOME={tmp_path}", "sleep")), None)

        await eventually(sleeping)
        for pid in processes(f"HOME={tmp_path}", "claude"):
            os.kill(pid, signal.SIGKILL)
        last = (await chat)[-1]
        assert (last["kind"], last["code"]) == ("ca_error", "ENGINE_FAILED")
        assert (await server.get(f"/sandboxes/{sandbox}"))["state"] == "ready"
        assert "Back." in str(await server.chat(sandbox, "again"))


def processes(mark: str, program: str) -> list[int]:
    """The processes of this test's agent that run a program."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name = (path / "cmdline").read_bytes().split(b"\0")[0].rpartition(b"/")[2].decode()
            if mark.encode() in (path / "environ").read_bytes().split(b"\0") and name == program:
                found.append(int(path.name))
    return found
