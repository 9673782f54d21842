"""Finding what is sensitive in one text: windows, gate, families of detectors, known values, patterns of the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from re import Pattern
from re import compile as regex
from typing import Protocol

from computeragent.telemetry.redaction.addresses import ipv6
from computeragent.telemetry.redaction.emails import emails
from computeragent.telemetry.redaction.findings import Finding, merge, regions, without
from computeragent.telemetry.redaction.gate import Gate, with_re2, without_re2
from computeragent.telemetry.redaction.known import KnownValues
from computeragent.telemetry.redaction.numbers import numbers
from computeragent.telemetry.redaction.scanned import Scanned, scanned
from computeragent.telemetry.redaction.secrets import private_keys, secrets
from computeragent.telemetry.redaction.strategies import LONGEST_PLACEHOLDER, PLACEHOLDER_HEADS
from computeragent.telemetry.redaction.tokens import ibans, tokens

WINDOW = 64 * 1024
"""How many characters are scanned at a time."""
OVERLAP = 8 * 1024
"""How much of a window the next one sees again; a longer value is followed to its end."""
_MARGIN = 256
_EDGE = 64
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
        self._use_re2 = use_re2
        self._gate: Gate = (with_re2() if use_re2 else None) or without_re2

    def find(self, text: str, hint: str = "", *, whole: bool = True) -> list[Finding]:
        """Findings in order, apart from each other, and never in what was redacted before.

        `whole` says that the text is a value of its own, and not cut out of one.
        """
        found = self._known.find(text, use_re2=self._use_re2) if len(self._known) else []
        for extra in self._extra:
            found.extend(Finding("CUSTOM", start, end) for start, end in extra.spans(text))
        taken = self._taken(text) if "[" in text else []
        if taken:
            text = _blanked(text, taken)
        if len(text) >= _SHORTEST:
            # without the blank behind: a frequent last letter makes the search slow
            if "-----BEGIN" in text and "PRIVATE_KEY" in self._kinds:
                found.extend(private_keys(text))
            found.extend(self._windows(text, hint, whole=whole))
        if not found:
            return []
        if taken:
            found = [one for one in without(found, taken) if any(map(str.isalnum, text[one.start : one.end]))]
        return merge(found)

    def find_near(self, text: str, changed: list[tuple[int, int]], hint: str = "") -> list[Finding]:
        """What `find` finds in a text that was clean but for the spans `changed`: these and what is around are read."""
        size = len(text)
        near = [] if self._extra else regions(text, changed)
        if not near or sum(high - low for low, high in near) > size // 2:
            return self.find(text, hint)
        found: list[Finding] = []
        for low, high in near:
            for one in self.find(text[low:high], "" if low else hint, whole=False):
                if high < size and low + one.end == high:
                    return self.find(text, hint)  # it may go on beyond the edge
                if (low and one.start < _EDGE) or (high < size and low + one.start > high - _EDGE):
                    continue  # as it was before, and seen there without what was cut off
                found.append(Finding(one.kind, low + one.start, low + one.end))
        return found

    def _taken(self, text: str) -> list[tuple[int, int]]:
        """Where placeholders are; in windows, since many brackets take long."""
        if len(text) <= WINDOW:
            return [match.span() for match in self._placeholder.finditer(text)]
        spans: list[tuple[int, int]] = []
        if any(head in text for head in PLACEHOLDER_HEADS):
            for start in range(0, len(text), WINDOW):
                found = self._placeholder.finditer(text, start, start + WINDOW + LONGEST_PLACEHOLDER)
                spans.extend(match.span() for match in found if match.start() < start + WINDOW)
        return spans

    def _windows(self, text: str, hint: str, *, whole: bool) -> Iterator[Finding]:
        size = len(text)
        if size <= WINDOW:
            yield from self._window(text, hint, 0, size, whole=whole)
            return
        start = 0
        while True:
            end = min(size, start + WINDOW)
            last = end == size
            for one in self._window(text, hint if not start else "", start, end, whole=False):
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

    def _window(self, text: str, hint: str, start: int, end: int, *, whole: bool) -> Iterator[Finding]:
        scan = scanned(text[start:end], hint, whole=whole)
        needed = self._gate(scan.text)
        if not needed:
            return
        for family, detect in _FAMILIES.items():
            for one in detect(scan) if family in needed else ():
                if one.kind not in self._kinds:
                    continue
                if one.kind == "IP" and self._ignored and self._ignored(scan.text[one.start : one.end]):
                    continue
                low = scan.original(one.start)
                high = scan.original(one.end - 1) + 1
                yield Finding(one.kind, start + low, start + high)


def _blanked(text: str, taken: list[tuple[int, int]]) -> str:
    """The text with what is in placeholders blanked: the kind is no word that speaks for the number beside it."""
    parts: list[str] = []
    place = 0
    for start, end in taken:
        parts.append(f"{text[place:start]}[{chr(0) * (end - start - 2)}]")
        place = end
    parts.append(text[place:])
    return "".join(parts)
