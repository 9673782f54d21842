"""Words of the shell: quotes, expansions and substitutions, read as bash reads them."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import NoReturn

from computeragent.policy.risk.names import risky_variable
from computeragent.policy.risk.script import Command, UnclearError, Word

BREAKS = frozenset(" \t\n;&|<>()")
MAX_DEPTH = 24
"""How deep substitutions, subshells and quoted scripts may be nested."""

_PLAIN = re.compile(r"[\w./,:@%+=^-]+", re.ASCII)
_PARAMETER = re.compile(r"[A-Za-z_]\w*|[0-9]|[@*#?$!-]", re.ASCII)
_BRACED = re.compile(r"#?(?:[A-Za-z_]\w*|[0-9]+|[@*#?$-])(?:\[(?:[0-9]+|@|\*)\])?", re.ASCII)
_OPERATOR = re.compile(r":?[-=?+]|##?|%%?|//?|\^\^?|,,?")
_SLICE = re.compile(r":[0-9]+(?::[0-9]+)?\}")
_NUMBERS = re.compile(r"\(\([0-9\s+*/%<>=!&|^~?:,-]*\)\)")
_ARITHMETIC = re.compile(r"\(\([^()$`'\"\\]*\)\)")
_IN_DOUBLE = re.compile(r"[^\"\\$`]+")
_IN_HEREDOC = re.compile(r"[^\\$`]+")
_BACKTICKS = re.compile(r"`((?:[^`\\]|\\.)*)`", re.DOTALL)
_ANSI = re.compile(r"\\(?:x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|U[0-9a-fA-F]{1,8}|[0-7]{1,3}|c.|.)|[^'\\]+", re.DOTALL)
_ESCAPES = {"a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass
class _Draft:
    """A word while it is read."""

    pieces: list[str] = field(default_factory=list[str])
    known: bool = True
    one: bool = True
    glob: bool = False
    braces: str = ""
    tilde: bool = False

    def unknown(self, written: str, *, one: bool) -> None:
        self.pieces.append(written)
        self.known = False
        self.one = self.one and one

    def word(self) -> Word:
        text = "".join(self.pieces)
        if self.glob and not re.search(r"[*?]|\[.*\]", text, re.DOTALL):
            self.glob = False
        if "{" in self.braces and "}" in self.braces and ("," in text or ".." in text):
            return Word(text, known=False, one=False, tilde=self.tilde)
        if not self.known:
            return Word(text, known=False, one=self.one and not self.glob, tilde=self.tilde)
        return Word(text, known=not self.glob, one=not self.glob, glob=self.glob, tilde=self.tilde)


class WordReader:
    """Reads words at `pos` of `text`, and the commands inside them into `found`."""

    def __init__(self, text: str, found: list[Command], depth: int) -> None:
        self.text = text
        self.pos = 0
        self.found = found
        self.level: int = depth - 1
        self.waiting = 0
        """Here-documents whose text is still to come."""
        self.nest()

    @abstractmethod
    def read_substitution(self) -> None:
        """Read the commands after ``$(``, and its ``)``."""

    @abstractmethod
    def read_apart(self, text: str) -> None:
        """Read commands that are written elsewhere: in backticks, or in a string."""

    def nest(self) -> None:
        """Go one level deeper. Whoever comes back up lowers `level`."""
        self.level += 1
        if self.level > MAX_DEPTH:
            self.fail("it is nested too deeply")

    def unclear(self, reason: str) -> None:
        """Note that a part of the line cannot be told."""
        self.found.append(Command(unclear=reason))

    def fail(self, reason: str) -> NoReturn:
        """Give up on the rest of the line."""
        raise UnclearError(reason)

    def peek(self) -> str:
        """The character at hand; empty at the end."""
        return self.text[self.pos : self.pos + 1]

    def at(self, prefix: str) -> bool:
        """Whether this comes next."""
        return self.text.startswith(prefix, self.pos)

    def read_word(self) -> Word:
        """The word at hand."""
        text, plain = self.text, _PLAIN.match(self.text, self.pos)
        if plain is not None:
            end = plain.end()
            if end == len(text) or text[end] in BREAKS:
                self.pos = end
                return Word(plain[0])
        draft = _Draft(tilde=self.at("~"))
        while self.pos < len(text) and text[self.pos] not in BREAKS:
            plain = _PLAIN.match(text, self.pos)
            if plain is not None:
                draft.pieces.append(plain[0])
                self.pos = plain.end()
            else:
                self._read_piece(draft)
        return draft.word()

    def _read_piece(self, draft: _Draft) -> None:
        char = self.text[self.pos]
        match char:
            case "\\":
                self._read_escape(draft)
            case "'":
                self.pos += 1
                draft.pieces.append(self._until_quote())
            case '"':
                self.pos += 1
                self._read_double(draft)
            case "$":
                self._read_dollar(draft, double=False)
            case "`":
                self._read_backticks(draft, double=False)
            case _:
                self.pos += 1
                draft.pieces.append(char)
                draft.glob = draft.glob or char in "*?["
                if char in "{}":
                    draft.braces += char
                if char == "~" and len(draft.pieces) > 1 and draft.pieces[-2].endswith((":", "=")):
                    draft.known = False

    def _read_escape(self, draft: _Draft) -> None:
        after = self.text[self.pos + 1 : self.pos + 2]
        if not after:
            self.fail("it ends with a backslash")
        self.pos += 2
        if after != "\n":
            draft.pieces.append(after)
            return
        if self.peek() not in {"", " ", "\t", "\n"}:
            self.fail("a line is broken within a word")

    def _until_quote(self) -> str:
        end = self.text.find("'", self.pos)
        if end < 0:
            self.fail("a quote is not closed")
        quoted = self.text[self.pos : end]
        self.pos = end + 1
        self._check_waiting(quoted)
        return quoted

    def _check_waiting(self, quoted: str) -> None:
        if self.waiting and "\n" in quoted:
            self.fail("a here-document begins within a quote")

    def _read_double(self, draft: _Draft) -> None:
        while True:
            char = self.peek()
            if char == "":
                self.fail("a quote is not closed")
            if char == '"':
                self.pos += 1
                return
            self._read_quoted(draft, _IN_DOUBLE, escaped='$`"\\')

    def read_heredoc(self) -> Word:
        """All of the text, as the body of a here-document whose delimiter is not quoted."""
        draft = _Draft()
        while self.pos < len(self.text):
            self._read_quoted(draft, _IN_HEREDOC, escaped="$`\\")
        return Word("".join(draft.pieces), known=draft.known)

    def _read_quoted(self, draft: _Draft, plain: re.Pattern[str], *, escaped: str) -> None:
        found = plain.match(self.text, self.pos)
        if found is not None:
            self.pos = found.end()
            self._check_waiting(found[0])
            draft.pieces.append(found[0])
            return
        char = self.text[self.pos]
        if char == "$":
            self._read_dollar(draft, double=True, heredoc='"' not in escaped)
        elif char == "`":
            self._read_backticks(draft, double=True, heredoc='"' not in escaped)
        else:
            after = self.text[self.pos + 1 : self.pos + 2]
            self.pos += 1 + len(after)
            if after != "\n":
                draft.pieces.append(after if after and after in escaped else "\\" + after)
            else:
                self._check_waiting(after)

    def _read_backticks(self, draft: _Draft, *, double: bool, heredoc: bool = False) -> None:
        found = _BACKTICKS.match(self.text, self.pos)
        if found is None:
            self.fail("a backtick is not closed")
        self.pos = found.end()
        self._check_waiting(found[0])
        if heredoc and '\\"' in found[1]:
            self.fail("quotes in backticks in a here-document")
        self.read_apart(re.sub(r'\\([$`\\"])' if double else r"\\([$`\\])", r"\1", found[1]))
        draft.unknown(found[0], one=double)

    def _read_dollar(self, draft: _Draft, *, double: bool, heredoc: bool = False) -> None:
        start = self.pos
        self.pos += 1
        char = self.peek()
        if char == "(":
            self._read_parenthesis()
        elif char == "{":
            self._read_braced(double=double, heredoc=heredoc)
        elif not double and char == "'":
            self.pos += 1
            draft.pieces.append(self._ansi())
            return
        elif not double and char == '"':
            self.pos += 1
            self._read_double(draft)
            draft.known = False  # it may be translated
            return
        elif (name := _PARAMETER.match(self.text, self.pos)) is not None:
            self.pos = name.end()
            draft.unknown(self.text[start : self.pos], one=double and name[0] != "@")
            return
        else:
            if char == "[" or self.at("\\\n"):
                self.fail("a dollar sign whose meaning is not plain")
            draft.pieces.append("$")
            return
        draft.unknown(self.text[start : self.pos], one=double and "@" not in self.text[start : self.pos])

    def _read_parenthesis(self) -> None:
        if (numbers := _NUMBERS.match(self.text, self.pos)) is not None:
            self.pos = numbers.end()
        elif (sum_ := _ARITHMETIC.match(self.text, self.pos)) is not None:
            self.pos = sum_.end()
            self.unclear("arithmetic with variables can run commands")
        elif self.at("(("):
            self.fail("arithmetic that cannot be told from a subshell")
        else:
            self.pos += 1
            self.read_substitution()

    def _read_braced(self, *, double: bool, heredoc: bool) -> None:
        self.pos += 1
        name = _BRACED.match(self.text, self.pos)
        if name is None:
            self.fail("an expansion that is not known")
        self.pos = name.end()
        if self.at("}"):
            self.pos += 1
            return
        if (part := _SLICE.match(self.text, self.pos)) is not None:
            self.pos = part.end()
            return
        operator = _OPERATOR.match(self.text, self.pos)
        if operator is None:
            self.fail("an expansion that is not known")
        self.pos = operator.end()
        if "=" in operator[0] and risky_variable(name[0]):
            self.unclear(f"it sets {name[0]}, which changes what runs")
        self._read_operand(double=double, heredoc=heredoc)

    def _read_operand(self, *, double: bool, heredoc: bool) -> None:
        ignored = _Draft()
        self.nest()
        while (char := self.peek()) != "}":
            if char == "":
                self.fail("a brace is not closed")
            if char == "\n" or (char == "'" and double) or (char == '"' and heredoc):
                self.fail("quotes in an expansion that cannot be told")
            if char in BREAKS:
                self.pos += 1
            elif double and char == "$":
                self._read_dollar(ignored, double=True, heredoc=heredoc)
            else:
                self._read_piece(ignored)
        self.pos += 1
        self.level -= 1

    def _ansi(self) -> str:
        pieces: list[str] = []
        while not self.at("'"):
            found = _ANSI.match(self.text, self.pos)
            if found is None:
                self.fail("a quote is not closed")
            self.pos = found.end()
            self._check_waiting(found[0])
            pieces.append(_ansi_char(found[0]) if found[0][0] == "\\" else found[0])
        self.pos += 1
        text = "".join(pieces)
        if "\0" in text or any("\udc80" <= char <= "\udfff" for char in text):
            self.fail("a character that is not one")
        return text


def _ansi_char(written: str) -> str:
    kind, digits = written[1], written[2:]
    if kind in "xuU" and digits:
        code = int(digits, 16)
    elif kind in "01234567":
        code = int(written[1:], 8) & 0xFF
    elif kind == "c" and digits:
        return "\0"  # control characters: nothing that needs to be read
    else:
        return _ESCAPES.get(kind, kind if kind in "\\'\"?" else written)
    if kind in "x01234567" and code > 0x7F:
        return "\0"  # a byte of a longer character
    return chr(code) if code <= 0x10FFFF else "\0"
