"""The SQLite log as servers use it: sessions have owners, outlive their server, and others on the machine see them."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from computeragent.errors import ComputerAgentError, NotFoundError
from computeragent.eventlog import tables
from computeragent.eventlog.channel import Channel
from computeragent.eventlog.owner import Owner
from computeragent.eventlog.shared import Entry, take_over
from computeragent.eventlog.sqlite import TAIL, SqliteEventLog
from computeragent.eventlog.summary import SessionSummary
from computeragent.logs import Logger

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log_owners (
    session_id TEXT PRIMARY KEY, principal TEXT NOT NULL, about BLOB NOT NULL, opened REAL NOT NULL,
    ran_on TEXT NOT NULL, address TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS log_owners_principal ON log_owners (principal, opened);
CREATE TABLE IF NOT EXISTS log_answers (
    place TEXT PRIMARY KEY, mark TEXT NOT NULL, answer BLOB NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log_secret (id INTEGER PRIMARY KEY CHECK (id = 1), secret BLOB NOT NULL);
"""
_COLUMNS = (
    "o.session_id, o.principal, o.about, o.ran_on, o.address, s.generation, s.owner, s.newest, s.run_start, s.summary"
)
_FROM = "log_owners o LEFT JOIN log_sessions s ON s.session_id = o.session_id"
_ANSWERS_KEPT = 24 * 3600.0
_POLL = 0.05  # seconds between looks at a session that another process runs
_UNREAD = 5.0  # seconds after which a copy that nobody reads is let go
_log = Logger("eventlog")
_summaries = msgspec.json.Decoder(SessionSummary)


class _Head(msgspec.Struct, rename="camel"):
    kind: str
    call_id: str = ""


_heads = msgspec.json.Decoder(_Head)


