"""Numbers made of digits and separators: payment cards, identity numbers, IPv4 addresses; phones have their own file.

One pass over the number table finds candidates; everything else looks at a candidate only.
"""

from __future__ import annotations

from collections.abc import Iterator
from re import ASCII
from re import compile as regex

from computeragent.telemetry.redaction.addresses import ipv4
from computeragent.telemetry.redaction.checks import luhn
from computeragent.telemetry.redaction.findings import Finding
from computeragent.telemetry.redaction.national import LETTERED_IDS, NATIONAL_IDS
from computeragent.telemetry.redaction.phones import phones
from computeragent.telemetry.redaction.scanned import Scanned, words

_CANDIDATE = regex(rb"0[0 ]{5,}")
_BLOB = 4096
_ROOM = regex(r"[ \n\t(]")
_TIMESTAMP = regex(
    r"(?:19|20)\d\d([-/.])(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])(?:[ \n]{1,2}[0-2]\d)?[ .\-()/\n\t]*\Z", ASCII
)
# Shapes in the number table, to spare long runs of numbers the patterns themselves.
_ID_SHAPE = regex(
    rb"000 {1,3}00 {1,3}0000|000 000 000|00 000 000 000|0000 00 000|00 00 00 000 00|0{6} ?0{4}|0000 0000 0000"
    rb"|0 00 00 00 000 000 ?00|0{15}"
)
_CARD_SHAPE = regex(rb"0000 {1,3}0000 {1,3}0000|0000 {1,3}000000|0{13}")
_PHONE_SHAPE = regex(rb"000 {1,3}000 {1,3}0000|00 00 00 00|0 0{4} 0{4}|00 0{4} 0{4}|0{4} 0{3} 0{3}|0{5} ?0{6}|0{10}")
_GROUPED_CARD = regex(
    r"(?<![\d.\-/])(?<!\d[.\-])"
    r"(?:[2-6]\d{3}([ .\-\n\t]{1,3})\d{4}[ .\-\n\t]{1,3}\d{4}[ .\-\n\t]{1,3}\d{1,4}(?:[ .\-\n\t]\d{3})?"
    r"|3\d{3}[ .\-\n\t]{1,3}\d{6}[ .\-\n\t]{1,3}\d{4,5})(?![\d/]|[.\-]\d)",
    ASCII,
)
_BROKEN_CARD = regex(r"(?<![\d.\-/])\d{1,15}(?: ?\n ?)\d{1,15}(?![\d/]|[.\-]\d)", ASCII)
_BARE_CARD = regex(r"(?<![\d.\-/])\d{13,19}(?![\d/]|[.\-]\d)", ASCII)
_CARD_WORDS = words(
    """
    card cards visa mastercard amex express discover diners jcb maestro unionpay rupay pan cc credit debit karte
    kreditkarte kartennummer carte tarjeta cartao cartão cvv cvc payment
    """
)
_NOT_A_CARD = words(
    """
    id ids snowflake timestamp epoch nonce seq sequence trace span imei isbn ean gtin upc
    """
)


def numbers(scan: Scanned) -> Iterator[Finding]:
    """Every number of `scan` that is someone's."""
    table = _without_blobs(scan)
    text = scan.text
    for match in _CANDIDATE.finditer(table):
        start, end = match.span()
        digits = table.count(b"0", start, end)
        if table[end : end + 1] == b"A":
            yield from _lettered(scan, start, end)
        end -= end - start - len(table[start:end].rstrip())
        run = text[start:end]
        if _TIMESTAMP.match(run):
            continue
        if digits >= 4 and run.count(".") >= 3:
            yield from ipv4(scan, start, end)
        if digits < 7:
            continue
        if end - start == digits and digits > 19:
            continue
        grouped = end - start > digits
        if start and text[start - 1].isalnum() and not _ROOM.search(run):
            continue  # the end of an identifier
        if digits > 15 and grouped and table.find(b"000", start, end) < 0:
            continue  # single digits and pairs in a row: no number of a person is written so, but short ones
        if digits >= 9 and (not grouped or _ID_SHAPE.search(table, start, end)):
            yield from _identities(scan, start, end, bare=not grouped)
        if digits >= 13 and (not grouped or _CARD_SHAPE.search(table, start, end) or (digits <= 24 and "\n" in run)):
            yield from _cards(scan, start, end, grouped=grouped)
        if digits <= 64 or _PHONE_SHAPE.search(table, start, end):
            yield from phones(scan, start, end)


