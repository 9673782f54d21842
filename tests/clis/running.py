"""Runs a command line agent from its row of the table alone, against the model simulator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from computeragent.clis import Cli, Run, cli
from computeragent.testing.models import ModelSimulator, parse_script

PROOF = "proof.txt"


def script_for(row: Cli, command: str = f"echo simulated-proof > {PROOF}"):
    """One call of the agent's own shell, then an answer with what it printed; a title, when it wants one."""
    arguments = {row.shell_argument: command}
    if row.name in {"claude_code", "opencode", "gemini_cli", "qwen_code", "copilot"}:
        arguments["description"] = "write the proof"
    if row.name == "qwen_code":
        arguments["is_background"] = False
    last = "text: all-is-written"
    if row.name == "mini_swe_agent":
        last = "tool: bash, input: {command: echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && echo all-is-written}"

    return parse_script(
        "rules:\n"
        "  - match: write the proof\n"
        "    turns:\n"
        f"      - {{tool: {row.shell_tool}, input: {json.dumps(arguments)}}}\n"
        f"      - {{{last}}}\n"
    )


@dataclass
class Ended:
    """How a run ended."""

    status: int
    stdout: str
    stderr: str
    proof: str
    simulator: ModelSimulator
    run: Run


@contextmanager
def simulator_for(name: str) -> Iterator[ModelSimulator]:
    with ModelSimulator.start_in_thread(script_for(cli(name))) as simulator:
        yield simulator


def run_cli(program: Path, name: str, simulator: ModelSimulator, folder: Path, *, limit: float = 50, **more) -> Ended:
    """One headless run."""
    row = cli(name)
    home, cwd = folder / "home", folder / "work"
    home.mkdir(exist_ok=True)
    cwd.mkdir(exist_ok=True)
    run = Run(
        **{
            "prompt": "Please write the proof",
            "model": row.model,
            "base_url": simulator.url,
            "api_key": "simulated",
            "home": str(home),
            "cwd": str(cwd),
            **more,
        }
    )
    for path, text in row.files(run).items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "dumb", **row.environment(run)}
    process = subprocess.Popen(
        [str(program), *row.command(run)[1:]],
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(row.given(run), timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        raise AssertionError(f"{name} did not end in {limit} s\n{stdout[-2000:]}\n{stderr[-2000:]}") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    proof = cwd / PROOF
    return Ended(process.returncode, stdout, stderr, proof.read_text() if proof.is_file() else "", simulator, run)
