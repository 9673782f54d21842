"""The durable event log: every session until it is deleted, in one SQLite file that processes share.

One writer thread commits whatever has gathered since its last commit, so an idle log commits at once and a
busy one in groups. A claim bumps the session's generation; events of an older generation are refused.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from computeragent.database import NewerSchemaError, connect
from computeragent.errors import EventLogError, NotFoundError, SessionLiveError
from computeragent.eventlog.channel import Channel, Retention
from computeragent.eventlog.owner import Owner
from computeragent.eventlog.summary import SessionSummary
from computeragent.settings import home
from computeragent.wire.encoding import to_json
from computeragent.wire.events import Recorded, decode_event

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS log_sessions (
    session_id TEXT PRIMARY KEY, generation INTEGER NOT NULL, owner TEXT NOT NULL,
    newest INTEGER NOT NULL, run_start INTEGER NOT NULL, updated REAL NOT NULL, summary BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS log_sessions_updated ON log_sessions (updated);
CREATE TABLE IF NOT EXISTS log_events (
    session_id TEXT NOT NULL, id INTEGER NOT NULL, at REAL NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (session_id, id)
) WITHOUT ROWID;
"""
_TAIL = Retention(max_events=256, max_age=30.0)

Job = Callable[[sqlite3.Connection | EventLogError], None]


class _Append(NamedTuple):
    """An event with the summary and the run's start as they were right after it; the channel's own run ahead."""

    channel: Channel
    recorded: Recorded
    summary: SessionSummary
    run_start: int


_summaries = msgspec.json.Decoder(SessionSummary)


