"""The tables of the durable event log, as functions over a connection; the writer thread calls them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

import msgspec

from computeragent.database import NewerSchemaError, connect
from computeragent.errors import EventLogError, SessionLiveError
from computeragent.eventlog.channel import Channel
from computeragent.eventlog.owner import Owner
from computeragent.eventlog.summary import SessionSummary
from computeragent.wire.encoding import to_json
from computeragent.wire.events import Recorded

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


class Append(NamedTuple):
    """An event with the summary and the run's start as they were right after it; the channel's own run ahead."""

    channel: Channel
    recorded: Recorded
    summary: SessionSummary
    run_start: int


_summaries = msgspec.json.Decoder(SessionSummary)


def open_file(path: Path) -> sqlite3.Connection:
    """Open the file, making its tables. Raises `EventLogError` for a newer version, `sqlite3.Error` and `OSError`."""
    try:
        return connect(path, component="log", schema=_SCHEMA, version=_SCHEMA_VERSION)
    except NewerSchemaError as error:
        hint = "Upgrade computer-agent-py, or point COMPUTERAGENT_HOME elsewhere."
        raise EventLogError(str(error), hint=hint) from error


def claim(
    session_id: str, owner: Owner, held: set[str], connection: sqlite3.Connection
) -> tuple[int, int, int, SessionSummary]:
    """Claim a session: its newest id, its run's start, its new generation, its summary. Raises `SessionLiveError`.

    `held` are the sessions that this owner's own log holds right now.
    """
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


def release(session_id: str, generation: int, connection: sqlite3.Connection) -> None:
    """Give a claim back, and forget a session that was never written."""
    connection.execute(
        "UPDATE log_sessions SET owner = '' WHERE session_id = ? AND generation = ?", (session_id, generation)
    )
    connection.execute("DELETE FROM log_sessions WHERE session_id = ? AND newest < 0 AND owner = ''", (session_id,))


def write(connection: sqlite3.Connection, batch: list[Append]) -> bool:
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


def fetch(session_id: str, after: int, limit: int, connection: sqlite3.Connection) -> list[tuple[int, float, bytes]]:
    """Id, time and JSON of the events after an id, oldest first."""
    query = "SELECT id, at, data FROM log_events WHERE session_id = ? AND id > ? ORDER BY id LIMIT ?"
    return connection.execute(query, (session_id, after, limit)).fetchall()


def exists(session_id: str, connection: sqlite3.Connection) -> bool:
    """Whether a session is known."""
    return connection.execute("SELECT 1 FROM log_sessions WHERE session_id = ?", (session_id,)).fetchone() is not None


def listing(limit: int, connection: sqlite3.Connection) -> list[SessionSummary]:
    """The sessions used last, newest first."""
    query = "SELECT summary FROM log_sessions WHERE newest >= 0 ORDER BY updated DESC LIMIT ?"
    return [_summaries.decode(row[0]) for row in connection.execute(query, (limit,))]


def orphans(connection: sqlite3.Connection) -> list[str]:
    """The sessions whose holder is gone."""
    rows = connection.execute("SELECT session_id, owner FROM log_sessions WHERE owner != ''").fetchall()
    return [session_id for session_id, owner in rows if not Owner.alive(owner)]


def delete(session_id: str, connection: sqlite3.Connection) -> bool:
    """Forget a session and its events; False when there was none."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM log_events WHERE session_id = ?", (session_id,))
        gone = connection.execute("DELETE FROM log_sessions WHERE session_id = ?", (session_id,))
        return gone.rowcount > 0
