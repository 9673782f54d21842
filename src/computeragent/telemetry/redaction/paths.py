"""Path rules: ``user.email``, ``items[0].name``, ``*.password``, ``**.token``; a rule covers what lies beneath it."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from re import compile as regex

_SEGMENT = regex(r"\[(\d+|\*)\]|((?:\\.|[^.\[\\])+)")
_Place = tuple[int, int]


class PathRules:
    """Rules, followed one segment at a time while a value is walked.

    A segment is a key, with ``*`` for any characters, or a list index, as ``[0]`` or ``0``; ``**`` is any number of
    segments, none included. A backslash before a dot makes it part of the key.
    """

    def __init__(self, rules: Iterable[str]) -> None:
        self._rules = [_segments(rule) for rule in ([rules] if isinstance(rules, str) else rules)]
        self.start: frozenset[_Place] = self._closed((number, 0) for number in range(len(self._rules)))

    def __bool__(self) -> bool:
        return bool(self._rules)

    def follow(self, places: frozenset[_Place], segment: str) -> frozenset[_Place]:
        """Where the rules stand after one more segment."""
        reached: set[_Place] = set()
        for number, at in places:
            rule = self._rules[number]
            if at == len(rule):
                continue
            if rule[at] == "**":
                reached.add((number, at))
            elif rule[at] == segment or ("*" in rule[at] and fnmatchcase(segment, rule[at])):
                reached.add((number, at + 1))
        return self._closed(reached)

    def hit(self, places: frozenset[_Place]) -> bool:
        """Whether a rule has been followed to its end."""
        return any(at == len(self._rules[number]) for number, at in places)

    def _closed(self, places: Iterable[_Place]) -> frozenset[_Place]:
        closed: set[_Place] = set()
        for number, at in places:
            closed.add((number, at))
            rule = self._rules[number]
            while at < len(rule) and rule[at] == "**":
                at += 1  # noqa: PLW2901  # "**" may stand for nothing
                closed.add((number, at))
        return frozenset(closed)


def _segments(rule: str) -> tuple[str, ...]:
    return tuple(match.group(1) or match.group(2).replace("\\.", ".") for match in _SEGMENT.finditer(rule))
