"""The real command in a process of its own, with a private HOME and COMPUTERAGENT_HOME."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from computeragent.testing.models import ModelSimulator, parse_script

from .terminal import Terminal

COMMAND = (sys.executable, "-m", "computeragent")
LOADED = Path(__file__).with_name("loaded.py")


class Cli:
    """`cli("run", ".", "-m", "hi")` runs a command in `work`; `cli.terminal(…)` runs it on a pty.

    With the socket of `loaded.py` the former does not load all modules anew; `start` and `terminal` always do.
    """

    def __init__(self, folder: Path, loaded: Path | None = None) -> None:
        self.loaded = loaded
        self.home, self.state, self.work = folder / "home", folder / "state", folder / "work"
        for path in (self.home, self.work):
            path.mkdir()
        self.env = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "COMPUTERAGENT_HOME": str(self.state),
        }

    def __call__(
        self, *args: str, stdin: str | bytes | None = None, timeout: float = 50, **env: str
    ) -> subprocess.CompletedProcess[str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        own = self.loaded is None or any(name.startswith(("LANG", "LC_", "PYTHON", "TZ")) for name in env)
        command = COMMAND if own else (sys.executable, "-I", "-S", str(LOADED), "ask", str(self.loaded))
        done = subprocess.run(
            [*command, *args],
            env=self.env | env,
            cwd=self.work,
            input=b"" if data is None else data,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *args: str, **env: str) -> subprocess.Popen[bytes]:
        """The command, running on; no terminal."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*COMMAND, *args], env=self.env | env, cwd=self.work, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )

    def terminal(self, *args: str, width: int = 120, **env: str) -> Terminal:
        return Terminal([*COMMAND, *args], self.env | env, self.work, width)

    def fails(self, *args: str, stdin: str | None = None, **env: str) -> list[str]:
        """The lines of error of a command that fails as it should: exit status 1, two lines, no traceback."""
        done = self(*args, stdin=stdin, **env)
        lines = done.stderr.splitlines()
        assert done.returncode == 1, done
        assert "Traceback" not in done.stderr
        told = [line for line in lines if not line.startswith(("Cloning ", "note: ", "starting …"))]
        assert len(told) == 2, lines
        assert told[0].startswith("error["), lines
        assert told[1].startswith("hint: "), lines
        return told


def script(*turns: list[dict[str, Any]]) -> list[str]:
    """Arguments that make the scripted engine play these turns."""
    return ["--engine", "scripted", "--option", f"script={json.dumps(turns)}"]


BASH = script([{"text": "I will."}, {"tool": "Bash", "input": {"command": "make deploy"}}, {"text": "Done."}])


@pytest.fixture(scope="session")
def loaded() -> Iterator[Path]:
    """The socket of a process that has the command's modules loaded."""
    with tempfile.TemporaryDirectory(prefix="ca-cli-") as folder:
        place = Path(folder) / "socket"
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        with subprocess.Popen(
            [sys.executable, str(LOADED), "serve", str(place)], stdin=subprocess.PIPE, env=env
        ) as server:
            while not place.exists():
                assert server.poll() is None
                time.sleep(0.02)
            yield place


@pytest.fixture
def cli(tmp_path: Path, loaded: Path) -> Cli:
    return Cli(tmp_path, loaded)


@pytest.fixture
def simulated(cli: Cli) -> Iterator[Any]:
    """`simulated(script)`: points the command at a model simulator that plays the script; returns the simulator."""
    running: list[Any] = []

    def begin(text: str) -> ModelSimulator:
        context = ModelSimulator.start_in_thread(parse_script(text.replace("WORK", str(cli.work))))
        running.append(context)
        simulator = context.__enter__()
        cli.env |= simulator.claude_environment(cli.home / "claude")
        cli.env.pop("IS_SANDBOX", None)
        return simulator

    yield begin
    for context in running:
        context.__exit__(None, None, None)
