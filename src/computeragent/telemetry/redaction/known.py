"""Secrets that the process knows: found by value, in plain, URL-encoded, base64, hex and JSON-escaped form."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from re import Pattern, escape
from re import compile as regex
from threading import Lock
from typing import Any, cast
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from computeragent.telemetry.redaction.findings import Finding
from computeragent.telemetry.redaction.gate import literals
from computeragent.telemetry.redaction.secrets import is_secret_name, is_secret_value

_PROBE = 6
_WINDOW = 64 * 1024
_RARITY = {**dict.fromkeys("etaoinshrdlu", 9), **dict.fromkeys("cmwfgypbv", 7), **dict.fromkeys("kjxqz", 5)}
_AUTH_SCHEMES = frozenset({"bearer", "basic", "token", "bot", "apikey", "digest"})


class KnownValues:
    """A set of secrets that may grow and shrink while others scan. Its `repr` tells how many, never which."""

    def __init__(self, values: Iterable[str] = (), *, min_length: int = 8) -> None:
        self._min_length = max(4, min_length)
        self._values: frozenset[str] = frozenset()
        self._lock = Lock()
        self._index: _Index | None = None
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Secrets to find from now on; those shorter than the smallest length are left out, since they are words."""
        given = [values] if isinstance(values, str) else values
        wanted = {value.strip() for value in given}
        with self._lock:
            self._replace(self._values | {value for value in wanted if len(value) >= self._min_length})

    def discard(self, values: Iterable[str]) -> None:
        """Secrets that are none any more."""
        given = {values} if isinstance(values, str) else {value.strip() for value in values}
        with self._lock:
            self._replace(self._values - given)

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._replace(frozenset())

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"KnownValues({len(self._values)} values)"

    def find(self, text: str, *, use_re2: bool = True) -> list[Finding]:
        """Where any of them stands in `text`, in any form."""
        index = self._index
        return index.find(text, use_re2=use_re2) if index else []

    def _replace(self, values: frozenset[str]) -> None:
        # a scan under way keeps the index that it began with
        if values != self._values:
            self._values = values
            self._index = _Index(values) if values else None


class _Index:
    """All forms of all values, found through one pattern of probes: the six rarest characters in a row of each."""

    def __init__(self, values: frozenset[str]) -> None:
        self._by_probe: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for form in {form for value in values for form in forms(value)}:
            offset = _rarest(form)
            self._by_probe[form[offset : offset + _PROBE]].append((offset, form))
        self._pattern = _trie(self._by_probe)
        self._gate = literals(self._by_probe)

    def __repr__(self) -> str:
        return f"_Index({len(self._by_probe)} probes)"

    def find(self, text: str, *, use_re2: bool) -> list[Finding]:
        found: list[Finding] = []
        place = 0
        reached = 0
        size = len(text)
        # in windows, so that no look takes long; a probe over the edge belongs to the next one
        while reached < size:
            window = reached
            reached = min(size, window + _WINDOW)
            place = max(place, window)
            stop = min(size, reached + _PROBE - 1)
            if use_re2 and self._gate and not self._gate(text[window:stop]):
                continue
            place = self._window(text, place, reached, stop, found)
        return found

    def _window(self, text: str, place: int, reached: int, stop: int, found: list[Finding]) -> int:
        while (match := self._pattern.search(text, place, stop)) and match.start() < reached:
            start = match.start()
            place = start + 1
            for offset, form in self._by_probe[match.group()]:
                if start >= offset and text.startswith(form, start - offset):
                    found.append(Finding("KNOWN_VALUE", start - offset, start - offset + len(form)))
        return place


def forms(value: str) -> Iterator[str]:
    """A secret as it may be written: as it is, encoded for a URL, in JSON, in hex, and within base64."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    for escaped in (quote(value, safe=""), quote(value), quote_plus(value)):
        yield escaped
        if "%" in escaped:
            yield _lower_escapes(escaped)
    octets = value.encode("utf-8", "surrogatepass")
    yield octets.hex()
    yield octets.hex().upper()
    for shift in range(3):
        # what stands before the value moves its bits, so the characters at both ends are not its own
        encoded = base64.b64encode(b"\0" * shift + octets).decode()
        inner = encoded[(0, 2, 3)[shift] : (len(octets) + shift) * 8 // 6]
        if len(inner) >= 8:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")


def _lower_escapes(escaped: str) -> str:
    head, *rest = escaped.split("%")
    return head + "".join(f"%{part[:2].lower()}{part[2:]}" for part in rest)


def _rarest(form: str) -> int:
    last = max(0, len(form) - _PROBE)
    return min(range(last + 1), key=lambda at: (_weight(form[at]), _weight(form[at + 1 : at + 2]), at))


def _weight(char: str) -> int:
    if char.isupper():
        return 2
    return _RARITY.get(char, 1 if char.isalnum() else 3)


def _trie(probes: Iterable[str]) -> Pattern[str]:
    root: dict[str, Any] = {}
    for probe in probes:
        node = root
        for char in probe:
            node = node.setdefault(char, {})
        node[""] = {}
    return regex(_branches(root))


def _branches(node: dict[str, Any]) -> str:
    ends = "" in node
    parts = [escape(char) + _branches(cast("dict[str, Any]", child)) for char, child in sorted(node.items()) if char]
    if not parts:
        return ""
    body = parts[0] if len(parts) == 1 and not ends else f"(?:{'|'.join(parts)})"
    return f"{body}?" if ends else body


def credentials_in(settings: Mapping[str, Any]) -> list[str]:
    """The secrets among settings, such as an environment, headers or an MCP configuration, by the names of keys."""
    found: list[str] = []
    _collect(settings, found, sure=False, depth=0)
    return found


def _collect(value: object, found: list[str], *, sure: bool, depth: int) -> None:
    if depth > 32:
        return
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[object, object]", value).items():
            named = is_secret_name(str(key)) is not False or str(key).lower() in {
                "authorization",
                "cookie",
                "proxy-authorization",
            }
            _collect(item, found, sure=named, depth=depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in cast("Iterable[object]", value):
            _collect(item, found, sure=sure, depth=depth + 1)
    elif isinstance(value, str):
        if sure and is_secret_value(value, sure=True):
            scheme, _, rest = value.partition(" ")
            found.append(rest.strip() if rest and scheme.lower() in _AUTH_SCHEMES else value)
        elif value.lstrip()[:1] == "{":
            with suppress(ValueError, RecursionError):
                _collect(json.loads(value), found, sure=sure, depth=depth + 1)
        elif "://" in value:
            _collect_from_url(value, found)


def _collect_from_url(text: str, found: list[str]) -> None:
    """The password of an address, and what its query names as secret."""
    try:
        parts = urlsplit(text)
        password = parts.password
    except ValueError:
        return
    if password:
        found.append(unquote(password))
    for name, value in parse_qsl(parts.query):
        if is_secret_name(name) and is_secret_value(value, sure=True):
            found.append(value)
