"""Phone numbers: E.164 with a country code, North American and other national spellings.

What could as well be something else needs a word such as "tel" or "call" nearby, or must be the whole value.
"""

from __future__ import annotations

from collections.abc import Iterator
from re import ASCII
from re import compile as regex

from computeragent.telemetry.redaction.findings import Finding
from computeragent.telemetry.redaction.scanned import Scanned, words
from computeragent.telemetry.redaction.shapes import Shape, stands_free

_LETTERS = regex(r"[^\W\d_]+")
_GROUP = regex(r"\d+", ASCII)
_WORDS = words(
    """
    tel telephone telefon telefono teléfono téléphone telefone telefonnummer phone phones phonenumber mobile mobil
    mob móvil movil cell cellulare cellphone celular handy rufnummer portable fax whatsapp whats sms text dial
    call calls called calling ring rang reach reached hotline voicemail contact helpline appelez numéro nummer
    anruf anrufen llame llamar ligue chiama chiamare ext caller тел телефон 电话 電話 手机 携帯
    """
)
_SIGNS = frozenset("☎📞📱")
_NOT_WORDS = words(
    """
    id ids count size offset bytes port pid version line lines row seq sequence time timestamp epoch isbn order
    invoice amount total serial build rev revision commit ticket issue sku zip lat lon lng x y index hash uid gid
    """
)
_NOT_BEFORE = frozenset("#$€£=@&_[,")
_DATE = regex(
    r"(?:19|20)\d\d[./\-](?:0?[1-9]|1[0-2])[./\-](?:0?[1-9]|[12]\d|3[01])(?!\d)"
    r"|(?:0?[1-9]|[12]\d|3[01])[./\-](?:0?[1-9]|[12]\d|3[01])[./\-](?:19|20)\d\d(?!\d)",
    ASCII,
)
_HEX_NEIGHBOUR = regex(r"(?:^|[\s:])[0-9A-Fa-f]{2}$|^[0-9A-Fa-f]{2}(?:[\s:]|$)")

_LENGTHS = {
    "1": (10, 10), "7": (10, 10), "20": (8, 10), "27": (9, 9), "30": (10, 10), "31": (9, 9), "32": (8, 9),
    "33": (9, 9), "34": (9, 9), "36": (8, 9), "39": (6, 11), "40": (9, 9), "41": (9, 9), "43": (4, 13),
    "44": (9, 10), "45": (8, 8), "46": (7, 10), "47": (8, 8), "48": (9, 9), "49": (6, 11), "51": (8, 9),
    "52": (10, 11), "54": (10, 11), "55": (10, 11), "56": (9, 9), "57": (8, 10), "60": (8, 10), "61": (9, 9),
    "62": (8, 12), "63": (8, 10), "64": (8, 10), "65": (8, 8), "66": (8, 9), "81": (9, 10), "82": (8, 11),
    "84": (9, 10), "86": (10, 11), "90": (10, 10), "91": (10, 10), "92": (9, 10), "94": (9, 9), "98": (10, 10),
    "351": (9, 9), "352": (4, 11), "353": (7, 9), "354": (7, 9), "358": (5, 12), "380": (9, 9), "420": (9, 9),
    "421": (9, 9), "852": (8, 8), "886": (8, 9), "971": (8, 9), "972": (8, 9), "966": (9, 9), "234": (8, 10),
    "254": (9, 9), "212": (9, 9),
}  # fmt: skip
"""Country codes with the lengths of their national numbers; other assigned codes take 6 to 11 digits."""
_TWO_DIGIT = frozenset(
    [
        "20",
        "27",
        "30",
        "31",
        "32",
        "33",
        "34",
        "36",
        "39",
        "40",
        "41",
        "43",
        "44",
        "45",
        "46",
        "47",
        "48",
        "49",
        "51",
        "52",
        "53",
        "54",
        "55",
        "56",
        "57",
        "58",
        "60",
        "61",
        "62",
        "63",
        "64",
        "65",
        "66",
        "81",
        "82",
        "84",
        "86",
        "90",
        "91",
        "92",
        "93",
        "94",
        "95",
        "98",
    ]
)
_UNASSIGNED = frozenset(
    [
        "210",
        "214",
        "215",
        "217",
        "219",
        "259",
        "384",
        "851",
        "854",
        "857",
        "858",
        "859",
        "871",
        "872",
        "873",
        "874",
        "884",
        "885",
        "887",
        "889",
        "978",
        "990",
        "997",
        "999",
    ]
)


def country(digits: str) -> tuple[str, int, int] | None:
    """The country code that digits begin with, and how long its national numbers are."""
    if digits[:1] in {"1", "7"}:
        code = digits[0]
    elif digits[:2] in _TWO_DIGIT:
        code = digits[:2]
    elif (
        len(digits) >= 3
        and digits[0] not in "01"
        and digits[:3] not in _UNASSIGNED
        and digits[:2] not in {"28", "83", "89"}
    ):
        code = digits[:3]
    else:
        return None
    return (code, *_LENGTHS.get(code, (6, 11)))


