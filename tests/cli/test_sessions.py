"""`computeragent sessions`: what was recorded, and how to get rid of it."""

from __future__ import annotations

import json
import os
import signal

import pytest

from .conftest import Cli, script


def ids(cli: Cli) -> list[str]:
    return [json.loads(line)["session_id"] for line in cli("sessions", "ls", "--json").stdout.splitlines()]


def test_nothing_recorded_yet_is_no_failure(cli: Cli) -> None:
    done = cli("sessions", "ls")
    assert done.returncode == 0
    assert not done.stdout
    assert done.stderr == "no sessions yet; `computeragent run` makes one\n"


def test_ls_lists_the_newest_first_with_its_title(cli: Cli) -> None:
    usage = [{"usage": {"input_tokens": 5, "cost_usd": 0.5}}]
    for name in ("one", "two"):
        cli("run", *script(usage), "--session-id", name, "-m", f"message {name} [/nomarkup] \x1b[31m")
    lines = cli("sessions").stdout.splitlines()
    assert lines[0].split() == ["SESSION", "AGENT", "STATUS", "TURNS", "COST", "LAST", "TITLE"]
    assert lines[1].split()[:5] == ["two", "work", "complete", "1", "$0.5000"]
    assert r"just now  message two [/nomarkup] \x1b[31m" in lines[1]
    assert ids(cli) == ["two", "one"]
    assert len(cli("sessions", "ls", "--limit", "1").stdout.splitlines()) == 2


def test_ls_is_a_narrow_table_on_a_narrow_terminal(cli: Cli) -> None:
    cli("run", *script(), "-m", "a title that is much too long for such a narrow terminal")
    with cli.terminal("sessions", "ls", width=100) as terminal:
        assert terminal.wait() == 0
    assert max(len(line) for line in terminal.seen.splitlines()) <= 100
    assert "just now" in terminal.seen


def test_show_plays_a_session_by_the_beginning_of_its_id(cli: Cli) -> None:
    turn = [{"tool": "Write", "input": {"file_path": "a.txt", "content": "x"}}, {"text": "Done [/x]."}]
    cli("run", *script(turn), "--session-id", "first-session", "--yes", "-m", "write [/it]")
    shown = cli("sessions", "show", "first").stdout.splitlines()
    assert "› write [/it]" in shown
    assert "● Write  a.txt" in shown
    assert "Done [/x]." in shown


def test_show_json_is_the_recorded_events(cli: Cli) -> None:
    ran = cli("run", *script(), "--json", "--session-id", "s", "-m", "hi").stdout
    shown = cli("sessions", "show", "s", "--json").stdout
    kinds = [json.loads(line)["kind"] for line in shown.splitlines()]
    assert kinds[0] == "ca_session_started"
    assert kinds[-1] == "ca_session_ended"
    assert shown.startswith(ran.split("\n", 1)[0])


def test_a_beginning_that_fits_several_is_refused(cli: Cli) -> None:
    for name in ("same-1", "same-2"):
        cli("run", *script(), "--session-id", name, "-m", "hi")
    assert cli.fails("sessions", "show", "same") == [
        "error[NOT_FOUND]: 2 sessions begin with 'same'",
        "hint: Give more of the id.",
    ]
    assert cli.fails("sessions", "show", "other") == [
        "error[NOT_FOUND]: session 'other' not found",
        "hint: `computeragent sessions ls` lists them.",
    ]


@pytest.mark.parametrize("store", ["sqlite", "file"])
def test_rm_forgets_everything_of_a_session(cli: Cli, store: str) -> None:
    remember = [*script([{"text": "Noted."}], [{"text": "I remember {user}"}]), "--session-store", store]
    cli("run", *remember, "--session-id", "gone", "-m", "the canary word")
    assert cli("sessions", "rm", "gone").stdout == "deleted gone\n"
    assert ids(cli) == []
    assert not (cli.state / "work" / "gone").exists()
    again = cli("run", *remember, "--session-id", "gone", "-m", "what?").stdout
    assert "Noted." in again
    assert "resumed" not in again


def test_rm_takes_a_whole_id_only(cli: Cli) -> None:
    cli("run", *script(), "--session-id", "whole", "-m", "hi")
    assert cli.fails("sessions", "rm", "who")[0] == "error[NOT_FOUND]: session 'who' not found"
    assert cli.fails("sessions", "rm", "../work")[0].startswith("error[INVALID_SESSION_ID]")
    assert ids(cli) == ["whole"]


def test_a_running_session_is_not_removed_and_a_killed_one_is_shown_as_interrupted(cli: Cli) -> None:
    turn = script([{"text": "Working."}, {"delay": 60}])
    with cli.start("run", *turn, "--session-id", "busy", "-m", "hi") as process:
        assert process.stdout is not None
        while b"Working." not in process.stdout.readline():
            pass
        assert cli.fails("sessions", "rm", "busy") == [
            "error[SESSION_LIVE]: session busy is running",
            "hint: Delete it when it has ended.",
        ]
        assert cli.fails("run", *script(), "--session-id", "busy", "-m", "me too")[0].startswith("error[SESSION_LIVE]")
        assert " running " in cli("sessions", "ls").stdout
        os.kill(process.pid, signal.SIGKILL)
    assert " interrupted " in cli("sessions", "ls").stdout
    resumed = cli("run", *script([], [{"text": "Back."}]), "--session-id", "busy", "-m", "go on")
    assert "Back." in resumed.stdout
    assert "interrupted" not in cli("sessions", "ls").stdout
    assert cli("sessions", "rm", "busy").returncode == 0
