"""Finding what is sensitive in one text: windows, gate, families of detectors, known values, patterns of the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from re import Pattern
from re import compile as regex
from typing import Protocol

from computeragent.telemetry.redaction.addresses import ipv6
from computeragent.telemetry.redaction.emails import emails
from computeragent.telemetry.redaction.findings import Finding, merge, without
from computeragent.telemetry.redaction.gate import Gate, with_re2, without_re2
from computeragent.telemetry.redaction.known import KnownValues
from computeragent.telemetry.redaction.numbers import numbers
from computeragent.telemetry.redaction.scanned import Scanned, scanned
from computeragent.telemetry.redaction.secrets import private_keys, secrets
from computeragent.telemetry.redaction.tokens import ibans, tokens

WINDOW = 64 * 1024
"""How many characters are scanned at a time."""
OVERLAP = 8 * 1024
"""How much of a window the next one sees again; a longer value is followed to its end."""
_MARGIN = 256
_SHORTEST = 6
_REST_OF_TOKEN = regex(r"[A-Za-z0-9_\-.+/=~%]*")

_FAMILIES: dict[str, Callable[[Scanned], Iterator[Finding]]] = {
    "numbers": numbers,
    "emails": emails,
    "tokens": tokens,
    "secrets": secrets,
    "ibans": ibans,
    "ipv6": ipv6,
}


class ExtraPattern(Protocol):
    """A pattern of the user, ready to run."""

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where it matches."""
        ...


class Engine:
    """Scans texts. `pause` is called between windows, so that a caller may let others run."""

    def __init__(
        self,
        *,
        kinds: frozenset[str],
        placeholder: Pattern[str],
        known: KnownValues,
        extra: Sequence[ExtraPattern] = (),
        ignored: Callable[[str], bool] | None = None,
        pause: Callable[[], object] | None = None,
        use_re2: bool = True,
    ) -> None:
        self._kinds = kinds
        self._placeholder = placeholder
        self._known = known
        self._extra = extra
        self._ignored = ignored
        self._pause = pause
        self._gate: Gate = (with_re2() if use_re2 else None) or without_re2

    def find(self, text: str, hint: str = "") -> list[Finding]:
        """Findings in order, apart from each other, and never in what was redacted before."""
        found = list(self._known.find(text)) if len(self._known) else []
        for extra in self._extra:
            found.extend(Finding("CUSTOM", start, end) for start, end in extra.spans(text))
        taken = [match.span() for match in self._placeholder.finditer(text)] if "[" in text else []
        if taken:
            # the kind in a placeholder is no word that speaks for the number beside it
            text = self._placeholder.sub(lambda match: f"[{chr(0) * (len(match.group()) - 2)}]", text)
        if len(text) >= _SHORTEST:
            if "-----BEGIN " in text and "PRIVATE_KEY" in self._kinds:
                found.extend(private_keys(text))
            found.extend(self._windows(text, hint))
        if not found:
            return []
        if taken:
            found = [one for one in without(found, taken) if any(map(str.isalnum, text[one.start : one.end]))]
        return merge(found)

    def _windows(self, text: str, hint: str) -> Iterator[Finding]:
        size = len(text)
        if size <= WINDOW:
            yield from self._window(text, hint, 0, size)
            return
        start = 0
        while True:
            end = min(size, start + WINDOW)
            last = end == size
            for one in self._window(text, hint if not start else "", start, end):
                # the window before has seen what begins in the margin, the next one sees the end of the overlap
                if (start and one.start < start + _MARGIN) or (not last and one.start >= end - OVERLAP + _MARGIN):
                    continue
                if one.end == end and not last:
                    rest = _REST_OF_TOKEN.match(text, end)
                    yield Finding(one.kind, one.start, rest.end() if rest else end)
                else:
                    yield one
            if last:
                return
            start = end - OVERLAP
            if self._pause:
                self._pause()

    def _window(self, text: str, hint: str, start: int, end: int) -> Iterator[Finding]:
        piece = text if end - start == len(text) else text[start:end]
        scan = scanned(piece, hint, whole=len(piece) == len(text))
        needed = self._gate(scan.text)
        for family, detect in _FAMILIES.items() if needed else ():
            for one in detect(scan) if family in needed else ():
                if one.kind not in self._kinds:
                    continue
                if one.kind == "IP" and self._ignored and self._ignored(scan.text[one.start : one.end]):
                    continue
                low = scan.original(one.start)
                high = scan.original(one.end - 1) + 1
                yield Finding(one.kind, start + low, start + high)
