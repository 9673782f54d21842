"""A person works with an agent at hand: Inspect's `human_cli`, with the terminal of a sandbox played by a script."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from inspect_ai.agent import Agent, AgentState, agent
from inspect_ai.util import sandbox

from computeragent.swe.agents import CentaurOptions

from .conftest import need
from .scenes import Scene, agent_of, only, play, sample, say, shell

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("programs"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*MemoryObject"),  # streams of Inspect itself
]


@agent
def with_person(of: Agent, typed: Sequence[tuple[str, str]], seen: list[str]) -> Agent:
    """A person who logs in with the command that Inspect shows, and types lines after what they wait for."""

    async def person() -> None:
        while not (await sandbox().exec(["python3", "/opt/human_agent/task.py", "status"])).success:
            await asyncio.sleep(0.1)
        command = (await sandbox().connection()).command
        ours, theirs = pty.openpty()
        terminal = subprocess.Popen(
            command, shell=True, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        os.set_blocking(ours, False)
        try:
            for prompt, line in typed:
                await until(ours, prompt, seen)
                os.write(ours, line.encode() + b"\n")
            await asyncio.sleep(3600)
        finally:
            terminal.kill()
            terminal.wait()
            os.close(ours)

    async def execute(state: AgentState) -> AgentState:
        at_work = asyncio.create_task(person())
        try:
            return await asyncio.wait_for(of(state), 100)
        except TimeoutError as error:  # which Inspect would take for its own
            raise AssertionError(f"the person did not submit: {''.join(seen)}") from error
        finally:
            at_work.cancel()
            await asyncio.gather(at_work, return_exceptions=True)

    return execute


async def until(terminal: int, text: str, seen: list[str]) -> None:
    """Read until a text is there that was not there before."""
    new = ""
    while text not in new:
        try:
            data = os.read(terminal, 65536).decode(errors="replace")
        except BlockingIOError:
            await asyncio.sleep(0.05)
            continue
        new += data
        seen.append(data)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("claude_code", "claude -p"),
        ("codex_cli", "codex exec --skip-git-repo-check"),
        ("gemini_cli", "gemini -p"),
    ],
)
def test_a_person_asks_the_agent_and_submits(name: str, line: str, tmp_path: Path):
    need(name)
    scene = Scene([shell(name, "echo tied-$MINE > knot.txt; cat knot.txt"), say("a bowline it is")])
    seen: list[str] = []
    typed = [
        ("$ ", f"{line} 'Please tie a knot' </dev/null; echo after-$((6*7))"),
        ("after-42", "task submit bowline"),
        ("No (n): ", "y"),
    ]
    options = CentaurOptions(record_session=False)
    env = {"MINE": "it's $HOME", "A_KEY": "s3cret-of-mine-1234567"}
    at_hand = agent_of(name, centaur=options, cwd="work", env=env, system_prompt="Mind the otters.")
    solver = with_person(at_hand, typed, seen)
    one = only(play(scene, solver, tmp_path, sample(**{"work/readme.txt": "x"})))
    assert one.error is None, (one.error, "".join(seen))
    assert "Please tie a knot" in scene.text(0)
    assert "Mind the otters." in scene.text(0)
    assert "tied-it's $HOME" in scene.text(1)
    assert not [event for event in one.events if "s3cret-of-mine" in event.model_dump_json()]
    assert "a bowline it is" in "".join(seen)
    assert one.output.completion == "bowline"
    assert one.scores["right"].value == "C"
