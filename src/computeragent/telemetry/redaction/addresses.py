"""Addresses: IPv4 and IPv6, told from versions, times, MAC addresses and networks."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from re import ASCII, IGNORECASE
from re import compile as regex

from computeragent.telemetry.redaction.findings import Finding
from computeragent.telemetry.redaction.scanned import Scanned

_DOTTED = regex(r"[\d.]{7,}", ASCII)
_IPV4 = regex(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)", ASCII)
_VERSION_WORDS = regex(
    r"(?:\b(?:v|ver|version|release|rev|build|firmware|oid|section|chapter|upgrad\w+|driver|bump\w*|patch|sdk|assembly\w*)"
    r"|[=~<>!^@]=?|[A-Za-z_][\w.+\-]*/|\b[A-Za-z_]\w*-)[\"'\s:(]{0,3}$",
    IGNORECASE,
)
_ADDRESS_WORDS = regex(
    r"\b(?:ip|ipv4|ipv6|addr\w*|host|client|server|remote|src|dst|peer|from|ping|ssh)\W{0,3}$", IGNORECASE
)
# With two colons in a row, or with five groups and more: neither a time nor most of a MAC address is looked at.
_IPV6 = regex(
    r":(?<=[0-9A-Fa-f:]:)(?:(?<=::)(?=[0-9A-Fa-f])|:(?=[0-9A-Fa-f])"
    r"|(?:[0-9A-Fa-f]{1,4}:){1,6}:|(?:[0-9A-Fa-f]{1,4}:){4})[0-9A-Fa-f:]*",
    ASCII,
)
_HEX_GROUPS = regex(r"[0-9A-Fa-f:]{2,45}(?:\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])", ASCII)
_IPV6_CHARS = frozenset("0123456789abcdefABCDEF:.")
_GLOBAL = regex(r"(?:[23][0-9a-f]{3}|f[cd][0-9a-f]{2}|fe[89ab][0-9a-f]):", IGNORECASE)


def ipv4(scan: Scanned, start: int, end: int) -> Iterator[Finding]:
    """Addresses in a candidate run of digits and separators."""
    text = scan.text
    for run in _DOTTED.finditer(text, start, end):
        match = _IPV4.match(text, run.start())
        if not match:
            continue
        low, high = match.span()
        octets = match.group().split(".")
        if any(int(octet) > 255 or (octet[0] == "0" and octet != "0") for octet in octets):
            continue
        if _is_part(text, low, high):
            continue
        if text[high : high + 1] == "/" and _is_network(octets, text[high + 1 : high + 3]):
            continue
        before = scan.before(low, 24)
        if _VERSION_WORDS.search(before) and not before.endswith("//") and not _ADDRESS_WORDS.search(before):
            continue
        yield Finding("IP", low, high)


def _is_part(text: str, start: int, end: int) -> bool:
    before = text[start - 1 : start]
    if before and (before.isalnum() or before == "_"):
        return True
    after = text[end : end + 2]
    if after and (after[0].isalpha() or after[0] in "_+"):
        return True
    return len(after) == 2 and after[0] in "-." and after[1].isalpha()


def _is_network(octets: list[str], mask: str) -> bool:
    if not mask[:1].isdigit():
        return False
    bits = int(mask) if mask.isdigit() else int(mask[0])
    number = int(IPv4Address(".".join(octets)))
    return bits <= 32 and number & ((1 << (32 - bits)) - 1) == 0 and bits < 32


def ipv6(scan: Scanned) -> Iterator[Finding]:
    """IPv6 addresses: at least three groups, or two behind the prefix of a network in use."""
    text = scan.text
    done = 0
    for match in _IPV6.finditer(text):
        place = match.start()
        if place < done:
            continue
        start = place
        while start > max(done, place - 5) and text[start - 1] in _IPV6_CHARS and text[start - 1] != ".":
            start -= 1
        whole = _HEX_GROUPS.match(text, start)
        done = match.end()
        if not whole or (start and (text[start - 1].isalnum() or text[start - 1] in "_:.")):
            continue
        done = whole.end()
        if _is_ipv6(whole.group()):
            yield Finding("IP", start, whole.end())


def _is_ipv6(spelled: str) -> bool:
    groups = [group for group in spelled.split(":") if group]
    enough = len(groups) >= 3 or (len(groups) == 2 and _GLOBAL.match(spelled))
    if not enough or not any(char.isdigit() for char in spelled):
        return False
    try:
        IPv6Address(spelled)
    except AddressValueError:
        return False
    return True
