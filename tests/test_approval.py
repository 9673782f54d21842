"""Approval at the terminal: the call as it is, one question at a time, and silence denies."""

from __future__ import annotations

import asyncio
import getpass
import io
from typing import Any

import pytest

from computeragent import PermissionDecision, tty_approval
from computeragent.approval import describe
from computeragent.errors import ValidationError
from computeragent.policy.answers import called
from computeragent.protocol_types import PermissionRequest

pytestmark = pytest.mark.anyio

ALLOW = PermissionDecision(decision="allow")


def call(risk: Any = "destructive", tool: str = "Bash", **tool_input: Any) -> PermissionRequest:
    return PermissionRequest("call_1", tool, tool_input or {"command": "rm -rf /"}, risk)


async def ask(typed: str, request: PermissionRequest | None = None, **options: Any) -> tuple[PermissionDecision, str]:
    out = io.StringIO()
    decision = await tty_approval(stdin=io.StringIO(typed), stdout=out, **options)(request or call())
    return decision, out.getvalue()


@pytest.mark.parametrize("typed", ["a\n", "allow\n", " A \n", "ALLOW"])
async def test_a_allows(typed: str):
    assert (await ask(typed))[0] == ALLOW


@pytest.mark.parametrize("typed", ["d\n", "deny\n"])
async def test_d_denies(typed: str):
    assert (await ask(typed))[0] == PermissionDecision(decision="deny", reason="denied at the terminal")


async def test_the_question_shows_the_call_and_its_risk():
    _, shown = await ask("a\n")
    assert shown == "\nBash (destructive risk): rm -rf /\n[a]llow, [d]eny, [m]odify (Enter: deny)? "


@pytest.mark.parametrize(("default", "decision"), [("deny", "deny"), ("allow", "allow")])
async def test_enter_is_the_default(default: Any, decision: str):
    assert (await ask("\n", default_decision=default))[0].decision == decision


async def test_the_end_of_input_denies_whatever_the_default():
    decision, _ = await ask("", default_decision="allow")
    assert decision == PermissionDecision(decision="deny", reason="no answer at the terminal")


async def test_what_is_no_answer_is_asked_again():
    decision, shown = await ask("what?\nyes\na\n")
    assert decision == ALLOW
    assert shown.count("[a]llow") == 3


async def test_m_takes_a_new_input():
    decision, _ = await ask('m\n{"command": "ls"}\n')
    assert decision == PermissionDecision(decision="modify", input={"command": "ls"})


@pytest.mark.parametrize(
    ("typed", "said"), [("[1]", "the input must be a JSON object"), ("null", "must be a JSON"), ("{oops", "not JSON: ")]
)
async def test_an_input_that_is_no_object_is_asked_again(typed: str, said: str):
    decision, shown = await ask(f"m\n{typed}\nd\n")
    assert decision.decision == "deny"
    assert said in shown


@pytest.mark.parametrize(
    ("risk", "gate", "asks"),
    [
        ("low", "destructive", False),
        ("high", "destructive", False),
        ("destructive", "destructive", True),
        ("low", "medium", False),
        ("medium", "medium", True),
        ("high", "low", True),
        ("low", "low", True),
        ("low", "none", True),
        (None, "destructive", True),
    ],
)
async def test_calls_below_the_gate_are_allowed_unasked(risk: Any, gate: Any, asks: bool):
    decision, shown = await ask("d\n", call(risk), risk_gate=gate)
    assert (decision.decision, bool(shown)) == (("deny", True) if asks else ("allow", False))


async def test_an_answer_says_which_user_was_at_the_terminal():
    approve = tty_approval(stdin=io.StringIO("a\n"), stdout=io.StringIO())
    assert await called(approve, call()) == (ALLOW, f"terminal:{getpass.getuser()}")
    assert await called(approve, call("low")) == (ALLOW, "callback")  # nobody was asked


async def test_one_call_is_asked_at_a_time():
    out = io.StringIO()
    approve = tty_approval(stdin=io.StringIO("a\nd\n"), stdout=out)
    decisions = await asyncio.gather(approve(call()), approve(call()))
    assert [decision.decision for decision in decisions] == ["allow", "deny"]
    assert out.getvalue().count("\nBash") == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"risk_gate": "hihg"}, "risk_gate cannot be 'hihg'"),
        ({"default_decision": "yes"}, "default_decision cannot be 'yes'"),
    ],
)
def test_a_setting_that_does_not_exist_is_refused_at_once(options: Any, says: str):
    with pytest.raises(ValidationError, match=says):
        tty_approval(**options)


def test_a_call_is_described_by_its_command_its_file_or_its_input():
    assert describe(call(command=" ls   -l ")) == "ls -l"
    assert describe(call(command="# tidy up\n  rm -rf ~\n")) == r"# tidy up \n rm -rf ~"
    assert describe(call(tool="Write", file_path="/a", content="x")) == "/a"
    assert describe(call(tool="mcp__x", query="ü")) == '{"query":"ü"}'


def test_nothing_that_a_terminal_would_obey_reaches_it():
    assert describe(call(command="rm -rf /\x1b[2K\recho hi")) == r"rm -rf /\x1b[2K echo hi"
    assert describe(call(command="a\u202eb")) == r"a\u202eb"


def test_a_long_call_is_cut_and_says_so():
    text = describe(call(command="x" * 500))
    assert text.startswith("x" * 400 + "…")
    assert "100 characters more" in text
