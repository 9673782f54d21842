"""`--audit-log`, `computeragent audit verify` and `audit show`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx2

from .conftest import Cli, script
from .test_serve import serving

CALLS = script(
    [
        {"tool": "Read", "input": {"file_path": "a.txt"}},
        {"tool": "Bash", "input": {"command": "make deploy"}},
        {"text": "Done."},
    ]
)


def audited(cli: Cli, *more: str) -> Path:
    """The audit file of a run in which one call was allowed and one denied."""
    done = cli("run", *CALLS, "-m", "go", "--session-id", "first", "--audit-log", "audit.jsonl", *more)
    assert done.returncode == 0, done
    return cli.work / "audit.jsonl"


def test_a_run_is_audited_and_verified(cli: Cli) -> None:
    path = audited(cli)
    assert path.stat().st_mode & 0o777 == 0o600
    done = cli("audit", "verify", "audit.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "audit.jsonl: 5 rows, all as they were written"
    seq, _, hashed = done.stdout.splitlines()[1].removeprefix("last row ").partition(":")
    assert cli("audit", "verify", "audit.jsonl", "--expect", f"{seq}:{hashed[:12]}").returncode == 0
    assert cli("audit", "verify", "audit.jsonl", "--expect", f"{seq}:{'0' * 12}").returncode == 1


def test_verify_names_the_first_bad_row(cli: Cli) -> None:
    path = audited(cli)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3].replace(b'"deny"', b'"allo"'), lines[4]]))
    done = cli("audit", "verify", "audit.jsonl")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "audit.jsonl: line 4, row 4: its hash does not fit: the row was changed\n"
    told = json.loads(cli("audit", "verify", "audit.jsonl", "--json").stdout)
    assert told["intact"] is False
    assert told["findings"] == [{"line": 4, "seq": 4, "problem": "its hash does not fit: the row was changed"}]
    path.write_bytes(b"".join(lines[:2]))
    done = cli("audit", "verify", "audit.jsonl")
    assert done.returncode == 1
    assert done.stdout == "audit.jsonl: line 3, row 3: rows 3 to 5 are missing at the end: the file was cut short\n"


def test_on_another_machine_the_key_is_brought_along(cli: Cli) -> None:
    audited(cli)
    shutil.copy(cli.state / "keys" / "audit.key", cli.work / "audit.key")
    elsewhere = {"COMPUTERAGENT_HOME": str(cli.home / "elsewhere")}
    without = cli("audit", "verify", "audit.jsonl", **elsewhere)
    assert without.returncode == 0
    assert "note: 2 signatures were not checked: there is no key (--key FILE)" in without.stdout
    with_key = cli("audit", "verify", "audit.jsonl", "--key", "audit.key", **elsewhere)
    assert (with_key.returncode, "note:" in with_key.stdout) == (0, False)
    wrong = cli.work / "wrong.key"
    wrong.write_bytes(b"another key that is long enough")
    assert cli("audit", "verify", "audit.jsonl", "--key", "wrong.key").returncode == 1


def test_show_prints_the_rows_that_are_asked_for(cli: Cli) -> None:
    audited(cli)
    cli("run", *CALLS, "-m", "go", "--session-id", "second", "--yes", "--audit-log", "audit.jsonl")
    shown = cli("audit", "show", "audit.jsonl").stdout.splitlines()
    assert len(shown) == 9
    assert shown[0].endswith("began")
    assert "  first work  ALLOW Read a.txt  decided_by=callback" in shown[2]
    assert "  first work  DENY Bash make deploy  decided_by=callback" in shown[3]
    denied = cli("audit", "show", "audit.jsonl", "--decision", "deny").stdout.splitlines()
    assert denied == [shown[3]]
    reads = cli("audit", "show", "audit.jsonl", "--tool", "Read", "--session", "sec", "--json").stdout.splitlines()
    assert [json.loads(line)["event"]["session_id"] for line in reads] == ["second"]
    assert len(cli("audit", "show", "audit.jsonl", "--since", "1h").stdout.splitlines()) == 9
    assert cli("audit", "show", "audit.jsonl", "--since", "2999-01-01").stdout == ""
    assert cli("audit", "show", "audit.jsonl", "--since", "yesterday").returncode == 2


def test_what_cannot_be_audited_does_not_run(cli: Cli) -> None:
    (cli.work / "taken").mkdir()
    for command in (["run", *CALLS, "-m", "go"], ["serve", "--port", "0"], ["serve", "--kind", "sandboxes"]):
        error, hint = cli.fails(*command, "--audit-log", "taken")
        assert error == "error[AUDIT_FILE]: the audit file taken cannot be written: Is a directory"
        assert "--audit-log" in hint
    error, _ = cli.fails("audit", "verify", "nowhere.jsonl")
    assert "cannot be read" in error


def test_a_server_audits_what_it_runs(cli: Cli) -> None:
    body = {
        "engine": "scripted",
        "identity": {"source": {"type": "inline", "manifest": {"name": "a"}}},
        "options": {"script": [[{"tool": "Bash", "input": {"command": "ls"}}, {"text": "done"}]]},
        "messages": [{"role": "user", "content": "go"}],
        "approvalTimeout": 0.2,
    }
    cli.env["COMPUTERAGENT_AUDIT_LOG"] = "audit.jsonl"
    with serving(cli, "--no-auth") as (_, port):
        url = f"http://127.0.0.1:{port}"
        session = httpx2.post(f"{url}/v1/sessions", json=body).json()["sessionId"]
        httpx2.get(f"{url}/v1/sessions/{session}/events", timeout=20)
    assert cli("audit", "verify", "audit.jsonl").returncode == 0
    (row,) = cli("audit", "show", "audit.jsonl", "--tool", "Bash").stdout.splitlines()
    assert "DENY Bash ls  decided_by=timeout" in row


def test_a_sandbox_server_audits_what_it_runs(cli: Cli) -> None:
    (cli.work / "agent").mkdir()
    body = {
        "source": str(cli.work / "agent"),
        "harness": "scripted",
        "message": "go",
        "options": {"script": [[{"tool": "Bash", "input": {"command": "ls"}}, {"text": "done"}]]},
    }
    policy = '{"kind": "rules", "text": "version: 1\\nrules:\\n- {name: no, effect: deny, match: {tool: Bash}}\\n"}'
    args = ("--kind", "sandboxes", "--no-auth", "--audit-log", "audit.jsonl", "--policy", policy, "--runtime", "local")
    with serving(cli, *args) as (_, port):
        assert httpx2.post(f"http://127.0.0.1:{port}/run", json=body, timeout=30).status_code == 200
    assert cli("audit", "verify", "audit.jsonl").returncode == 0
    (row,) = cli("audit", "show", "audit.jsonl", "--tool", "Bash").stdout.splitlines()
    assert "DENY Bash ls  decided_by=policy  engine=rules  rule=no" in row
