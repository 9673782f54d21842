"""`computeragent agent validate`: what an agent is, and what it asks for in vain."""

from __future__ import annotations

from .conftest import Cli

AGENT = """
name: triage
version: 1.2.0
description: Looks at bugs
model:
  preferred: claude-sonnet-4-5
runtime:
  max_turns: 7
hooks:
  pre: x
"""


def test_a_valid_agent_is_described_with_what_is_not_honoured(cli: Cli) -> None:
    (cli.work / "agent.yaml").write_text(AGENT)
    (cli.work / "SOUL.md").write_text("You are kind [/x] to bugs.")
    done = cli("agent", "validate")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "triage 1.2.0 (loader gap) is valid"
    assert "  max_turns: 7" in done.stdout
    assert "  model: claude-sonnet-4-5" in done.stdout
    assert "  note: agent.yaml: hooks is not honoured" in done.stdout


def test_a_run_tells_the_notes_on_stderr(cli: Cli) -> None:
    (cli.work / "agent.yaml").write_text(AGENT)
    done = cli("run", "--engine", "scripted", "-m", "hi")
    assert done.returncode == 0
    assert "note: agent.yaml: hooks is not honoured" in done.stderr.splitlines()


def test_a_directory_without_agent_yaml_is_an_agent_too(cli: Cli) -> None:
    assert cli("agent", "validate", ".").stdout == "work 0.0.0 (loader passthrough) is valid\n"


def test_what_cannot_be_read_is_told(cli: Cli) -> None:
    assert cli.fails("agent", "validate", "nowhere") == [
        "error[VALIDATION]: 'nowhere' is neither a directory nor a repository",
        "hint: Write ./nowhere for a directory, or github.com/nowhere for a repository.",
    ]
    assert cli.fails("agent", "validate", "https://127.0.0.1:1/o/r")[0].startswith("error[SOURCE_UNAVAILABLE]")
