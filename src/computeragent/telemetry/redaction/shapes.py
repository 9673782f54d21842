"""What a run of digits can be at all, told by its shape: far fewer shapes than numbers, so the answers are kept.

In a shape a digit is ``0``, a capital ``A``, another letter ``a``, and the rest stands as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from re import ASCII, Match, Pattern, escape
from re import compile as regex

from computeragent.telemetry.redaction.national import LETTERED_IDS, NATIONAL_IDS, NationalId
from computeragent.telemetry.redaction.scanned import SHAPE_TABLE

LONGEST = 64
"""Runs longer than this are too many to keep, and are looked at through coarser shapes."""
BEFORE, AFTER = 2, 2
"""How much of what stands around a run belongs to its shape."""
_KEPT = 8192
_COARSE = bytes.maketrans(b".-()/\n\t", b" " * 7)
_PIECE = regex(r"\\.|\[(?:\\.|[^\]\\])*\]|\{[^}]*\}|.")

TIMESTAMP = regex(
    r"(?:19|20)\d\d([-/.])(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])(?:[ \n]{1,2}[0-2]\d)?[ .\-()/\n\t]*\Z", ASCII
)
GROUPED_CARD = regex(
    r"(?<![\d.\-/])(?<!\d[.\-])"
    r"(?:[2-6]\d{3}([ .\-\n\t]{1,3})\d{4}[ .\-\n\t]{1,3}\d{4}[ .\-\n\t]{1,3}\d{1,4}(?:[ .\-\n\t]\d{3})?"
    r"|3\d{3}[ .\-\n\t]{1,3}\d{6}[ .\-\n\t]{1,3}\d{4,5})(?![\d/]|[.\-]\d)",
    ASCII,
)
BROKEN_CARD = regex(r"(?<![\d.\-/])\d{1,15}(?: ?\n ?)\d{1,15}(?![\d/]|[.\-]\d)", ASCII)
BARE_CARD = regex(r"(?<![\d.\-/])\d{13,19}(?![\d/]|[.\-]\d)", ASCII)
NANP = regex(
    r"(?<![\d.\-/])(?<!\d )(?:1[ .\-]{1,3})?"
    r"(?:\([2-9]\d\d\) ?[1-9]\d\d ?[ .\-]? ?\d{4}|[2-9]\d\d ?- ?[1-9]\d\d ?- ?\d{4}|[2-9]\d\d\.[1-9]\d\d\.\d{4})"
    r"(?![\d/]|[.\-] ?\d)",
    ASCII,
)
NATIONAL = regex(
    r"(?<![\d.\-/])(?<!\d )(?:"
    r"\(0\d{1,4}\) ?\d{2,4}(?:[ \-]?\d{2,4}){1,2}"  # with the area in parentheses
    r"|\([1-9]\d\) ?9?\d{4}-\d{4}"  # Brazil
    r"|0[1-9]\d{0,3}-\d{2,4}-\d{3,4}|0[689]0-\d{4}-\d{4}"  # Japan, Korea
    r"|07\d{3} ?\d{3} ?\d{3}|07\d{3} \d{6}|020 \d{4} \d{4}|01\d{2,3} \d{3} ?\d{3,4}"  # United Kingdom
    r"|04\d\d \d{3} \d{3}|0[1-9] \d{4} \d{4}"  # Australia
    r"|0[1-9]\d{1,3}/\d{5,8}|01[567]\d \d{7,8}"  # Germany
    r"|0[1-9](?:\.\d\d){4}|0[1-9](?: \d\d){4}"  # France
    r"|06-\d{8}|0\d{2}-\d{7}"  # Netherlands
    r"|0\d\d \d{3} \d\d \d\d"  # Switzerland
    r"|8 ?\(\d{3}\) ?\d{3}-\d\d-\d\d"  # Russia
    r")(?![\d/]|[.\-] ?\d| \d)",
    ASCII,
)
# Coarse shapes, all separators alike, to spare long runs of numbers the patterns themselves.
_LONG_ID = regex(
    rb"000 {1,3}00 {1,3}0000|000 000 000|00 000 000 000|0000 00 000|00 00 00 000 00|0{6} ?0{4}|0000 0000 0000"
    rb"|0 00 00 00 000 000 ?00|0{15}"
)
_LONG_CARD = regex(rb"0000 {1,3}0000 {1,3}0000|0000 {1,3}000000|0{13}")
_LONG_PHONE = regex(rb"000 {1,3}000 {1,3}0000|00 00 00 00|0 0{4} 0{4}|00 0{4} 0{4}|0{4} 0{3} 0{3}|0{5} ?0{6}|0{10}")
_ADDRESS = regex(rb"0\.0{1,3}\.0{1,3}\.0")
_GROUP = regex(rb"0+")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a run of digits and separators may be. A true value says perhaps, a false one says never."""

    lettered: bool
    dated: bool
    address: bool
    number: bool
    room: bool
    bare: bool
    identities: tuple[NationalId, ...]
    cards: tuple[Pattern[str], ...]
    phones: tuple[Pattern[str], ...]
    plus: bool
    zeros: bool
    spoken: bool


def relaxed(pattern: Pattern[str]) -> Pattern[bytes]:
    """A pattern for the shapes of what `pattern` matches. Looking around must not tell one digit from another."""
    return regex(_PIECE.sub(_relaxed, pattern.pattern).encode())


def _relaxed(piece: Match[str]) -> str:
    part = piece.group()
    if part == r"\d":
        return "0"
    if part[0] == "\\" and part[1].isdigit():
        return f"(?:{part})"  # a digit may follow
    if part[0] == "[":
        members = regex(part, ASCII)
        shaped = {_shaped(char) for char in map(chr, range(128)) if members.match(char)}
        return f"[{''.join(sorted(map(escape, shaped)))}]"
    return part if len(part) > 1 else _shaped(part)


