"""The grammar of the shell, as far as bash has one: lists, pipelines, compound commands, functions, redirections."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from computeragent.policy.risk.names import risky_variable
from computeragent.policy.risk.script import Command, Redirect, Script, UnclearError, Word
from computeragent.policy.risk.words import WordReader
from computeragent.policy.risk.wrappers import Followed, follow

MAX_LENGTH = 65_536
"""Characters of a line that are read; a longer one is unclear."""
MAX_COMMANDS = 2_000
"""Commands of a line that are told apart; one with more is unclear."""

_SIMPLE = re.compile(r"[A-Za-z0-9_./][\w./:@%+,-]*(?: [\w./:@%+,-]+)*", re.ASCII)
_SPACE = re.compile(r"(?:[ \t]|\\\n)+")
_RESERVED = re.compile(
    r"(?:if|then|elif|else|fi|for|select|while|until|do|done|case|esac|function|coproc|time|in|\[\[|\]\]|[{}!])"
    r"(?=[ \t\n;&|<>()]|\Z)"
)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\[[^\]\n]*\])?\+?=", re.ASCII)
_NUMBER = re.compile(r"[0-9]+(?=[<>])")
_NAMED = re.compile(r"\{[A-Za-z_]\w*\}(?=[<>])", re.ASCII)
_REDIRECT = re.compile(r"&>>|&>|<<<|<<-|<<|<&|<>|>>|>&|>\||<|>")
_CLOSED = re.compile(r"-[^\s;&|<>()]")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NUMBERS = re.compile(r"\(\([0-9\s+*/%<>=!&|^~?:,-]*\)\)")
_EVALUATED = frozenset({"-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v", "-R"})


@lru_cache(maxsize=512)
def parse(text: str) -> Script:
    """The commands of a shell line. Never raises: what cannot be read is an unclear command.

    Takes time linear in the length of the line.
    """
    if _SIMPLE.fullmatch(text) is not None:
        words = tuple(Word(word) for word in text.split(" "))
        if words[0].text not in _KEYWORDS and len(text) < MAX_LENGTH:
            return _read_words(words)
    found: list[Command] = []
    try:
        if len(text) > MAX_LENGTH:
            raise UnclearError("it is too long")
        if "\0" in text:
            raise UnclearError("it holds a character that no shell takes")
        _Reader(text, found, 0).read_all()
    except UnclearError as error:
        found.append(Command(unclear=str(error)))
    except RecursionError:
        found.append(Command(unclear="it is nested too deeply"))
    return Script(tuple(found))


def parse_argv(argv: list[str]) -> Script:
    """The commands that a program with these arguments runs: itself, or what it runs for others."""
    return _read_words(tuple(Word(word) for word in argv))


_KEYWORDS = frozenset(
    "if then elif else fi for select while until do done case esac function coproc time in".split()  # noqa: SIM905
)


def _read_words(words: tuple[Word, ...]) -> Script:
    found: list[Command] = []
    try:
        _Reader("", found, 0).run(Command(words))
    except UnclearError as error:
        found.append(Command(unclear=str(error)))
    return Script(tuple(found))


@dataclass
class _Heredoc:
    delimiter: str
    quoted: bool
    tabs: bool
    text: Word | None = None


class _Reader(WordReader):
    """Reads a text as a list of commands."""

    def __init__(self, text: str, found: list[Command], depth: int) -> None:
        super().__init__(text, found, depth)
        self._heredocs: list[_Heredoc] = []
        self._substitutions = 0
        self._simple: list[tuple[Command, list[_Heredoc]]] = []

    def read_all(self) -> None:
        """The whole text."""
        try:
            self._read_list(frozenset())
            if self.pos < len(self.text):
                self.fail("a syntax error")
            if self._heredocs:
                self.fail("a here-document without its end")
        finally:
            self._flush()

    def read_substitution(self) -> None:
        if self._heredocs:
            self.fail("a substitution after a here-document's beginning")
        self.nest()
        self._substitutions += 1
        self._read_list(frozenset())
        if not self.at(")"):
            self.fail("a parenthesis is not closed")
        if self._heredocs:
            self.fail("a here-document without its end")
        self.pos += 1
        self.level -= 1
        self._substitutions -= 1

    def read_apart(self, text: str) -> None:
        _Reader(text, self.found, self.level + 1).read_all()

    # Lists and pipelines

    def _skip_space(self) -> None:
        while True:
            found = _SPACE.match(self.text, self.pos)
            if found is not None:
                self.pos = found.end()
            if not self.at("#") or (self.pos and self.text[self.pos - 1] not in " \t\n;&|()<>"):
                return
            if self._substitutions:
                self.fail("a comment in a substitution")
            end = self.text.find("\n", self.pos)
            self.pos = len(self.text) if end < 0 else end

    def _skip_lines(self) -> None:
        self._skip_space()
        while self.at("\n"):
            self.pos += 1
            self._read_heredocs()
            self._skip_space()

    def _reserved(self) -> str | None:
        found = _RESERVED.match(self.text, self.pos)
        return None if found is None else found[0]

    def _read_list(self, closing: frozenset[str]) -> None:
        while True:
            self._skip_lines()
            char = self.peek()
            if char in {"", ")"} or self._reserved() in closing or self.at(";;") or self.at(";&"):
                return
            self._read_and_or()
            self._skip_space()
            char = self.peek()
            if char in {"", ")"} or self.at(";;") or self.at(";&"):
                return
            if char in {";", "&"}:
                self.pos += 1
            elif char != "\n" and self._reserved() not in closing:
                self.fail("a syntax error")

    def _read_and_or(self) -> None:
        self._read_pipeline()
        self._skip_space()
        while self.at("&&") or self.at("||"):
            self.pos += 2
            self._skip_lines()
            self._read_pipeline()
            self._skip_space()

    def _read_pipeline(self) -> None:
        while (word := self._reserved()) in {"!", "time"}:
            self.pos += len(word or "")
            self._skip_space()
            if word == "time" and re.match(r"(?:-p|--)(?=\s)", self.text[self.pos : self.pos + 4]):
                self.fail("options of time")
            if self.peek() in {"", "\n", ";", "&", "|", ")"}:
                return
        said = self._read_command(piped=False, stdin=None)
        self._skip_space()
        while self.at("|") and not self.at("||"):
            self.pos += 2 if self.at("|&") else 1
            self._skip_lines()
            said = self._read_command(piped=True, stdin=said)
            self._skip_space()

    # Commands

    def _read_command(self, *, piped: bool, stdin: str | None) -> str | None:
        """Read one command; what it is known to print."""
        word = self._reserved()
        if word is None and not self.at("("):
            return self._read_simple(piped=piped, stdin=stdin)
        self.nest()
        if self.at("(("):
            numbers = _NUMBERS.match(self.text, self.pos)
            self.pos = numbers.end() if numbers else self.fail("arithmetic can run commands")
        elif word is None:
            self.pos += 1
            self._read_list(frozenset())
            self._expect(")")
        else:
            self._read_compound(word)
        self.level -= 1
        self._read_trailing_redirects()
        return None

    def _read_compound(self, word: str) -> None:
        self.pos += len(word)
        match word:
            case "{":
                self._read_until("}")
            case "if":
                self._read_if()
            case "while" | "until":
                self._read_until("do")
                self._read_until("done")
            case "for" | "select":
                self._read_for()
            case "case":
                self._read_case()
            case "[[":
                self._read_condition()
            case "function":
                self._skip_space()
                self.read_word()
                self._skip_space()
                if self.at("("):
                    self.pos += 1
                    self._skip_space()
                    self._expect(")")
                self._read_body()
            case _:
                self.fail(f"a syntax error at {word}")

    def _expect(self, text: str) -> None:
        if not self.at(text):
            self.fail(f"a syntax error: {text} is missing")
        self.pos += len(text)

    def _expect_reserved(self, word: str) -> None:
        self._skip_lines()
        if self._reserved() != word:
            self.fail(f"a syntax error: {word} is missing")
        self.pos += len(word)

    def _read_until(self, word: str) -> None:
        self._read_list(frozenset({word}))
        self._expect_reserved(word)

    def _read_if(self) -> None:
        self._read_until("then")
        while True:
            self._read_list(frozenset({"elif", "else", "fi"}))
            word = self._reserved()
            if word == "elif":
                self.pos += 4
                self._read_until("then")
            elif word == "else":
                self.pos += 4
                self._read_until("fi")
                return
            else:
                self._expect_reserved("fi")
                return

    def _read_for(self) -> None:
        self._skip_space()
        name = _NAME.match(self.text, self.pos)
        if name is None:
            self.fail("a loop that counts")
        self.pos = name.end()
        self._check_variable(name[0], None)
        self._skip_lines()
        if self._reserved() == "in":
            self.pos += 2
            self._skip_space()
            while self.peek() not in {"", ";", "\n"}:
                if self.peek() in "&|<>()":
                    self.fail("a syntax error")
                self.read_word()
                self._skip_space()
        if self.at(";"):
            self.pos += 1
        self._expect_reserved("do")
        self._read_until("done")

    def _read_case(self) -> None:
        self._skip_space()
        self.read_word()
        self._expect_reserved("in")
        while True:
            self._skip_lines()
            if self._reserved() == "esac":
                self.pos += 4
                return
            if self.at("("):
                self.pos += 1
            while True:
                self._skip_space()
                if self.peek() in {"", "\n", ";", "&", "|", "<", ">", "(", ")"}:
                    self.fail("a syntax error")
                self.read_word()
                self._skip_space()
                if not self.at("|"):
                    break
                self.pos += 1
            self._expect(")")
            self._read_list(frozenset({"esac"}))
            found = re.compile(r";;&|;;|;&").match(self.text, self.pos)
            if found is not None:
                self.pos = found.end()

    def _read_condition(self) -> None:
        while True:
            self._skip_lines()
            if self._reserved() == "]]":
                self.pos += 2
                return
            if self.at("&&") or self.at("||"):
                self.pos += 2
            elif self.peek() and self.peek() in "()<>":
                self.pos += 1
            elif self.peek() in {"", ";", "&", "|"}:
                self.fail("a condition that is not closed")
            else:
                word = self.read_word()
                if word.text in _EVALUATED:
                    self.unclear("a comparison of numbers in [[ ]] can run commands")
                if self.peek() in {"(", "|", ";", "&", "<", ">"}:
                    self.fail("a pattern that is not plain")

    def _read_body(self) -> None:
        self._skip_lines()
        if self._reserved() not in {"{", "if", "while", "until", "for", "case", "select", "[["} and not self.at("("):
            self.fail("a function without a body")
        self._read_command(piped=False, stdin=None)

    def _read_trailing_redirects(self) -> None:
        redirects: list[Redirect | _Heredoc] = []
        self._skip_space()
        while self._read_redirect(redirects):
            self._skip_space()
        if redirects:
            self._queue(Command(), redirects)

    # Simple commands

    def _read_simple(self, *, piped: bool, stdin: str | None) -> str | None:
        words: list[Word] = []
        assignments: list[tuple[str, Word]] = []
        redirects: list[Redirect | _Heredoc] = []
        while True:
            self._skip_space()
            char = self.peek()
            if self._read_redirect(redirects):
                continue
            if char in {"", "\n", ";", "&", "|", ")"}:
                break
            if char == "(":
                self._read_function(words, assignments, redirects)
                return None
            if not words and (assigned := self._read_assignment()) is not None:
                assignments.append(assigned)
            else:
                words.append(self.read_word())
        if not words and not assignments and not redirects:
            self.fail("a syntax error: a command is missing")
        command = Command(tuple(words), tuple(assignments), stdin=stdin, piped=piped)
        self._queue(command, redirects)
        return _printed(command) if not redirects else None

    def _read_function(self, words: list[Word], assignments: list[tuple[str, Word]], redirects: list[Any]) -> None:
        if len(words) != 1 or assignments or redirects or not words[0].known:
            self.fail("a syntax error: a parenthesis")
        self.pos += 1
        self._skip_space()
        self._expect(")")
        self._read_body()

    def _read_assignment(self) -> tuple[str, Word] | None:
        found = _ASSIGNMENT.match(self.text, self.pos)
        if found is None:
            return None
        self.pos = found.end()
        if found[2] is not None and re.fullmatch(r"\[[0-9]+\]", found[2]) is None:
            self.fail("a subscript can run commands")
        value = self._read_array() if self.at("(") else self.read_word()
        self._check_variable(found[1], value.text if value.known else None)
        return found[1], value

    def _read_array(self) -> Word:
        start = self.pos
        self.pos += 1
        self._skip_lines()
        while not self.at(")"):
            if self.peek() in {"", ";", "&", "|", "<", ">", "(", "["}:
                self.fail("a syntax error in a list of values")
            self.read_word()
            self._skip_lines()
        self.pos += 1
        if self.peek() not in {"", " ", "\t", "\n", ";", "&", "|", ")"}:
            self.fail("a syntax error after a list of values")
        return Word(self.text[start : self.pos], known=False)

    def _check_variable(self, name: str, value: str | None) -> None:
        if risky_variable(name, value):
            self.unclear(f"it sets {name}, which changes what runs")

    # Redirections and here-documents

    def _read_redirect(self, into: list[Redirect | _Heredoc]) -> bool:
        if _NAMED.match(self.text, self.pos) is not None:
            self.fail("a redirection that sets a variable")
        number = _NUMBER.match(self.text, self.pos)
        start = self.pos if number is None else number.end()
        found = _REDIRECT.match(self.text, start)
        if found is None:
            return False
        if number is not None and (len(number[0]) > 4 or found[0].startswith("&")):
            self.fail("a redirection of no file")
        if number is None and self.text.startswith(("<(", ">("), start):
            self.fail("a process substitution")
        self.pos = found.end()
        if found[0] in {"<&", ">&"} and _CLOSED.match(self.text, self.pos) is not None:
            self.fail("a redirection that runs into a word")
        self._skip_space()
        if self.peek() in {"", "\n", ";", "&", "|", "<", ">", "(", ")"}:
            self.fail("a redirection without a file")
        if found[0] in {"<<", "<<-"}:
            into.append(self._begin_heredoc(tabs=found[0] == "<<-"))
        else:
            into.append(Redirect(found[0], self.read_word()))
        return True

    def _begin_heredoc(self, *, tabs: bool) -> _Heredoc:
        start = self.pos
        word = self.read_word()
        written = self.text[start : self.pos]
        if (not word.known and not word.glob) or "$" in written or "`" in written or "\n" in written:
            self.fail("a here-document whose end is not plain")
        quoted = any(mark in written for mark in "\\'\"")
        heredoc = _Heredoc(word.text, quoted, tabs)
        self._heredocs.append(heredoc)
        self.waiting += 1
        return heredoc

    def _read_heredocs(self) -> None:
        for heredoc in self._heredocs:
            lines: list[str] = []
            while True:
                line = self._read_line(heredoc)
                if line == heredoc.delimiter:
                    break
                lines.append(line + "\n")
            body = "".join(lines)
            if heredoc.quoted:
                heredoc.text = Word(body)
            else:
                inner = _Reader(body, self.found, self.level + 1)
                heredoc.text = inner.read_heredoc()
                inner._flush()
        self._heredocs.clear()
        self.waiting = 0

    def _read_line(self, heredoc: _Heredoc) -> str:
        end = self.text.find("\n", self.pos)
        if end < 0:
            if self.text[self.pos :].lstrip("\t" if heredoc.tabs else "") != heredoc.delimiter:
                self.fail("a here-document without its end")
            end = len(self.text)
        line = self.text[self.pos : end]
        self.pos = min(end + 1, len(self.text))
        if not heredoc.quoted and (len(line) - len(line.rstrip("\\"))) % 2:
            self.fail("a broken line in a here-document")
        return line.lstrip("\t") if heredoc.tabs else line

    # What is read becomes commands once the here-documents are known

    def _queue(self, command: Command, redirects: list[Redirect | _Heredoc]) -> None:
        plain = tuple(each for each in redirects if isinstance(each, Redirect))
        heredocs = [each for each in redirects if isinstance(each, _Heredoc)]
        if heredocs:
            self._simple.append((replace(command, redirects=plain), heredocs))
        else:
            strings = [each.target for each in plain if each.op == "<<<" and each.target.known]
            self.run(replace(command, redirects=plain, stdin=strings[-1].text if strings else command.stdin))

    def _flush(self) -> None:
        for command, heredocs in self._simple:
            texts = [heredoc.text for heredoc in heredocs if heredoc.text is not None]
            bodies = tuple(Redirect("<<", text) for text in texts)
            stdin = texts[-1].text if texts and texts[-1].known else None
            self.run(replace(command, redirects=command.redirects + bodies, stdin=stdin))
        self._simple.clear()

    def run(self, command: Command) -> None:
        """Note a command, and those that it runs in turn."""
        if len(self.found) > MAX_COMMANDS:
            self.fail("it has too many commands")
        if not command.words:
            if command.redirects:
                self.found.append(command)
            return
        for each in follow(command):
            match each:
                case Followed(command=inner):
                    self.nest()
                    self.run(inner)
                    self.level -= 1
                case str():
                    self.read_apart(each)
                case Command():
                    self.found.append(each)


def _printed(command: Command) -> str | None:
    if command.program not in {"echo", "printf"} or not all(word.known for word in command.words):
        return None
    return " ".join(word.text for word in command.words[1:])