def _without_blobs(scan: Scanned) -> bytes:
    """The number table with long runs of letters and digits blanked: no number stands in the middle of one."""
    table = scan.numbers
    tokens = scan.tokens
    place = tokens.find(b"a" * _BLOB)
    while place >= 0:
        end = place + _BLOB
        while tokens[end : end + _BLOB] == b"a" * _BLOB:
            end += _BLOB
        piece = scan.text[place + 1 : end]
        if piece.isalnum():
            table = table[: place + 1] + b"x" * (end - place - 1) + table[end:]
        place = tokens.find(b"a" * _BLOB, end)
    return table


def _stands_alone(text: str, start: int, end: int) -> bool:
    before = text[start - 2 : start] if start > 1 else text[:start]
    if before and (before[-1].isalnum() or before[-1] == "_"):
        return False
    if len(before) == 2 and before[1] in ".-" and before[0].isalnum():
        return False
    after = text[end : end + 2]
    if after and (after[0].isalnum() or after[0] == "_"):
        return False
    return not (len(after) == 2 and after[0] in ".-" and after[1].isalnum())


def _lettered(scan: Scanned, start: int, end: int) -> Iterator[Finding]:
    text = scan.text
    low, high = max(0, start - 4), min(len(text), end + 20)
    for identity in LETTERED_IDS:
        for match in identity.spelled.finditer(text, low, high):
            code = _compact(match.group())
            if identity.check(code) and _stands_alone(text, *match.span()):
                yield Finding(identity.kind, *match.span())


def _compact(spelled: str) -> str:
    return "".join(char for char in spelled if char.isalnum() or char == "+").replace("+", "")


def _identities(scan: Scanned, start: int, end: int, *, bare: bool) -> Iterator[Finding]:
    text = scan.text
    if bare:
        code = text[start:end]
        if not _stands_alone(text, start, end):
            return
        for identity in NATIONAL_IDS:
            if len(code) not in identity.bare or not identity.check(code):
                continue
            if identity.sure_bare or identity.context & scan.words_around(start, end):
                yield Finding(identity.kind, start, end)
        return
    stop = min(len(text), end + 2)
    for identity in NATIONAL_IDS:
        for match in identity.spelled.finditer(text, start, stop):
            low, high = match.span()
            if not identity.check(_compact(match.group())) or not _stands_alone(text, low, high):
                continue
            if not identity.always_context or scan.is_all(low, high) or identity.context & scan.words_around(low, high):
                yield Finding(identity.kind, low, high)


def _cards(scan: Scanned, start: int, end: int, *, grouped: bool) -> Iterator[Finding]:
    text = scan.text
    if not grouped:
        digits = text[start:end]
        if _stands_alone(text, start, end) and is_card(digits) and _believable(scan, start, end, digits):
            yield Finding("CARD", start, end)
        return
    stop = min(len(text), end + 2)
    for pattern in (_GROUPED_CARD, _BROKEN_CARD, _BARE_CARD):
        for match in pattern.finditer(text, start, stop):
            low, high = match.span()
            digits = "".join(filter(str.isdigit, match.group()))
            if not is_card(digits) or not _stands_alone(text, low, high):
                continue
            if pattern is _GROUPED_CARD or _believable(scan, low, high, digits):
                yield Finding("CARD", low, high)


def _believable(scan: Scanned, start: int, end: int, digits: str) -> bool:
    """A run of digits without groups: 15 and 16 digits are believed, other lengths need a word nearby."""
    if scan.words_around(start, end) & _CARD_WORDS:
        return True
    return len(digits) in {15, 16} and scan.last_word(start) not in _NOT_A_CARD


def is_card(digits: str) -> bool:
    """Whether a number is in the range of an issuer, has a length that this issuer uses, and passes Luhn's check."""
    size = len(digits)
    if not 13 <= size <= 19 or len(set(digits)) == 1:
        return False
    return size in _lengths(digits) and luhn(digits)


def _lengths(digits: str) -> tuple[int, ...]:
    first, two, three, four = digits[0], int(digits[:2]), int(digits[:3]), int(digits[:4])
    if first == "4":
        return (13, 16, 19)
    if two in {34, 37}:
        return (15,)
    if 51 <= two <= 55 or 2221 <= four <= 2720 or 2200 <= four <= 2204:
        return (16,)
    if 3528 <= four <= 3589 or four == 6011 or two == 65 or 644 <= three <= 649 or two in {62, 81, 82} or three == 508:
        return (16, 17, 18, 19)
    if 300 <= three <= 305 or two in {36, 38, 39}:
        return (14, 16)
    if four in {5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763}:
        return (13, 14, 15, 16, 17, 18, 19)
    return ()
