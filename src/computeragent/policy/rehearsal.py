"""Rehearsal: what a policy would say of calls that were made, beside what was decided of them then."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from computeragent.policy.config import AnyPolicy, make_engine, read_policy
from computeragent.policy.judge import PolicyJudge
from computeragent.policy.recorded import RecordedCall
from computeragent.policy.review import review
from computeragent.policy.risk import classify
from computeragent.policy.shapes import shape_of
from computeragent.policy.types import PolicyEngine, PolicyPrincipal, PolicyResource
from computeragent.protocol_types import PermissionRequest, PolicyDecider, PolicyVerdict
from computeragent.wire.policy import (
    CedarPolicyConfig,
    OpaPolicyConfig,
    RulesPolicyConfig,
    SrsPolicyConfig,
)
from computeragent.wire.requests import PermissionDecision

CONCURRENCY = 16
"""Calls that a policy service is asked about at a time."""
_BATCH = 256
_MOST_GROUPS = 5_000
_LONGEST = 200

Decision = Literal["allow", "modify", "ask", "abstain", "deny"]
Change = Literal["newly_denied", "newly_allowed", "newly_asked", "no_longer_asked", "changed_input"]
CHANGES: Mapping[Change, str] = {
    "newly_denied": "ran then, and would be denied",
    "newly_allowed": "was denied then, and would not be",
    "newly_asked": "nobody was asked then, and somebody would be",
    "no_longer_asked": "somebody was asked then, and nobody would be",
    "changed_input": "would run with another input",
}
"""How a call may fare otherwise than before, and what that means."""
_NOBODY = {"policy", "default"}
_NO_DECISION = {"session"}
DECISIONS: tuple[Decision, ...] = ("allow", "modify", "ask", "abstain", "deny")


@dataclass(frozen=True, slots=True)
class Word:
    """What is said of a call: the decision, who or what decided, and why. `code` is that of a fault.

    `asked` says that a person or program was to answer. `input` is what would run instead of the call's own.
    """

    decision: Decision
    rule: str | None = None
    reason: str | None = None
    code: str | None = None
    by: str | None = None
    asked: bool = False
    input: dict[str, Any] | None = None


@dataclass(slots=True)
class Group:
    """Calls of one shape that fare alike: how many, and the first of them as an example."""

    change: Change | Literal["fault"]
    tool: str
    shape: str
    was: Word
    now: Word
    count: int = 0
    session_id: str = ""
    call_id: str = ""
    at: float | None = None
    agent: str = ""
    input: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class Tally:
    """How calls would fare: what the policy says, the changes, and the faults, which are no decisions."""

    calls: int = 0
    says: Counter[str] = field(default_factory=Counter[str])
    changes: Counter[str] = field(default_factory=Counter[str])
    faults: int = 0

    def add(self, now: Word, change: Change | None) -> None:
        """Count a call."""
        self.calls += 1
        if now.code is not None:
            self.faults += 1
            return
        self.says[now.decision] += 1
        if change is not None:
            self.changes[change] += 1


@dataclass(slots=True)
class Rehearsal:
    """What came of it. Faults are counted by code, in `faults`, and are neither denials nor changes.

    `groups` are the calls that fare otherwise, and those with a fault, most important first; beyond 5,000 of them,
    more are counted in `ungrouped`. `without_folder` counts calls whose working folder is not known, `without_original`
    those of whose input only the change is on record, `redacted` those whose input may not be as it was, and
    `undecided` those that were never decided.
    """

    against: str
    total: Tally = field(default_factory=Tally)
    tools: dict[str, Tally] = field(default_factory=dict[str, Tally])
    agents: dict[str, Tally] = field(default_factory=dict[str, Tally])
    rules: dict[str, Tally] = field(default_factory=dict[str, Tally])
    faults: Counter[str] = field(default_factory=Counter[str])
    groups: list[Group] = field(default_factory=list[Group])
    ungrouped: int = 0
    sessions: int = 0
    first: float | None = None
    last: float | None = None
    redacted: int = 0
    without_folder: int = 0
    without_original: int = 0
    undecided: int = 0

    def fails(self, on: str) -> bool:
        """Whether there are calls of a kind: ``newly-denied`` and the other `CHANGES`, or ``fault``.

        Where the policy has faults, it is not known what it would say: then it fails on anything.
        """
        return bool(self.faults) or self.total.changes[on.replace("-", "_")] > 0

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))


Progress = Callable[[int], None]
"""Hears how many calls have been judged."""


async def rehearse(
    policy: AnyPolicy,
    calls: AsyncIterable[RecordedCall],
    *,
    against: AnyPolicy | None = None,
    cwd: str | None = None,
    concurrency: int = CONCURRENCY,
    timeout: float | None = None,
    progress: Progress = lambda _: None,
) -> Rehearsal:
    """Put calls that were made to a policy. No tool runs, nobody is asked, and nothing is recorded.

    What the policy says is compared with what was decided then, or with what the policy `against` says. `cwd` is the
    working folder of calls of which it is not on record. Services are asked about `concurrency` calls at a time;
    `timeout` is for each answer, in seconds (default: as for agents, 30). Under asyncio and trio; memory does not grow
    with the number of calls. Raises `ValidationError` for a policy that cannot be read.
    """
    async with AsyncExitStack() as stack:
        judge = await _opened(policy, cwd, timeout, stack)
        other = None if against is None else await _opened(against, cwd, timeout, stack)
        notes = _Notes("what was decided" if other is None else other.name, cwd)
        at_a_time = max(1, concurrency) if any(each is not None and each.remote for each in (judge, other)) else 1
        async for batch in _batches(calls):
            said = await _all(judge, batch, at_a_time)
            before = [_then(call) for call in batch] if other is None else await _all(other, batch, at_a_time)
            for call, was, now in zip(batch, before, said, strict=True):
                notes.add(call, was, now)
            progress(notes.found.total.calls)
        return notes.result()


# ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────────


class _Left(Exception):  # noqa: N818 - no error: the call is left to a person
    """The policy leaves the call open."""

    def __init__(self, verdict: PolicyVerdict) -> None:
        super().__init__()
        self.verdict = verdict


class _Proposed:
    """A policy that is asked about recorded calls, by the way that calls of agents take."""

    def __init__(self, decider: PolicyDecider | PolicyJudge, name: str, cwd: str | None, timeout: float | None) -> None:
        self._decider = decider
        self._cwd = cwd
        self._timeout = timeout
        self.name = name
        self.remote = name not in {"rules", "cedar"}

    async def word(self, call: RecordedCall) -> Word:
        """What it says of a call. Never raises."""
        request = PermissionRequest(call.call_id, call.tool, call.input, classify(call.tool, call.input))
        try:
            verdict, _ = await review(request, self._for(call), answer=_leave, timeout=self._timeout)
        except _Left as left:
            verdict = left.verdict
        return Word(
            verdict.decision,
            verdict.rule,
            verdict.reason,
            verdict.code,
            verdict.engine or self.name,
            verdict.decision == "ask",
            verdict.input if verdict.decision == "modify" else None,
        )

    def _for(self, call: RecordedCall) -> PolicyDecider:
        if not isinstance(self._decider, PolicyJudge):
            return self._decider
        judge = self._decider
        attributes = {"engine": call.engine} if call.engine else {}
        who = PolicyPrincipal(call.principal or "unknown")
        resource = PolicyResource("agent", call.agent, call.model, call.session_id, attributes)
        cwd = call.cwd or self._cwd
        context = {} if cwd is None else {"cwd": cwd}

        async def decide(request: PermissionRequest) -> PolicyVerdict:
            return await judge.judge(request, who, resource, context)

        return decide


async def _leave(request: PermissionRequest, verdict: PolicyVerdict) -> tuple[PermissionDecision, str]:
    del request
    raise _Left(verdict)


async def _opened(policy: AnyPolicy, cwd: str | None, timeout: float | None, stack: AsyncExitStack) -> _Proposed:
    read = read_policy(policy)
    if isinstance(read, RulesPolicyConfig | CedarPolicyConfig | OpaPolicyConfig | SrsPolicyConfig):
        engine = make_engine(read)
        stack.push_async_callback(engine.aclose)
    elif isinstance(read, PolicyEngine):
        engine = read
    else:
        return _Proposed(read, str(getattr(read, "__name__", type(read).__name__)), cwd, timeout)
    judge = PolicyJudge(engine)
    return _Proposed(judge, judge.name, cwd, timeout)


async def _batches(calls: AsyncIterable[RecordedCall]) -> AsyncIterator[list[RecordedCall]]:
    batch: list[RecordedCall] = []
    async for call in calls:
        batch.append(call)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def _all(judge: _Proposed, batch: list[RecordedCall], at_a_time: int) -> list[Word]:
    """The words on a batch, in its order."""
    if at_a_time == 1:
        await checkpoint()
        return [await judge.word(call) for call in batch]
    words: dict[int, Word] = {}
    waiting = iter(range(len(batch)))

    async def work(numbers: Iterator[int]) -> None:
        for number in numbers:
            words[number] = await judge.word(batch[number])

    async with anyio.create_task_group() as tasks:
        for _ in range(min(at_a_time, len(batch))):
            tasks.start_soon(work, waiting)
    return [words[number] for number in range(len(batch))]


def _then(call: RecordedCall) -> Word:
    """What was decided of a call when it was made."""
    by = call.decided_by
    asked = by is not None and by not in _NOBODY | _NO_DECISION and call.code is None and by != "fault"
    return Word(call.decision, call.rule, call.reason, call.code, by, asked, call.changed)


# ── Comparing ────────────────────────────────────────────────────────────────────────────────────────────────


def compare(was: Word, now: Word, tool_input: Mapping[str, Any]) -> Change | None:
    """How a call would fare otherwise; None where it would not."""
    if was.by in _NO_DECISION:
        return None
    if now.decision == "deny":
        return "newly_denied" if was.decision != "deny" else None
    if now.decision == "abstain":
        return None if was.decision != "deny" or was.asked or was.by == "default" else "newly_allowed"
    if now.decision == "ask":
        return None if was.asked or was.decision == "ask" else "newly_asked"
    if was.decision == "deny":
        return "newly_allowed"
    if was.asked or was.decision == "ask":
        return "no_longer_asked"
    before = was.input if was.decision == "modify" else tool_input
    after = now.input if now.decision == "modify" else tool_input
    return "changed_input" if before != after else None


class _Notes:
    """Counts calls and groups those that matter."""

    def __init__(self, against: str, cwd: str | None) -> None:
        self.found = Rehearsal(against)
        self._cwd = cwd
        self._sessions: set[str] = set()
        self._groups: dict[tuple[str, ...], Group] = {}

    def add(self, call: RecordedCall, was: Word, now: Word) -> None:
        found = self.found
        change = compare(was, now, call.input)
        by_rule = now.rule or ("(no opinion)" if now.decision == "abstain" else "(no rule)")
        for tally in (
            found.total,
            _tally(found.tools, call.tool),
            _tally(found.agents, call.agent),
            _tally(found.rules, f"({now.code})" if now.code else by_rule),
        ):
            tally.add(now, change)
        if now.code is not None:
            found.faults[now.code] += 1
        self._sessions.add(call.session_id)
        found.redacted += call.redacted
        found.without_folder += call.cwd is None and self._cwd is None
        found.without_original += call.decision == "modify" and call.changed is call.input
        found.undecided += was.by in _NO_DECISION
        if call.at is not None:
            found.first = min(found.first or call.at, call.at)
            found.last = max(found.last or call.at, call.at)
        if now.code is not None or change is not None:
            self._group(call, was, now, "fault" if now.code is not None else cast("Change", change))

    def _group(self, call: RecordedCall, was: Word, now: Word, change: Change | Literal["fault"]) -> None:
        shape = shape_of(call.tool, call.input, call.cwd or self._cwd)
        key = (change, call.tool, shape, was.decision, now.decision, now.rule or "", now.code or "")
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= _MOST_GROUPS:
                self.found.ungrouped += 1
                return
            given = _short(call.input)
            group = Group(change, call.tool, shape, _brief(was), _brief(now), 0, call.session_id, call.call_id)
            group.at, group.agent, group.input = call.at, call.agent, given
            self._groups[key] = group
        group.count += 1

    def result(self) -> Rehearsal:
        order = ["fault", *CHANGES]
        self.found.sessions = len(self._sessions)
        self.found.groups = sorted(
            self._groups.values(), key=lambda each: (order.index(each.change), -each.count, each.tool, each.shape)
        )
        return self.found


def _tally(tallies: dict[str, Tally], name: str) -> Tally:
    known = tallies.get(name)
    if known is None:
        known = tallies[name] = Tally()
    return known


def _brief(word: Word) -> Word:
    changed = None if word.input is None else _short(word.input)
    return Word(word.decision, word.rule, word.reason, word.code, word.by, word.asked, changed)


def _short(value: Any) -> Any:
    """A value whose long texts are cut."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else value[:_LONGEST] + "…"
    if isinstance(value, dict):
        return {key: _short(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [_short(item) for item in items[:_LONGEST]]
    return value
