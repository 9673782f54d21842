"""A shell line as data: the commands that it runs, as far as they can be known before it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command.

    `text` is what the program gets where the word is `known`; otherwise it is as written, with its quotes removed.
    `one` says that it is exactly one argument. A `glob` stands for names of files, a `tilde` word begins with a home.
    """

    text: str
    known: bool = True
    one: bool = True
    glob: bool = False
    tilde: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a command reads or writes: `op` as written, without a number before it. Of a here-document `target` is
    its text.
    """

    op: str
    target: Word

    @property
    def writes(self) -> str | None:
        """The file that it may write, as written; None where it writes none."""
        if self.op in {">", ">>", ">|", "<>", "&>", "&>>"}:
            return self.target.text
        if self.op != ">&" or (self.target.known and re.fullmatch(r"[0-9]*-?", self.target.text) is not None):
            return None
        return self.target.text

    @property
    def reads(self) -> str | None:
        """The file that it reads; None where it reads none."""
        return self.target.text if self.op in {"<", "<>"} else None


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command. `unclear` says why it cannot be told what it runs; its words are then a part of it.

    `stdin` is what it reads, where the line says so. `via` are the programs that run it, such as ``sudo``. A
    `passing` command, such as ``env`` before another one, does nothing but run those that are told beside it.
    """

    words: tuple[Word, ...] = ()
    assignments: tuple[tuple[str, Word], ...] = ()
    redirects: tuple[Redirect, ...] = ()
    stdin: str | None = None
    piped: bool = False
    via: tuple[str, ...] = ()
    unclear: str | None = None
    passing: bool = False

    @property
    def program(self) -> str:
        """The program's name without its folder; empty where there is none."""
        return self.words[0].text.rsplit("/", 1)[-1] if self.words else ""

    @property
    def texts(self) -> list[str]:
        """The words after the program."""
        return [word.text for word in self.words[1:]]

    def __str__(self) -> str:
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True, slots=True)
class Script:
    """All commands of a line, those in substitutions and behind wrappers included, in no order to rely on."""

    commands: tuple[Command, ...]

    @property
    def unclear(self) -> str | None:
        """Why it cannot be told what the line runs; None where it can."""
        return next((command.unclear for command in self.commands if command.unclear is not None), None)


class UnclearError(ValueError):
    """The rest of the line cannot be read."""
