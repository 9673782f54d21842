"""National identity numbers: for each, a shape, a check, and whether it needs words around it to be believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from re import ASCII, Pattern
from re import compile as regex

from computeragent.telemetry.redaction.checks import is_date, luhn, mod11_10, verhoeff, weighted
from computeragent.telemetry.redaction.scanned import words


@dataclass(frozen=True, slots=True)
class NationalId:
    """One kind of number: `check` gets it without separators, in upper case.

    `spelled` matches it as people write it; `bare` is its length without separators when that form too
    is digits only, which then needs a word of `context` nearby. `always_context` asks for the word in
    every form.
    """

    kind: str
    spelled: Pattern[str]
    check: Callable[[str], bool]
    context: frozenset[str]
    bare: tuple[int, ...] = ()
    always_context: bool = False
    sure_bare: bool = False


def _ssn(digits: str) -> bool:
    return digits[:3] not in {"000", "666"} and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"


def _nino(code: str) -> bool:
    return code[:2] not in {"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"}


def _dni(code: str) -> bool:
    number = code[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return code[-1] == "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]


def _nir(code: str) -> bool:
    body = int(code[:13].replace("2A", "19").replace("2B", "18"))
    month = int(code[3:5])
    return (1 <= month <= 12 or 20 <= month <= 42 or month >= 50) and 97 - body % 97 == int(code[13:])


def _steuer_id(digits: str) -> bool:
    most = max(digits[:10].count(digit) for digit in set(digits[:10]))
    return digits[0] != "0" and 2 <= most <= 3 and mod11_10(digits)


def _bsn(digits: str) -> bool:
    return digits != "000000000" and weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def _belgian(digits: str) -> bool:
    if int(digits[2:4]) % 20 > 12 or int(digits[4:6]) > 31:
        return False
    check = int(digits[9:])
    return check in {97 - int(digits[:9]) % 97, 97 - int("2" + digits[:9]) % 97}


def _pesel(digits: str) -> bool:
    month = int(digits[2:4]) % 20
    checked = weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0
    return checked and is_date(0, month, int(digits[4:6]))


def _personnummer(digits: str) -> bool:
    short = digits[-10:]
    day = int(short[4:6])
    return luhn(short) and is_date(0, int(short[2:4]), day - 60 if day > 60 else day)


def _hetu(code: str) -> bool:
    if not is_date(0, int(code[2:4]), int(code[:2])):
        return False
    return code[-1] == "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(code[:6] + code[-4:-1]) % 31]


def _cpf(digits: str) -> bool:
    if len(set(digits)) == 1:
        return False
    for size in (9, 10):
        rest = weighted(digits, tuple(range(size + 1, 1, -1))) * 10 % 11 % 10
        if rest != int(digits[size]):
            return False
    return True


def _aadhaar(digits: str) -> bool:
    return digits[0] not in "01" and verhoeff(digits)


def _sin(digits: str) -> bool:
    return digits[0] not in "08" and luhn(digits)


def _resident_id(code: str) -> bool:
    if not 1900 <= int(code[6:10]) <= 2099 or not is_date(int(code[6:10]), int(code[10:12]), int(code[12:14])):
        return False
    return code[-1] == "10X98765432"[weighted(code, (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)) % 11]


def _codice_fiscale(code: str) -> bool:
    odd = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
    total = 0
    for index, char in enumerate(code[:15]):
        value = ord(char) - (48 if char.isdigit() else 65)
        total += value if index % 2 else odd[value]
    return code[15] == chr(65 + total % 26)


_LEFT = r"(?<![\d.\-/])(?<!\d )"
_RIGHT = r"(?![\d\-/]| ?\d|\.\d)"


def _shape(body: str) -> Pattern[str]:
    return regex(_LEFT + body + _RIGHT, ASCII)


_SSN_WORDS = words("ssn social socialsecurity taxpayer tin itin patient applicant employee")

NATIONAL_IDS: tuple[NationalId, ...] = (
    NationalId("US_SSN", _shape(r"\d{3} ?- ?\d\d ?- ?\d{4}"), _ssn, _SSN_WORDS, (9,)),
    NationalId("US_SSN", _shape(r"\d{3}([ .])\d\d\1\d{4}"), _ssn, _SSN_WORDS, always_context=True),
    NationalId(
        "FR_NIR",
        _shape(r"[12]([ .-]?)\d\d\1(?:\d\d)\1(?:\d\d|2[AB])\1\d{3}\1\d{3}[ .\-]?\d\d"),
        _nir,
        words("nir insee sécurité securite sociale sécu secu"),
        (15,),
        sure_bare=True,
    ),
    NationalId(
        "DE_STEUER_ID",
        _shape(r"\d\d \d{3} \d{3} \d{3}"),
        _steuer_id,
        words("steuer steuerid steuernummer steueridentifikationsnummer idnr identifikationsnummer tin tax"),
        (11,),
    ),
    NationalId(
        "NL_BSN",
        _shape(r"\d{3}([ .-])\d{3}\1\d{3}|\d{4}[ .]\d\d[ .]\d{3}"),
        _bsn,
        words("bsn burgerservicenummer sofi sofinummer burger"),
        (9,),
        always_context=True,
    ),
    NationalId(
        "BE_NRN",
        _shape(r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d"),
        _belgian,
        words("rijksregister rijksregisternummer registre niss insz nrn national"),
        (11,),
    ),
    NationalId("PL_PESEL", _shape(r"\d{6} ?\d{5}"), _pesel, words("pesel pesela peselem"), (11,), always_context=True),
    NationalId(
        "SE_PERSONNUMMER",
        _shape(r"(?:19|20)?\d{6}[-+]\d{4}"),
        _personnummer,
        words("personnummer personnr pnr personal samordningsnummer"),
        (10, 12),
    ),
    NationalId("FI_HETU", _shape(r"\d{6}[-+]\d{4}"), _hetu, words("hetu")),
    NationalId("CN_RESIDENT_ID", _shape(r"\d{18}"), _resident_id, words("id"), (18,), sure_bare=True),
    NationalId("BR_CPF", _shape(r"\d{3}\.\d{3}\.\d{3}-\d\d"), _cpf, words("cpf cadastro contribuinte"), (11,)),
    NationalId(
        "IN_AADHAAR",
        _shape(r"\d{4}([ -])\d{4}\1\d{4}"),
        _aadhaar,
        words("aadhaar aadhar adhaar uidai uid"),
        (12,),
    ),
    NationalId(
        "CA_SIN",
        _shape(r"\d{3}([ -])\d{3}\1\d{3}"),
        _sin,
        words("sin social insurance assurance nas"),
        (9,),
        always_context=True,
    ),
)
"""Numbers of digits and separators, all of them tried on a candidate in this order."""

LETTERED_IDS: tuple[NationalId, ...] = (
    NationalId(
        "UK_NINO",
        regex(r"(?<![A-Za-z0-9])[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D](?![A-Za-z0-9])", ASCII),
        _nino,
        words("ni nino insurance"),
    ),
    NationalId(
        "ES_DNI",
        regex(
            r"(?<![A-Za-z0-9.\-_])(?:\d{8}|\d\d\.\d{3}\.\d{3}|[XYZ][ -]?\d{7})[ -]?[A-HJ-NP-TV-Z](?![A-Za-z0-9_])",
            ASCII,
        ),
        _dni,
        words("dni nie nif"),
    ),
    NationalId(
        "FI_HETU",
        regex(r"(?<![A-Za-z0-9.\-_])\d{6}[-+A]\d{3}[0-9A-FHJ-NPR-Y](?![A-Za-z0-9_])", ASCII),
        _hetu,
        words("hetu"),
    ),
    NationalId(
        "CN_RESIDENT_ID",
        regex(r"(?<![A-Za-z0-9_.\-])[1-9]\d{16}[0-9X](?![A-Za-z0-9_])", ASCII),
        _resident_id,
        words("id"),
    ),
    NationalId(
        "FR_NIR",
        regex(r"(?<![A-Za-z0-9_.\-])[12]([ .-]?)\d\d\1\d\d\1(?:2[AB])\1\d{3}\1\d{3}[ .\-]?\d\d(?![A-Za-z0-9_])", ASCII),
        _nir,
        words("nir"),
    ),
)
"""Numbers with letters in them, looked for around a candidate."""

CODICE_FISCALE = regex(
    r"(?<![A-Za-z0-9])[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z](?![A-Za-z0-9])", ASCII
)


def is_codice_fiscale(code: str) -> bool:
    """Whether a code of the right shape has the right check letter."""
    return _codice_fiscale(code)
