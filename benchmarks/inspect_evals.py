"""What a whole evaluation with Claude Code takes: one command of the shell, one answer, an instant model.

The program by itself against the model simulator; our agent in `local`, `bwrap` and, for root, `namespace`; and the
same program with the same arguments through Inspect's own bridge in `local`. Seconds, medians, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.agent import Agent, AgentState, agent, sandbox_agent_bridge
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import includes
from inspect_ai.util import ExecRemoteAwaitableOptions, sandbox

from computeragent.artifacts import fetch
from computeragent.clis import Run, cli
from computeragent.swe import claude_code
from computeragent.testing.models import ModelSimulator, parse_script

GOAL = 0.5
ROW = cli("claude_code")
PROMPT = "Write the proof."
CALL = {"command": "echo proven > proof.txt && cat proof.txt", "description": "write the proof"}
SCRIPT = """
rules:
  - match: Write the proof
    turns:
      - {tool: Bash, input: {command: "echo proven > proof.txt && cat proof.txt", description: write the proof}}
      - {text: It is proven.}
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="two rounds instead of seven")
    rounds = 2 if arguments.parse_args().quick else 7
    program = fetch("claude_code").program
    ways: dict[str, Callable[[], float]] = {
        "the program by itself": lambda: alone(program),
        "Inspect's bridge, local": lambda: evaluated(through_inspect(program), "local"),
        "ours, local": lambda: evaluated(claude_code(), "local"),
        "ours, bwrap": lambda: evaluated(claude_code(), "bwrap"),
    }
    if os.geteuid() == 0:
        ways["ours, namespace"] = lambda: evaluated(claude_code(), "namespace")
    took: dict[str, list[float]] = {name: [] for name in ways}
    evaluated(claude_code(), "local")  # what is imported and compiled once
    for _ in range(rounds):
        for name, way in ways.items():
            took[name].append(way())
    theirs = statistics.median(took["Inspect's bridge, local"])
    print(f"{'seconds an evaluation':<28}{'median':>8}{'of theirs':>11}")
    for name, times in took.items():
        middle = statistics.median(times)
        print(f"{name:<28}{middle:8.2f}{middle / theirs:10.0%}")
    print(f"goal: at most {GOAL:.0%} of what Inspect's bridge takes")


def alone(program: Path) -> float:
    """The program, with the model simulator for its model and no evaluation around it."""
    folder = Path(tempfile.mkdtemp())
    try:
        with ModelSimulator.start_in_thread(parse_script(SCRIPT)) as simulator:
            run = launch(simulator.url, "simulated", folder)
            start = time.perf_counter()
            for path, text in ROW.files(run).items():
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_text(text, encoding="utf-8")
            done = subprocess.run(
                [program, *ROW.arguments(run)],
                cwd=folder,
                env={"PATH": os.environ["PATH"], **ROW.environment(run)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
            )
            took = time.perf_counter() - start
        assert "It is proven." in done.stdout
        return took
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def launch(url: str, key: str, folder: Path) -> Run:
    home = folder / "home"
    home.mkdir()
    return Run(prompt=PROMPT, model=ROW.model, base_url=url, api_key=key, home=str(home), cwd=str(folder))


def through_inspect(program: Path) -> Agent:
    """The same program and arguments as ours, its model through `sandbox_agent_bridge`."""

    @agent
    def bridged() -> Agent:
        async def execute(state: AgentState) -> AgentState:
            folder = Path((await sandbox().exec(["pwd"])).stdout.strip())
            async with sandbox_agent_bridge(state, port=13901) as bridge:
                run = launch("http://127.0.0.1:13901", "none", folder)
                for path, text in ROW.files(run).items():
                    await sandbox().write_file(path, text)
                command = ["/bin/sh", "-c", 'exec 0</dev/null; exec "$@"', "sh", str(program), *ROW.arguments(run)]
                options = ExecRemoteAwaitableOptions(cwd=str(folder), env=dict(ROW.environment(run)))
                done = await sandbox().exec_remote(command, options, stream=False)
                assert done.success, done.stderr
                return bridge.state

        return execute

    return bridged()


def evaluated(solver: Agent, place: str) -> float:
    """Seconds that an evaluation of one sample took."""

    def answer(messages: list[object], *_: object) -> ModelOutput:
        if any(getattr(message, "role", "") == "tool" for message in messages):
            output = ModelOutput.from_content("mockllm/model", "It is proven.")
        else:
            output = ModelOutput.for_tool_call("mockllm/model", "Bash", CALL)
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    logs = tempfile.mkdtemp()
    try:
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            [log] = inspect_eval(
                Task(dataset=[Sample(input=PROMPT, target="proven")], solver=solver, scorer=includes(), sandbox=place),
                model=get_model("mockllm/model", custom_outputs=answer, memoize=False),
                display="none",
                log_dir=logs,
            )
        took = time.perf_counter() - start
    finally:
        shutil.rmtree(logs, ignore_errors=True)
    assert log.status == "success", log.error
    assert log.results is not None
    assert log.results.scores[0].metrics["accuracy"].value == 1.0
    return took


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
