"""A piece of text as detectors see it: normalised, with what stands around a place, and its look-up tables."""

from __future__ import annotations

import string
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from re import compile as regex
from unicodedata import decimal

_INVISIBLE = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
_DASHES = "\u2010-\u2015\u2212\ufe58\ufe63\uff0d"
_SPACES = "\u00a0\u2000-\u200a\u202f\u205f\u3000"
_DIGITS = "".join(
    f"{chr(zero)}-{chr(zero + 9)}"
    for zero in range(0x660, 0x1FBFA)
    if decimal(chr(zero), -1) == 0 and decimal(chr(zero + 9), -1) == 9
)
_UNUSUAL = regex(f"[{_INVISIBLE}{_DASHES}{_SPACES}{_DIGITS}\uff01-\uff5e\u3002\uff61]")
_IS_INVISIBLE = regex(f"[{_INVISIBLE}]+")
_IS_DASH = regex(f"[{_DASHES}]")
_IS_SPACE = regex(f"[{_SPACES}]")
_LETTERS = regex(r"[^\W\d_]+")


def words(text: str) -> frozenset[str]:
    """The words of a text, for look-ups."""
    return frozenset(text.split())


def _table(default: str, *classes: tuple[str, str]) -> bytes:
    mapped = bytearray(default.encode() * 256)
    for chars, to in classes:
        for char in chars.encode("latin-1"):
            mapped[char] = ord(to)
    return bytes(mapped)


SHAPE_TABLE = bytes(
    ord(
        "0" if byte.isdigit() else "A" if byte.isupper() else "a" if byte.isalpha() else byte if byte.isascii() else "?"
    )
    for byte in map(chr, range(256))
)
"""ASCII digits become ``0``, capitals ``A``, other letters ``a``; what is beyond ASCII is a question mark."""
TOKEN_TABLE = _table(" ", (string.ascii_letters + string.digits + "_-+/=", "a"), ("@", "@"))
"""What tokens are made of becomes ``a``, the at sign stays, the rest is a space."""
WORD_TABLE = bytes(
    ord("_") if byte == ord("-") else ord("=") if byte == ord(":") else byte
    for byte in (bytes([number]).lower()[0] for number in range(256))
)
"""Lower case, with ``-`` as ``_`` and ``:`` as ``=``."""


@dataclass
class Scanned:
    """One window of text. `hint` is the key that the text is the value of, `whole` that nothing was cut off.

    Offsets are those of `text`; `original(offset)` gives the place before normalisation.
    """

    text: str
    hint: str = ""
    whole: bool = True
    removed: list[int] = field(default_factory=list[int])

    @cached_property
    def octets(self) -> bytes:
        """One byte per character, a question mark for what is beyond Latin-1."""
        return self.text.encode("latin-1", "replace")

    @cached_property
    def shapes(self) -> bytes:
        """The text through `SHAPE_TABLE`."""
        return self.octets.translate(SHAPE_TABLE)

    @cached_property
    def tokens(self) -> bytes:
        """The text through `TOKEN_TABLE`."""
        return self.octets.translate(TOKEN_TABLE)

    @cached_property
    def words(self) -> bytes:
        """The text through `WORD_TABLE`."""
        return self.octets.translate(WORD_TABLE)

    @cached_property
    def lower(self) -> str:
        """`words` as text, for patterns."""
        return self.words.decode("latin-1")

    def before(self, place: int, size: int) -> str:
        """Up to `size` characters before a place, the key first where the text begins."""
        if place >= size or not self.hint:
            return self.text[max(0, place - size) : place]
        return f"{self.hint}: {self.text[:place]}"

    def around(self, start: int, end: int, before: int, after: int) -> str:
        """What stands around a span, without the span itself."""
        return f"{self.before(start, before)} | {self.text[end : end + after]}"

    def words_around(self, start: int, end: int, before: int = 48, after: int = 24) -> set[str]:
        """The words around a span, in lower case."""
        text = self.before(start, before) + " | " + self.text[end : end + after]
        return set(_LETTERS.findall(text.lower()))

    def last_word(self, place: int) -> str:
        """The word that a place comes right behind, but for a few signs."""
        before = self.before(place, 24)[-24:]
        words = _LETTERS.findall(before.lower())
        return words[-1] if words and before.lower().rfind(words[-1]) + len(words[-1]) >= len(before) - 4 else ""

    def is_all(self, start: int, end: int) -> bool:
        """Whether the span is the whole value, but for white space and quotes."""
        if not self.whole or start > 8 or len(self.text) - end > 8:
            return False
        return not self.text[:start].strip(" \t\r\n\"'+(") and not self.text[end:].strip(" \t\r\n\"'")

    def original(self, offset: int) -> int:
        """The place of a character of `text` in the text before normalisation."""
        if not self.removed:
            return offset
        # removed[i] is the normalised offset at which the i-th invisible character was taken out
        return offset + bisect_right(self.removed, offset)


def scanned(text: str, hint: str = "", *, whole: bool = True) -> Scanned:
    """Normalise a window: invisible characters out, look-alike digits, dashes and spaces into ASCII."""
    removed: list[int] = []
    if not text.isascii() and _UNUSUAL.search(text):
        text, removed = _normalised(text)
    if "\\" in text:
        # of the same length, so that places stay what they are
        text = text.replace("\\n", "  ").replace("\\r", "  ").replace("\\t", "  ").replace('\\"', ' "')
    return Scanned(text, hint, whole, removed)


def _normalised(text: str) -> tuple[str, list[int]]:
    for char in set(_UNUSUAL.findall(text)):
        if _IS_INVISIBLE.match(char):
            continue
        if _IS_DASH.match(char):
            text = text.replace(char, "-")
        elif _IS_SPACE.match(char):
            text = text.replace(char, " ")
        elif char in "\u3002\uff61":
            text = text.replace(char, ".")
        elif decimal(char, -1) >= 0:
            text = text.replace(char, str(decimal(char)))
        else:
            text = text.replace(char, chr(ord(char) - 0xFEE0))
    removed: list[int] = []
    parts: list[str] = []
    last = 0
    for match in _IS_INVISIBLE.finditer(text):
        start, end = match.span()
        parts.append(text[last:start])
        removed.extend([start - len(removed)] * (end - start))
        last = end
    if not removed:
        return text, removed
    parts.append(text[last:])
    return "".join(parts), removed
