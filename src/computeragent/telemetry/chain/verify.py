"""Checking a chained file: every row, its place, its signatures, and that the file goes as far as its head says."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from computeragent.errors import ValidationError
from computeragent.telemetry.chain.files import LOCK_TIMEOUT, head_path, lock, witness_path
from computeragent.telemetry.chain.key import Key
from computeragent.telemetry.chain.rows import (
    CHECKPOINT_EVERY,
    FIRST_PREV,
    Head,
    Row,
    hash_of,
    is_signed,
    read_head,
    read_row,
    split_row,
)

MOST_FINDINGS = 100
"""Findings that are kept; the rest is counted."""

_NOTICES = {
    "repaired": "an unfinished write of {cut} bytes was removed before this row",
    "truncated": "a writer found the file cut short before this row: {found} bytes in place of {expected}",
    "rolled_back": "a writer found an older file put back before this row: {found} bytes in place of {expected}",
    "replaced": "a writer found another chain in the place of this file's before this row",
    "head_missing": "a writer found no head before this row: rows may have been taken away",
    "head_invalid": "a writer found a head that is not signed before this row: rows may have been taken away",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and where: `line` of the file from 1 (0: not in a line), `seq` of the row that belongs there."""

    line: int
    seq: int
    problem: str


@dataclass(slots=True)
class Report:
    """What was found. `unchecked` counts signatures that no key was there for."""

    path: Path
    rows: int = 0
    last_seq: int = 0
    last_hash: str = FIRST_PREV
    checkpoints: int = 0
    unchecked: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    more: int = 0
    notes: list[str] = field(default_factory=list[str])

    @property
    def intact(self) -> bool:
        """Whether all is as it was written."""
        return not self.findings

    def found(self, line: int, seq: int, problem: str) -> None:
        """Note what is wrong."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(line, seq, problem))
        else:
            self.more += 1


def verify(path: Path, key: Key | None, *, expect: tuple[int, str] | None = None) -> Report:
    """Check a file. `expect` is the number and (the beginning of) the hash of a row that must be there.

    Raises `ValidationError` for a file that cannot be read.
    """
    path = Path(os.path.realpath(path))
    head_data, size = _snapshot(path)
    return _Check(path, key, head_data, size, expect).run()


def lines_of(path: Path, size: int) -> Generator[bytes]:
    """The lines of the first bytes of a file, each with its line break where it has one."""
    left = size
    if not left:
        return
    with path.open("rb") as file:
        while left > 0 and (line := file.readline(left)):
            left -= len(line)
            yield line


class _Check:
    """One pass over a file."""

    def __init__(
        self, path: Path, key: Key | None, head: bytes | None, size: int, expect: tuple[int, str] | None
    ) -> None:
        self._path = path
        self._key = key
        self._size = size
        self._expect = expect
        self._report = Report(path)
        self._line = 0
        self._seq = 1  # the number that the next row must have
        self._prev: str | None = FIRST_PREV  # and what it must follow; None: that is not known
        self._chain = ""
        self._head = self._read_head(head)
        self._head_reached = False
        self._met_expected = False

    def run(self) -> Report:
        report, end = self._report, 0
        for line in lines_of(self._path, self._size):
            self._line += 1
            if self._head is not None and end >= self._head.size:
                self._beyond(line, self._size - end)
                break
            end += len(line)
            self._check(line)
            if self._head is not None and end == self._head.size and self._at_head():
                self._head_reached = True
        report.last_seq, report.last_hash = self._seq - 1, self._prev or ""
        self._check_end()
        if self._expect is not None and not self._met_expected:
            report.found(0, self._expect[0], f"row {self._expect[0]} with that hash is not in the file")
        if report.unchecked:
            report.notes.append(f"{report.unchecked} signatures were not checked: there is no key (--key FILE)")
        return report

    # ── Rows ──

    def _check(self, line: bytes) -> None:
        report, expected = self._report, self._seq
        report.rows += 1
        try:
            if not line.endswith(b"\n"):
                raise ValueError("it is cut short: its line does not end")
            body, stated = split_row(line[:-1])
        except ValueError as error:
            self._bad(f"it is no row of the chain: {error}", None)
            return
        if hash_of(body) != stated:
            self._bad("its hash does not fit: the row was changed", stated)
            return
        try:
            row = read_row(body)
        except ValueError as error:
            self._bad(f"it is no row of the chain: {error}", stated)
            return
        if row.seq != expected:
            self._misplaced(row)
        elif self._prev is not None and row.prev != self._prev:
            self._bad("it does not follow from the row before it: one of them was changed", None)
        self._own(row)
        if self._expect is not None and row.seq == self._expect[0]:
            self._met_expected = stated.startswith(self._expect[1])
        self._seq, self._prev = row.seq + 1, stated

    def _bad(self, problem: str, stated: str | None) -> None:
        """The row that belongs here is not what it should be; go on with the next one."""
        self._report.found(self._line, self._seq, problem)
        self._seq, self._prev = self._seq + 1, stated

    def _misplaced(self, row: Row) -> None:
        if row.seq > self._seq:
            gone = f"row {self._seq} is" if row.seq == self._seq + 1 else f"rows {self._seq} to {row.seq - 1} are"
            self._report.found(self._line, self._seq, f"{gone} missing: row {row.seq} stands here")
        else:
            what = f"row {row.seq} stands here: rows were doubled, moved or put in"
            self._report.found(self._line, self._seq, what)

    def _own(self, row: Row) -> None:
        """What the chain's own rows say, and whether they are where they must be."""
        own = row.audit
        if (row.seq == 1) != (own is not None and own.kind == "began"):
            self._report.found(
                self._line, row.seq, "the chain does not begin here" if row.seq == 1 else "it begins anew"
            )
        if own is None or own.kind != "checkpoint":
            if row.seq % CHECKPOINT_EVERY == 0:
                self._report.found(self._line, row.seq, "there is no checkpoint here: the row was put in")
            if own is None:
                return
        if self._key is None:
            self._report.unchecked += 1
        elif not is_signed(row, self._key):
            why = "" if own.key == self._key.id else f" (it is signed with key {own.key}, checked with {self._key.id})"
            self._report.found(self._line, row.seq, f"its signature does not fit{why}")
        match own.kind:
            case "checkpoint":
                self._report.checkpoints += 1
            case "began":
                self._chain = own.chain
                if own.before is not None:
                    last = f"row {own.before.seq}, hash {own.before.hash}"
                    self._report.notes.append(f"another file was here before, up to {last}: see that it is kept")
            case _:
                text = _NOTICES.get(own.what, "a notice").format(
                    found=own.found, expected=own.expected, cut=own.found - own.expected
                )
                if own.what == "repaired":
                    self._report.notes.append(f"row {row.seq}: {text}")
                else:
                    self._report.found(self._line, row.seq, text)

    # ── The end ──

    def _read_head(self, data: bytes | None) -> Head | None:
        if data is None:
            return None
        try:
            head = read_head(data, self._key)
        except ValueError as error:
            self._head_problem = f"the head {head_path(self._path).name} is not to be trusted: {error}"
            return None
        self._head_problem = ""
        self._report.unchecked += self._key is None
        return head

    _head_problem = "the head is missing: whether rows were cut off at the end cannot be told"

    def _at_head(self) -> bool:
        """Whether the row just read is the one that the head names."""
        assert self._head is not None
        return self._head.seq == self._seq - 1 and self._head.hash == self._prev

    def _beyond(self, line: bytes, octets: int) -> None:
        """What follows the last committed row."""
        try:
            seq = read_row(split_row(line.rstrip(b"\n"))[0]).seq
        except ValueError:
            self._report.notes.append(f"an unfinished write of {octets} bytes follows the last row")
            return
        self._report.found(
            self._line,
            seq,
            "it is beyond the signed head: it was put in, or its writer was killed; the next one cuts it",
        )

    def _check_end(self) -> None:
        report, head, after = self._report, self._head, self._seq
        if head is None:
            report.found(0, after, self._head_problem)
            return
        if not self._head_reached and head.seq:
            if head.seq >= after:
                gone = f"row {after} is" if head.seq == after else f"rows {after} to {head.seq} are"
                report.found(self._line + 1, after, f"{gone} missing at the end: the file was cut short")
            else:
                report.found(0, head.seq, "the file does not fit its head: rows were changed, removed or put in")
        if self._chain and head.chain != self._chain:
            report.found(0, 1, "the head is that of another file")
        self._check_witness(head)

    def _check_witness(self, head: Head) -> None:
        """What this machine remembers of the file."""
        if self._key is None:
            return
        try:
            witness = read_head(witness_path(self._path).read_bytes(), self._key)
        except (OSError, ValueError):
            return
        if witness.chain != head.chain and head.seq:
            self._report.found(0, 1, "another chain was written here: the file was replaced")
        elif witness.chain == head.chain and witness.seq > head.seq:
            gone = f"up to row {witness.seq} was written here"
            self._report.found(self._line + 1, head.seq + 1, f"an older file and head were put back: {gone}")


def _snapshot(path: Path) -> tuple[bytes | None, int]:
    """The head's bytes and the size of the file, as of one moment between two writes."""
    try:
        head = head_path(path).read_bytes() if head_path(path).exists() else None
        if head is not None and not path.exists():
            return head, 0
        with path.open("rb") as file:
            if not lock(file.fileno(), fcntl.LOCK_SH, time.monotonic() + LOCK_TIMEOUT):
                raise ValidationError(f"{path} is held by another process", hint=f"Find it with: fuser {path}")
            size = os.fstat(file.fileno()).st_size
            return (head_path(path).read_bytes() if head_path(path).exists() else None), size
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValidationError(f"{path} cannot be read: {reason}", hint="Give the path of an audit file.") from None