class SqliteEventLog:
    """An event log in a SQLite file (default: ``sessions.db`` under `COMPUTERAGENT_HOME`), mode 0600."""

    durable = True

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path else home() / "sessions.db"
        self._jobs: queue.SimpleQueue[_Append | Job | None] = queue.SimpleQueue()
        self._owner = Owner()
        self._loops: dict[str, asyncio.AbstractEventLoop] = {}
        self._held: set[str] = set()  # claimed through this log; touched by the writer thread alone
        self._thread: threading.Thread | None = None
        self._closed = False

    async def open(self, session_id: str) -> Channel:
        """See `EventLog.open`. A run that its process left open is reported by `Channel.live`."""
        claimed: list[Channel] = []

        def claim(connection: sqlite3.Connection) -> Channel:
            newest, run_start, generation, summary = _claim(session_id, self._owner, self._held, connection)
            self._held.add(session_id)
            claimed.append(
                Channel(self, summary, retention=_TAIL, newest=newest, run_start=run_start, generation=generation)
            )
            return claimed[0]

        try:
            channel = await self._do(claim)
        except asyncio.CancelledError:
            # The writer may have claimed it all the same; nobody else will give it back.
            self._post(lambda connection: [self._give_back(channel, connection) for channel in claimed])
            raise
        self._loops[session_id] = asyncio.get_running_loop()
        return channel

    async def release(self, channel: Channel) -> None:
        """See `EventLog.release`."""
        try:
            await self._do(partial(self._give_back, channel))
        finally:
            self._loops.pop(channel.session_id, None)

    def _give_back(self, channel: Channel, connection: sqlite3.Connection) -> None:
        self._held.discard(channel.session_id)  # also where the database cannot be told: this log may claim it again
        _release(channel.session_id, channel.generation, connection)

    async def read(self, session_id: str, after: int = -1, limit: int = 512) -> list[Recorded]:
        """See `EventLog.read`."""
        found = await self.fetch(session_id, after, limit)
        if not found and not await self._do(partial(_exists, session_id)):
            raise NotFoundError(f"session {session_id} not found")
        return found

    async def sessions(self, limit: int = 50) -> list[SessionSummary]:
        """See `EventLog.sessions`."""
        return await self._do(partial(_list, limit))

    async def orphans(self) -> list[str]:
        """Sessions whose run is open although their process is gone."""
        return await self._do(_orphans)

    async def delete(self, session_id: str) -> None:
        """Forget a session. Raises `NotFoundError`."""
        if not await self._do(partial(_delete, session_id)):
            raise NotFoundError(f"session {session_id} not found")

    async def close(self) -> None:
        """See `EventLog.close`."""
        thread, self._closed = self._thread, True
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)
        self._owner.retire()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ── Backend ──

    def submit(self, channel: Channel, recorded: Recorded) -> None:
        """Queue the event for the next commit."""
        self._jobs.put(_Append(channel, recorded, channel.summary, channel.run_start))

    async def fetch(self, session_id: str, after: int, limit: int) -> list[Recorded]:
        """Read committed events back."""
        rows = await self._do(partial(_fetch, session_id, after, limit))
        return [Recorded(id_, at, decode_event(data), data) for id_, at, data in rows]

    async def flush(self, channel: Channel) -> None:
        """Wait until everything queued so far is committed and announced."""
        del channel
        await self._do(lambda _: None)

    # ── The writer thread ──

    async def _do(self, job: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run a job on the writer thread, after everything queued before it."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._post(job, future)
        return await future

    def _post(self, job: Callable[[sqlite3.Connection], Any], future: asyncio.Future[Any] | None = None) -> None:
        """Queue a job for the writer thread; its outcome goes to `future`, if anyone waits."""
        if self._closed:
            raise EventLogError("the event log is closed", hint="Open a new one.")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="computeragent-eventlog", daemon=True)
            self._thread.start()

        def run(connection: sqlite3.Connection | EventLogError) -> None:
            try:
                if isinstance(connection, EventLogError):
                    raise connection
                result, error = job(connection), None
            except sqlite3.Error as cause:
                result, error = None, _failure(self.path, cause)
            except Exception as cause:  # noqa: BLE001 - carried over to the caller
                result, error = None, cause
            if future is not None:
                _call(future.get_loop(), partial(_settle, future, result, error))

        self._jobs.put(run)

    def _work(self) -> None:
        try:
            connection = _connect(self.path)
        except (sqlite3.Error, OSError, EventLogError) as cause:
            error = cause if isinstance(cause, EventLogError) else _failure(self.path, cause)
            self._refuse_all(error)
            return
        try:
            while self._step(connection):
                pass
        finally:
            connection.close()

    def _step(self, connection: sqlite3.Connection) -> bool:
        """Take what has gathered: events in one transaction, other jobs in their order. False when closing."""
        item = self._jobs.get()
        events: list[_Append] = []
        while True:
            if isinstance(item, _Append):
                events.append(item)
            else:
                self._commit(connection, events)
                events = []
                if item is None:
                    return False
                item(connection)
            try:
                item = self._jobs.get_nowait()
            except queue.Empty:
                self._commit(connection, events)
                return True

    def _commit(self, connection: sqlite3.Connection, events: list[_Append]) -> None:
        if not events:
            return
        batches: dict[Channel, list[_Append]] = {}
        for item in events:
            batches.setdefault(item.channel, []).append(item)
        stale: list[Channel] = []
        try:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for channel, batch in batches.items():
                    if not _write(connection, batch):
                        stale.append(channel)
        except Exception as cause:  # noqa: BLE001 - whatever it is, nothing of this was committed, and readers wait
            error = _failure(self.path, cause)
            for channel in batches:
                self._announce(channel, partial(channel.broke, error))
            return
        for channel, batch in batches.items():
            if channel in stale:
                lost = EventLogError(
                    f"session {channel.session_id} was taken over by another process",
                    hint="Only one process may run a session; the other one goes on with it.",
                )
                self._announce(channel, partial(channel.broke, lost))
            else:
                self._announce(channel, partial(channel.committed, [item.recorded for item in batch]))

    def _announce(self, channel: Channel, call: Callable[[], None]) -> None:
        loop = self._loops.get(channel.session_id)
        if loop is not None:
            _call(loop, call)

    def _refuse_all(self, error: EventLogError) -> None:
        """The database cannot be opened: everyone who asks is told why."""
        while (item := self._jobs.get()) is not None:
            if isinstance(item, _Append):
                self._announce(item.channel, partial(item.channel.broke, error))
            else:
                item(error)


