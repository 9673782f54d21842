"""`computeragent approvals`: what waits is seen and answered from another terminal."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from .conftest import Cli
from .test_serve import serving


class Asked:
    """A server, and sessions on it that ask."""

    def __init__(self, cli: Cli, port: int) -> None:
        self.cli, self.url = cli, f"http://127.0.0.1:{port}"
        token = (cli.state / "keys" / "harness-token").read_text().strip()
        self.http = httpx2.Client(base_url=self.url, headers={"authorization": f"Bearer {token}"}, timeout=20)

    def ask(self, command: str, **fields: Any) -> str:
        """A session in which a call waits; its id."""
        body = {
            "engine": "scripted",
            "identity": {"source": {"type": "inline", "manifest": {"name": "tidy"}}},
            "options": {"script": [[{"tool": "Bash", "input": {"command": command}}, {"text": "done"}]]},
            "messages": [{"role": "user", "content": "go"}],
            "streamingInput": True,
            **fields,
        }
        session = self.http.post("/v1/sessions", json=body).json()["sessionId"]
        while not self.http.get(f"/v1/sessions/{session}").json().get("pendingCalls"):
            pass
        return session

    def waiting(self) -> list[Any]:
        return [json.loads(line) for line in self("ls", "--json").stdout.splitlines()]

    def __call__(self, *args: str) -> Any:
        return self.cli("approvals", *args, "--harness-url", self.url)

    def decision(self, session: str) -> Any:
        """What was decided in a session."""
        with self.http.stream("GET", f"/v1/sessions/{session}/events") as stream:
            for line in stream.iter_lines():
                if line.startswith("data:") and '"ca_permission_decision"' in line:
                    return json.loads(line.removeprefix("data:"))
        raise AssertionError(session)


@contextmanager
def asked(cli: Cli) -> Iterator[Asked]:
    with serving(cli) as (_, port):
        there = Asked(cli, port)
        with there.http:
            yield there


def test_calls_are_listed_allowed_and_denied_by_the_user_here(cli: Cli) -> None:
    with asked(cli) as there:
        nothing = there("ls")
        assert (nothing.returncode, nothing.stdout) == (0, "")
        assert nothing.stderr.startswith("nothing waits for an answer at http://127.0.0.1:")
        rules = "version: 1\nrules:\n- {name: r, effect: ask, reason: a person must see it, match: {tool: Bash}}\n"
        one = there.ask("make deploy", approvalTimeout=3_000, policy={"kind": "rules", "text": rules})
        two = there.ask("make \x1b[31mred", approvalTimeout=90)
        first, second = there.waiting()
        listed = there("ls").stdout.splitlines()
        assert listed[0].split() == ["CALL", "AGENT", "SESSION", "RISK", "LEFT", "WHAT"]
        assert listed[1].split()[:4] == [first["callId"], "tidy", one, "medium"]
        assert listed[1].endswith("Bash make deploy — rules a person must see it")
        assert listed[1].split()[4].startswith("49m")
        assert "\x1b" not in "".join(listed)

        done = there("allow", first["callId"])
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("allowed Bash make deploy")
        told = there.decision(one)
        assert told["decision"] == "allow"
        assert told["decidedBy"].startswith("token-")
        assert told["decidedBy"].endswith(f" ({getpass.getuser()})")

        begins = second["callId"][:-1]  # no other call begins like that
        done = there("deny", begins, "--reason", "not red")
        assert done.stdout.startswith("denied Bash make \\x1b[31mred")
        assert (there.decision(two)["decision"], there.decision(two)["reason"]) == ("deny", "not red")
        late = there("allow", second["callId"])
        assert late.returncode == 1
        assert late.stderr.startswith("error[UNKNOWN_CALL_ID]: no call that begins with")


def test_another_input_is_what_runs(cli: Cli) -> None:
    with asked(cli) as there:
        session = there.ask("make deploy")
        (call,) = there.waiting()
        done = there("allow", call["callId"], "--input", '{"command": "make check"}')
        assert done.returncode == 0
        told = there.decision(session)
        assert (told["decision"], told["input"]) == ("modify", {"command": "make check"})


def test_an_id_that_may_mean_several_calls_is_refused_until_more_is_said(cli: Cli) -> None:
    with asked(cli) as there:
        there.ask("one", sessionId="first")
        there.ask("two", sessionId="second")
        unclear = there("allow", "call_")
        assert unclear.returncode == 1
        assert "may be 2 calls" in unclear.stderr
        assert "--session" in unclear.stderr
        assert len(there.waiting()) == 2
        assert there("allow", "call_", "--session", "second").returncode == 0
        assert [call["sessionId"] for call in there.waiting()] == ["first"]


def test_watch_tells_of_calls_as_they_come_and_go(cli: Cli) -> None:
    with asked(cli) as there, cli.terminal("approvals", "ls", "--watch", "--harness-url", there.url) as terminal:
        session = there.ask("make deploy")
        (call,) = there.waiting()
        terminal.expect("Bash make deploy")
        assert there("deny", call["callId"]).returncode == 0
        terminal.expect("waits no more")
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert there.decision(session)["decision"] == "deny"


@pytest.mark.parametrize(
    "args",
    [
        ("allow",),
        ("allow", "x", "--input", "{"),
        ("allow", "x", "--input", "[]"),
        ("deny", "x", "--input", "{}"),
        ("?",),
    ],
)
def test_wrong_usage_is_exit_status_2(cli: Cli, args: tuple[str, ...]) -> None:
    done = cli("approvals", *args)
    assert done.returncode == 2
    assert "usage: computeragent" in done.stderr


def test_without_a_server_it_says_so(cli: Cli) -> None:
    error, hint = cli.fails("approvals", "ls", "--harness-url", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in error
    assert "computeragent serve" in hint
