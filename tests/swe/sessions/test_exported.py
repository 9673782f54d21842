"""Exported sessions, run by Inspect: by its own command in a stranger's folder, and with another agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import inspect_ai
import pytest
from inspect_ai.log import read_eval_log
from inspect_ai.model import get_model

from computeragent.evals import RecordedSession, TaskFile, write_task
from computeragent.swe import claude_code
from computeragent.wire.requests import UserInput
from swe.agents.conftest import need, programs  # noqa: F401 - a fixture

from .evaluating import calls, only, quiet, says


def exported(folder: Path) -> None:
    """The task of a session that was asked about two files and said 42."""
    session = RecordedSession("s1", agent="adder", prompts=[UserInput(content="Add up."), UserInput(content="Now.")])
    session.answer = "42"
    files = [TaskFile("a.txt", b"forty "), TaskFile("bin/two.sh", b"#!/bin/sh\necho and two\n", executable=True)]
    files += [TaskFile("3:4.sh", b"#!/bin/sh\n", executable=True)]
    write_task(session, folder, files=files, state="now")


def test_inspects_own_command_runs_it(tmp_path: Path) -> None:
    turn = [{"tool": "Read", "input": {"file_path": "a.txt"}}, {"text": "After “{message}”: 42"}]
    exported(tmp_path / "task")
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("inspect"), "eval", "task/task.py", "--model", "mockllm/model"),
            *("--solver", "computeragent/computeragent_agent", "-S", "engine=scripted"),
            *("-S", f"options={json.dumps({'script': [turn]})}", "--display", "plain", "--log-dir", tmp_path / "logs"),
        ],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done
    log = read_eval_log(next((tmp_path / "logs").iterdir()))
    sample = only(log)
    assert (log.status, sample.error) == ("success", None)
    assert sample.output.completion == "After “Add up.\n\nNow.”: 42"
    assert sample.scores is not None
    assert sample.scores["includes"].value == "C"
    assert next(message.text for message in sample.messages if message.role == "tool") == "forty "
    assert sample.metadata["recorded"]["agent"] == "adder"


@pytest.mark.usefixtures("programs")
def test_another_agent_does_it_with_the_sessions_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(tmp_path / "task")
    need("claude_code")
    monkeypatch.chdir(tmp_path)  # Inspect finds tasks by relative paths
    outputs = [calls("Bash", command="cat a.txt; ./bin/two.sh; ./3:4.sh", description="look"), says("It is 42.")]
    with quiet():
        log = inspect_ai.eval(
            "task/task.py",
            solver=claude_code(),
            model=get_model("mockllm/model", custom_outputs=outputs),
            log_dir=str(tmp_path / "logs"),
            display="none",
        )[0]
    sample = only(log)
    assert sample.error is None, sample.error
    assert [message.text for message in sample.messages if message.role == "tool"] == ["forty and two"]
    assert sample.scores is not None
    assert sample.scores["includes"].value == "C"
