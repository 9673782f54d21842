"""Suggestions: few rules that would have allowed the calls that were made.

A suggestion is a beginning: it says what agents did, not what they should do. Commands become program and subcommand,
files the folders that they are in, URLs their hosts. Nothing destructive is suggested, and nothing whose extent cannot
be told; such calls are listed in comments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from computeragent.errors import NotFoundError
from computeragent.policy.recorded import RecordedCall, Recording
from computeragent.policy.risk import classify
from computeragent.policy.rules import RulesPolicyEngine
from computeragent.policy.shapes import shape_of
from computeragent.policy.suggested.needs import Needs, RefusedError
from computeragent.policy.suggested.text import SuggestedRule, written
from computeragent.policy.types import PolicyAction, PolicyDecision, PolicyInput, PolicyPrincipal, PolicyResource

_LISTED = 40
_NEVER = SuggestedRule(
    "destructive", "deny", {"risk": "destructive"}, reason="this cannot be undone; a person has to do it"
)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A rules file, and what it is made of.

    Of `calls` that were allowed and ran, the rules allow `covered`. `left_out` counts the others, by why and what they
    are; `not_run` those on record that were denied, changed, or have no result.
    """

    text: str
    calls: int
    covered: int
    rules: int
    left_out: dict[tuple[str, str], int]
    not_run: int
    redacted: bool


async def suggest(calls: Recording, *, cwd: str | None = None, subject: str = "") -> Suggestion:
    """Rules that allow what was allowed and ran, deny what is destructive, and everything else by default.

    The calls are read twice: to make the rules, and to see that they allow what they are for. The same calls give the
    same text, in any order. `cwd` is the working folder of calls of which it is not on record; `subject` says in the
    file whose calls they are. Raises `NotFoundError` where no call was allowed and ran.
    """
    needs, left_out, seen = Needs(), Counter[tuple[str, str]](), _Seen()
    async for call in calls:
        if seen.counts(call):
            try:
                _add(needs, call, cwd)
            except RefusedError as refused:
                left_out[str(refused), _shape(call, cwd)] += 1
    if not seen.calls:
        raise NotFoundError(
            "no calls that were allowed and ran are on record", hint="Let agents work first, or ask for more of them."
        )
    rules = [_NEVER, *needs.rules()]
    engine = RulesPolicyEngine(text=written((), rules, "", ()))
    covered = 0
    async for call in calls:
        if not _ran(call):
            continue
        if (await engine.evaluate(_question(call, cwd))).decision is PolicyDecision.ALLOW:
            covered += 1
        elif _is_suggested(call, cwd):
            left_out["not met by these rules", _shape(call, cwd)] += 1
    text = written(
        _head(seen, covered), rules, " ".join(["What agents did", subject]).strip(), _tail(left_out, seen.not_run)
    )
    return Suggestion(text, seen.calls, covered, len(rules), dict(left_out), seen.not_run, seen.redacted)


class _Seen:
    """Counts the calls that were read."""

    def __init__(self) -> None:
        self.calls = 0
        self.not_run = 0
        self.redacted = False
        self.first: float | None = None
        self.last: float | None = None
        self._sessions: set[str] = set()

    def counts(self, call: RecordedCall) -> bool:
        """Whether a call was allowed as it was, and ran."""
        if not _ran(call):
            self.not_run += 1
            return False
        self.calls += 1
        self.redacted = self.redacted or call.redacted
        self._sessions.add(call.session_id)
        if call.at is not None:
            self.first, self.last = min(self.first or call.at, call.at), max(self.last or call.at, call.at)
        return True

    @property
    def sessions(self) -> int:
        """How many sessions the calls are of."""
        return len(self._sessions)


def _ran(call: RecordedCall) -> bool:
    return call.decision == "allow" and call.ran is not False


def _add(needs: Needs, call: RecordedCall, cwd: str | None) -> None:
    needs.add(call.tool, call.input, call.cwd or cwd)


def _is_suggested(call: RecordedCall, cwd: str | None) -> bool:
    try:
        _add(Needs(), call, cwd)
    except RefusedError:
        return False
    return True


def _question(call: RecordedCall, cwd: str | None) -> PolicyInput:
    folder = call.cwd or cwd
    context: dict[str, Any] = {"risk": classify(call.tool, call.input)} | ({} if folder is None else {"cwd": folder})
    return PolicyInput(
        PolicyPrincipal(call.principal or "unknown"),
        PolicyAction("tool_use", call.tool, call.input),
        PolicyResource("agent", call.agent, call.model, call.session_id),
        context,
    )


def _shape(call: RecordedCall, cwd: str | None) -> str:
    return f"{call.tool} {shape_of(call.tool, call.input, call.cwd or cwd)}".strip()


def _head(seen: _Seen, covered: int) -> Iterator[str]:
    days = ""
    if seen.first is not None and seen.last is not None:
        first, last = (datetime.fromtimestamp(at, UTC).date().isoformat() for at in (seen.first, seen.last))
        days = f", {first}" if first == last else f", {first} to {last}"
    calls, sessions = _count(seen.calls, "call"), _count(seen.sessions, "session")
    yield f"Suggested from {calls} that were allowed and ran, in {sessions}{days}; it allows {covered:,} of them."
    yield "It says what agents did, not what they should do: read it, and take out what you do not want."
    yield "Numbers are calls. What no rule allows is denied."
    if seen.redacted:
        yield "The calls were read from a file whose values are redacted: patterns may be incomplete."


def _tail(left_out: Counter[tuple[str, str]], not_run: int) -> Iterator[str]:
    if left_out:
        yield "Left out:"
        ordered = sorted(left_out.items(), key=lambda each: (each[0][0] != "destructive", -each[1], each[0]))
        for (why, shape), count in ordered[:_LISTED]:
            yield f"  {_count(count, 'call')}, {why}: {shape[:100]}"
        if len(ordered) > _LISTED:
            more = sum(count for _, count in ordered[_LISTED:])
            yield f"  and {_count(more, 'call')} of {len(ordered) - _LISTED} more kinds"
    if not_run:
        yield f"{_count(not_run, 'call')} on record did not run as asked: denied, changed, or without a result."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
