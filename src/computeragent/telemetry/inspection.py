"""Looking into spools from outside, while their processes write: what waits for whom, and what comes in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
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


class SpoolReader:
    """Follows all spools in a folder. Files stay open, so that what was written last is seen of one that is deleted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[Path, sqlite3.Connection] = {}
        self._after: dict[Path, int] = {}

    def read(self) -> Iterator[Spooled]:
        """What has come in since the last call, in order per spool; files that cannot be read are passed over."""
        present = set(self._folder.glob("*.db"))
        for path in sorted(present - self._after.keys()):
            self._after[path] = 0
            with suppress(sqlite3.Error):
                self._open[path] = _open(path)
        for path, db in list(self._open.items()):
            query = "SELECT position, at, data FROM spool_events WHERE position > ? ORDER BY position"
            try:
                rows = db.execute(query, (self._after[path],)).fetchall()
            except sqlite3.Error:
                rows = []
            for position, at, data in rows:
                self._after[path] = position
                yield Spooled(path.name, position, at, data)
            if path not in present:
                self._open.pop(path).close()

    def close(self) -> None:
        """Close the files."""
        for db in self._open.values():
            db.close()
        self._open.clear()


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
