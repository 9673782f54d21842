"""Real evaluations of Inspect in our sandboxes, by their names."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from inspect_ai import Task, eval  # noqa: A004 - Inspect's name
from inspect_ai.agent import react
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import Model, ModelOutput, ModelUsage, get_model
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import bash, bash_session, python, text_editor
from inspect_ai.util import SandboxEnvironmentSpec, sandbox
from tests.swe.sandboxes.conftest import PROVIDERS, supervised

from computeragent.errors import ValidationError
from computeragent.swe.sandboxes import SandboxConfig, own
from computeragent.swe.sandboxes.types import read_config


@solver
def looks_around() -> Solver:
    """Writes down what a sample finds, and holds port 3001 of its loopback meanwhile."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        box = sandbox()
        inside = own(box)
        assert inside is not None
        with await inside.listener(3001):
            found = await box.exec(["sh", "-c", "cat notes.txt data/deep.bin made-by-setup; ls; env"])
            state.store.set("found", found.stdout)
            state.store.set("user", (await box.exec(["id", "-un"])).stdout.strip())
        return state

    return solve


def run(task: Task, tmp_path: Path, model: Model | str = "mockllm/model", **options) -> EvalLog:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unclosed <MemoryObject", ResourceWarning)  # Inspect leaves some of its own
        [log] = eval(task, model=model, log_dir=str(tmp_path / "logs"), display="none", log_level="error", **options)
        gc.collect()
    return log


@pytest.mark.parametrize("name", PROVIDERS)
def test_four_samples_at_once_with_files_and_setup(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-key")
    samples = [
        Sample(
            input=f"sample {number}",
            files={"notes.txt": f"note {number}\n", "data/deep.bin": "deep\n"},
            setup=f"#!/bin/bash\nset -e\necho setup {number} > made-by-setup\n",
        )
        for number in range(4)
    ]
    task = Task(dataset=samples, solver=looks_around(), sandbox=name)
    log = run(task, tmp_path, max_samples=4, max_sandboxes=4)
    assert log.status == "success", log.error
    for sample in log.samples or []:
        assert sample.error is None, sample.error
        number = str(sample.input).split()[1]
        assert sample.store["found"].startswith(f"note {number}\ndeep\nsetup {number}\n")
        assert "canary-key" not in sample.store["found"]
        assert sample.store["user"] == {"bwrap": "agent", "namespace": "root"}[name]
    assert not supervised(os.getpid())


def test_a_configuration_reaches_the_sandbox_and_comes_back_from_the_log(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("shown")
    config = SandboxConfig(bind=({"source": str(tmp_path), "target": "/data"},))

    @solver
    def reads() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            state.store.set("found", await sandbox().read_file("/data/notes.txt"))
            return state

        return solve

    task = Task(dataset=[Sample(input="x")], solver=reads(), sandbox=SandboxEnvironmentSpec("bwrap", config))
    log = run(task, tmp_path)
    assert log.status == "success", log.error
    assert (log.samples or [])[0].store["found"] == "shown"
    again = SandboxEnvironmentSpec.model_validate(log.eval.sandbox.model_dump())
    assert again.config == config


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("image: debian\n", "Extra inputs are not permitted"),
        ("network: [", "expected"),
        ("- network\n", "valid dictionary"),
        (None, "No such file"),
    ],
)
def test_a_configuration_that_cannot_be_is_an_error(given: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    if given is not None:
        file.write_text(given)
    with pytest.raises(ValidationError, match=said):
        read_config(str(file))
    with pytest.raises(ValidationError, match="cannot be configured"):
        read_config("Dockerfile")


def test_inspects_command_knows_the_sandboxes_and_reads_a_file(tmp_path: Path) -> None:
    (tmp_path / "box.yaml").write_text(f"bind:\n  - source: {tmp_path}\n    target: /data\n")
    (tmp_path / "task.py").write_text(
        """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, accuracy, scorer
from inspect_ai.util import sandbox

@scorer(metrics=[accuracy()])
def sees():
    async def score(state, target):
        found = await sandbox().exec(["ls", "/data"])
        return Score(value=1 if "task.py" in found.stdout else 0)
    return score

@task
def looks():
    return Task(dataset=[Sample(input="x")], solver=[], scorer=sees())
"""
    )
    command = [sys.executable, "-m", "inspect_ai", "eval", "task.py", "--sandbox", "bwrap:box.yaml"]
    command += ["--model", "mockllm/model", "--display", "plain", "--log-dir", "logs", "--log-format", "json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [log] = (tmp_path / "logs").glob("*.json")
    [sample] = json.loads(log.read_text())["samples"]
    assert sample["scores"]["sees"]["value"] == 1


def test_a_failing_setup_fails_the_sample_and_leaves_nothing(tmp_path: Path) -> None:
    task = Task(
        dataset=[Sample(input="x", setup="#!/bin/sh\nsleep 4711 &\necho broken >&2; exit 3\n")],
        solver=looks_around(),
        sandbox="bwrap",
    )
    log = run(task, tmp_path)
    assert log.status == "error"
    assert log.error is not None
    assert "broken" in log.error.message
    assert not supervised(os.getpid())


@pytest.mark.soak  # Inspect unpacks its tools for every call
@pytest.mark.parametrize("name", PROVIDERS)
def test_inspects_own_tools_work_inside(name: str, tmp_path: Path) -> None:
    def call(tool: str, **arguments: str) -> ModelOutput:
        output = ModelOutput.for_tool_call("mockllm/model", tool, arguments)
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else Inspect counts, by a download
        return output

    outputs = [
        call("bash", command="echo b > from-bash"),
        call("python", code="print(6 * 7)"),
        call("text_editor", command="create", path="/workspace/edited", file_text="by an editor"),
        call("bash_session", action="type_submit", input="cat from-bash edited"),
        call("submit", answer="done"),
    ]
    agent = react(tools=[bash(), python(), text_editor(), bash_session()])
    log = run(
        Task(dataset=[Sample(input="x")], solver=agent, sandbox=name),
        tmp_path,
        get_model("mockllm/model", custom_outputs=outputs),
    )
    assert log.status == "success", log.error
    [sample] = log.samples or []
    told = [message for message in sample.messages if message.role == "tool"]
    assert [message.error for message in told] == [None] * 4
    assert told[1].text == "42\n"
    assert "b\r\nby an editor" in told[3].text or "b\nby an editor" in told[3].text
