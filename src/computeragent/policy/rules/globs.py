"""Globs for text and for paths, and regular expressions that cannot be slow."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache
from typing import Any

MAGIC = frozenset("*?[")

TextTest = Callable[[str], bool]


def text_glob(pattern: str, *, ignore_case: bool = False) -> TextTest:
    """A test whether a glob matches a whole text: ``*`` any characters, ``?`` one, ``[…]`` one of some."""
    if ignore_case:
        pattern = pattern.lower()
    if not MAGIC & set(pattern):
        return pattern.__eq__ if not ignore_case else lambda text: text.lower() == pattern
    if pattern == "*":
        return lambda _: True
    fits = re.compile(translate(pattern)).match
    return (lambda text: fits(text.lower()) is not None) if ignore_case else (lambda text: fits(text) is not None)


# ── Regular expressions ──────────────────────────────────────────────────────────────────────────────────────

_STEPS = 20_000_000
_SINGLE = {"LITERAL", "NOT_LITERAL", "ANY", "IN", "CATEGORY"}
_REFUSED = {"GROUPREF", "GROUPREF_EXISTS", "ASSERT", "ASSERT_NOT"}


class SlowPatternError(ValueError):
    """A regular expression that could take long for some text."""


def regex(pattern: str) -> Callable[[str], bool | None]:
    """A test whether a pattern matches a whole text; None for a text so long that it might take long.

    Raises `re.error` for what is no pattern, `SlowPatternError` for one with repeated groups, back-references,
    look-around or more than three open repeats.
    """
    fits = re.compile(pattern, re.DOTALL)
    parser: Any = importlib.import_module("re._parser")
    repeats = _open_repeats(parser.parse(pattern, re.DOTALL))
    if repeats > 3:
        raise SlowPatternError("it has more than three open repeats")
    longest = 65_536 if repeats < 2 else int(_STEPS ** (1 / repeats))
    return lambda text: None if len(text) > longest else fits.fullmatch(text) is not None


def _open_repeats(tree: Any) -> int:
    found = 0
    for operation, argument in tree:
        name = str(operation)
        if name in _REFUSED:
            raise SlowPatternError("it has a back-reference or looks around")
        if name in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
            _, most, body = argument
            if most > 1 and any(str(inner) not in _SINGLE for inner, _ in body):
                raise SlowPatternError("it repeats a group")
            found += most > 16
            found += _open_repeats(body)
        elif name == "BRANCH":
            found += sum(_open_repeats(branch) for branch in argument[1])
        elif name in {"SUBPATTERN", "ATOMIC_GROUP"}:
            found += _open_repeats(argument[-1] if name == "SUBPATTERN" else argument)
    return found


# ── Paths ────────────────────────────────────────────────────────────────────────────────────────────────────


class PathGlob:
    """A glob for absolute paths: ``*`` and ``?`` stay within a name, ``**`` is any number of folders.

    What ends in ``/**`` or ``/`` is a folder and all that is below it.
    """

    __slots__ = ("_below", "_exact", "_last", "_names", "ignore_case")

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        self.ignore_case = ignore_case
        if ignore_case:
            pattern = pattern.lower()
        names = [name for name in pattern.split("/") if name]
        if pattern.endswith("/") and names[-1:] != ["**"]:
            names.append("**")
        self._names = names
        self._last = _name(names[1]) if len(names) == 2 and names[0] == "**" != names[1] else None
        literal = not any(MAGIC & set(name) for name in names[:-1])
        self._below = "/" + "/".join(names[:-1]) if literal and names[-1:] == ["**"] else None
        self._exact = "/" + "/".join(names) if literal and names and not MAGIC & set(names[-1]) else None

    def matches(self, path: str) -> bool:
        """Whether it matches an absolute path in its plain form."""
        if self.ignore_case:
            path = path.lower()
        if self._last is not None:
            return self._last(path.rpartition("/")[2])
        if self._exact is not None:
            return path == self._exact
        if self._below is not None:
            below = self._below
            return below in {"/", path} or (path.startswith(below) and path[len(below)] == "/")
        return len(self._names) in self._reached(path)

    def covers(self, glob: str) -> bool:
        """Whether it surely matches all that another glob, as written in a shell line, stands for."""
        return self._names[-1:] == ["**"] and self.matches(glob)

    def reaches_below(self, folder: str) -> bool:
        """Whether it may match something below a folder."""
        reached = self._reached(folder.lower() if self.ignore_case else folder)
        return any(at < len(self._names) or self._names[-1:] == ["**"] for at in reached)

    def meets(self, glob: str) -> bool:
        """Whether some path may match both this and another glob."""
        return _meet(tuple(self._names), tuple(name for name in glob.split("/") if name))

    @property
    def last(self) -> str:
        """The last name of it."""
        return self._names[-1] if self._names else ""

    def _reached(self, path: str) -> set[int]:
        """How many names of the pattern may be used up by the whole path."""
        names, places = self._names, _through(self._names, {0})
        for part in path.split("/"):
            if not part:
                continue
            following = {at for at in places if at < len(names) and names[at] == "**"}
            following |= {at + 1 for at in places if at < len(names) and names[at] != "**" and _name(names[at])(part)}
            places = _through(names, following)
            if not places:
                break
        return places


def _through(names: list[str], places: set[int]) -> set[int]:
    """These places, and those behind a ``**`` that stands for nothing."""
    found = set(places)
    for at in places:
        while at < len(names) and names[at] == "**":
            at += 1  # noqa: PLW2901
            found.add(at)
    return found


@lru_cache(maxsize=4096)
def _name(pattern: str) -> TextTest:
    return text_glob(pattern)


def _meet(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    places = {(0, 0)}
    seen: set[tuple[int, int]] = set()
    while places:
        at = places.pop()
        if at in seen:
            continue
        seen.add(at)
        a, b = at
        if a == len(left) and b == len(right):
            return True
        first, second = left[a : a + 1], right[b : b + 1]
        if first == ("**",):
            places |= {(a + 1, b), (a, b + 1)} if second else {(a + 1, b)}
        elif second == ("**",):
            places |= {(a, b + 1), (a + 1, b)} if first else {(a, b + 1)}
        elif first and second and names_meet(first[0], second[0]):
            places.add((a + 1, b + 1))
    return False


@lru_cache(maxsize=4096)
def names_meet(left: str, right: str, *, dots: bool = False) -> bool:
    """Whether one name may match both globs. A set of characters counts as any character. Without `dots`, a wildcard at
    the start of `right` matches no dot, as in the shell.
    """
    if not dots and left.startswith(".") and right[:1] in MAGIC:
        return False
    a, b = re.sub(r"\[.*?\]", "?", left), re.sub(r"\[.*?\]", "?", right)
    places, seen = {(0, 0)}, set[tuple[int, int]]()
    while places:
        at = places.pop()
        if at in seen:
            continue
        seen.add(at)
        x, y = a[at[0] : at[0] + 1], b[at[1] : at[1] + 1]
        if not x and not y:
            return True
        if x == "*":
            places |= {(at[0] + 1, at[1]), (at[0], at[1] + 1)} if y else {(at[0] + 1, at[1])}
        elif y == "*":
            places |= {(at[0], at[1] + 1), (at[0] + 1, at[1])} if x else {(at[0], at[1] + 1)}
        elif x and y and (x == y or "?" in {x, y}):
            places.add((at[0] + 1, at[1] + 1))
    return False


def absolute_glob(pattern: str, cwd: str | None) -> str | None:
    """A pattern of a policy as an absolute one: relative to `cwd`, to the home of ``~``, or anywhere for ``**/``.

    None where it is relative and there is no `cwd`.
    """
    if pattern.startswith("**/"):
        return "/" + pattern
    if pattern == "~" or pattern.startswith("~/"):
        pattern = os.path.expanduser("~") + pattern[1:]  # noqa: PTH111 - text, not a file
    elif not pattern.startswith("/"):
        if cwd is None:
            return None
        pattern = re.sub(r"([*?\[])", r"[\1]", cwd) + "/" + pattern
    names: list[str] = []
    for name in pattern.split("/"):
        if name == "..":
            names = names[:-1]
        elif name not in {"", "."}:
            names.append(name)
    return "/" + "/".join(names) + ("/" if pattern.endswith("/") and names else "")
