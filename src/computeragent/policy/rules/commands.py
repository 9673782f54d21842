"""Patterns of shell commands: ``git status``, ``npm run *``, ``rm``.

An allow is met word for word: the last ``*`` of a pattern stands for any further words, any other ``*`` for one. A deny
or ask is met where the program is called with the pattern's words in this order, whatever stands between them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from computeragent.policy.risk import Command, Word
from computeragent.policy.risk.wrappers import is_installed
from computeragent.policy.rules.calls import Subject
from computeragent.policy.rules.document import Entry
from computeragent.policy.rules.globs import MAGIC, TextTest, text_glob
from computeragent.policy.rules.paths import HARMLESS
from computeragent.policy.rules.ruleset import MAYBE, NO, YES, Test


@dataclass(frozen=True, slots=True)
class CommandPattern:
    """A pattern: the program, the words after it, and whether any others may follow."""

    written: str
    program: str
    fits_program: TextTest
    words: tuple[tuple[str, TextTest], ...]
    rest: bool

    def covers(self, command: Command) -> bool:
        """Whether the whole command is as the pattern says."""
        words = command.words
        if len(words) - 1 < len(self.words) or (len(words) - 1 > len(self.words) and not self.rest):
            return False
        for word, (text, fits) in zip(words[1:], self.words, strict=False):
            if not (word.known and fits(word.text)) and not (text == "*" and word.one):
                return False
        return True

    def found_in(self, command: Command) -> int:
        """Whether the command has the pattern's words in this order."""
        words, at = command.words, 1
        for text, fits in self.words:
            if text.startswith("-") and _OPTION.fullmatch(text) is not None and _has_letters(words, text):
                continue
            while at < len(words) and not (words[at].known and fits(words[at].text)):
                at += 1
            if at == len(words):
                hidden = command.unclear is not None or any(not word.known and not word.glob for word in words[1:])
                return MAYBE if hidden else NO
            at += 1
        return YES


_OPTION = re.compile(r"-[A-Za-z]+")


def _has_letters(words: Sequence[Word], option: str) -> bool:
    """Whether short options, such as ``-rf``, are there in any order and cluster."""
    letters = {letter for word in words[1:] if _OPTION.fullmatch(word.text) is not None for letter in word.text[1:]}
    return set(option[1:]) <= letters


def read_pattern(text: str) -> CommandPattern:
    """A pattern from its text. Raises `ValueError`."""
    reader = shlex.shlex(text, posix=True, punctuation_chars=True)
    reader.whitespace_split, reader.commenters = True, ""
    words = list(reader)
    if not words:
        raise ValueError("it is empty")
    if any(re.fullmatch(r"[|&;<>()]+", word) for word in words):
        raise ValueError("it is more than one command")
    rest = len(words) > 1 and words[-1] == "*"
    plain = words[1:-1] if rest else words[1:]
    return CommandPattern(
        text, words[0], text_glob(words[0]), tuple((word, text_glob(word)) for word in plain), rest or words == ["*"]
    )


def command_test(entry: Entry, strict: bool, with_paths: bool) -> Test:
    """The test of ``commands``. Where a rule says nothing of `paths`, its allow covers no writing to a file."""
    patterns: list[CommandPattern] = []
    for item in entry.items():
        try:
            patterns.append(read_pattern(item.text("commands")))
        except ValueError as error:
            item.fail(f"not a command: {error}", "Write one program and its words, such as: git status *")
    if not patterns:
        entry.fail("commands is an empty list", "Leave the key out to match anything.")
    table = _Table(patterns, with_paths)
    return table.covers if strict else table.finds


def programs(entry: Entry) -> frozenset[str] | None:
    """The programs of ``commands``, in all spellings; None where one of them is a glob."""
    found = {read_pattern(item.written).program for item in entry.items()}
    if any(MAGIC & set(program) for program in found):
        return None
    return frozenset(found | {program.rpartition("/")[2] for program in found})


class _Table:
    """The patterns of a rule, by program."""

    def __init__(self, patterns: Sequence[CommandPattern], with_paths: bool) -> None:
        self._with_paths = with_paths
        self._named: dict[str, list[CommandPattern]] = {}
        for pattern in patterns:
            if not MAGIC & set(pattern.program):
                self._named.setdefault(pattern.program, []).append(pattern)
        self._others = [pattern for pattern in patterns if MAGIC & set(pattern.program)]

    def _fitting(self, *names: str) -> Iterator[CommandPattern]:
        for name in dict.fromkeys(names):
            yield from self._named.get(name, ())
        if self._others:
            yield from [pattern for pattern in self._others if any(map(pattern.fits_program, names))]

    def covers(self, subject: Subject) -> int:
        """Whether a pattern is the whole command."""
        command = subject.command
        if command is None or command.unclear is not None or not command.words:
            return NO
        writes = command.redirects and any(each.writes not in _UNWRITTEN for each in command.redirects)
        if writes and not self._with_paths:
            return NO
        program = command.words[0].text
        name = command.program if is_installed(program) else program
        for pattern in self._named.get(name, ()):
            if pattern.covers(command):
                return YES
        return YES if any(each.fits_program(name) and each.covers(command) for each in self._others) else NO

    def finds(self, subject: Subject) -> int:
        """Whether a pattern is in the command."""
        command = subject.command
        if command is None:
            return NO
        unclear = NO if command.unclear is None else MAYBE
        if not command.words or not command.words[0].known:
            return unclear
        answer = unclear
        for pattern in self._fitting(command.program, command.words[0].text):
            answer = max(answer, pattern.found_in(command))
        return answer


_UNWRITTEN = HARMLESS | {None}
