"""The `sqlite` store: all transcripts in one database file, safe for several processes at once.

Its tables begin with ``store_``, and its schema version is a row of ``store_meta``: the file is shared with the
event log, which has tables and a version of its own.
"""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from computeragent import settings
from computeragent.database import NewerSchemaError, connect
from computeragent.errors import StoreError
from computeragent.stores import options
from computeragent.stores.entries import Entry, Key, decode, encode
from computeragent.stores.worker import Worker
from computeragent.wire.encoding import to_json

if TYPE_CHECKING:
    from claude_agent_sdk.types import (
        SessionKey,
        SessionListSubkeysKey,
        SessionStoreEntry,
        SessionStoreListEntry,
        SessionSummaryEntry,
    )

T = TypeVar("T")
_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS store_transcripts (
  id INTEGER PRIMARY KEY,
  project_key TEXT NOT NULL,
  session_id TEXT NOT NULL,
  subpath TEXT NOT NULL,
  mtime INTEGER NOT NULL,
  folded INTEGER NOT NULL DEFAULT 0,
  summary TEXT,
  UNIQUE (project_key, session_id, subpath)
);
CREATE TABLE IF NOT EXISTS store_entries (
  id INTEGER PRIMARY KEY,
  transcript INTEGER NOT NULL REFERENCES store_transcripts (id) ON DELETE CASCADE,
  uuid TEXT,
  entry TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS store_entries_order ON store_entries (transcript, id);
CREATE UNIQUE INDEX IF NOT EXISTS store_entries_uuid ON store_entries (transcript, uuid) WHERE uuid IS NOT NULL;
"""
_forked: list[sqlite3.Connection] = []  # must be neither used nor closed on the other side of a fork
_FIND = "SELECT id FROM store_transcripts WHERE project_key = ? AND session_id = ? AND subpath = ?"


class SqliteSessionStore:
    """A `SessionStore` in an SQLite file, ``sessions.db`` in the state folder unless `path` is given.

    `timeout` is how long a writer waits for another process, in seconds.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, timeout: float = 30.0) -> None:
        self._given_path = options.path("path", path)
        self._timeout = options.seconds("timeout", timeout)
        self._worker = Worker("sqlite-store")
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._finalizer: weakref.finalize[Any, Any] | None = None

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Add a batch; entries whose uuid is there already are left out."""
        where, batch = Key.of(key), encode(entries)
        if batch:
            await self._run(self._append, where, batch)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """All entries in the order in which they were appended, or None."""
        return await self._run(self._load, Key.of(key))

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The sessions of a project, with the time of their last change in milliseconds."""
        return await self._run(self._list_sessions, project_key)

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """Upstream's summaries, folded from the entries that came since the last call and kept."""
        return await self._run(self._list_session_summaries, project_key)

    async def delete(self, key: SessionKey) -> None:
        """Remove a session with its sub-agents, or one sub-agent's transcript."""
        await self._run(self._delete, Key.of(key))

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """The sub-agent paths of a session."""
        return await self._run(self._list_subkeys, Key.of(key))

    async def close(self) -> None:
        """Close the database. The store opens it again when it is used again."""
        await self._worker.run(self._close)

    # ── On the worker's thread ──────────────────────────────────────────────────────────────────────────────

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        try:
            return await self._worker.run(function, *args)
        except (sqlite3.Error, OSError) as error:
            reason = str(error)
            hint = "Check the file and its folder."
            if "full" in reason or "disk I/O" in reason:
                hint = "Free some disk space."
            elif "locked" in reason:
                hint = "Another process holds the database; stop it, or raise the store's timeout."
            elif "not a database" in reason or "malformed" in reason:
                hint = "The file is damaged or not a database; move it away, or restore it."
            raise StoreError(
                f"the session store {self._given_path or 'sessions.db'} failed: {reason}", hint=hint
            ) from error

    def _append(self, where: Key, batch: list[Entry]) -> None:
        now = time.time_ns() // 1_000_000
        with self._transaction() as db:
            db.execute(
                "INSERT INTO store_transcripts (project_key, session_id, subpath, mtime) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET mtime = max(mtime, excluded.mtime)",
                (*where, now),
            )
            (transcript,) = db.execute(_FIND, where).fetchone()
            db.executemany(
                "INSERT INTO store_entries (transcript, uuid, entry) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                ((transcript, entry.uuid, entry.line.decode()) for entry in batch),
            )

    def _load(self, where: Key) -> list[SessionStoreEntry] | None:
        rows = self._open().execute(
            f"SELECT entry FROM store_entries WHERE transcript = ({_FIND}) ORDER BY id",  # noqa: S608 - a constant
            where,
        )
        return [decode(line) for (line,) in rows] or None

    def _list_sessions(self, project: str) -> list[SessionStoreListEntry]:
        rows = self._open().execute(
            "SELECT session_id, mtime FROM store_transcripts WHERE project_key = ? AND subpath = ''", (project,)
        )
        return [{"session_id": session, "mtime": mtime} for session, mtime in rows]

    def _list_session_summaries(self, project: str) -> list[SessionSummaryEntry]:
        from claude_agent_sdk import fold_session_summary

        summaries: list[SessionSummaryEntry] = []
        with self._transaction() as db:
            rows = db.execute(
                "SELECT id, session_id, mtime, folded, summary FROM store_transcripts"
                " WHERE project_key = ? AND subpath = ''",
                (project,),
            ).fetchall()
            for transcript, session, mtime, folded, kept in rows:
                new = db.execute(
                    "SELECT id, entry FROM store_entries WHERE transcript = ? AND id > ? ORDER BY id",
                    (transcript, folded),
                ).fetchall()
                summary = cast(
                    "SessionSummaryEntry", {"session_id": session, "mtime": mtime, "data": decode(kept) if kept else {}}
                )
                if new:
                    entries: list[SessionStoreEntry] = [decode(line) for _, line in new]
                    summary = fold_session_summary(summary, {"project_key": project, "session_id": session}, entries)
                    db.execute(
                        "UPDATE store_transcripts SET folded = ?, summary = ? WHERE id = ?",
                        (new[-1][0], to_json(summary["data"]).decode(), transcript),
                    )
                summaries.append(summary)
        return summaries

    def _delete(self, where: Key) -> None:
        with self._transaction() as db:
            if where.subpath:
                db.execute(f"DELETE FROM store_transcripts WHERE id = ({_FIND})", where)  # noqa: S608 - a constant
            else:
                db.execute("DELETE FROM store_transcripts WHERE project_key = ? AND session_id = ?", where[:2])

    def _list_subkeys(self, where: Key) -> list[str]:
        rows = self._open().execute(
            "SELECT subpath FROM store_transcripts WHERE project_key = ? AND session_id = ? AND subpath != ''"
            " ORDER BY subpath",
            where[:2],
        )
        return [subpath for (subpath,) in rows]

    # ── The connection ──────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        db = self._open()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _open(self) -> sqlite3.Connection:
        if self._connection is None or self._pid != os.getpid():
            path = settings.home() / "sessions.db" if self._given_path is None else Path(self._given_path).expanduser()
            if self._finalizer is not None:
                self._finalizer()
            self._connection, self._pid = _connect(path, self._timeout), os.getpid()
            self._finalizer = weakref.finalize(self, _close, self._connection, self._pid)
        return self._connection

    def _close(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._connection = None


def _close(db: sqlite3.Connection, owner: int) -> None:
    if owner == os.getpid():
        db.close()
    else:
        _forked.append(db)


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
    try:
        return connect(path, component="store", schema=_SCHEMA, version=_VERSION, timeout=timeout)
    except NewerSchemaError as error:
        raise StoreError(str(error), hint="Upgrade computer-agent-py, or choose another file.") from error
