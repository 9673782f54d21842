"""Opening our SQLite files: private, in WAL mode, with a schema version per component, shared by processes."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path


class NewerSchemaError(Exception):
    """The file was written by a newer version of this package."""


def connect(
    path: Path | None, *, component: str, schema: str, version: int, timeout: float = 30.0
) -> sqlite3.Connection:
    """Open a database in autocommit mode, creating the file (mode 0600) and the component's tables when missing.

    Without a path it is in memory.

    Several components may share a file: each has tables of its own prefix and a version row in
    ``<component>_meta``. The connection may change threads; its owner keeps its use to one at a time.
    Raises `NewerSchemaError`, and `sqlite3.Error` or `OSError` when the file cannot be used.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path or ":memory:", timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        if path is not None:
            _use_wal(db, time.monotonic() + timeout)
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        _migrate(db, path.name if path else "memory", component, schema, version)
    except BaseException:
        db.close()
        raise
    return db


def _use_wal(db: sqlite3.Connection, deadline: float) -> None:
    while db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:  # the busy timeout does not hold for this statement
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _migrate(db: sqlite3.Connection, name: str, component: str, schema: str, version: int) -> None:
    meta = f"{component}_meta"
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (meta,)).fetchone():
        db.execute("BEGIN IMMEDIATE")
        db.execute(f"CREATE TABLE IF NOT EXISTS {meta} (name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
        for statement in filter(str.strip, schema.split(";")):
            db.execute(statement)
        db.execute(f"INSERT INTO {meta} VALUES ('schema_version', ?) ON CONFLICT DO NOTHING", (version,))  # noqa: S608
        db.execute("COMMIT")
    (found,) = db.execute(f"SELECT value FROM {meta} WHERE name = 'schema_version'").fetchone()  # noqa: S608
    if found > version:
        raise NewerSchemaError(f"{name} has {component} schema {found}, this program knows {version}")
