"""What a detector reports: a kind and a span, and how overlapping spans become one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


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
    if not taken:
        return list(findings)
    kept: list[Finding] = []
    for found in findings:
        start = found.start
        for low, high in taken:
            if high <= start:
                continue
            if low >= found.end:
                break
            if low > start:
                kept.append(Finding(found.kind, start, low))
            start = high
        if start < found.end:
            kept.append(Finding(found.kind, start, found.end))
    return kept
