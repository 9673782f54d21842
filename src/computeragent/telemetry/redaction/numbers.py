"""Numbers made of digits and separators: payment cards, identity numbers, IPv4 addresses; phones have their own file.

One pass over the number table finds candidates; everything else looks at a candidate only.
"""

from __future__ import annotations

from collections.abc import Iterator
from re import compile as regex

from computeragent.telemetry.redaction.addresses import ipv4
from computeragent.telemetry.redaction.checks import luhn
from computeragent.telemetry.redaction.findings import Finding
from computeragent.telemetry.redaction.phones import phones
from computeragent.telemetry.redaction.scanned import Scanned, words
from computeragent.telemetry.redaction.shapes import GROUPED_CARD, TIMESTAMP, Shape, lettered, shape_of, stands_alone

_CANDIDATE = regex(rb"0[0 .\-()/\n\t]{4,}0")
_BLOB = 4096
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
        shape = shape_of(table, start, end)
        if shape.lettered:
            yield from _lettered(scan, start, end)
        if not (shape.number or shape.address) or (shape.dated and TIMESTAMP.match(text[start:end])):
            continue
        if shape.address:
            yield from ipv4(scan, start, end)
        if not shape.number or (start and not shape.room and text[start - 1].isalnum()):
            continue  # the end of an identifier, or single digits and pairs in a row
        if shape.identities:
            yield from _identities(scan, start, end, shape)
        if shape.cards:
            yield from _cards(scan, start, end, shape)
        # two zeros may stand for the plus sign, but no country begins with a third
        dialled = shape.plus or (shape.zeros and text.startswith("00", start) and text[start + 2] != "0")
        if dialled or shape.spoken or shape.phones:
            yield from phones(scan, start, end, shape, dialled=dialled)


def _without_blobs(scan: Scanned) -> bytes:
    """The number table with long runs of letters and digits blanked: no number stands in the middle of one."""
    table = scan.shapes
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


def _lettered(scan: Scanned, start: int, end: int) -> Iterator[Finding]:
    text = scan.text
    low, high = max(0, start - 4), min(len(text), end + 20)
    for identity in lettered(scan.shapes[low:high]):
        for match in identity.spelled.finditer(text, low, high):
            code = _compact(match.group())
            if identity.check(code) and stands_alone(text, *match.span()):
                yield Finding(identity.kind, *match.span())


def _compact(spelled: str) -> str:
    return "".join(char for char in spelled if char.isalnum() or char == "+").replace("+", "")


def _identities(scan: Scanned, start: int, end: int, shape: Shape) -> Iterator[Finding]:
    text = scan.text
    if shape.bare:
        code = text[start:end]
        if not stands_alone(text, start, end):
            return
        around: set[str] | None = None
        for identity in shape.identities:
            if not identity.check(code):
                continue
            around = around if around is not None else scan.words_around(start, end)
            if identity.sure_bare or identity.context & around:
                yield Finding(identity.kind, start, end)
        return
    stop = min(len(text), end + 2)
    for identity in shape.identities:
        for match in identity.spelled.finditer(text, start, stop):
            low, high = match.span()
            if not identity.check(_compact(match.group())) or not stands_alone(text, low, high):
                continue
            if not identity.always_context or scan.is_all(low, high) or identity.context & scan.words_around(low, high):
                yield Finding(identity.kind, low, high)


def _cards(scan: Scanned, start: int, end: int, shape: Shape) -> Iterator[Finding]:
    text = scan.text
    if shape.bare:
        digits = text[start:end]
        if is_card(digits) and stands_alone(text, start, end) and _believable(scan, start, end, digits):
            yield Finding("CARD", start, end)
        return
    stop = min(len(text), end + 2)
    for pattern in shape.cards:
        for match in pattern.finditer(text, start, stop):
            low, high = match.span()
            digits = "".join(filter(str.isdigit, match.group()))
            if not is_card(digits) or not stands_alone(text, low, high):
                continue
            if pattern is GROUPED_CARD or _believable(scan, low, high, digits):
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
