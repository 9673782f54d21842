"""The engine of rules. Every rule that matches counts: deny beats ask beats allow, and what cannot be told denies."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from computeragent.errors import PolicyInvalidError, ValidationError
from computeragent.logs import Logger
from computeragent.policy.files import WatchedFile
from computeragent.policy.rules.calls import Call, Subject
from computeragent.policy.rules.document import as_yaml
from computeragent.policy.rules.reading import VERSION, read_ruleset
from computeragent.policy.rules.ruleset import MAYBE, NO, YES, Rule, Ruleset
from computeragent.policy.types import PolicyDecision, PolicyInput, PolicyResult, denied_by_fault

_STRENGTH = {"allow": 0, "ask": 1, "deny": 2}
_log = Logger("policy")


@dataclass(slots=True)
class Judgement:
    """What the rules say of a subject. `rules` are those that decided; none where it was the default."""

    effect: str
    rules: list[Rule] = field(default_factory=list[Rule])
    unclear: bool = False
    """It could not be told whether the rule matches."""


class RulesPolicyEngine:
    """A policy in YAML: a `path` that is watched, its `text`, or the `rules` as plain data.

    A call that several rules match is denied if one of them denies, else asked for if one asks, else allowed. A shell
    line is judged command by command, and the strictest word stands. What no rule matches gets the policy's `default`,
    which is ``deny`` unless it says otherwise. Raises `PolicyInvalidError` for rules that are not valid. Never raises
    from `evaluate`.
    """

    name = "rules"

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        text: str | None = None,
        rules: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        if sum(given is not None for given in (path, text, rules)) != 1:
            raise ValidationError("rules have either a path, a text or rules", hint="Give one of them.")
        self._file = None if path is None else WatchedFile(path, read_ruleset)
        self._own = None
        if self._file is None:
            self._own = read_ruleset(_text(rules) if text is None else text, "rules")

    @property
    def ruleset(self) -> Ruleset:
        """The rules in force."""
        return self._file.value if self._file is not None else self._own or Ruleset("rules")

    @property
    def generation(self) -> Hashable | None:
        """Changes with the rules. None where answers depend on the machine's files, and must not be remembered."""
        ruleset = self.ruleset
        if ruleset.remembered:
            return 1 if self._file is None else self._file.generation
        return None

    @property
    def problem(self) -> str | None:
        """Why the file as it is now is not in force; None while it is."""
        return None if self._file is None else self._file.problem

    async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002 - the name that users know
        """Judge one call. Any fault denies."""
        try:
            return _evaluate(self.ruleset, input)
        except Exception as error:  # noqa: BLE001 - a fault denies
            _log.error("rules_failed", error=repr(error)[:200])
            return denied_by_fault(self.name, "POLICY_ERROR", f"the rules failed: {type(error).__name__}")

    async def aclose(self) -> None:
        """Nothing is held."""


def _text(rules: Any) -> str:
    document: Any = dict(rules) if isinstance(rules, Mapping) else {"version": VERSION, "rules": rules}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    try:
        return as_yaml(_plain(document))
    except Exception as error:
        raise PolicyInvalidError("rules: these are not plain data", hint="Use dicts, lists and scalars.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value  # pyright: ignore[reportUnknownVariableType]


def _evaluate(ruleset: Ruleset, question: PolicyInput) -> PolicyResult:
    call = Call(question)
    subjects = call.subjects
    worst, decided = subjects[0], judge(ruleset, subjects[0])
    allowed = decided.rules if decided.effect == "allow" else []
    for subject in subjects[1:]:
        judged = judge(ruleset, subject)
        if judged.effect == "allow":
            allowed = [*allowed, *(rule for rule in judged.rules if rule not in allowed)]
        if _STRENGTH[judged.effect] > _STRENGTH[decided.effect]:
            worst, decided = subject, judged
    chosen = allowed if decided.effect == "allow" else decided.rules
    return PolicyResult(
        _DECISIONS[decided.effect],
        _reason(decided, worst),
        [dict(each) for rule in chosen for each in rule.obligations] if decided.effect == "allow" else [],
        "rules",
        " + ".join([rule.name for rule in chosen]) or None,
    )


_DECISIONS = {effect: PolicyDecision(effect) for effect in _STRENGTH}


def judge(ruleset: Ruleset, subject: Subject) -> Judgement:
    """What the rules say of one subject."""
    passing = subject.command is not None and subject.command.passing
    unclear: Rule | None = None
    asking: Rule | None = None
    allowing: list[Rule] = []
    for rule in ruleset.for_subject(subject.call.tool, subject):
        answer = rule.matches(subject)
        if answer == NO:
            continue
        if rule.effect == "deny":
            if answer == YES:
                return Judgement("deny", [rule])
            unclear = unclear or rule
        elif rule.effect == "ask":
            asking = asking or rule
        elif answer == YES:
            allowing.append(rule)
    if unclear is not None and ruleset.unclear == "deny":
        return Judgement("deny", [unclear], unclear=True)
    if asking is not None or unclear is not None:
        return Judgement("ask", [rule for rule in (asking or unclear,) if rule is not None], unclear=asking is None)
    return Judgement("allow", allowing) if allowing or passing else Judgement(ruleset.default)


def _reason(decided: Judgement, subject: Subject) -> str:
    if not decided.rules:
        return "" if decided.effect == "allow" else f"no rule allows {subject}"
    rule = decided.rules[0]
    said = rule.reason
    if decided.effect == "allow":
        return said
    if decided.unclear:
        why = f"{subject} may do what the rule {rule.name!r} {'denies' if rule.effect == 'deny' else 'asks about'}; "
        searches = any(use.tree for use in subject.files)
        why += "search in a narrower folder or for a glob" if searches else "write it so that it can be told"
        return f"{why} ({said})" if said else why
    return said or f"the rule {rule.name!r} {'denies' if decided.effect == 'deny' else 'asks about'} {subject}"


__all__ = ["MAYBE", "Judgement", "RulesPolicyEngine", "judge"]
