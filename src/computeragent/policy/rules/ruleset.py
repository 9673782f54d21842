"""Rules as they are held: what they match, made into predicates once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from computeragent.policy.rules.calls import Subject

Effect = Literal["allow", "deny", "ask"]

NO, MAYBE, YES = 0, 1, 2
"""What a condition answers. MAYBE: it cannot be told."""

Test = Callable[[Subject], int]


@dataclass(frozen=True, slots=True)
class Condition:
    """A key of a rule's ``match``, and its test."""

    key: str
    test: Test
    given: Any
    """What the file says, for `lint` and `explain`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `tools` tests a tool's name in small letters."""

    name: str
    effect: Effect
    line: int
    reason: str = ""
    tools: Callable[[str], bool] | None = None
    tool_names: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    obligations: tuple[dict[str, Any], ...] = ()
    programs: frozenset[str] | None = None
    """The programs that its commands name, where they are written out: no other one is matched."""

    def matches(self, subject: Subject) -> int:
        """Whether it matches, apart from the tool's name."""
        answer = YES
        for condition in self.conditions:
            found = condition.test(subject)
            if found < answer:
                if found == NO:
                    return NO
                answer = found
        return answer


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The rules of a file. `default` is for what no rule matches, `unclear` for what a deny might match.

    Answers may be `remembered` where none depends on where links lead at the moment.
    """

    name: str
    default: Effect = "deny"
    unclear: Literal["deny", "ask"] = "deny"
    rules: tuple[Rule, ...] = ()
    remembered: bool = True
    by_tool: dict[str | tuple[str, str], tuple[Rule, ...]] = field(
        default_factory=dict[str | tuple[str, str], "tuple[Rule, ...]"], repr=False, compare=False
    )

    def for_tool(self, tool: str) -> tuple[Rule, ...]:
        """The rules whose tools include this one."""
        known = self.by_tool.get(tool)
        if known is None:
            name = tool.lower()
            known = tuple(rule for rule in self.rules if rule.tools is None or rule.tools(name))
            if len(self.by_tool) < 4096:
                self.by_tool[tool] = known
        return known

    def for_subject(self, tool: str, subject: Subject) -> tuple[Rule, ...]:
        """The rules that may match this subject: of a command that is clear, those of its program."""
        command = subject.command
        if command is None or command.unclear is not None or not command.words:
            return self.for_tool(tool)
        program = command.words[0].text
        if "/" in program:
            return self.for_tool(tool)
        key = (tool, program)
        known = self.by_tool.get(key)
        if known is None:
            rules = self.for_tool(tool)
            known = tuple(rule for rule in rules if rule.programs is None or program in rule.programs)
            if len(self.by_tool) < 4096:
                self.by_tool[key] = known
        return known
