"""What a stream torture found: one row for each kind of cruelty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SHOWN = 5
"""Violations of a check that the table shows."""


@dataclass(slots=True)
class Check:
    """One kind of cruelty: how often it was done, and what came out wrong."""

    name: str
    tried: int = 0
    unit: str = "times"
    violations: list[str] = field(default_factory=list[str])
    note: str = ""
    seconds: float = 0.0

    def expect(self, kept: bool, violation: str) -> bool:
        """Note a violation unless the promise was kept; returns whether it was."""
        if not kept:
            self.violations.append(violation)
        return kept


@dataclass(frozen=True, slots=True)
class TortureReport:
    """All checks of one server."""

    url: str
    checks: Sequence[Check]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not any(check.violations for check in self.checks)

    @property
    def cuts(self) -> int:
        """How many connections were cut."""
        return sum(check.tried for check in self.checks if check.unit == "cuts")

    def table(self) -> str:
        """The report for people: a line for each check, its violations below it."""
        width = max(len(check.name) for check in self.checks)
        lines: list[str] = []
        for check in self.checks:
            mark = "✗" if check.violations else "✓"
            count = f"{check.tried:,} {check.unit}" if check.tried else "-"
            lines.append(f"{mark} {check.name:<{width}}  {count:>16}  {check.seconds:6.1f} s  {check.note}".rstrip())
            lines += [f"    {each}" for each in check.violations[:SHOWN]]
            if len(check.violations) > SHOWN:
                lines.append(f"    … and {len(check.violations) - SHOWN} more")
        found = sum(len(check.violations) for check in self.checks)
        verdict = "every promise kept" if self.ok else f"{found} violation{'s' if found != 1 else ''}"
        lines.append(f"{verdict}: {self.cuts:,} cuts, {self.seconds:.1f} s, {self.url}")
        return "\n".join(lines)
