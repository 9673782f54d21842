"""Why a call is judged as it is: its commands, their risk, files and hosts, and what each rule says of them."""

from __future__ import annotations

from dataclasses import dataclass

from computeragent.policy.rules.calls import Call, Subject
from computeragent.policy.rules.engine import judge
from computeragent.policy.rules.ruleset import MAYBE, NO, YES, Rule, Ruleset
from computeragent.policy.types import PolicyInput

_WORDS = {NO: "no", MAYBE: "cannot be told", YES: "yes"}


@dataclass(frozen=True, slots=True)
class RuleAnswer:
    """What a rule says of a subject: whether it `matches`, and its first condition that is not met, or not clearly."""

    rule: str
    effect: str
    line: int
    matches: str
    because: str | None


@dataclass(frozen=True, slots=True)
class SubjectAnswer:
    """What the rules say of a call, or of one command of a shell line."""

    what: str
    effect: str
    decided_by: list[str]
    risk: str
    unclear: str | None
    files: list[str]
    hosts: list[str]
    rules: list[RuleAnswer]


def explain(ruleset: Ruleset, question: PolicyInput) -> list[SubjectAnswer]:
    """What the rules say of each part of a call, and why."""
    call = Call(question)
    return [_answer(ruleset, subject) for subject in call.subjects]


def _answer(ruleset: Ruleset, subject: Subject) -> SubjectAnswer:
    judged = judge(ruleset, subject)
    command = subject.command
    unclear = None if command is None else command.unclear
    what = subject.call.tool if command is None else str(command) or str(subject)
    files = [f"{use.access} {use.paths[0] if use.paths else use.written or '?'}" for use in subject.files]
    return SubjectAnswer(
        what,
        judged.effect,
        [rule.name for rule in judged.rules],
        subject.risk,
        unclear,
        list(dict.fromkeys(files)),
        [host or "?" for host in subject.hosts],
        [_rule(rule, subject) for rule in ruleset.for_tool(subject.call.tool)],
    )


def _rule(rule: Rule, subject: Subject) -> RuleAnswer:
    answers = [(condition.test(subject), condition.key) for condition in rule.conditions]
    answer, key = min(answers, key=lambda each: each[0], default=(YES, ""))
    return RuleAnswer(rule.name, rule.effect, rule.line, _WORDS[answer], key if answer != YES else None)
