"""Looking into spools from outside, while their processes write: what waits for whom, and what comes in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from computeragent.telemetry.spool import Spooled, is_orphan


@dataclass(frozen=True, slots=True)
class SpoolState:
    """One spool file: whether its process lives, its events, and how many wait for each destination."""

    path: Path
    live: bool
    events: int
    size: int
    oldest: float | None
    waiting: dict[str, int] = field(default_factory=dict[str, int])
    open_sessions: int = 0


def spool_states(folder: Path) -> list[SpoolState]:
    """All spools in a folder, oldest first; those that cannot be read are left out."""
    found: list[SpoolState] = []
    for path in sorted(folder.glob("*.db")):
        try:
            with closing(_open(path)) as db:
                events, size, oldest = db.execute(
                    "SELECT count(*), coalesce(sum(size), 0), min(at) FROM spool_events"
                ).fetchone()
                waiting = db.execute(
                    "SELECT sink, (SELECT count(*) FROM spool_events e WHERE e.position > c.position)"
                    " FROM spool_cursors c"
                ).fetchall()
                (sessions,) = db.execute("SELECT count(*) FROM spool_open").fetchone()
        except sqlite3.Error:
            continue
        found.append(SpoolState(path, not is_orphan(path), events, size, oldest, dict(waiting), sessions))
    return found


def read_spools(folder: Path, after: dict[str, int]) -> Iterator[Spooled]:
    """Events of all spools beyond the places in `after` (by file name), which is moved on; in order per spool."""
    for path in sorted(folder.glob("*.db")):
        try:
            with closing(_open(path)) as db:
                rows = db.execute(
                    "SELECT position, at, data FROM spool_events WHERE position > ? ORDER BY position",
                    (after.get(path.name, 0),),
                ).fetchall()
        except sqlite3.Error:
            continue
        for position, at, data in rows:
            after[path.name] = position
            yield Spooled(path.name, position, at, data)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
