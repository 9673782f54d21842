"""`computeragent policy rehearse` and `suggest`: policies and the calls on record."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from rich.table import Table
from rich.text import Text

from computeragent.approval import describe, printable
from computeragent.cli.policy_choice import policy_choice
from computeragent.cli.progress import Progress
from computeragent.cli.render import terminal
from computeragent.cli.server_choice import harness_client, server_url
from computeragent.client.recorded_calls import ServerCalls
from computeragent.errors import ValidationError
from computeragent.policy.recorded import FileCalls, LogCalls, RecordedCall, Recording, Wanted
from computeragent.policy.rehearsal import CHANGES, DECISIONS, Group, Rehearsal, Tally
from computeragent.policy.rehearsal import rehearse as rehearsed
from computeragent.policy.suggest import Suggestion
from computeragent.policy.suggest import suggest as suggested
from computeragent.protocol_types import PermissionRequest

T = TypeVar("T")
_TOLD_EVERY = 500
_COLOURS = {
    "fault": "bold red",
    "newly_denied": "red",
    "newly_allowed": "yellow",
    "newly_asked": "cyan",
    "no_longer_asked": "yellow",
    "changed_input": "cyan",
}


def rehearse(args: argparse.Namespace) -> int:
    """Put recorded calls to a policy; 1 where ``--fail-on`` says so."""
    policy, against = policy_choice(args.policy), policy_choice(args.against)

    async def run(calls: Recording, tell: Callable[[int], None]) -> tuple[Rehearsal, dict[str, int]]:
        found = await rehearsed(policy, calls, against=against, cwd=_folder(args), progress=tell)
        return found, dict(calls.skipped)

    found, skipped = asyncio.run(_with_calls(args, "rehearsing", run))
    if args.json:
        print(msgspec.json.encode({**found.to_json(), "skipped": skipped}, enc_hook=str).decode())
    else:
        _show(found, skipped, args)
    return 1 if any(found.fails(each) for each in args.fail_on) else 0


def suggest(args: argparse.Namespace) -> int:
    """Propose rules from recorded calls."""
    subject = "of " + ", ".join(args.agent) if args.agent else ""

    async def run(calls: Recording, tell: Callable[[int], None]) -> tuple[Suggestion, dict[str, int]]:
        found = await suggested(_Told(calls, tell), cwd=_folder(args), subject=subject)
        return found, dict(calls.skipped)

    found, skipped = asyncio.run(_with_calls(args, "reading calls", run))
    if args.output:
        try:
            Path(args.output).write_text(found.text, "utf-8")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ValidationError(
                f"{args.output} cannot be written: {reason}", hint="Choose another --output."
            ) from error
    else:
        sys.stdout.write(found.text)
    place = f"{args.output}: " if args.output else ""
    said = f"{place}{_count(found.rules, 'rule')}, which allow {found.covered:,} of {_count(found.calls, 'call')}"
    print(printable(said), file=sys.stderr)
    _notes(skipped, redacted=found.redacted)
    return 0


# ── Where the calls are ──────────────────────────────────────────────────────────────────────────────────────


class _Told:
    """A recording that tells how far it has been read."""

    def __init__(self, calls: Recording, tell: Callable[[int], None]) -> None:
        self._calls = calls
        self._tell = tell

    @property
    def skipped(self) -> Any:
        return self._calls.skipped

    async def __aiter__(self) -> AsyncIterator[RecordedCall]:
        number = 0
        async for call in self._calls:
            number += 1
            if number % _TOLD_EVERY == 0:
                self._tell(number)
                await asyncio.sleep(0)  # so that it is seen
            yield call


async def _with_calls(
    args: argparse.Namespace, what: str, do: Callable[[Recording, Callable[[int], None]], Any]
) -> Any:
    progress = Progress(sys.stderr)
    progress.begin(what)
    async with _calls(args) as calls:
        with progress.waiting():
            return await do(calls, lambda number: progress.tell(f"{what}: {number:,} calls"))


@asynccontextmanager
async def _calls(args: argparse.Namespace) -> AsyncGenerator[Recording]:
    """The recording that is meant. Raises `ValidationError`."""
    wanted = Wanted(args.since, tuple(args.session), tuple(args.agent), tuple(args.tool))
    if args.file is not None:
        if args.harness_url:
            raise ValidationError("the calls are in two places", hint="Give --from or --harness-url.")
        yield FileCalls(args.file, wanted)
        return
    url = server_url(args)
    if url is None:
        yield LogCalls(None, wanted)
        return
    if args.since is not None:
        raise ValidationError(
            "a server does not say when calls were made", hint="Leave out --since, or choose with --session."
        )
    async with harness_client(url, args) as client:
        yield ServerCalls(client, wanted)


def _folder(args: argparse.Namespace) -> str | None:
    return None if args.cwd is None else str(Path(args.cwd).absolute())


# ── What is shown ────────────────────────────────────────────────────────────────────────────────────────────


def _show(found: Rehearsal, skipped: dict[str, int], args: argparse.Namespace) -> None:
    total = found.total
    if total.calls:
        print(printable(f"{_count(total.calls, 'call')} of {_count(found.sessions, 'session')}{_days(found)}"))
        print(f"it says    {_said(total)}")
        print(f"changes    {_changes(total) or 'none'}, beside {printable(found.against)}")
        terminal().print()
        _tallies("TOOL", found.tools)
        if len(found.agents) > 1:
            _tallies("AGENT", found.agents)
        _tallies("RULE", found.rules)
        for change in ("fault", *CHANGES):
            _groups(change, [group for group in found.groups if group.change == change], args.limit)
    else:
        print("no calls on record", file=sys.stderr)
    _notes(skipped, found)


def _said(tally: Tally) -> str:
    parts = [f"{decision} {tally.says[decision]:,}" for decision in DECISIONS if tally.says[decision]]
    return " · ".join([*parts, *([f"fault {tally.faults:,}"] if tally.faults else [])])


def _changes(tally: Tally) -> str:
    return " · ".join(f"{_plain(change)} {tally.changes[change]:,}" for change in CHANGES if tally.changes[change])


def _plain(change: str) -> str:
    return change.replace("_", " ")


def _tallies(what: str, tallies: dict[str, Tally]) -> None:
    """What is said of each tool, agent or rule, with the columns that have something to say."""
    ordered = sorted(tallies.items(), key=lambda each: (-each[1].calls, each[0]))
    says = [decision for decision in DECISIONS if any(tally.says[decision] for _, tally in ordered)]
    changes = [change for change in CHANGES if any(tally.changes[change] for _, tally in ordered)]
    faults = any(tally.faults for _, tally in ordered)
    table = _table(
        what, "CALLS", *map(str.upper, says), *(["FAULT"] if faults else []), *(_plain(c).upper() for c in changes)
    )
    for name, tally in ordered:
        numbers = [tally.calls, *(tally.says[each] for each in says), *([tally.faults] if faults else [])]
        numbers += [tally.changes[each] for each in changes]
        table.add_row(printable(name) or "-", *(f"{number:,}" if number else "" for number in numbers))
    terminal().print(table)
    terminal().print()


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _groups(change: str, groups: Sequence[Group], limit: int) -> None:
    if not groups:
        return
    meaning = CHANGES.get(change, "the policy could not judge")  # type: ignore[call-overload]
    head = f"{_plain(change)}: {sum(group.count for group in groups):,}  "
    terminal().print(Text(head, _COLOURS[change]), Text(f"({meaning})", "dim"), sep="")
    for group in groups[:limit]:
        print(printable(f"  {group.count:,} × {group.tool} {group.shape}".rstrip()))
        was, now = _word(group.was.decision, group.was), _word(group.now.decision, group.now)
        print(printable(f"      {was} → {now}"))
        shown = describe(PermissionRequest(group.call_id, group.tool, group.input))
        terminal().print(Text(printable(f"      such as {shown}  ({group.session_id})"), "dim"), soft_wrap=True)
    if len(groups) > limit:
        more = sum(group.count for group in groups[limit:])
        print(f"  and {_count(more, 'call')} of {len(groups) - limit} more kinds; --limit shows more, --json all")
    print()


def _word(decision: str, word: Any) -> str:
    why = [word.code or "", word.rule or "", word.by if word.by not in {None, "policy"} and not word.rule else ""]
    said = next((each for each in why if each), "")
    reason = f": {word.reason}" if word.reason else ""
    return f"{decision} ({said}{reason})" if said else f"{decision} ({word.reason})" if word.reason else decision


def _days(found: Rehearsal) -> str:
    if found.first is None or found.last is None:
        return ""
    first, last = (datetime.fromtimestamp(at, UTC).date().isoformat() for at in (found.first, found.last))
    return f", {first}" if first == last else f", {first} to {last}"


def _notes(skipped: dict[str, int], found: Rehearsal | None = None, *, redacted: bool = False) -> None:
    """What to know about the calls, on stderr."""
    notes: list[str] = [f"{number:,} × {what}, passed by" for what, number in sorted(skipped.items())]
    if redacted or (found is not None and found.redacted):
        notes.append("the values of these calls are redacted, and long ones cut: the policy saw them so")
    if found is not None:
        notes += _counted(
            (found.without_folder, "without a working folder on record: relative paths cannot be told; give --cwd"),
            (found.without_original, "ran with a changed input, and only that is on record"),
            (found.undecided, "never decided, since the session ended: no changes are told of them"),
            (found.ungrouped, "of more kinds than are told apart"),
        )
    for note in notes:
        print(printable(f"note: {note}"), file=sys.stderr)


def _counted(*notes: tuple[int, str]) -> Iterable[str]:
    return [f"{_count(number, 'call')} {text}" for number, text in notes if number]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
