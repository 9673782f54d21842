"""What a rule matches, made into tests. An allow must be met by the whole subject, a deny or ask by any part of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from math import isnan
from typing import Any, cast

from computeragent.policy.risk import ORDER, command_risk
from computeragent.policy.rules.calls import Subject
from computeragent.policy.rules.commands import command_test
from computeragent.policy.rules.document import Entry, did_you_mean
from computeragent.policy.rules.globs import (
    MAGIC,
    PathGlob,
    SlowPatternError,
    absolute_glob,
    names_meet,
    regex,
    text_glob,
)
from computeragent.policy.rules.hosts import plain_address
from computeragent.policy.rules.paths import FileUse, real_path
from computeragent.policy.rules.ruleset import MAYBE, NO, YES, Condition, Test

_ANY_CASE = sys.platform == "darwin"
Value = Callable[[Any], int]


def make_conditions(given: Mapping[str, Entry], *, strict: bool) -> tuple[Condition, ...]:
    """The conditions of a rule, cheap ones first. `strict` for an allow. Raises `PolicyInvalidError`."""
    found: list[Condition] = []
    for key, make in _MAKERS.items():
        entry = given.get(key)
        if entry is not None:
            test = make(entry, strict, "paths" in given)
            found.append(Condition(key, test, entry.plain()))
    return tuple(found)


# ── Who ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _any_text(entry: Entry, what: str) -> Callable[[str], bool]:
    tests = [text_glob(text) for text in entry.texts(what)]
    return tests[0] if len(tests) == 1 else lambda text: any(test(text) for test in tests)


def _principal(entry: Entry, strict: bool, _: bool) -> Test:
    fits = _any_text(entry, "principal")
    return lambda subject: YES if fits(subject.call.question.principal.id) else NO


def _groups(entry: Entry, strict: bool, _: bool) -> Test:
    fits = _any_text(entry, "groups")
    return lambda subject: YES if any(map(fits, subject.call.question.principal.groups)) else NO


def _agent(entry: Entry, strict: bool, _: bool) -> Test:
    fits = _any_text(entry, "agent")
    return lambda subject: YES if fits(subject.call.question.resource.agent_name) else NO


# ── Risk, and whether a line can be read ─────────────────────────────────────────────────────────────────────


def _risk(entry: Entry, strict: bool, _: bool) -> Test:
    levels: list[str] = list(ORDER)
    if isinstance(entry.value, dict):
        bounds = entry.mapping("risk", ("at_most", "at_least"))
        if not bounds:
            entry.fail("risk says nothing", "Use at_most or at_least.")
        if (least := bounds.get("at_least")) is not None:
            levels = levels[levels.index(least.choice("at_least", ORDER)) :]
        if (most := bounds.get("at_most")) is not None:
            allowed = ORDER[: ORDER.index(most.choice("at_most", ORDER)) + 1]  # type: ignore[arg-type]
            levels = [level for level in levels if level in allowed]
    else:
        levels = [item.choice("risk", ORDER) for item in entry.items()]
    fitting = frozenset(levels)
    if not fitting:
        entry.fail("no risk fits", "at_least must not be above at_most.")
    return lambda subject: YES if subject.risk in fitting else NO


def _parsable(entry: Entry, strict: bool, _: bool) -> Test:
    if not isinstance(entry.value, bool):
        entry.fail("parsable must be true or false")
    wanted = entry.value
    return lambda subject: YES if subject.command is not None and (subject.command.unclear is None) is wanted else NO


# ── Arguments ────────────────────────────────────────────────────────────────────────────────────────────────


def _arguments(entry: Entry, strict: bool, _: bool) -> Test:
    tests = [(path.split("."), _value(value, strict)) for path, value in entry.mapping("arguments").items()]
    if not tests:
        entry.fail("arguments names none", "Leave the key out to match anything.")

    def test(subject: Subject) -> int:
        answer = YES
        for path, value in tests:
            found = [value(each) for each in _at(subject.call.input, path)]
            answer = min(answer, (min(found) if strict else max(found)) if found else NO)
            if answer == NO:
                return NO
        return answer

    return test


class _Absent:
    """The value of an argument that is not there."""


_ABSENT = _Absent()


def _at(value: Any, path: list[str]) -> list[Any]:
    """The values that a path leads to; ``*`` is every entry. What is not there is `_ABSENT`."""
    values = [value]
    for key in path:
        following: list[Any] = []
        for each in values:
            if isinstance(each, dict):
                pairs = cast("dict[str, Any]", each)
                following.extend(pairs.values() if key == "*" else [pairs.get(key, _ABSENT)])
            elif isinstance(each, list):
                entries = cast("list[Any]", each)
                at = int(key) if key.isdecimal() and len(key) < 9 else len(entries)
                following.extend(entries if key == "*" else entries[at : at + 1] or [_ABSENT])
            else:
                following.append(_ABSENT)
        values = following
    return values


_TESTS = ("equals", "glob", "regex", "one_of", "at_most", "at_least", "absent")


def _value(entry: Entry, strict: bool) -> Value:
    if isinstance(entry.value, dict):
        tests = entry.mapping("an argument's test", _TESTS)
        if not tests:
            entry.fail("an argument's test says nothing", f"Use one of: {', '.join(_TESTS)}.")
        made = [_single(name, test, strict) for name, test in tests.items()]
        return lambda value: min(test(value) for test in made)
    if isinstance(entry.value, list):
        return _single("one_of", entry, strict)
    return _single("glob" if isinstance(entry.value, str) else "equals", entry, strict)


def _single(name: str, entry: Entry, strict: bool) -> Value:
    match name:
        case "equals":
            wanted = entry.plain()
            return lambda value: YES if _same(value, wanted) else NO
        case "one_of":
            choices = [_value(item, strict) for item in entry.items()]
            if not choices:
                entry.fail("one_of is an empty list")
            return lambda value: max(choice(value) for choice in choices)
        case "glob":
            fits = text_glob(entry.text("glob"))
            return lambda value: (YES if fits(value) else NO) if isinstance(value, str) else _other(value, strict)
        case "regex":
            return _regex(entry, strict)
        case "absent":
            if not isinstance(entry.value, bool):
                entry.fail("absent must be true or false")
            return lambda value: YES if (value is _ABSENT) is entry.value else NO
        case _:
            return _bound(name, entry, strict)


def _same(value: Any, wanted: Any) -> bool:
    return isinstance(value, bool) is isinstance(wanted, bool) and value == wanted


def _other(value: Any, strict: bool) -> int:
    """A value of another kind than the test is for: a tool may still read it as one."""
    return NO if strict or value is _ABSENT or value is None else MAYBE


def _regex(entry: Entry, strict: bool) -> Value:
    try:
        fits = regex(entry.text("regex"))
    except SlowPatternError as error:
        hint = "Repeat single characters and classes alone, at most three times without a limit; or use glob, one_of."
        entry.fail(f"the pattern may be slow: {error}", hint)
    except (re.error, OverflowError, RecursionError) as error:
        entry.fail(f"not a pattern: {error}")

    def test(value: Any) -> int:
        if not isinstance(value, str):
            return _other(value, strict)
        found = fits(value)
        return MAYBE if found is None else YES if found else NO

    return test


def _bound(name: str, entry: Entry, strict: bool) -> Value:
    limit = entry.value
    if not isinstance(limit, int | float) or isinstance(limit, bool) or isnan(limit):
        entry.fail(f"{name} must be a number")

    def test(value: Any) -> int:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return _other(value, strict)
        return YES if (value <= limit if name == "at_most" else value >= limit) else NO

    return test


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Paths:
    """Patterns of paths for one kind of access, absolute for each working folder."""

    def __init__(self, entry: Entry, strict: bool) -> None:
        self._patterns = entry.texts("paths")
        self._ignore_case = _ANY_CASE and not strict
        for item in entry.items():
            if item.written.startswith("~") and item.written != "~" and not item.written.startswith("~/"):
                item.fail("only one's own home can be named", "Write ~/… or an absolute path.")
        self.for_folder: Callable[[str | None], list[PathGlob]] = lru_cache(maxsize=64)(self._make)

    def _make(self, cwd: str | None) -> list[PathGlob]:
        found: dict[str, PathGlob] = {}
        for pattern in self._patterns:
            for folder in {cwd, cwd and real_path(cwd)}:
                glob = absolute_glob(pattern, folder)
                for each in (glob, glob and _really(glob)):
                    if each is not None:
                        found[each] = PathGlob(each, ignore_case=self._ignore_case)
        return list(found.values())

    def covers(self, use: FileUse, cwd: str | None) -> int:
        """Whether all that a call does with a file is within the patterns."""
        globs = self.for_folder(cwd)
        if not use.paths:
            return MAYBE
        if use.glob:
            return YES if all(any(glob.covers(path) for glob in globs) for path in use.paths) else MAYBE
        if use.tree:
            return YES if all(any(glob.covers(path) for glob in globs) for path in use.paths) else NO
        return YES if all(any(glob.matches(path) for glob in globs) for path in use.paths) else NO

    def touches(self, use: FileUse, cwd: str | None) -> int:
        """Whether any of it is within them."""
        globs = self.for_folder(cwd)
        if not use.paths or len(globs) == 0:
            return MAYBE
        for path in use.paths:
            for glob in globs:
                if glob.matches(path):
                    return YES
        if use.glob and any(glob.meets(path) for glob in globs for path in use.paths):
            return MAYBE
        if use.tree and any(
            glob.reaches_below(path) and _named(glob, use.names) for glob in globs for path in use.paths
        ):
            return MAYBE
        return NO


def _named(glob: PathGlob, names: str | None) -> bool:
    """Whether a search for these names may find what the pattern is for."""
    return names is None or glob.last == "**" or names_meet(glob.last, names, dots=True)


def _really(glob: str) -> str:
    """A glob whose plain beginning is where that leads on this machine."""
    names = glob.split("/")
    plain = next((at for at, name in enumerate(names) if MAGIC & set(name)), len(names) - 1)
    start = "/".join(names[:plain])
    return re.sub(r"([*?\[])", r"[\1]", real_path(start)).rstrip("/") + "/" + "/".join(names[plain:]) if start else glob


class _Access:
    """The patterns of a rule for reading and for writing."""

    def __init__(self, entry: Entry, strict: bool) -> None:
        self._reads: _Paths | None
        self._writes: _Paths | None
        if isinstance(entry.value, dict):
            given = entry.mapping("paths", ("read", "write"))
            if not given:
                entry.fail("paths names none", "Use read, write or a list.")
            self._reads = _Paths(given["read"], strict) if "read" in given else None
            self._writes = _Paths(given["write"], strict) if "write" in given else None
        else:
            self._reads = self._writes = _Paths(entry, strict)

    def _sides(self, use: FileUse, subject: Subject) -> list[_Paths | None]:
        if use.access == "any" and self._reads is not self._writes:
            command = subject.command
            reading = command is not None and command_risk(replace(command, redirects=())) == "low"
            return [self._reads] if reading else [self._reads, self._writes]
        return [self._writes if use.access == "write" else self._reads]

    def within(self, subject: Subject) -> int:
        """Whether all files are within the patterns. A tool must name one; a command need not."""
        cwd, answer = subject.call.cwd, YES if subject.files or subject.command is not None else NO
        for use in subject.files:
            for side in self._sides(use, subject):
                answer = min(answer, NO if side is None else side.covers(use, cwd))
            if answer == NO:
                return NO
        return answer

    def touching(self, subject: Subject) -> int:
        """Whether any file is."""
        cwd, answer = subject.call.cwd, NO
        for use in subject.files:
            for side in self._sides(use, subject):
                answer = max(answer, NO if side is None else side.touches(use, cwd))
            if answer == YES:
                return YES
        return answer


def _paths(entry: Entry, strict: bool, _: bool) -> Test:
    access = _Access(entry, strict)
    return access.within if strict else access.touching


# ── Hosts ────────────────────────────────────────────────────────────────────────────────────────────────────


def _hosts(entry: Entry, strict: bool, _: bool) -> Test:
    for item in entry.items():
        if re.search(r"[/:@\s]", item.text("hosts")) and not re.fullmatch(r"[0-9a-fA-F:.*]+", item.written):
            item.fail(f"{item.written!r} is no host", "Write a name such as api.example.com or *.example.com.")
    fits = _any_text(Entry([_lowered(item) for item in entry.items()], "", entry.file, entry.line), "hosts")

    def test(subject: Subject) -> int:
        found = [MAYBE if host is None else YES if fits(host) else NO for host in subject.hosts]
        return NO if not found else min(found) if strict else max(found)

    return test


def _lowered(item: Entry) -> Entry:
    name = item.written.lower().rstrip(".")
    if ":" in name and not MAGIC & set(name):
        name = plain_address(name) or item.fail(f"{item.written!r} is no host", "Such as ::1.")
    try:
        name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        item.fail(f"{item.written!r} is no host")
    return Entry(name, name, item.file, item.line)


_MAKERS: dict[str, Callable[[Entry, bool, bool], Test]] = {
    "principal": _principal,
    "groups": _groups,
    "agent": _agent,
    "parsable": _parsable,
    "commands": command_test,
    "arguments": _arguments,
    "risk": _risk,
    "hosts": _hosts,
    "paths": _paths,
}
KEYS = ("tool", *_MAKERS)
"""The keys of a rule's ``match``."""

__all__ = ["KEYS", "did_you_mean", "make_conditions"]
