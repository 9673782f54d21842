"""What bash really runs: a PATH of stub programs that note their arguments, and the commands that were read instead."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from computeragent.policy.risk.script import Command, Script

STUBS = ("cc", "npm", "ls", "cat", "rm", "a", "b", "c", "ab")
REAL = ("bash", "sh", "env", "xargs", "find", "timeout", "nice", "nohup", "stdbuf")
STUB = """#!/bin/sh
n=${0##*/}
printf '%s\\0' "$n" "$#" "$@" >> "$RUNS_LOG"
"""


class Bash:
    """A shell in an empty folder, whose programs are stubs."""

    def __init__(self, folder: Path) -> None:
        self._bin, self._work, self._log = folder / "bin", folder / "work", folder / "log"
        self._bin.mkdir()
        first = self._bin / STUBS[0]
        first.write_text(STUB)
        first.chmod(0o755)
        for name in STUBS[1:]:
            (self._bin / name).symlink_to(first)
        for name in REAL:
            found = shutil.which(name)
            assert found is not None
            (self._bin / name).symlink_to(found)

    def run(self, script: str) -> list[list[str]]:
        """The commands that were run: each a name and its arguments."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        self._log.write_bytes(b"")
        env = {
            "PATH": str(self._bin),
            "RUNS_LOG": str(self._log),
            "FUNCNEST": "3",
            "LC_ALL": "C.UTF-8",
            "HOME": str(self._work),
        }
        pipe = subprocess.PIPE
        shell = subprocess.Popen(
            ["/bin/bash", "-c", script], cwd=self._work, env=env, stdin=subprocess.DEVNULL,
            stdout=pipe, stderr=pipe, start_new_session=True,
        )  # fmt: skip
        try:
            shell.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.communicate()
        return _records(self._log.read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1])


def _records(fields: list[str]) -> list[list[str]]:
    found: list[list[str]] = []
    at = 0
    while at + 1 < len(fields):
        count = int(fields[at + 1])
        found.append([fields[at], *fields[at + 2 : at + 2 + count]])
        at += 2 + count
    return found


def explains(script: Script, run: list[str]) -> bool:
    """Whether a command that was read is the one that ran."""
    return any(_fits(command, run) for command in script.commands)


def _fits(command: Command, run: list[str]) -> bool:
    if command.program != run[0]:
        return False
    reachable = {0}
    arguments = run[1:]
    for word in command.words[1:]:
        if word.known and not word.tilde:
            reachable = {at + 1 for at in reachable if at < len(arguments) and arguments[at] == word.text}
        elif word.one:
            reachable = {at + 1 for at in reachable if at < len(arguments)}
        else:
            reachable = set(range(min(reachable), len(arguments) + 1)) if reachable else set()
    return len(arguments) in reachable
