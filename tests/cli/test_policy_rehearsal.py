"""`computeragent policy rehearse` and `suggest`: on what `run` recorded, on files of sinks, and on a server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from .conftest import Cli, script
from .test_serve import serving

POLICY = """version: 1
rules:
- {name: edit, effect: allow, match: {tool: [Write, Read], paths: [./**]}}
- {name: git, effect: allow, match: {tool: Bash, commands: [git status *]}}
"""
TURN = [
    {"tool": "Write", "input": {"file_path": "a.txt", "content": "x"}},
    {"tool": "Bash", "input": {"command": "git status -s"}},
    {"tool": "Bash", "input": {"command": "make deploy [/b]"}},
    {"tool": "Bash", "input": {"command": "rm -rf /"}},
]
OPEN = '{"kind": "rules", "text": "version: 1\\ndefault: allow\\nrules: []"}'


@pytest.fixture
def recorded(cli: Cli) -> Cli:
    """A session on record, and a policy beside it."""
    done = cli(
        "run", *script(TURN), "--session-id", "first", "--policy", OPEN, "-m", "go", "--audit-log", "audit.jsonl"
    )
    assert done.returncode == 0, done.stderr
    (cli.work / "p.yaml").write_text(POLICY)
    return cli


def rehearsed(cli: Cli, *args: str) -> Any:
    done = cli("policy", "rehearse", *args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_rehearsal_shows_what_would_change_and_why(recorded: Cli) -> None:
    done = recorded("policy", "rehearse", "p.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout.splitlines()
    assert re.fullmatch(r"4 calls of 1 session, \d{4}-\d\d-\d\d", shown[0])
    assert shown[1] == "it says    allow 2 · deny 2"
    assert shown[2] == "changes    newly denied 2, beside what was decided"
    rows = [line.split() for line in shown]
    assert ["TOOL", "CALLS", "ALLOW", "DENY", "NEWLY", "DENIED"] in rows
    assert ["Bash", "3", "1", "2", "2"] in rows
    assert ["git", "1", "1"] in rows
    at = shown.index("  1 × Bash make deploy")
    assert shown[at + 1] == "      allow → deny (rules: no rule allows the command `make deploy`)"
    assert shown[at + 2] == "      such as make deploy [/b]  (first)"


def test_fail_on_is_for_pipelines(recorded: Cli) -> None:
    for on, status in (("newly-denied", 1), ("newly-allowed", 0), ("fault", 0)):
        assert recorded("policy", "rehearse", "p.yaml", "--fail-on", on).returncode == status, on
    assert recorded("policy", "rehearse", OPEN, "--fail-on", "newly-denied").returncode == 0
    away = '{"kind": "opa", "url": "http://127.0.0.1:9", "policyPath": "p/allow"}'
    done = recorded("policy", "rehearse", away, "--fail-on", "newly-allowed")
    assert done.returncode == 1
    assert "fault: 4  (the policy could not judge)" in done.stdout
    assert recorded("policy", "rehearse", "p.yaml", "--fail-on", "nonsense").returncode == 2


def test_calls_are_chosen_and_two_policies_are_compared(recorded: Cli) -> None:
    assert rehearsed(recorded, "p.yaml", "--tool", "write")["total"]["calls"] == 1
    assert rehearsed(recorded, "p.yaml", "--since", "1h", "--session", "fir", "--agent", "work")["total"]["calls"] == 4
    assert rehearsed(recorded, "p.yaml", "--since", "2100-01-01")["total"]["calls"] == 0
    none = recorded("policy", "rehearse", "p.yaml", "--agent", "other")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "no calls on record\n")
    found = rehearsed(recorded, OPEN, "--against", "p.yaml")
    assert (found["against"], found["total"]["changes"]) == ("rules", {"newly_allowed": 2})


def test_an_audit_file_is_a_recording_and_its_redaction_is_told(recorded: Cli) -> None:
    with (recorded.work / "audit.jsonl").open("a") as file:
        file.write("not a row\n")
    done = recorded("policy", "rehearse", "p.yaml", "--from", "audit.jsonl")
    assert "it says    allow 2 · deny 2" in done.stdout
    assert done.stderr.splitlines() == [
        "note: 1 × a line that is no JSON object, passed by",
        "note: the values of these calls are redacted, and long ones cut: the policy saw them so",
    ]


def test_a_suggestion_is_a_policy_that_allows_what_was_done(recorded: Cli) -> None:
    done = recorded("policy", "suggest", "--agent", "work", "-o", "s.yaml")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "s.yaml: 4 rules, which allow 3 of 4 calls\n"
    text = (recorded.work / "s.yaml").read_text()
    assert "# Left out:\n#   1 call, destructive: Bash rm\n" in text
    assert recorded("policy", "suggest", "--agent", "work").stdout == text
    assert recorded("policy", "lint", "s.yaml", "--strict").returncode == 0
    found = rehearsed(recorded, "s.yaml")
    assert found["total"]["changes"] == {"newly_denied": 1}
    assert found["groups"][0]["shape"] == "rm"
    again = recorded("run", *script(TURN[:2]), "--policy", "s.yaml", "-m", "go", "--json")
    decisions = [json.loads(line) for line in again.stdout.splitlines() if "ca_permission_decision" in line]
    assert [each["decision"] for each in decisions] == ["allow", "allow"]


def test_a_servers_calls_are_rehearsed_over_http(cli: Cli) -> None:
    (cli.work / "p.yaml").write_text(POLICY)
    with serving(cli, "--policy", OPEN) as (_, port):
        url = f"http://127.0.0.1:{port}"
        source = {"type": "inline", "manifest": {"name": "a"}}
        body = {"source": source, "harness": "scripted", "options": {"script": [TURN]}, "message": "go"}
        token = (cli.state / "keys" / "harness-token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        told = httpx2.post(f"{url}/v1/sessions", json=body | {"sessionId": "there"}, headers=headers, timeout=30).text
        assert "ca_session_ended" in told
        found = rehearsed(cli, "p.yaml", "--harness-url", url)
        assert (found["total"]["calls"], found["total"]["changes"]) == (4, {"newly_denied": 2})
        assert (found["groups"][0]["session_id"], found["without_folder"]) == ("there", 0)
        told, _ = cli.fails("policy", "rehearse", "p.yaml", "--harness-url", url, "--since", "7d")
        assert told == "error[VALIDATION]: a server does not say when calls were made"
    gone = cli("policy", "suggest", "--harness-url", url)
    assert gone.returncode == 1
    assert f"error[PROTOCOL]: the server at {url} cannot be reached" in gone.stderr


REAL = """
rules:
  - match: work
    turns:
      - tools:
          - {name: Write, input: {file_path: "WORK/notes.txt", content: "hello"}}
          - {name: Bash, input: {command: "ls | wc -l", timeout: 9000}}
          - {name: Bash, input: {command: "rm notes.txt"}}
      - text: Done.
"""
CAPPED = """version: 1
rules:
- {name: edit, effect: allow, match: {tool: Write, paths: [./**]}}
- name: look
  effect: allow
  match: {tool: Bash, commands: [ls, wc -l]}
  obligations: [{kind: cap, argument: timeout, max: 5000}]
"""


@pytest.mark.e2e
def test_calls_of_a_real_agent_are_rehearsed_as_they_were_asked_for(cli: Cli, simulated: Any) -> None:
    simulated(REAL)
    (cli.work / "capped.yaml").write_text(CAPPED)
    done = cli("run", "-m", "work", "--policy", "capped.yaml", "--yes")
    assert done.returncode == 0, done.stderr
    assert (cli.work / "notes.txt").read_text() == "hello"
    found = rehearsed(cli, "capped.yaml")
    assert (found["total"]["calls"], found["total"]["changes"], found["skipped"]) == (3, {}, {})
    assert (found["total"]["says"], found["without_original"]) == ({"allow": 1, "modify": 1, "deny": 1}, 0)
    found = rehearsed(cli, OPEN)
    assert found["total"]["changes"] == {"newly_allowed": 1, "changed_input": 1}
    (changed,) = [group for group in found["groups"] if group["change"] == "changed_input"]
    assert (changed["input"]["timeout"], changed["was"]["input"]["timeout"]) == (9000, 5000)
    suggested = cli("policy", "suggest")
    assert suggested.stderr == "2 rules, which allow 1 of 1 call\n"
    assert "paths: [./notes.txt]" in suggested.stdout
    assert "# 2 calls on record did not run as asked: denied, changed, or without a result." in suggested.stdout


def test_mistakes_are_told(cli: Cli, tmp_path: Path) -> None:
    assert cli.fails("policy", "suggest")[0].startswith("error[NOT_FOUND]: no calls that were allowed and ran")
    (cli.work / "p.yaml").write_text(POLICY)
    assert (
        "none.jsonl cannot be read: No such file"
        in cli.fails("policy", "rehearse", "p.yaml", "--from", "none.jsonl")[0]
    )
    assert cli.fails("policy", "rehearse", "q.yaml")[0].startswith("error[POLICY_INVALID]: ")
    assert cli.fails("policy", "rehearse", "p.rego")[0].startswith("error[VALIDATION]: p.rego is no policy file")
    both = ("--from", "x", "--harness-url", "http://127.0.0.1:9")
    assert cli.fails("policy", "suggest", *both)[0] == "error[VALIDATION]: the calls are in two places"
