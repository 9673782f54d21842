"""`computeragent sessions fork`: two sessions that begin alike and go on apart."""

from __future__ import annotations

import json
import subprocess

import pytest

from .conftest import Cli, script
from .test_tail import lines, read_until

RECALL = script([{"text": "Noted."}], [{"text": "You said first: {user}"}])


@pytest.mark.parametrize("store", ["sqlite", "file", 'file={"root": "transcripts"}'])
def test_a_fork_remembers_and_goes_on_by_itself(cli: Cli, store: str) -> None:
    kept = ["--session-store", store]
    cli("run", *RECALL, *kept, "--session-id", "old", "-m", "the first thing")
    before = cli("sessions", "show", "old", "--json").stdout
    forked = cli("sessions", "fork", "old", "--id", "new", *(kept if "=" in store else []))
    assert forked.stdout == "new\n"
    assert "entries of the transcript" in forked.stderr
    copied = cli("sessions", "show", "new", "--json").stdout
    assert [event["kind"] for event in lines(copied)] == [event["kind"] for event in lines(before)]
    assert {event["sessionId"] for event in lines(copied)} == {"new"}
    assert "You said first: the first thing" in cli("run", *RECALL, *kept, "--session-id", "new", "-m", "now?").stdout
    assert cli("sessions", "show", "old", "--json").stdout == before
    assert cli("sessions", "rm", "old").returncode == 0
    assert "resumed" in cli("run", *RECALL, *kept, "--session-id", "new", "-m", "still?").stdout


def test_without_an_id_the_fork_gets_one_that_a_shell_can_use(cli: Cli) -> None:
    cli("run", *RECALL, "--session-id", "old", "-m", "the first thing")
    new = cli("sessions", "fork", "old").stdout.strip()
    assert new.startswith("sess_")
    assert sorted(json.loads(line)["session_id"] for line in cli("sessions", "ls", "--json").stdout.splitlines()) == [
        "old",
        new,
    ]


def test_a_clone_is_copied_with_the_agents_work_in_it(cli: Cli) -> None:
    repository = cli.work / "repo"
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        repository.mkdir(exist_ok=True)
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
        subprocess.run(["git", *identity, *command], cwd=repository, check=True, env=cli.env)
    write = script([{"tool": "Write", "input": {"file_path": "mine.txt", "content": "x"}}])
    source = f"file://{repository}"
    assert cli("run", source, *write, "--yes", "--session-id", "old", "-m", "hi").returncode == 0
    assert "its working folder" in cli("sessions", "fork", "old", "--id", "new").stderr
    copy = cli.state / "work" / "new" / "source"
    assert (copy / "mine.txt").read_text() == "x"
    (cli.state / "work" / "old" / "source" / "mine.txt").write_text("changed")
    assert cli("run", source, *script([], []), "--session-id", "new", "-m", "go on").returncode == 0
    assert (copy / "mine.txt").read_text() == "x"


def test_what_cannot_be_forked_is_told(cli: Cli) -> None:
    cli("run", *RECALL, "--session-id", "old", "-m", "hi")
    cli("run", *RECALL, "--session-id", "forgets", "--session-store", "memory", "-m", "hi")
    assert cli.fails("sessions", "fork", "other")[0] == "error[NOT_FOUND]: session 'other' not found"
    assert cli.fails("sessions", "fork", "old", "--id", "../x")[0].startswith("error[INVALID_SESSION_ID]")
    assert cli.fails("sessions", "fork", "old", "--id", "forgets")[0] == (
        "error[VALIDATION]: there is a session forgets already"
    )
    assert cli.fails("sessions", "fork", "forgets", "--id", "new")[0] == (
        "error[NOT_FOUND]: session forgets has no transcript in sqlite or file"
    )
    assert "new" not in cli("sessions", "ls", "--json").stdout


def test_a_running_session_is_not_forked_and_a_killed_one_is_ended_in_its_copy(cli: Cli) -> None:
    cli("run", *RECALL, "--session-id", "busy", "-m", "hi")
    turn = script([], [{"text": "Working."}, {"delay": 60}])
    with cli.start("run", *turn, "--session-id", "busy", "-m", "go") as running:
        read_until(running, b"Working.")
        assert cli.fails("sessions", "fork", "busy")[0] == "error[SESSION_LIVE]: session busy is running"
        running.kill()
    assert cli("sessions", "fork", "busy", "--id", "copy").returncode == 0
    ended = lines(cli("sessions", "show", "copy", "--json").stdout)[-1]
    assert (ended["kind"], ended["errorCode"]) == ("ca_session_ended", "INTERRUPTED")
