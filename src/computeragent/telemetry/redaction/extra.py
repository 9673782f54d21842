"""Patterns of the user: run by google-re2 when it is installed, else checked and run in small windows."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from computeragent.errors import ValidationError

_WINDOW = 2048
_OVERLAP = 512
_REPEATS = frozenset({"MAX_REPEAT", "MIN_REPEAT"})


def compiled(patterns: Iterable[str | re.Pattern[str]], *, use_re2: bool = True) -> list[_Linear | _Windowed]:
    """Each pattern, ready to run in time linear in the text."""
    given = [patterns] if isinstance(patterns, str | re.Pattern) else list(patterns)
    return [_compile(pattern, use_re2=use_re2) for pattern in given]


class _Linear:
    """A pattern that google-re2 runs."""

    def __init__(self, pattern: Any) -> None:
        self._pattern = pattern

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        for match in self._pattern.finditer(text):
            if match.end() > match.start():
                yield match.span()


class _Windowed:
    """A pattern that Python runs, on so little text at a time that its worst case stays small."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        size = len(text)
        start = reached = 0
        while True:
            end = min(size, start + _WINDOW)
            for match in self._pattern.finditer(text, start, end):
                low, high = match.span()
                if high > low and high > reached:
                    reached = high
                    yield low, high
            if end == size:
                return
            start = end - _OVERLAP


def _compile(pattern: str | re.Pattern[str], *, use_re2: bool) -> _Linear | _Windowed:
    source = pattern if isinstance(pattern, str) else pattern.pattern
    flags = 0 if isinstance(pattern, str) else pattern.flags & (re.IGNORECASE | re.MULTILINE | re.DOTALL)
    try:
        checked = pattern if isinstance(pattern, re.Pattern) else re.compile(source)
    except re.error as error:
        raise ValidationError(f"the pattern {source!r} is not valid: {error}", hint="Mend the pattern.") from error
    if use_re2:
        linear = _with_re2(source, flags)
        if linear is not None:
            return linear
    if _nested(source, checked.flags):
        raise ValidationError(
            f"the pattern {source!r} repeats a repetition, which can take exponential time",
            hint="Write it without nested quantifiers, or install computer-agent-py[pii], whose engine is linear.",
        )
    return _Windowed(checked)


def _with_re2(source: str, flags: int) -> _Linear | None:
    try:
        re2: Any = importlib.import_module("re2")
    except ImportError:
        return None
    letters = "".join(letter for letter, flag in (("i", re.I), ("m", re.M), ("s", re.S)) if flags & flag)
    options: Any = re2.Options()
    options.log_errors = False
    try:
        return _Linear(re2.compile(f"(?{letters}){source}" if letters else source, options))
    except re2.error:
        return None  # look-around and back-references are Python's own


def _nested(source: str, flags: int) -> bool:
    parser: Any = importlib.import_module("re._parser")
    return _repeats_inside(parser.parse(source, flags & ~re.DEBUG), inside=False)


def _repeats_inside(tree: Any, *, inside: bool) -> bool:
    for operation, argument in tree:
        repeats = str(operation) in _REPEATS and argument[1] > 16
        if repeats and inside:
            return True
        if any(_repeats_inside(part, inside=inside or repeats) for part in _parts(argument)):
            return True
    return False


def _parts(argument: Any) -> Iterator[Any]:
    if hasattr(argument, "data"):
        yield argument
    elif isinstance(argument, tuple | list):
        for item in argument:  # pyright: ignore[reportUnknownVariableType]
            yield from _parts(item)
