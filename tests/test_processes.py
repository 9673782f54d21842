"""Processes by a mark: all that bear it and all that they started, and nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from computeragent.processes import keeper_command, kill_marked, marks, started

NAME = "COMPUTERAGENT_TEST_MARK"
# Its child has an environment without the mark, as programs have that write over theirs; its grandchild is a stranger.
FAMILY = "env -u COMPUTERAGENT_TEST_MARK sh -c 'setsid sleep 300 & echo $! ; wait' & sleep 300"


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    mark = os.urandom(6).hex()
    process = subprocess.Popen(["sh", "-c", FAMILY], env={**os.environ, NAME: mark}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, int(process.stdout.readline()), mark
    kill_marked(NAME, mark)
    process.wait()
    process.stdout.close()


def test_all_that_descends_from_a_mark_is_ended(family: tuple[subprocess.Popen[str], int, str]):
    process, grandchild, mark = family
    bystander = subprocess.Popen(["sleep", "300"], env={**os.environ, NAME: "another"})
    try:
        assert marks(NAME)[process.pid] == mark
        assert kill_marked(NAME, mark)
        assert process.wait() in (-9, 137)  # itself killed, or the last to see its child killed
        assert started(grandchild) == ""
        assert started(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()


def test_who_asks_first_gives_them_time_to_tidy_up(tmp_path: Path):
    tidy = f"trap 'echo tidied > {tmp_path}/told; exit' TERM; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(["sh", "-c", tidy], env={**os.environ, NAME: "tidy"}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert kill_marked(NAME, "tidy", grace=5.0)
    assert (tmp_path / "told").read_text() == "tidied\n"
    process.wait()
    process.stdout.close()


def test_the_keeper_cleans_up_when_its_parent_is_killed(family: tuple[subprocess.Popen[str], int, str], tmp_path: Path):
    process, grandchild, mark = family
    folder = tmp_path / "private"
    (folder / "deep").mkdir(parents=True)
    command = keeper_command(NAME, mark, str(folder))
    owner = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE); time.sleep(300)"
    parent = subprocess.Popen([sys.executable, "-c", owner, *command])
    while not _children(parent.pid):
        time.sleep(0.02)
    assert process.poll() is None
    parent.kill()
    parent.wait()
    assert process.wait(10) < 0
    while folder.exists() or started(grandchild):
        time.sleep(0.02)


def test_a_process_that_is_gone_has_not_started():
    process = subprocess.Popen(["true"])
    assert started(os.getpid()) == started(os.getpid()) != ""
    while started(process.pid):  # a zombie from here on
        time.sleep(0.01)
    process.wait()
    assert started(process.pid) == ""


def _children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()