def _shaped(char: str) -> str:
    return char.encode().translate(SHAPE_TABLE).decode()


_CARDS = (GROUPED_CARD, BROKEN_CARD, BARE_CARD)
_PHONES = (NANP, NATIONAL)
_RELAXED_TIMESTAMP = relaxed(TIMESTAMP)
_RELAXED_IDS = tuple((identity, relaxed(identity.spelled)) for identity in NATIONAL_IDS)
_RELAXED_LETTERED = tuple((identity, relaxed(identity.spelled)) for identity in LETTERED_IDS)
_RELAXED_CARDS = tuple((pattern, relaxed(pattern)) for pattern in _CARDS)
_RELAXED_PHONES = tuple((pattern, relaxed(pattern)) for pattern in _PHONES)


def shape_of(table: bytes, start: int, end: int) -> Shape:
    """What the run between two places of a shape table can be."""
    if end - start > LONGEST:
        return _long(table[start:end], table[end : end + AFTER])
    if start >= BEFORE:
        return _short(table[start - BEFORE : end + AFTER], end - start)
    return _short((b"\0" * BEFORE + table[: end + AFTER])[start:], end - start)


@lru_cache(_KEPT)
def _short(around: bytes, size: int) -> Shape:
    run = around[BEFORE : BEFORE + size]
    digits = run.count(b"0")
    bare = digits == size
    number = digits >= 7 and not (bare and digits > 19)
    number = number and (bare or digits <= 15 or b"000" in run)
    text = around.decode()
    alone = not bare or stands_alone(text, BEFORE, BEFORE + size)
    identities: tuple[NationalId, ...] = ()
    if digits >= 9 and bare:
        identities = tuple(identity for identity in NATIONAL_IDS if size in identity.bare and alone)
    elif digits >= 9:
        identities = tuple(identity for identity, shape in _RELAXED_IDS if shape.search(around, BEFORE))
    cards: tuple[Pattern[str], ...] = ()
    if digits >= 13 and alone:
        cards = _CARDS if bare else tuple(pattern for pattern, shape in _RELAXED_CARDS if shape.search(around, BEFORE))
    before = around[:BEFORE]
    return Shape(
        lettered=b"A" in around[BEFORE + size :],
        dated=bool(_RELAXED_TIMESTAMP.match(run)),
        address=digits >= 4 and bool(_ADDRESS.search(run)),
        number=number,
        room=any(sign in run for sign in (b" ", b"\n", b"\t", b"(")),
        bare=bare,
        identities=identities,
        cards=cards,
        phones=() if bare else tuple(pattern for pattern, shape in _RELAXED_PHONES if shape.search(around, BEFORE - 1)),
        plus=before[-1:] == b"+" or before == b"+(",
        zeros=run[:2] == b"00",
        # which letter follows is not in the shape, and an extension may
        spoken=8 <= digits <= 13 and stands_free(text.replace("a", "x"), BEFORE, BEFORE + size)
        if bare
        else _grouped(run),
    )


def _grouped(run: bytes) -> bool:
    """Whether the first line of a run is in groups as the numbers of phones are."""
    line = run.split(b"\n")[0].rstrip(b" .-(/\t")
    groups = [len(group) for group in _GROUP.findall(line)]
    return 7 <= sum(groups) <= 13 and len(groups) >= 2 and max(groups) <= 8 and b"  " not in line


def _long(run: bytes, after: bytes) -> Shape:
    coarse = run.translate(_COARSE)
    digits = coarse.count(b"0")
    bare = digits == len(run)
    number = not bare and digits >= 7 and (digits <= 15 or b"000" in coarse)
    if not number:
        coarse, digits = b"", 0
    phone = number and (digits <= 64 or bool(_LONG_PHONE.search(coarse)))
    return Shape(
        lettered=b"A" in after,
        dated=False,
        address=bool(_ADDRESS.search(run)),
        number=number,
        room=any(sign in run for sign in (b" ", b"\n", b"\t", b"(")),
        bare=bare,
        identities=NATIONAL_IDS if digits >= 9 and _LONG_ID.search(coarse) else (),
        cards=_CARDS if digits >= 13 and (_LONG_CARD.search(coarse) or (digits <= 24 and b"\n" in run)) else (),
        phones=_PHONES if phone else (),
        plus=phone,
        zeros=phone,
        spoken=False,
    )


@lru_cache(_KEPT)
def lettered(around: bytes) -> tuple[NationalId, ...]:
    """The identity numbers with letters in them that a piece of a shape table may hold."""
    return tuple(identity for identity, shape in _RELAXED_LETTERED if shape.search(around))


def stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a span is not a part of something longer."""
    before = text[start - 2 : start] if start > 1 else text[:start]
    if before and (before[-1].isalnum() or before[-1] == "_"):
        return False
    if len(before) == 2 and before[1] in ".-" and before[0].isalnum():
        return False
    after = text[end : end + 2]
    if after and (after[0].isalnum() or after[0] == "_"):
        return False
    return not (len(after) == 2 and after[0] in ".-" and after[1].isalnum())


def stands_free(text: str, start: int, end: int) -> bool:
    """Whether a span is not a part of something longer, an amount or a share; an extension may follow."""
    before = text[max(0, start - 2) : start]
    if before and (before[-1].isalnum() or before[-1] in "_#$€£"):
        return False
    if len(before) == 2 and before[1] in ".-/," and before[0].isalnum():
        return False
    after = text[end : end + 2]
    if after and (after[0].isalnum() or after[0] in "_%") and after[0] not in "xe":
        return False
    return not (len(after) == 2 and after[0] in ".-," and after[1].isalnum())
