"""`ChainFile`: appends to a chained file, for any number of processes, and mends what a crash left.

A batch is written, synced, and then committed by the head, which is replaced atomically. What is beyond the head was
never committed: the next writer cuts it off, and says so in a row. What the head knows and the file has not was taken
away: the chain goes on from the head, so that the gap stays to be seen, and a row says when it was noticed.

The state folder keeps a copy of the head, the witness: an older file and an older head, put back together, are found.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from computeragent.errors import AuditFileError
from computeragent.logs import Logger
from computeragent.telemetry.chain.files import head_path, held, replace_file, sync_folder, witness_path, write_all
from computeragent.telemetry.chain.key import Key
from computeragent.telemetry.chain.rows import (
    CHECKPOINT_EVERY,
    FIRST_PREV,
    VERSION,
    Before,
    Head,
    Noticed,
    Own,
    event_row,
    head_line,
    now,
    own_row,
    read_head,
    read_row,
    split_row,
)

_TAIL = 65_536
_log = Logger("audit")


@dataclass(slots=True)
class _Place:
    """Where the chain goes on: its id, the last row's number and hash, and what must be said first."""

    chain: str
    seq: int
    hash: str
    notices: list[Own]
    before: Before | None = None


class ChainFile:
    """A chained file and its head, ``<name>.head``; both of mode 0600."""

    def __init__(self, path: Path, key: Key) -> None:
        self.path = Path(os.path.realpath(path))  # one file has one head, whatever it is called
        self._key = key
        self._witness = witness_path(self.path)

    def begin(self) -> None:
        """Make the file where there is none, and mend it where it needs that. Raises `OSError`, `AuditFileError`."""
        self.append(())

    def append(self, events: Sequence[bytes]) -> None:
        """Commit events (JSON without line breaks), all or none. Raises `OSError` and `AuditFileError`."""
        with held(self.path) as file:
            place = self._resume(file)
            lines = b"".join(self._lines(place, events))
            if not lines:
                return
            size = os.fstat(file).st_size
            try:
                write_all(file, lines)
                os.fsync(file)
                line = head_line(self._head_at(place, size + len(lines)), self._key)
                replace_file(head_path(self.path), line)
            except OSError:  # the disk is full; whatever else may happen here, the next writer mends
                with suppress(OSError):
                    os.ftruncate(file, size)
                raise
            sync_folder(self.path.parent)
            try:
                replace_file(self._witness, line)
            except OSError as error:  # one that lags behind does no harm
                _log.warn("witness_not_written", file=str(self._witness), error=error.strerror)

    def _lines(self, place: _Place, events: Iterable[bytes]) -> Generator[bytes]:
        """The rows to write; `place` goes along."""
        at = now()
        if not place.seq:
            began = Own(kind="began", key=self._key.id, version=VERSION, chain=place.chain, before=place.before)
            yield self._own(place, at, began)
        for notice in place.notices:
            yield from self._checkpoint(place, at)
            yield self._own(place, at, notice)
        for event in events:
            yield from self._checkpoint(place, at)
            place.seq += 1
            line, place.hash = event_row(place.seq, at, event, place.hash)
            yield line

    def _checkpoint(self, place: _Place, at: str) -> Generator[bytes]:
        if (place.seq + 1) % CHECKPOINT_EVERY == 0:
            yield self._own(place, at, Own(kind="checkpoint", key=self._key.id))

    def _own(self, place: _Place, at: str, own: Own) -> bytes:
        place.seq += 1
        line, place.hash = own_row(place.seq, at, own, place.hash, self._key)
        return line

    def _head_at(self, place: _Place, size: int) -> Head:
        return Head(version=VERSION, key=self._key.id, chain=place.chain, seq=place.seq, hash=place.hash, size=size)

    # ── What is there ──

    def _resume(self, file: int) -> _Place:
        """Where to go on. What was not committed is cut off, a line that was cut short is ended."""
        size = os.fstat(file).st_size
        witness = self._read(self._witness)
        known = witness if isinstance(witness, Head) else None
        head = self._read(head_path(self.path))
        if isinstance(head, Head):
            return self._after(file, size, head, known)
        if head is not None:
            self._require_own(file)
        elif not size:
            return self._afresh(known)
        what: Noticed = "head_missing" if head is None else "head_invalid"
        place = self._noticed(what, _last_row(file, size), size)
        if known is not None and known.seq > place.seq:
            place = self._noticed(what, known, size)
        _end_line(file, size)
        return place

    def _afresh(self, witness: Head | None) -> _Place:
        """A new chain. Its head is there before it, so that no crash can look like a head that was taken away."""
        before = None
        if witness is not None and witness.seq:
            before = Before(chain=witness.chain, seq=witness.seq, hash=witness.hash)
        place = _Place(secrets.token_hex(16), 0, FIRST_PREV, [], before)
        replace_file(head_path(self.path), head_line(self._head_at(place, 0), self._key))
        return place

    def _after(self, file: int, size: int, head: Head, witness: Head | None) -> _Place:
        """After a head that can be trusted."""
        if witness is not None and witness.chain == head.chain and witness.seq > head.seq:
            _end_line(file, size)
            return self._noticed("rolled_back", witness, size)
        if witness is not None and witness.chain != head.chain and head.seq:
            _end_line(file, size)
            return self._noticed("replaced", head, size)
        if size > head.size:
            os.ftruncate(file, head.size)
            if head.seq:  # else it was killed while it began
                return self._noticed("repaired", head, size)
        elif size < head.size:
            _end_line(file, size)
            return self._noticed("truncated", head, size)
        _end_line(file, head.size)
        before = None
        if not head.seq and witness is not None and witness.seq:
            before = Before(chain=witness.chain, seq=witness.seq, hash=witness.hash)
        return _Place(head.chain, head.seq, head.hash, [], before)

    def _noticed(self, what: Noticed, after: Head, size: int) -> _Place:
        """Go on after a row, and say what was found."""
        if what == "repaired":
            _log.warn("unfinished_write_removed", file=str(self.path), bytes=size - after.size)
        else:
            _log.error(what, file=str(self.path), hint=f"computeragent audit verify {self.path}")
        notice = Own(kind="notice", key=self._key.id, what=what, found=size, expected=after.size)
        return _Place(after.chain, after.seq, after.hash, [notice])

    def _read(self, path: Path) -> Head | str | None:
        """A head, what is wrong with it, or None where there is none."""
        try:
            return read_head(path.read_bytes(), self._key)
        except FileNotFoundError:
            return None
        except ValueError as error:
            return str(error)

    def _require_own(self, file: int) -> None:
        """Raise `AuditFileError` for a file that was begun with another key: that is no attack, but a mistake."""
        line = os.pread(file, _TAIL, 0).partition(b"\n")[0]
        with suppress(ValueError):
            first = read_row(split_row(line)[0]).audit
            if first is not None and first.key != self._key.id:
                raise AuditFileError(
                    f"{self.path} is signed with another key ({first.key}, not {self._key.id})",
                    hint="Use the key that it was begun with, or another file.",
                )


def _end_line(file: int, size: int) -> None:
    """End a line that was cut short, so that it spoils no other."""
    if size and os.pread(file, 1, size - 1) != b"\n":
        write_all(file, b"\n")


def _last_row(file: int, size: int) -> Head:
    """The last row that can be read, as an unsigned head; what there was before any, where none can."""
    length = _TAIL
    while True:
        start = max(0, size - length)
        lines = os.pread(file, size - start, start).split(b"\n")
        for line in reversed(lines if not start else lines[1:]):
            with suppress(ValueError):
                body, hashed = split_row(line)
                return Head(version=VERSION, key="", chain="", seq=read_row(body).seq, hash=hashed, size=size)
        if not start:
            return Head(version=VERSION, key="", chain="", seq=0, hash=FIRST_PREV, size=size)
        length *= 8