def _call(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return  # the loop is closed: nobody waits any more


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _failure(path: Path, cause: Exception) -> EventLogError:
    return EventLogError(
        f"the event log {path.name} cannot be used: {cause}",
        hint="Check free space and permissions of COMPUTERAGENT_HOME, then run again.",
    )


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return connect(path, component="log", schema=_SCHEMA, version=_SCHEMA_VERSION)
    except NewerSchemaError as error:
        hint = "Upgrade computer-agent-py, or point COMPUTERAGENT_HOME elsewhere."
        raise EventLogError(str(error), hint=hint) from error


def _claim(
    session_id: str, owner: Owner, held: set[str], connection: sqlite3.Connection
) -> tuple[int, int, int, SessionSummary]:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        row = connection.execute(
            "SELECT generation, owner, newest, run_start, summary FROM log_sessions WHERE session_id = ?",
            (session_id,),
        ).fetchone()
        if row is None:
            summary = SessionSummary(session_id)
            connection.execute(
                "INSERT INTO log_sessions VALUES (?, 1, ?, -1, 0, 0, ?)",
                (session_id, str(owner), to_json(summary)),
            )
            return -1, 0, 1, summary
        generation, holder, newest, run_start, summary = row
        if session_id in held if holder == str(owner) else holder and Owner.alive(holder):
            raise SessionLiveError(
                f"session {session_id} is live in another harness",
                hint="Wait until it ends, or choose another session id.",
            )
        connection.execute(
            "UPDATE log_sessions SET generation = ?, owner = ? WHERE session_id = ?",
            (generation + 1, str(owner), session_id),
        )
        return newest, run_start, generation + 1, _summaries.decode(summary)


def _release(session_id: str, generation: int, connection: sqlite3.Connection) -> None:
    connection.execute(
        "UPDATE log_sessions SET owner = '' WHERE session_id = ? AND generation = ?", (session_id, generation)
    )
    connection.execute("DELETE FROM log_sessions WHERE session_id = ? AND newest < 0 AND owner = ''", (session_id,))


def _write(connection: sqlite3.Connection, batch: list[_Append]) -> bool:
    """Append a channel's batch; False when its generation is stale."""
    channel, last, summary, run_start = batch[-1]
    touched = connection.execute(
        "UPDATE log_sessions SET newest = ?, run_start = ?, updated = ?, summary = ?"
        " WHERE session_id = ? AND generation = ?",
        (
            last.id,
            run_start,
            last.at,
            to_json(summary),
            channel.session_id,
            channel.generation,
        ),
    )
    if touched.rowcount == 0:
        return False
    events = [item.recorded for item in batch]
    rows = [(channel.session_id, recorded.id, recorded.at, recorded.data) for recorded in events]
    connection.executemany("INSERT INTO log_events VALUES (?, ?, ?, ?)", rows)
    return True


def _fetch(session_id: str, after: int, limit: int, connection: sqlite3.Connection) -> list[tuple[int, float, bytes]]:
    query = "SELECT id, at, data FROM log_events WHERE session_id = ? AND id > ? ORDER BY id LIMIT ?"
    return connection.execute(query, (session_id, after, limit)).fetchall()


def _exists(session_id: str, connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM log_sessions WHERE session_id = ?", (session_id,)).fetchone() is not None


def _list(limit: int, connection: sqlite3.Connection) -> list[SessionSummary]:
    query = "SELECT summary FROM log_sessions WHERE newest >= 0 ORDER BY updated DESC LIMIT ?"
    return [_summaries.decode(row[0]) for row in connection.execute(query, (limit,))]


def _orphans(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT session_id, owner FROM log_sessions WHERE owner != ''").fetchall()
    return [session_id for session_id, owner in rows if not Owner.alive(owner)]


def _delete(session_id: str, connection: sqlite3.Connection) -> bool:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM log_events WHERE session_id = ?", (session_id,))
        gone = connection.execute("DELETE FROM log_sessions WHERE session_id = ?", (session_id,))
        return gone.rowcount > 0
