"""`computeragent sessions tail`: a session as it goes on, from the log here or from a server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import httpx2

from .conftest import Cli, script
from .test_serve import serving

SLOW = script([{"text": "Working."}, {"delay": 1.5}, {"text": "Done."}])
WHO = {"type": "inline", "manifest": {"name": "a", "version": "1"}}
FAR = [f"inline:{json.dumps(WHO)}", *script([{"text": "Working."}, {"delay": 60}]), "--session-id", "far", "-m", "hi"]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    assert process.stdout is not None
    seen = b""
    while text not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    return seen


def test_tail_follows_a_session_that_another_process_runs_to_the_end_of_its_run(cli: Cli) -> None:
    with cli.start("run", *SLOW, "--session-id", "live-one", "-m", "hi") as running:
        read_until(running, b"Working.")
        tailed = cli("sessions", "tail", "live")
        assert running.wait(20) == 0
    assert tailed.returncode == 0
    assert "› hi" in tailed.stdout
    assert tailed.stdout.index("Working.") < tailed.stdout.index("Done.")


def test_tail_of_a_session_that_is_over_plays_its_newest_run(cli: Cli) -> None:
    for word in ("first", "second"):
        cli("run", *script([{"text": word}]), "--session-store", "memory", "--session-id", "s", "-m", "hi")
    shown = cli("sessions", "tail", "s")
    assert shown.returncode == 0
    assert "second" in shown.stdout
    assert "first" not in shown.stdout


def test_tail_goes_on_after_an_event_by_its_id(cli: Cli) -> None:
    cli("run", *script([{"text": "one"}]), "--session-id", "s", "-m", "hi")
    everything = lines(cli("sessions", "tail", "s", "--json").stdout)
    assert [event["id"] for event in everything] == list(range(len(everything)))
    assert everything[0]["kind"] == "ca_session_started"
    rest = cli("sessions", "tail", "s", "--json", "--after", "2")
    assert lines(rest.stdout) == everything[3:]
    last = cli("sessions", "tail", "s", "--after", str(everything[-1]["id"]))
    assert (last.returncode, last.stdout) == (0, "")
    assert cli.fails("sessions", "tail", "s", "--after", "99")[0].startswith("error[EVENT_ID_AHEAD]")


def test_tail_exits_as_the_run_ended(cli: Cli) -> None:
    cli("run", *script([{"error": "boom"}]), "--session-id", "bad", "-m", "hi")
    assert cli("sessions", "tail", "bad").returncode == 1


def test_tail_of_a_killed_process_says_so_and_ends(cli: Cli) -> None:
    with cli.start("run", *script([{"text": "Working."}, {"delay": 60}]), "--session-id", "s", "-m", "hi") as running:
        read_until(running, b"Working.")
        os.kill(running.pid, signal.SIGKILL)
    assert cli.fails("sessions", "tail", "s") == [
        "error[INTERRUPTED]: the process that ran session s is gone",
        "hint: Resume it with --session-id s.",
    ]


def test_tail_follow_goes_on_with_the_next_runs(cli: Cli) -> None:
    cli("run", *script([{"text": "first"}]), "--session-id", "s", "-m", "hi")
    with cli.start("sessions", "tail", "s", "--follow") as tail:
        read_until(tail, b"first")
        cli("run", *script([], [{"text": "second"}]), "--session-id", "s", "-m", "again")
        read_until(tail, b"second")
        tail.send_signal(signal.SIGINT)
        assert tail.wait(20) == 130


def test_a_session_on_a_server_is_listed_shown_followed_and_deleted(cli: Cli) -> None:
    with serving(cli) as (_, port):
        there = ["--harness-url", f"http://127.0.0.1:{port}"]
        with cli.start("run", *FAR, *there) as running:
            read_until(running, b"Working.")
            (listed,) = lines(cli("sessions", "ls", "--json", *there).stdout)
            assert (listed["sessionId"], listed["status"]) == ("far", "running")
            assert cli("sessions", "ls", *there).stdout.splitlines()[1].split()[:4] == [
                "far",
                "a",
                "scripted",
                "running",
            ]
            assert "Working." in cli("sessions", "show", "far", *there).stdout
            with cli.start("sessions", "tail", "far", "--json", COMPUTERAGENT_HARNESS_URL=there[1]) as tail:
                seen = read_until(tail, b"Working.")
                assert cli("sessions", "rm", "far", *there).stdout == "deleted far\n"
                rest, _ = tail.communicate(timeout=20)
            assert tail.returncode == 130
            assert running.wait(20) != 0
        events = lines((seen + rest).decode())
        assert [event["id"] for event in events] == list(range(len(events)))
        assert (events[-1]["kind"], events[-1]["reason"]) == ("ca_session_ended", "cancelled")
        assert cli("sessions", "ls", *there).stderr == f"no sessions at {there[1]}\n"
        assert cli.fails("sessions", "tail", "far", *there)[0].startswith("error[NOT_FOUND]")
        assert cli("sessions", "ls", "--harness-url", "", COMPUTERAGENT_HARNESS_URL=there[1]).returncode == 0


def test_tail_finds_a_server_again_that_was_killed_and_started_anew(cli: Cli) -> None:
    with serving(cli, end=signal.SIGKILL) as (_, port):
        there = ["--harness-url", f"http://127.0.0.1:{port}"]
        body = {"source": WHO, "harness": "scripted", "sessionId": "far", "streamingInput": True, "message": "hi"}
        body["options"] = {"script": [[{"text": "Working."}, {"delay": 60}]]}
        token = (cli.state / "keys" / "harness-token").read_text().strip()
        opened = httpx2.post(
            f"{there[1]}/v1/sessions",
            json=body | {"engine": "scripted", "identity": {"loader": "passthrough", "source": WHO}},
            headers={"authorization": f"Bearer {token}", "accept": "application/json"},
        )
        assert opened.status_code == 201, opened.text
        tail = cli.start("sessions", "tail", "far", "--json", *there)
        seen = read_until(tail, b"Working.")
    with serving(cli, port=port):
        rest, told = tail.communicate(timeout=40)
    events = lines((seen + rest).decode())
    assert [event["id"] for event in events] == list(range(len(events))), told
    assert (events[-1]["kind"], events[-1]["errorCode"]) == ("ca_session_ended", "INTERRUPTED")
    assert tail.returncode == 1


def test_a_key_is_read_from_a_file_and_never_shown(cli: Cli) -> None:
    key = cli.home / "key"
    key.write_text("canary-key\n")
    with serving(cli) as (_, port):
        there = ["--harness-url", f"http://127.0.0.1:{port}"]
        for flags in (["--harness-token-file", str(key)], ["--harness-token", "canary-key"]):
            refused = cli("sessions", "ls", *there, *flags)
            assert refused.returncode == 1
            assert "error[UNAUTHORIZED]" in refused.stderr
            assert "canary" not in refused.stdout + refused.stderr
        key.write_text((cli.state / "keys" / "harness-token").read_text())
        assert cli("sessions", "ls", *there, "--harness-token-file", str(key)).returncode == 0
