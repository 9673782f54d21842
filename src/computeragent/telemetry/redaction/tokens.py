"""Tokens known by their shape: prefixes of issuers, AWS keys, JWTs, and codes in one piece such as IBAN.

One pass finds everything of sixteen characters or more; the rest looks at that only.
"""

from __future__ import annotations

import binascii
import json
import math
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from re import ASCII, IGNORECASE
from re import compile as regex
from typing import cast

from computeragent.telemetry.redaction.checks import mod97
from computeragent.telemetry.redaction.findings import Finding
from computeragent.telemetry.redaction.national import CODICE_FISCALE, is_codice_fiscale
from computeragent.telemetry.redaction.scanned import Scanned

PREFIXES: tuple[tuple[str, str], ...] = (
    ("COMPUTERAGENT_KEY", r"cak_[A-Za-z0-9_\-]{12,}"),
    ("PROVIDER_KEY", r"sk-ant-[A-Za-z0-9_\-]{16,}"),
    ("PROVIDER_KEY", r"sk-(?:proj|svcacct|admin|None|or-v1|or|lf)-[A-Za-z0-9_\-]{16,}"),
    ("PROVIDER_KEY", r"sk-(?=[A-Za-z0-9]{0,60}\d)[A-Za-z0-9]{20,}"),
    ("PROVIDER_KEY", r"AIza[A-Za-z0-9_\-]{35}"),
    ("PROVIDER_KEY", r"(?:hf|gsk|r8|fw|nvapi|together|esecret)[_\-](?=[A-Za-z]{0,40}\d)[A-Za-z0-9_\-]{20,}"),
    ("PROVIDER_KEY", r"(?:hf|api_org)_[A-Za-z]{30,40}"),
    ("PROVIDER_KEY", r"(?:xai|pplx|tvly|csk|jina)[_\-](?=[A-Za-z\-]{0,40}\d)[A-Za-z0-9_\-]{20,}"),
    ("PROVIDER_KEY", r"lsv2_(?:pt|sk)_[A-Za-z0-9_]{20,}"),
    ("VCS_TOKEN", r"gh[opsur]_[A-Za-z0-9]{20,255}"),
    ("VCS_TOKEN", r"github_pat_[A-Za-z0-9_]{20,255}"),
    ("VCS_TOKEN", r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[A-Za-z0-9_\-]{16,255}"),
    ("VCS_TOKEN", r"(?:ATBB|ATCTT3|ATATT3|BBDC-)[A-Za-z0-9_\-=]{20,}"),
    ("SLACK_TOKEN", r"xox[abeprso]-[A-Za-z0-9\-]{10,}"),
    ("SLACK_TOKEN", r"xapp-\d-[A-Za-z0-9\-]{10,}"),
    ("STRIPE_KEY", r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{10,}"),
    ("STRIPE_KEY", r"whsec_[A-Za-z0-9+/=]{16,}"),
    ("PACKAGE_TOKEN", r"npm_[A-Za-z0-9]{30,}"),
    ("PACKAGE_TOKEN", r"pypi-[A-Za-z0-9_\-]{16,}"),
    ("PACKAGE_TOKEN", r"(?:dckr_pat_|dckr_oat_|rubygems_|cio|oy2)(?=[A-Za-z\-]{0,40}\d)[A-Za-z0-9_\-]{20,}"),
    ("SERVICE_TOKEN", (r"(?:dop_v1_|doo_v1_|dor_v1_|dapi|shp(?:at|ca|pa|ss)_|EAAA|figd_|sbp_|lin_api_|ntn_|glsa_|glc_"
     r"|NRAK-|NRII-|hvs\.|hvb\.|phc_|phx_|rnd_|PMAK-|fly_|sntrys_|sntryu_|pul-|tfp_|key-|atlasv1)"
     r"(?=[A-Za-z\-]{0,40}\d)[A-Za-z0-9_\-=+/]{20,}")),
    ("SERVICE_TOKEN", r"AGE-SECRET-KEY-1[0-9A-Z]{50,}"),
    ("AWS_ACCESS_KEY_ID", r"(?:AKIA|ASIA|AROA|AIDA|AGPA|AIPA|ANPA|ANVA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("AWS_SESSION_TOKEN", r"(?:IQoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz)[A-Za-z0-9+/=%]{40,}"),
)  # fmt: skip
"""Tokens by issuer: the kind, and the pattern that begins with the issuer's prefix."""

_PREFIXED = [(kind, regex(rf"(?<![A-Za-z0-9]){pattern}", ASCII)) for kind, pattern in PREFIXES]
# Without a look at what stands before: a pattern that begins with one cannot jump to where a match may begin.
_HEADS = regex(
    r"(?:cak_|sk[-_]|AIza|hf[_-]|api_org_|gsk_|r8_|fw_|nvapi-|together_|esecret_|xai-|pplx-|tvly-|csk-|jina_|lsv2_|gh[opsur]_"
    r"|github_pat_|gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-|ATBB|ATCTT3|ATATT3|BBDC-|xox|xapp-|rk_|whsec_|npm_|pypi-|dckr_|rubygems_"
    r"|cio|oy2|do[por]_v1_|dapi|shp|EAAA|figd_|sbp_|lin_api_|ntn_|gl(?:sa|c)_|NRAK-|NRII-|phc_|phx_|rnd_|PMAK-|fly_|sntry|pul-|tfp_|key-"
    r"|atlasv1|AGE-SECRET|A(?:KIA|SIA|ROA|IDA|GPA|IPA|NPA|NVA|BIA|CCA)|IQoJ|FwoG|FQoG|eyJ|hv[sb]\.)",
    ASCII,
)
_DOTTED = regex(
    r"(?:(?<![A-Za-z0-9])(?:SG\.[A-Za-z0-9_\-]{16,32}\.[A-Za-z0-9_\-]{16,}|hv[sb]\.[A-Za-z0-9_\-]{20,}|ya29\.[A-Za-z0-9_\-]{20,}"
    r"|dp\.(?:pt|st|ct)\.[A-Za-z0-9]{30,}|1//0[A-Za-z0-9_\-]{20,}))|(?<![A-Za-z0-9:])\d{8,10}:AA[A-Za-z0-9_\-]{32,}",
    ASCII,
)
_DOTTED_HEADS = ("SG.", "ya29.", "hvs.", "hvb.", "dp.", ":AA", "1//0")
_JWT = regex(r"eyJ[A-Za-z0-9_\-]{6,}\.[A-Za-z0-9_\-]{4,}\.[A-Za-z0-9_\-]*(?:\.[A-Za-z0-9_\-]+){0,2}", ASCII)
_AWS_SECRET = regex(r"(?<![A-Za-z0-9/+=_\-])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=_\-])", ASCII)
_AWS_WORDS = regex(r"aws|secret|AKIA|ASIA|amazon|s3\b", IGNORECASE)
_CLASSES = str.maketrans(
    {
        **{chr(c): "a" for c in range(97, 123)},
        **{chr(c): "A" for c in range(65, 91)},
        **{chr(c): "0" for c in range(48, 58)},
    }
)
# Identifiers of requests, digests: every prefix has a sign beyond these.
_HEX = regex(r"[0-9a-f\-]+")
_PLAIN: set[str] = set()
"""Identifiers and the like in which nothing can begin: most come again and again."""
_KEPT = 8192
_LONG = b"a" * 16
_LOOKED_AT = 4096

IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15,
    "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19,
    "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
"""How long an IBAN is, by country."""
_IBAN = regex(r"[A-Z]{2}\d\d(?:[ \-]?[A-Z0-9]){11,30}", ASCII | IGNORECASE)


def tokens(scan: Scanned) -> Iterator[Finding]:
    """Tokens, AWS keys, JWTs and Italian tax codes."""
    table = scan.tokens
    size = len(table)
    place = table.find(_LONG)
    at = -1
    while place >= 0:
        end = table.find(b" ", place + 16)
        end = end if end >= 0 else size
        if at < place:
            at = table.find(b"@", place + 16)
            at = at if at >= 0 else size
        end = min(end, at)
        yield from _in_token(scan, place, end)
        place = table.find(_LONG, end)


def _in_token(scan: Scanned, start: int, end: int) -> Iterator[Finding]:
    text = scan.text
    size = end - start
    joined = text[start - 1 : start] in {".", ":"}  # to something that may be a prefix
    if not joined and (_HEX.fullmatch(text, start, end) or (size < 40 and text[start:end] in _PLAIN)):
        return
    low = max(0, start - 14)
    near = text[low : start + 5]
    dotted = any(head in near for head in _DOTTED_HEADS)
    if dotted:
        for found in _DOTTED.finditer(text, low, min(len(text), end + 256)):
            yield Finding("SERVICE_TOKEN", *found.span())
    heads = [match.start() for match in _HEADS.finditer(text, max(0, start - 4), min(end, start + _LOOKED_AT))]
    for head in heads:
        yield from _prefixed(text, head)
    if 40 <= size <= 120:
        yield from _aws_secrets(scan, start, end)
    coded = size <= 64 and scan.shapes.find(b"AAAAAA", start, end) >= 0
    if coded:
        for found in CODICE_FISCALE.finditer(text, max(0, start - 1), end):
            if is_codice_fiscale(found.group()):
                yield Finding("IT_CODICE_FISCALE", *found.span())
    if size < 40 and not (joined or dotted or heads or coded):
        if len(_PLAIN) >= _KEPT:
            _PLAIN.clear()
        _PLAIN.add(text[start:end])


def _prefixed(text: str, head: int) -> Iterator[Finding]:
    if head and text[head - 1].isascii() and text[head - 1].isalnum():
        return
    if text[head : head + 3] == "eyJ":
        jwt = _JWT.match(text, head)
        if jwt and _is_jwt(jwt.group()):
            yield Finding("JWT", head, jwt.end())
            return
    for kind, pattern in _PREFIXED:
        found = pattern.match(text, head)
        if found:
            yield Finding(kind, *found.span())
            return


def _is_jwt(token: str) -> bool:
    head = token.split(".", 1)[0]
    try:
        decoded: object = json.loads(urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return False
    return isinstance(decoded, dict) and bool({"alg", "typ", "enc"} & set(cast("dict[str, object]", decoded)))


def _aws_secrets(scan: Scanned, start: int, end: int) -> Iterator[Finding]:
    for place, found in _forty(scan.text, start, end):
        near = bool(_AWS_WORDS.search(scan.around(place, place + 40, 100, 60)))
        if looks_random(found, 10 if near else 16, 3.7 if near else 4.3):
            yield Finding("AWS_SECRET_KEY", place, place + 40)


def _forty(text: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    for match in _AWS_SECRET.finditer(text, max(0, start - 1), min(len(text), end + 1)):
        yield match.start(), match.group()
    equals = text.find("=", start, end)
    if 0 <= equals < end - 40:
        match = _AWS_SECRET.match(" " + text[equals + 1 : end + 1], 1)
        if match:
            yield equals + 1, match.group()


def looks_random(token: str, changes: int, bits: float) -> bool:
    """Whether a token mixes upper case, lower case and digits as a generated one does."""
    classes = token.translate(_CLASSES)
    if min(classes.count("a"), classes.count("A")) < 4 or "0" not in classes:
        return False
    switched = sum(one != other for one, other in pairwise(classes))
    return switched >= changes and entropy(token) >= bits


def entropy(token: str) -> float:
    """Shannon entropy of a token's characters, in bits per character."""
    size = len(token)
    return -sum(count / size * math.log2(count / size) for count in Counter(token).values())


def ibans(scan: Scanned) -> Iterator[Finding]:
    """International bank account numbers."""
    table = scan.shapes
    place = table.find(b"AA00")
    while place >= 0:
        found = _iban_at(scan.text, place)
        if found:
            yield Finding("IBAN", place, found)
        place = table.find(b"AA00", place + 2)


def _iban_at(text: str, place: int) -> int:
    if place and (text[place - 1].isalnum() or text[place - 1] == "_"):
        return 0
    size = IBAN_LENGTHS.get(text[place : place + 2])
    match = _IBAN.match(text, place, place + 48) if size else None
    if not match or not size:
        return 0
    code, end = "", place
    for char in match.group():
        end += 1
        if char not in " -":
            code += char
        if len(code) == size:
            break
    if len(code) != size or text[end : end + 1].isalnum() or not mod97(code.upper()):
        return 0
    return end
