"""Who holds a session, and whether the holder lives."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from computeragent.eventlog.owner import Owner

PRINT_MARK = "from computeragent.eventlog.owner import Owner; o = Owner(); print(o, flush=True); input()"


@pytest.fixture
def other():
    """Another process that holds a mark until its standard input is closed; and the mark."""
    with subprocess.Popen([sys.executable, "-c", PRINT_MARK], stdin=-1, stdout=-1, stderr=-3, text=True) as process:
        assert process.stdout
        yield process, process.stdout.readline().strip()
        process.kill()


def test_a_log_of_this_process_lives_until_it_is_retired():
    owner = Owner()
    assert Owner.alive(str(owner))
    owner.retire()
    assert not Owner.alive(str(owner))


def test_two_logs_of_one_process_have_two_marks():
    assert str(Owner()) != str(Owner())


def test_another_process_lives_while_it_runs(other):
    process, mark = other
    assert Owner.alive(mark)
    process.kill()
    process.wait()
    assert not Owner.alive(mark)


def test_a_killed_process_that_nobody_has_collected_yet_is_dead(other):
    process, mark = other
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now, and stays one
    assert not Owner.alive(mark)


def test_a_process_that_only_has_the_same_number_is_not_the_holder(other):
    _, mark = other
    host, boot, pid, started, token = mark.split("|")
    assert not Owner.alive("|".join([host, boot, pid, str(int(started) - 1), token]))


def test_a_holder_before_the_last_boot_is_dead():
    host, _, pid, started, token = str(Owner()).split("|")
    assert not Owner.alive("|".join([host, "another-boot", pid, started, token]))


def test_a_holder_on_another_host_is_taken_to_live():
    _, *rest = str(Owner()).split("|")
    assert Owner.alive("|".join(["elsewhere", *rest]))


@pytest.mark.parametrize("junk", ["", "x", "a|b|c", "a|b|not-a-pid|d|e"])
def test_junk_holds_nothing(junk: str):
    assert not Owner.alive(junk)
