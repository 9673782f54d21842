"""`computeragent audit`: check audit files, and read them."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import msgspec

from computeragent.approval import describe, printable
from computeragent.errors import ValidationError
from computeragent.protocol_types import PermissionRequest
from computeragent.telemetry.chain.key import key_of, known_key
from computeragent.telemetry.chain.rows import Own, Row, read_row, split_row
from computeragent.telemetry.chain.verify import Finding, Report
from computeragent.telemetry.chain.verify import verify as verified
from computeragent.wire.encoding import from_json

Json = dict[str, Any]
_SHOWN = 10


def verify(args: argparse.Namespace) -> int:
    """Check a file; 1 where something is wrong."""
    key = key_of(Path(args.key)) if args.key else known_key()
    report = verified(Path(args.file), key, expect=args.expect)
    if args.json:
        print(msgspec.json.encode({**dataclasses.asdict(report), "path": args.file, "intact": report.intact}).decode())
        return 0 if report.intact else 1
    _print(args.file, report)
    return 0 if report.intact else 1


def show(args: argparse.Namespace) -> int:
    """Print the rows that are asked for."""
    unreadable = 0
    for number, line, row in _rows(Path(args.file)):
        if row is None:
            unreadable += 1
            print(f"line {number} is no row of an audit file", file=sys.stderr)
        elif _wanted(row, event := _event(row), args):
            print(line.decode() if args.json else _line(row, event))
    return 1 if unreadable else 0


# ── What was found ──


def _print(name: str, report: Report) -> None:
    shown = printable(name)
    if report.intact:
        signed = f", {report.checkpoints} checkpoints" if report.checkpoints else ""
        print(f"{shown}: {report.rows} rows{signed}, all as they were written")
        print(f"last row {report.last_seq}:{report.last_hash}")
    else:
        first, *others = report.findings
        print(f"{shown}: {_told(first)}")
        for finding in others[:_SHOWN]:
            print(f"  {_told(finding)}")
        more = max(0, len(others) - _SHOWN) + report.more
        if more:
            print(f"  and {more} more")
    for note in report.notes:
        print(f"note: {printable(note)}")


def _told(finding: Finding) -> str:
    place = f"line {finding.line}, row {finding.seq}: " if finding.line else ""
    return place + printable(finding.problem)


# ── Rows as they are read ──


def _rows(path: Path) -> Iterator[tuple[int, bytes, Row | None]]:
    """The lines of a file, each with its row, or None where it is none. Raises `ValidationError`."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                stripped = line.rstrip(b"\n")
                try:
                    yield number, stripped, read_row(split_row(stripped)[0])
                except ValueError:
                    yield number, stripped, None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValidationError(f"{path} cannot be read: {reason}", hint="Give the path of an audit file.") from None


def _event(row: Row) -> Json:
    event: Any = from_json(bytes(row.event)) if row.audit is None else {}
    return cast("Json", event) if isinstance(event, dict) else {}


def _payload(event: Json) -> Json:
    payload = event.get("payload")
    return cast("Json", payload) if isinstance(payload, dict) else {}


def _wanted(row: Row, event: Json, args: argparse.Namespace) -> bool:
    payload = _payload(event)
    if args.tool and payload.get("tool_name") not in args.tool:
        return False
    if args.decision and payload.get("decision") not in args.decision:
        return False
    if args.session and not str(event.get("session_id", "")).startswith(args.session):
        return False
    return args.since is None or _seconds(event.get("timestamp") or row.at) >= args.since


def _seconds(at: Any) -> float:
    try:
        return datetime.fromisoformat(str(at)).timestamp()
    except ValueError:
        return 0.0


def _line(row: Row, event: Json) -> str:
    """A row for a person: when, in which session, what."""
    if row.audit is not None:
        text = _own(row.audit)
    elif event.get("kind") == "policy_decision":
        text = _decision(_payload(event))
    else:
        text = " ".join([str(event.get("kind")), *_named(_payload(event), "engine", "reason", "outcome", "subtype")])
    at = str(event.get("timestamp") or row.at)[:19]
    who = " ".join(str(event[name]) for name in ("session_id", "agent_name") if event.get(name))
    return printable(f"{row.seq:>6}  {at}  {who or '-'}  {text}")


def _own(own: Own) -> str:
    return f"{own.kind} {own.what}".rstrip()


def _decision(told: Json) -> str:
    given = told.get("tool_input")
    tool_input = cast("Json", given) if isinstance(given, dict) else {}
    call = describe(PermissionRequest("", str(told.get("tool_name")), tool_input))
    parts = [f"{str(told.get('decision')).upper()} {told.get('tool_name')} {call}"]
    parts += _named(told, "decided_by", "engine", "rule", "principal_id", "code", "latency_ms", "reason")
    return "  ".join(parts)


def _named(told: Json, *names: str) -> list[str]:
    return [f"{name}={told[name]}" for name in names if told.get(name) not in (None, "")]