def phones(scan: Scanned, start: int, end: int, shape: Shape, *, dialled: bool) -> Iterator[Finding]:
    """Phone numbers in one candidate run of digits and separators."""
    text = scan.text
    international = _international(scan, start, end) if dialled else None
    if international:
        yield international
        return
    if shape.bare:
        if shape.spoken and _bare(scan, start, end):
            yield Finding("PHONE", start, end)
        return
    low, stop = max(0, start - 1), min(len(text), end + 2)
    found = False
    for pattern in shape.phones:
        for match in pattern.finditer(text, low, stop):
            first, last = match.span()
            if stands_free(text, first, last) and not _in_hex_dump(text, first, last):
                found = True
                yield Finding("PHONE", first, last)
    if shape.spoken and not found and end - start <= 40:
        spelled = _spelled(scan, start, end)
        if spelled:
            yield spelled


def _in_hex_dump(text: str, start: int, end: int) -> bool:
    if not _pairs(text[start:end]):
        return False
    before = text[max(0, start - 4) : start].rstrip(" ")
    return bool(_HEX_NEIGHBOUR.search(before) or _HEX_NEIGHBOUR.match(text[end : end + 4].lstrip(" ")))


def _pairs(run: str) -> bool:
    return all(len(group) == 2 for group in _GROUP.findall(run))


def _international(scan: Scanned, start: int, end: int) -> Finding | None:
    text = scan.text
    first = start
    if text[start - 1 : start] == "+":
        first -= 1
    elif text[max(0, start - 2) : start] == "+(":
        first -= 2
    prefixed = first == start
    if prefixed and text[start : start + 2] != "00":
        return None
    if first and (text[first - 1].isalnum() or text[first - 1] in "_.)]"):
        return None
    last = _dialled(text, start, end, prefixed=prefixed)
    if not last:
        return None
    spelled = text[first:last]
    if spelled.count(".") == 1 and not set(spelled) & set(" -("):
        return None  # a signed decimal
    if not _ends(text[last : last + 1]) or (prefixed and not (_said(scan, start, end) or scan.is_all(start, end))):
        return None
    return Finding("PHONE", first, last)


def _dialled(text: str, start: int, end: int, *, prefixed: bool) -> int:
    """Where a number with a country code ends; 0 when it has none, or not the length that the country uses."""
    taken, last, lengths = "", start, (0, 0)
    for match in _GROUP.finditer(text, start, min(end, start + 40)):
        between = text[last : match.start()]
        if taken and ("\n" in between or len(between) > 3 or len(taken) + len(match.group()) > lengths[1]):
            break
        group = match.group()
        if not taken and prefixed:
            group = group[2:]
        # the trunk zero in "+44 (0)20 …" is not dialled
        taken += "" if group == "0" and taken else group
        if not lengths[1] and taken:
            found = country(taken)
            if found is None:
                return 0
            lengths = (len(found[0]) + found[1], len(found[0]) + found[2])
        last = match.end()
    return last if lengths[0] <= len(taken) <= lengths[1] and len(taken) >= 8 else 0


def _ends(after: str) -> bool:
    return not after or after in "xe" or not (after.isalnum() or after == "_")


def _said(scan: Scanned, start: int, end: int) -> bool:
    before = scan.before(start, 32)[-40:]
    near = f"{before}|{scan.text[end : end + 12]}".lower()
    if _WORDS.isdisjoint(_LETTERS.findall(near)) and (near.isascii() or _SIGNS.isdisjoint(before)):
        return False
    if set(before.rstrip(" ")[-1:]) & _NOT_BEFORE or scan.last_word(start) in _NOT_WORDS:
        return False
    lower = before.lower()
    said = max((lower.rfind(word) for word in _LETTERS.findall(lower) if word in _WORDS), default=-1)
    if said < 0 and not _SIGNS.isdisjoint(before):
        said = 0
    if said >= 0 and not any(char.isdigit() for char in lower[said:]):
        return True
    return not _WORDS.isdisjoint(_LETTERS.findall(scan.text[end : end + 12].lower()))


def _bare(scan: Scanned, start: int, end: int) -> bool:
    text = scan.text
    digits = text[start:end]
    size = len(digits)
    american = (size == 10 and digits[0] in "23456789" and digits[3] != "0") or (
        size == 11 and digits[0] == "1" and digits[1] in "23456789" and digits[4] != "0"
    )
    if not american and digits.startswith(("19", "20", "16", "17")):
        return False  # a date or a time
    if _said(scan, start, end):
        return (american or 8 <= size <= 13) and stands_free(text, start, end)
    return american and size == 10 and not scan.hint and scan.is_all(start, end) and stands_free(text, start, end)


def _spelled(scan: Scanned, start: int, end: int) -> Finding | None:
    """A number in groups that no national spelling has, believed for the words around it."""
    text = scan.text
    first = start - 1 if text[start - 1 : start] == "(" else start
    run = text[first:end].split("\n")[0].rstrip(" .-(/\t")
    last = first + len(run)
    digits = "".join(filter(str.isdigit, run))
    groups = _GROUP.findall(run)
    if not 7 <= len(digits) <= 13 or len(groups) < 2 or _DATE.search(run) or not stands_free(text, first, last):
        return None
    if max(map(len, groups)) > 8 or run.count(".") == 3 or (len(digits) == 7 and groups != [digits[:3], digits[3:]]):
        return None
    if "  " in run or _in_hex_dump(text, first, last):
        return None
    american = [len(group) for group in groups] == [3, 3, 4] and digits[0] in "23456789" and digits[3] != "0"
    if _said(scan, first, last) or (
        scan.is_all(first, last)
        and (american or (digits[0] == "0" != digits[1] and len(groups) > 2 and len(digits) >= 9))
    ):
        return Finding("PHONE", first, last)
    return None
