"""Rules as text: YAML with comments, the same for the same rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

_WIDTH = 100
_PLAIN = re.compile(r"(?:\./|/|[A-Za-z])(?:[\w./*@+-]| (?=[\w./*@+-]))*", re.ASCII)
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


@dataclass(frozen=True, slots=True)
class SuggestedRule:
    """A rule to write. `match` has texts, mappings and lists, or `Counted` ones; `comment` stands above it."""

    name: str
    effect: str
    match: dict[str, Any]
    comment: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """Texts of a list, each with how many calls stand behind it."""

    texts: dict[str, int] = field(default_factory=dict[str, int])


def written(head: Iterable[str], rules: Sequence[SuggestedRule], description: str, tail: Iterable[str]) -> str:
    """The text of a policy file: comments, rules, comments."""
    lines = [*map(_comment, head), "version: 1", f"description: {scalar(description)}", "", "rules:"]
    for rule in rules:
        lines += [*_rule(rule), ""]
    lines += map(_comment, tail)
    return "\n".join(lines).rstrip("\n") + "\n"


def _rule(rule: SuggestedRule) -> Iterator[str]:
    if rule.comment:
        yield f"  {_comment(rule.comment)}"
    yield f"  - name: {scalar(rule.name)}"
    yield f"    effect: {rule.effect}"
    if rule.reason:
        yield f"    reason: {scalar(rule.reason)}"
    yield "    match:"
    for key, value in rule.match.items():
        if isinstance(value, Counted):
            yield f"      {key}:"
            for text, count in value.texts.items():
                yield f"        - {scalar(text)}  # {count:,}"
        else:
            yield f"      {key}: {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(str(key))}: {_value(item)}" for key, item in value.items()) + "}"  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return str(value).lower() if isinstance(value, bool) else scalar(str(value))


def scalar(text: str) -> str:
    """A text as a YAML scalar on one line."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    quoted: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=1 << 30)  # pyright: ignore[reportUnknownMemberType]
    return quoted.rstrip("\n")


def _comment(text: str) -> str:
    """A comment on one line; what cannot be seen is left out."""
    seen = "".join(c if c.isprintable() else " " for c in text)
    return ("# " + (seen if len(seen) <= _WIDTH * 2 else seen[: _WIDTH * 2] + "…")).rstrip()
