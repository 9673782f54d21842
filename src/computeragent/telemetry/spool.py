"""The spool: redacted events in a SQLite file until every sink that wants them has them.

One file per pipeline, with a cursor per sink. A process that finds the file of one that is gone adopts it and ships
the rest. It is a queue, not an `eventlog`: its unit is a process with readers that acknowledge, where the event
log's is a session with runs, an owner and a summary. Both open their files through `computeragent.database`.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from computeragent.database import NewerSchemaError, connect
from computeragent.logs import Logger

MAX_BYTES = 64 * 1024 * 1024
"""What one spool may hold; beyond it the oldest events go, counted unless they were delivered."""
KEEP_SENT = 60.0
"""Seconds that an event stays in its spool although it was delivered, for ``computeragent telemetry tail``."""

_ADOPTION_ATTEMPTS = 5
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spool_events (
    position INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, size INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS spool_cursors (sink TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spool_open (session_id TEXT PRIMARY KEY, header BLOB NOT NULL) WITHOUT ROWID
"""
NOTHING: Mapping[str, bytes] = MappingProxyType({})
_log = Logger("spool")
_of_the_parent: list[Spool] = []  # kept alive: closing an inherited SQLite connection would harm the parent's file


class Spooled(NamedTuple):
    """An event in a spool: its place, when it was committed (epoch seconds), its JSON as of `event.encode`."""

    spool: str
    position: int
    at: float
    data: bytes


class _Gone(NamedTuple):
    """What was deleted to make room: up to which place, how many bytes, and how many that some sink had not got."""

    last: int
    size: int
    undelivered: int


_NOTHING_GONE = _Gone(0, 0, 0)


