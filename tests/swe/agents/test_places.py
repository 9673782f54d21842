"""Where agents run: `local` with private homes, users of a namespace, and Inspect's command line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from inspect_ai.util import sandboxenv
from inspect_ai.util._sandbox.local import LocalSandboxEnvironment

from computeragent.artifacts import Artifact
from computeragent.settings import home
from computeragent.swe.agents import installing

from .conftest import need
from .scenes import CLIS, WITH_TOOLS, Scene, agent_of, call, done, only, play, sample, say, secret_word, shell

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("programs"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*MemoryObject"),  # streams of Inspect itself
]


@pytest.fixture
def real_home(programs, tmp_path: Path, monkeypatch) -> Path:
    """A HOME that must stay as it is."""
    monkeypatch.setenv("COMPUTERAGENT_HOME", str(home()))
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key-of-the-host")
    return folder


# The matrix has all of them in `local`; that the home is left alone is shown for two of them, in the soak for all.
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in {"claude_code", "codex_cli"} else pytest.mark.soak) for name in CLIS],
)
def test_local_gets_a_tool_of_the_host_and_leaves_the_home_alone(name: str, real_home: Path, tmp_path: Path):
    need(name)
    more = [call("secret_word", key="7")] if name in WITH_TOOLS else []
    scene = Scene([shell(name, "env; echo simulated-proof > proof.txt"), *more, done(name, "bowline")])
    tools = {"bridged_tools": [secret_word()]} if more else {}
    one = only(play(scene, agent_of(name, **tools), tmp_path / "logs", place="local"))
    assert one.error is None, one.error
    assert one.scores["right"].value == "C"
    assert "proof.txt" in one.scores["right"].metadata["files"]
    assert set(one.scores["right"].metadata["files"]) <= {"proof.txt"}
    assert "a-key-of-the-host" not in scene.text(1)
    assert not more or "otter-7" in scene.text(-1)
    assert [path.name for path in real_home.iterdir() if path.name not in {".cache", ".local"}] == []


def test_four_samples_at_once_are_apart(real_home: Path, tmp_path: Path):
    need("claude_code")
    asked: list[str] = []

    class Each(Scene):
        async def __call__(self, messages, tools, *_):
            knot = next(word for message in messages for word in message.text.split() if word.startswith("knot-"))
            asked.append(knot)
            inner = Scene([shell("claude_code", f"echo {knot} > {knot}.txt"), say(f"bowline {knot}")])
            inner.asked = [([], [])] * sum(message.role == "assistant" for message in messages)
            return await inner(messages, tools)

    given = [sample(f"Please tie knot-{number} now") for number in range(4)]
    log = play(Each([]), agent_of("claude_code"), tmp_path / "logs", *given, place="local", max_samples=4)
    assert log.status == "success"
    for number, one in enumerate(sorted(log.samples, key=lambda each: each.id)):
        assert one.error is None, one.error
        assert one.output.completion == f"bowline knot-{number}"
        assert one.scores["right"].metadata["files"] == [f"knot-{number}.txt"]
    assert len(asked) == 8


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_runs_it_in_a_namespace(tmp_path: Path):
    need("claude_code")
    scene = Scene([shell("claude_code", "id -un; echo home=$HOME; echo x > /tmp/of-nobody.txt"), say("bowline")])
    one = only(play(scene, agent_of("claude_code", user="nobody"), tmp_path, place="namespace"))
    assert one.error is None, one.error
    assert "nobody\nhome=/tmp/home-" in scene.text(-1)
    error = only(play(Scene([]), agent_of("claude_code", user="nobody"), tmp_path, place="bwrap")).error
    assert error is not None
    assert "nobody" in error.message


@sandboxenv(name="of-others")
class OfOthers(LocalSandboxEnvironment):
    """A sandbox that does not see the cache of programs, as far as anybody knows."""

    @classmethod
    async def sample_init(cls, task_name, config, metadata):
        return {"default": cls()}


@pytest.mark.soak  # Inspect's own bridge takes seconds for each call, and programs are copied
@pytest.mark.parametrize("name", ["claude_code", "mini_swe_agent"])
def test_into_a_sandbox_of_others_the_program_is_carried(name: str, tmp_path: Path, monkeypatch):
    need(name)
    monkeypatch.setattr(installing, "INSIDE", str(tmp_path / "programs"))
    scene = Scene([shell(name, "echo simulated-proof > proof.txt"), done(name, "bowline")])
    env = {"HOME": str(tmp_path / "home")}
    one = only(play(scene, agent_of(name, env=env), tmp_path / "logs", place="of-others"))
    assert one.error is None, one.error
    assert one.scores["right"].value == "C"
    (program,) = (tmp_path / "programs" / name).iterdir()
    assert (program / ".ready").exists()
    assert not (program / "program.tar").exists()


class Untouched(OfOthers):
    """A sandbox that nothing is to be done in."""

    touched: ClassVar[list[str]] = []

    async def exec(self, cmd, *args, **more):
        self.touched.append(str(cmd))
        return await super().exec(cmd, *args, **more)

    async def read_file(self, file, *args, **more):
        self.touched.append(file)
        return await super().read_file(file, *args, **more)


@sandboxenv(name="two-of-others")
class TwoOfOthers(OfOthers):
    """A sample with two of them."""

    @classmethod
    async def sample_init(cls, task_name, config, metadata):
        return {"default": Untouched(), "second": OfOthers()}


@pytest.mark.soak  # Inspect's own bridge takes seconds for each call, and programs are copied
def test_of_two_sandboxes_of_others_the_one_that_is_named_has_the_agent_and_its_bridge(tmp_path: Path, monkeypatch):
    need("claude_code")
    monkeypatch.setattr(installing, "INSIDE", str(tmp_path / "programs"))
    solver = agent_of("claude_code", env={"HOME": str(tmp_path / "home")}, sandbox="second")
    log = play(Scene([say("bowline")]), solver, tmp_path / "logs", place="two-of-others", score=False)
    one = only(log)
    assert one.error is None, one.error
    assert one.output.completion == "bowline"
    assert not [each for each in Untouched.touched if "service" in each], "the bridge is in the other one"


@pytest.mark.anyio
async def test_two_agents_at_once_carry_their_program_once(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(installing, "INSIDE", str(tmp_path / "programs"))
    folder, written = tmp_path / "artifact", []
    folder.mkdir()
    (folder / "claude").write_text("#!/bin/sh\n")
    program = folder / "claude"
    artifact = Artifact(
        name="claude_code", version="1.0.0", platform="linux-x64", folder=folder, program=program, size=10, used=0
    )

    class Counts(OfOthers):
        async def write_file(self, file, contents):
            written.append(file)
            await asyncio.sleep(0.05)
            await super().write_file(file, contents)

    sandbox = Counts()
    try:
        programs = await asyncio.gather(*(installing._carry(sandbox, artifact) for _ in range(3)))
    finally:
        sandbox.directory.cleanup()
    assert {Path(program).read_text() for program in programs} == {"#!/bin/sh\n"}
    assert len(written) == 1


TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import includes


def answer(*_):
    output = ModelOutput.from_content("mockllm/model", "Hello from the model")
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return output


@task
def hello():
    model = get_model("mockllm/model", custom_outputs=answer)
    return Task(dataset=[Sample(input="Say hello", target="Hello")], model=model, scorer=includes())
"""


@pytest.mark.parametrize("where", ["bwrap", pytest.param("local", marks=pytest.mark.soak)])
def test_inspects_own_command_knows_the_names(where: str, tmp_path: Path):
    need("claude_code")
    (tmp_path / "task.py").write_text(TASK)
    command = ["eval", "task.py", "--solver", "computeragent/claude_code", "--sandbox", where, "-S", "attempts=1"]
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("inspect")), *command, "--display", "plain", "--log-format", "json"],
        cwd=tmp_path,
        env={**os.environ, "COMPUTERAGENT_HOME": str(home()), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert list(tmp_path.glob("inspect-home-*")) == []
    (written,) = (tmp_path / "logs").glob("*.json")
    log = json.loads(written.read_text())
    assert log["status"] == "success"
    assert log["eval"]["solver"] == "computeragent/claude_code"
    assert log["samples"][0]["scores"]["includes"]["value"] == "C"
