"""`computeragent policy`: cases, mistakes and reasons, as people and programs get them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Cli

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "policies"
POLICY = """
version: 1
rules:
- {name: look, effect: allow, match: {tool: Read, paths: [./**]}}
- {name: git, effect: allow, match: {tool: Bash, commands: [git status *]}}
- {name: push, effect: ask, reason: others see it, match: {tool: Bash, commands: [git push]}}
"""
CASES = """
cases:
- {name: reads, call: {tool: Read, input: {file_path: a}}, expect: {decision: allow, rule: look}}
- {name: "asks [b]", call: {tool: Bash, input: {command: git push}}, expect: {decision: ask, reason: others}}
"""


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_example_passes_its_cases(cli: Cli):
    done = cli("policy", "test", str(EXAMPLES / "coder.yaml"))
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "20 of 20 cases passed"


def test_cases_may_be_inside_beside_or_elsewhere(cli: Cli):
    (cli.work / "inside.yaml").write_text(POLICY + CASES)
    (cli.work / "p.yaml").write_text(POLICY)
    (cli.work / "p.cases.yaml").write_text(CASES)
    (cli.work / "other.yaml").write_text("policy: p.yaml\n" + CASES)
    for args in (("inside.yaml",), ("p.yaml",), ("p.yaml", "--cases", "other.yaml"), ("other.yaml",)):
        done = cli("policy", "test", *args)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 of 2 cases passed"), args


def test_a_case_that_fails_says_why(cli: Cli):
    cases = (
        "cases:\n- {name: no, call: {tool: Read, input: {file_path: /etc/x}}, expect: {decision: allow, rule: look}}\n"
    )
    (cli.work / "p.yaml").write_text(POLICY + cases)
    done = cli("policy", "test", "p.yaml")
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 of 1 cases passed"
    done = cli("policy", "test", "p.yaml", "--json")
    assert done.returncode == 1
    assert lines(done.stdout) == [
        {
            "name": "no", "line": 8, "passed": False,
            "problems": ["expected allow, got deny", "expected the rule look, got none"],
            "decision": "deny", "rule": None, "reason": "no rule allows Read", "code": None, "obligations": [],
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (POLICY, "p.yaml:2: there are no cases"),
        (POLICY + "cases: []\n", "there are no cases"),
        (POLICY + "cases: [{name: a}]\n", "p.yaml:7: a case needs its call"),
        (POLICY + "cases: [{name: a, call: {tol: x}, expect: allow}]\n", "a call has no key 'tol'"),
        (POLICY + "cases: [{name: a, call: {}, expect: allow}]\n", "a call needs its tool"),
        (POLICY + "cases: [{name: a, call: {tool: x}, expect: {decison: allow}}]\n", "expect has no key 'decison'"),
        (POLICY + "cases: [{name: a, call: {tool: x, input: 7}, expect: allow}]\n", "input must be a mapping"),
        ("rules: [\n", "not valid YAML"),
    ],
)
def test_cases_that_are_none_are_told(cli: Cli, text: str, error: str):
    (cli.work / "p.yaml").write_text(text)
    told = cli.fails("policy", "test", "p.yaml")
    assert told[0].startswith("error[POLICY_INVALID]: p.yaml")
    assert error in told[0]


def test_a_file_that_is_not_there_is_told(cli: Cli):
    assert cli.fails("policy", "test", "nowhere.yaml")[0] == (
        "error[POLICY_INVALID]: nowhere.yaml: it cannot be read: No such file or directory"
    )
    assert cli.fails("policy", "lint", "nowhere.yaml")[0].startswith("error[POLICY_INVALID]: nowhere.yaml")
    assert cli.fails("policy", "test", "p.cedar")[0] == "error[POLICY_INVALID]: p.cedar: there are no cases"
    assert cli.fails("policy", "explain", "p.txt", "--tool", "X")[0].startswith("error[VALIDATION]")


def test_lint_tells_lines_hints_and_counts(cli: Cli):
    (cli.work / "p.yaml").write_text(
        "version: 1\nrules:\n- name: a\n  effect: allow\n  match: {tool: Raed, risk: low}\n"
    )
    done = cli("policy", "lint", "p.yaml")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "p.yaml:3: warning: a: no tool is known as Raed",
        '  hint: Did you mean "Read"?',
    ]
    assert done.stderr == "p.yaml: 0 errors, 1 warning\n"
    assert cli("policy", "lint", "p.yaml", "--strict").returncode == 1
    (cli.work / "p.yaml").write_text("version: 1\nrules:\n- {name: a, efect: allow}\n")
    done = cli("policy", "lint", "p.yaml", "--json")
    assert done.returncode == 1
    assert lines(done.stdout) == [
        {"level": "error", "line": 3, "message": "a rule has no key 'efect'",
         "hint": 'Did you mean "effect"? Known: name, effect, reason, match, obligations.'}
    ]  # fmt: skip


def test_explain_shows_commands_rules_and_the_decision(cli: Cli):
    (cli.work / "p.yaml").write_text(POLICY)
    command = json.dumps({"command": "git status && env rm x > /tmp/y"})
    done = cli("policy", "explain", "p.yaml", "--tool", "Bash", "--input", command)
    assert done.returncode == 0
    told = done.stdout.splitlines()
    assert told[0] == "git status (low risk)"
    assert "  → allow by git" in told
    assert "rm x (high risk)" in told
    assert "  line 5: allow git: no (commands)" in told
    assert told[-1] == "deny  no rule allows the command `rm x`"
    done = cli("policy", "explain", "p.yaml", "--tool", "Bash", "--input", command, "--json")
    (answer,) = lines(done.stdout)
    assert (answer["decision"], answer["rule"]) == ("deny", None)
    assert [(part["what"], part["effect"]) for part in answer["parts"]] == [
        ("git status", "allow"), ("env rm x", "allow"), ("rm x", "deny"),
    ]  # fmt: skip


def test_explain_takes_who_and_where(cli: Cli):
    (cli.work / "p.yaml").write_text(
        "version: 1\nrules: [{name: a, effect: allow, match: {groups: o, agent: bot, principal: al, paths: [./**]}}]\n"
    )
    args = (
        "--tool",
        "Read",
        "--input",
        '{"file_path": "/w/x"}',
        "--group",
        "o",
        "--agent",
        "bot",
        "--principal",
        "al",
    )
    assert cli("policy", "explain", "p.yaml", *args, "--cwd", "/w").stdout.splitlines()[-1].startswith("allow")
    assert cli("policy", "explain", "p.yaml", *args).stdout.splitlines()[-1].startswith("deny")


@pytest.mark.parametrize("given", ["{", "[]", "7"])
def test_an_input_that_is_no_object_is_told(cli: Cli, given: str):
    (cli.work / "p.yaml").write_text(POLICY)
    assert cli.fails("policy", "explain", "p.yaml", "--tool", "X", "--input", given)[0].startswith(
        "error[VALIDATION]: --input"
    )


def test_policy_alone_is_a_usage_error(cli: Cli):
    assert cli("policy").returncode == 2
