"""What a detector reports: a kind and a span, and how overlapping spans become one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

_NEAR = 192
"""How far what stands somewhere can decide on what is found: the words around a value, on both sides of it."""
_FARTHEST = 4096


@dataclass(frozen=True, slots=True)
class Finding:
    """A sensitive value in a text: its kind and where it is, never the value itself."""

    kind: str
    start: int
    end: int


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """Findings in order of place, overlapping ones joined; the longest of a group gives its kind."""
    merged: list[Finding] = []
    longest = 0
    for found in sorted(findings, key=lambda one: (one.start, -one.end, one.kind)):
        if merged and found.start < merged[-1].end:
            last = merged[-1]
            size = found.end - found.start
            kind = found.kind if size > longest else last.kind
            longest = max(longest, size)
            merged[-1] = Finding(kind, last.start, max(last.end, found.end))
        elif found.end > found.start:
            merged.append(found)
            longest = found.end - found.start
    return merged


def without(findings: Iterable[Finding], taken: list[tuple[int, int]]) -> list[Finding]:
    """The parts of `findings` outside the `taken` spans, which are sorted and apart from each other."""
    kept: list[Finding] = []
    ends = [high for _, high in taken]
    for found in findings:
        start = found.start
        for low, high in islice(taken, bisect_right(ends, start), None):
            if low >= found.end:
                break
            if low > start:
                kept.append(Finding(found.kind, start, low))
            start = high
        if start < found.end:
            kept.append(Finding(found.kind, start, found.end))
    return kept


def regions(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans with what is near them, cut at blanks, joined where they meet; none where no blank is near enough."""
    near: list[tuple[int, int]] = []
    for start, end in spans:
        low, high = _blank_before(text, start - _NEAR), _blank_after(text, end + _NEAR)
        if low < 0 or high < 0:
            return []
        if near and low <= near[-1][1]:
            low = near.pop()[0]
        near.append((low, high))
    return near


def _blank_before(text: str, place: int) -> int:
    if place <= 0:
        return 0
    start = max(0, place - _FARTHEST)
    found = max(text.rfind(" ", start, place), text.rfind("\n", start, place))
    return 0 if found < 0 and not start else found


def _blank_after(text: str, place: int) -> int:
    if place >= len(text):
        return len(text)
    stop = place + _FARTHEST
    found = [at for at in (text.find(" ", place, stop), text.find("\n", place, stop)) if at >= 0]
    return min(found) if found else len(text) if stop >= len(text) else -1