class SharedSqliteEventLog(SqliteEventLog):
    """A `SqliteEventLog` that is a `SharedEventLog`: for servers of one machine, in turn or side by side."""

    lease = 5.0

    def __init__(self, path: str | Path | None = None) -> None:
        super().__init__(path)
        self._address = ""
        self._prepared = False
        self._followed: dict[str, tuple[Channel, asyncio.Task[None]]] = {}

    @property
    def mark(self) -> str:
        """See `SharedEventLog.mark`."""
        return str(self._owner)

    def reached_at(self, address: str) -> None:
        """See `SharedEventLog.reached_at`."""
        self._address = address

    async def reserve(self, session_id: str, principal: str) -> bool:
        """See `SharedEventLog.reserve`."""
        return await self._shared(partial(_reserve, session_id, principal))

    async def unreserve(self, session_id: str) -> None:
        """See `SharedEventLog.unreserve`."""
        await self._execute("DELETE FROM log_owners WHERE session_id = ? AND about = x''", (session_id,))

    async def describe(self, session_id: str, principal: str, about: bytes) -> None:
        """See `SharedEventLog.describe`."""
        row = (session_id, principal, about, time.time(), self.mark, self._address)
        await self._execute("INSERT OR REPLACE INTO log_owners VALUES (?, ?, ?, ?, ?, ?)", row)

    async def look_up(self, session_id: str) -> Entry | None:
        """See `SharedEventLog.look_up`."""

        def find(db: sqlite3.Connection) -> Entry | None:
            row = db.execute(f"SELECT {_COLUMNS} FROM {_FROM} WHERE o.session_id = ?", (session_id,)).fetchone()  # noqa: S608
            return None if row is None else self._entry(row, db)

        return await self._shared(find)

    async def listing(self, principal: str, limit: int, offset: int = 0) -> tuple[list[Entry], bool]:
        """See `SharedEventLog.listing`."""

        def find(db: sqlite3.Connection) -> list[Entry]:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM {_FROM} WHERE o.principal = ? AND o.about != x''"  # noqa: S608
                " ORDER BY o.opened DESC, o.session_id LIMIT ? OFFSET ?",
                (principal, limit + 1, offset),
            ).fetchall()
            return [self._entry(row, db) for row in rows]

        found = await self._shared(find)
        return found[:limit], len(found) > limit

    async def follow(self, session_id: str) -> Channel:
        """See `SharedEventLog.follow`."""
        entry = await self.look_up(session_id)
        if entry is None:
            raise NotFoundError(f"session {session_id} not found")
        known = self._followed.get(session_id)
        if known is not None and known[0].live and known[0].failure is None:
            channel = known[0]
        else:
            channel = Channel(
                self,
                entry.summary,
                retention=TAIL,
                newest=entry.newest,
                run_start=entry.run_start,
                generation=entry.generation,
            )
            if channel.live:
                task = asyncio.create_task(self._copy(channel), name=f"following {session_id}")
                self._followed[session_id] = (channel, task)
        while channel.live and channel.newest < entry.newest:  # whoever asks may have been told of these elsewhere
            page = await self.fetch(session_id, channel.newest, 512)
            if not page:
                break  # deleted meanwhile
            take_over(channel, page)
        return channel

    async def delete(self, session_id: str) -> None:
        """See `EventLog.delete`."""
        await self._execute("DELETE FROM log_owners WHERE session_id = ?", (session_id,))
        await super().delete(session_id)

    async def answer(self, place: str) -> bytes | None:
        """See `SharedEventLog.answer`."""

        def find(db: sqlite3.Connection) -> bytes | None:
            now = time.time()
            with db:
                db.execute("BEGIN IMMEDIATE")
                db.execute("DELETE FROM log_answers WHERE at < ?", (now - _ANSWERS_KEPT,))
                row = db.execute("SELECT mark, answer FROM log_answers WHERE place = ?", (place,)).fetchone()
                if row is not None and (row[1] or Owner.alive(row[0])):
                    return row[1]
                db.execute("INSERT OR REPLACE INTO log_answers VALUES (?, ?, x'', ?)", (place, self.mark, now))
            return None

        return await self._shared(find)

    async def keep_answer(self, place: str, answer: bytes | None) -> None:
        """See `SharedEventLog.keep_answer`."""
        if answer is None:
            await self._execute("DELETE FROM log_answers WHERE place = ?", (place,))
        else:
            row = (answer, place)
            await self._execute("UPDATE log_answers SET answer = ? WHERE place = ?", row)

    async def peer_secret(self) -> bytes:
        """See `SharedEventLog.peer_secret`."""

        def find(db: sqlite3.Connection) -> bytes:
            db.execute("INSERT OR IGNORE INTO log_secret VALUES (1, ?)", (secrets.token_bytes(32),))
            return db.execute("SELECT secret FROM log_secret").fetchone()[0]

        return await self._shared(find)

    async def close(self) -> None:
        """See `EventLog.close`."""
        for _, task in self._followed.values():
            task.cancel()
        await asyncio.gather(*(task for _, task in self._followed.values()), return_exceptions=True)
        await super().close()

    async def _execute(self, statement: str, row: tuple[Any, ...]) -> None:
        def execute(db: sqlite3.Connection) -> None:
            db.execute(statement, row)

        await self._shared(execute)

    async def _shared(self, job: Callable[[sqlite3.Connection], Any]) -> Any:
        """A job on the writer thread, after the tables for it are there."""

        def prepared(connection: sqlite3.Connection) -> Any:
            if not self._prepared:
                connection.executescript(_SCHEMA)
                self._prepared = True
            return job(connection)

        return await self._do(prepared)

    def _entry(self, row: tuple[Any, ...], connection: sqlite3.Connection) -> Entry:
        session_id, principal, about, ran_on, address, generation, owner, newest, run_start, summary = row
        told = SessionSummary(session_id) if summary is None else _summaries.decode(summary)
        alive = bool(owner) and (session_id in self._held if owner == self.mark else Owner.alive(owner))
        return Entry(
            session_id=session_id,
            principal=principal,
            about=about,
            summary=told,
            newest=-1 if newest is None else newest,
            run_start=run_start or 0,
            kept_from=0,
            generation=generation or 0,
            pending=_pending(session_id, run_start, connection) if told.live else [],
            held=bool(owner),
            held_alive=alive,
            ran_on=ran_on,
            address=address if ran_on != self.mark and Owner.alive(ran_on) else "",
        )

    async def _copy(self, channel: Channel) -> None:
        """Take over what another process adds to a session, as long as somebody reads it."""
        unread_since: float | None = None
        try:
            while channel.live:
                page = await self.fetch(channel.session_id, channel.newest, 512)
                take_over(channel, page)
                unread_since = None if channel.readers else unread_since or time.monotonic()
                if unread_since is not None and time.monotonic() - unread_since > _UNREAD:
                    return
                if not page:
                    entry = await self.look_up(channel.session_id)
                    if entry is None or entry.newest < channel.newest:  # it may be another one by now
                        raise NotFoundError(f"session {channel.session_id} was deleted")
                    await asyncio.sleep(_POLL)
        except ComputerAgentError as error:
            channel.broke(error)
        finally:
            self._followed.pop(channel.session_id, None)


def _reserve(session_id: str, principal: str, connection: sqlite3.Connection) -> bool:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        row = connection.execute("SELECT principal FROM log_owners WHERE session_id = ?", (session_id,)).fetchone()
        if row is not None:
            return row[0] == principal
        if tables.exists(session_id, connection):
            return False
        row = (session_id, principal, time.time())
        connection.execute("INSERT INTO log_owners VALUES (?, ?, x'', ?, '', '')", row)
        return True


def _pending(session_id: str, run_start: int, connection: sqlite3.Connection) -> list[str]:
    """The calls of the run that wait for an answer."""
    rows = connection.execute(
        "SELECT data FROM log_events WHERE session_id = ? AND id >= ? AND instr(data, CAST('ca_permission_' AS BLOB))"
        " ORDER BY id",
        (session_id, run_start),
    )
    waiting: dict[str, None] = {}
    for (data,) in rows:
        head = _heads.decode(data)
        if head.kind == "ca_permission_request":
            waiting[head.call_id] = None
        elif head.kind == "ca_permission_decision":
            waiting.pop(head.call_id, None)
    return list(waiting)