class Spool:
    """A queue of events on disk, or in memory where the disk fails. Safe to use from any thread.

    `path` is None for memory; with `existing`, a file that is gone is not made anew. Raises `sqlite3.Error` and
    `OSError` where the file cannot be used.
    """

    def __init__(self, path: Path | None, *, max_bytes: int = MAX_BYTES, existing: bool = False) -> None:
        self.path = path
        self.name = path.name if path is not None else f"memory-{secrets.token_hex(4)}"
        self.max_bytes = max_bytes
        self.dropped = 0
        self._closed = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._held = _hold(path) if path is not None else None
        db: sqlite3.Connection | None = None
        try:
            if existing and path is not None and not path.exists():
                _lock_path(path).unlink(missing_ok=True)
                raise FileNotFoundError(path.name)
            self._db = db = connect(path, component="spool", schema=_SCHEMA, version=_SCHEMA_VERSION)
            row = self._db.execute("SELECT coalesce(sum(size), 0), coalesce(max(position), 0) FROM spool_events")
            self._bytes, newest = row.fetchone()
            cursors: list[tuple[str, int]] = self._db.execute("SELECT sink, position FROM spool_cursors").fetchall()
        except BaseException:
            if db is not None:
                db.close()
            self._let_go()
            raise
        self._cursors = dict(cursors)
        self._newest = max([newest, *self._cursors.values()])

    @classmethod
    def create(cls, folder: Path, *, max_bytes: int = MAX_BYTES) -> Spool:
        """A new spool file in `folder`, held by this process."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(folder / f"{time.time_ns():x}-{os.getpid()}-{secrets.token_hex(4)}.db", max_bytes=max_bytes)

    @property
    def newest(self) -> int:
        """The place of the event committed last; 0 when there was none."""
        return self._newest

    @property
    def sinks(self) -> dict[str, int]:
        """The sinks that this spool is for, each with the place up to which it has everything."""
        return dict(self._cursors)

    @property
    def size(self) -> int:
        """The bytes of the events that wait."""
        return self._bytes

    def subscribe(self, sinks: Iterable[str]) -> None:
        """Keep events for these sinks, from here on."""
        with self._lock, self._db:
            for sink in sinks:
                if sink not in self._cursors:
                    self._db.execute("INSERT INTO spool_cursors VALUES (?, ?)", (sink, self._newest))
                    self._cursors[sink] = self._newest

    def append(
        self, events: Sequence[bytes], *, opened: Mapping[str, bytes] = NOTHING, ended: Iterable[str] = ()
    ) -> int:
        """Commit events; returns the newest place. Raises `sqlite3.Error` when they could not be committed.

        `opened` and `ended` are sessions that these events begin and end: should the process die in between, whoever
        adopts the spool finds them in `open_sessions`, each with what was given for it.
        """
        at = time.time()
        with self._changed:
            first = self._newest + 1
            rows = [(first + index, at, len(data), data) for index, data in enumerate(events)]
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT INTO spool_events VALUES (?, ?, ?, ?)", rows)
                self._db.executemany("INSERT OR REPLACE INTO spool_open VALUES (?, ?)", opened.items())
                self._db.executemany("DELETE FROM spool_open WHERE session_id = ?", [(name,) for name in ended])
                added = sum(row[2] for row in rows)
                gone = self._make_room(added) if self._bytes + added > self.max_bytes else _NOTHING_GONE
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._bytes += added - gone.size
            self._newest += len(rows)
            self._forget(gone)
            self._changed.notify_all()
            return self._newest

    def read(self, *, after: int, limit: int, max_bytes: int) -> list[Spooled]:
        """Events after a place, oldest first; at least one if there is one, however large."""
        found: list[Spooled] = []
        taken = 0
        with self._lock:
            rows = self._db.execute(
                "SELECT position, at, data FROM spool_events WHERE position > ? ORDER BY position LIMIT ?",
                (after, limit),
            )
            for row in rows:
                event = Spooled(self.name, *row)
                taken += len(event.data)
                if found and taken > max_bytes:
                    break
                found.append(event)
        return found

    def wait(self, after: int, timeout: float) -> bool:
        """Wait for an event after a place; False when there is none in `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._newest > after, timeout)

    def wake(self) -> None:
        """Let everyone who waits look again."""
        with self._changed:
            self._changed.notify_all()

    def acknowledge(self, sink: str, position: int) -> None:
        """A sink has everything up to a place. What every sink has is deleted, `KEEP_SENT` seconds after it came in."""
        with self._changed:
            if position <= self._cursors.get(sink, position):  # one that was closed meanwhile has no place any more
                return
            self._cursors[sink] = position
            done = min(self._cursors.values())
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.execute("UPDATE spool_cursors SET position = ? WHERE sink = ?", (position, sink))
                freed = self._delete_sent(done)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._bytes -= freed
            self._changed.notify_all()

    def shrink(self, max_bytes: int) -> None:
        """Delete the oldest events until the rest is no larger; counted in `dropped` unless they were delivered."""
        with self._changed:
            if self._bytes <= max_bytes:
                return
            self._db.execute("BEGIN IMMEDIATE")
            gone = self._make_room(self.max_bytes - max_bytes)
            self._db.execute("COMMIT")
            self._forget(gone)
            self._bytes -= gone.size

    def open_sessions(self) -> dict[str, bytes]:
        """The sessions that have begun and not ended."""
        with self._lock:
            return dict(self._db.execute("SELECT session_id, header FROM spool_open").fetchall())

    @property
    def drained(self) -> bool:
        """Whether every sink has everything."""
        return all(position >= self._newest for position in self._cursors.values())

    def pending(self, sink: str) -> int:
        """How many events a sink has not got yet; 0 once the spool is closed."""
        with self._lock:
            if self._closed or sink not in self._cursors:
                return 0
            row = self._db.execute("SELECT count(*) FROM spool_events WHERE position > ?", (self._cursors[sink],))
            return row.fetchone()[0]

    def close(self, *, delete: bool | None = None) -> None:
        """Close the file; by default delete it when it is drained."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            gone = self.drained if delete is None else delete
            self._db.close()
            if gone and self.path is not None:
                remove(self.path)
            self._let_go(remove=gone)

    def leave(self) -> None:
        """After a fork, in the child: the spool stays the parent's. Its connection must never be used again here."""
        if self._held is not None:
            os.close(self._held)
            self._held = None
        _of_the_parent.append(self)

    def _delete_sent(self, done: int) -> int:
        """Delete what is old and was delivered to all, up to a place; how many bytes went.

        It stops at the first event that is to stay: events that stay must not be gone through every time.
        """
        old = time.time() - KEEP_SENT
        freed = last = 0
        rows = self._db.execute(
            "SELECT position, at, size FROM spool_events WHERE position <= ? ORDER BY position", (done,)
        )
        for position, at, size in rows:
            if at >= old:
                break
            freed, last = freed + size, position
        if last:
            self._db.execute("DELETE FROM spool_events WHERE position <= ?", (last,))
        return freed

    def _make_room(self, needed: int) -> _Gone:
        """Delete the oldest events until `needed` bytes more fit."""
        freed = undelivered = last = 0
        surplus = self._bytes + needed - self.max_bytes
        delivered = min(self._cursors.values(), default=0)
        for position, size in self._db.execute("SELECT position, size FROM spool_events ORDER BY position"):
            if freed >= surplus:
                break
            freed, last = freed + size, position
            undelivered += position > delivered
        self._db.execute("DELETE FROM spool_events WHERE position <= ?", (last,))
        self._db.execute("UPDATE spool_cursors SET position = ? WHERE position < ?", (last, last))
        return _Gone(last, freed, undelivered)

    def _forget(self, gone: _Gone) -> None:
        """Count what made room; nobody is to wait for it."""
        self.dropped += gone.undelivered
        self._cursors = {sink: max(position, gone.last) for sink, position in self._cursors.items()}

    def _let_go(self, *, remove: bool = False) -> None:
        if self._held is None or self.path is None:
            return
        if remove:
            _lock_path(self.path).unlink(missing_ok=True)
        os.close(self._held)
        self._held = None


def orphans(folder: Path) -> list[Path]:
    """The spool files of processes that are gone, oldest first. Whoever opens one first has it."""
    return [path for path in sorted(folder.glob("*.db")) if is_orphan(path)]


def is_orphan(path: Path) -> bool:
    """Whether nobody holds a spool file."""
    try:
        held = _hold(path)
    except OSError:
        return False
    try:
        if path.exists():
            return True
        _lock_path(path).unlink(missing_ok=True)  # its owner was done with it in between
        return False
    finally:
        os.close(held)


def adopt(path: Path) -> Spool | None:
    """Take over an orphan, or None when another process has it or it cannot be read."""
    try:
        for _ in range(_ADOPTION_ATTEMPTS):
            with suppress(BlockingIOError):
                return Spool(path, existing=True)
            time.sleep(0.002)  # somebody may just have looked whether it is held
    except FileNotFoundError:  # its owner was done with it in between
        return None
    except (OSError, sqlite3.Error, NewerSchemaError) as error:
        _log.warn("orphan_unreadable", file=path.name, error=str(error))
    return None


def remove(path: Path) -> None:
    """Delete a spool's files, but for its lock; the one that it is found by goes last."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _hold(path: Path) -> int:
    """Hold a spool for this process: a lock on a file beside it, which the kernel frees when the process is gone.

    Raises `BlockingIOError` when another process, or another spool of this one, holds it.
    """
    while True:
        held = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(held, _lock_path(path)):
                return held
        except BaseException:
            os.close(held)
            raise
        os.close(held)  # its holder deleted it before we had it: a lock on that would keep nobody out


def _is_at(held: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held), path.stat())
    except FileNotFoundError:
        return False
