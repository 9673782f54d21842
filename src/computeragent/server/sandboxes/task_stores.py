"""What is kept of tasks: a row each, and the log that their events are in. In memory, or in SQLite for good."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from computeragent.database import NewerSchemaError, connect
from computeragent.errors import NotFoundError, StoreError
from computeragent.eventlog import EventLog, MemoryEventLog, Retention
from computeragent.server.sandboxes.shapes import TaskStatus, Usage
from computeragent.server.sandboxes.tenants import Tenant
from computeragent.settings import home
from computeragent.stores.worker import Worker

KEPT = 200
"""Ended tasks that the memory store keeps; the oldest go first."""
_TASK_BYTES = 4 * 1024 * 1024
_SCHEMA = """
CREATE TABLE tasks_rows (
    task_id TEXT PRIMARY KEY, owner TEXT NOT NULL, session_id TEXT NOT NULL, status TEXT NOT NULL,
    live INTEGER NOT NULL, row BLOB NOT NULL);
CREATE INDEX tasks_by_owner ON tasks_rows (owner, task_id DESC);
CREATE INDEX tasks_live ON tasks_rows (live) WHERE live
"""

LIVE = frozenset({"queued", "running"})


class TaskRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task. `first` and `last` are the ids of its events in its session's log; times are epoch seconds.

    `server` is the mark of the process that runs it (`eventlog.owner.Owner`).
    """

    task_id: str
    owner: str
    session_id: str
    status: TaskStatus
    server: str
    created: float
    config: dict[str, Any]
    store: str
    first: int | None = None
    last: int | None = None
    started: float | None = None
    ended: float | None = None
    last_event: float | None = None
    usage: Usage = Usage()
    error: str | None = None
    error_code: str | None = None


class TaskStore(Protocol):
    """Rows by owner, newest first, and the logs of their events."""

    async def save(self, row: TaskRow) -> None:
        """Keep a row, in place of an older one of its task."""
        ...

    async def load(self, owner: str, task_id: str) -> TaskRow | None:
        """A row of this owner's."""
        ...

    async def listed(self, owner: str, status: TaskStatus | None, limit: int) -> list[TaskRow]:
        """The newest rows of an owner."""
        ...

    async def delete(self, tenant: Tenant, row: TaskRow) -> None:
        """Forget a task with its events."""
        ...

    async def unfinished(self) -> list[TaskRow]:
        """Rows of all owners that say a task is under way."""
        ...

    def log(self, tenant: Tenant, task_id: str) -> EventLog:
        """Where the events of a task are."""
        ...

    async def close(self) -> None:
        """Let go of what is open."""
        ...


class MemoryTaskStore:
    """Tasks of this process; at most `kept` ended ones, each with at most 4 MiB of events."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._rows: OrderedDict[str, TaskRow] = OrderedDict()
        self._logs: dict[str, MemoryEventLog] = {}

    async def save(self, row: TaskRow) -> None:
        """See `TaskStore.save`."""
        self._rows[row.task_id] = row
        ended = [task_id for task_id, each in self._rows.items() if each.status not in LIVE]
        for task_id in ended[: max(0, len(ended) - self._kept)]:
            self._drop(task_id)

    async def load(self, owner: str, task_id: str) -> TaskRow | None:
        """See `TaskStore.load`."""
        row = self._rows.get(task_id)
        return row if row is not None and row.owner == owner else None

    async def listed(self, owner: str, status: TaskStatus | None, limit: int) -> list[TaskRow]:
        """See `TaskStore.listed`."""
        own = (row for row in reversed(self._rows.values()) if row.owner == owner and status in {None, row.status})
        return [row for row, _ in zip(own, range(limit), strict=False)]

    async def delete(self, tenant: Tenant, row: TaskRow) -> None:
        """See `TaskStore.delete`."""
        del tenant
        self._drop(row.task_id)

    async def unfinished(self) -> list[TaskRow]:
        """See `TaskStore.unfinished`: nothing of another process is here."""
        return []

    def log(self, tenant: Tenant, task_id: str) -> EventLog:
        """See `TaskStore.log`."""
        del tenant
        log = self._logs.get(task_id)
        if log is None:
            keep = Retention(max_events=1_000_000, max_age=float("inf"), max_bytes=_TASK_BYTES)
            log = self._logs[task_id] = MemoryEventLog(keep, max_sessions=1)
        return log

    async def close(self) -> None:
        """See `TaskStore.close`."""
        for task_id in list(self._rows):
            self._drop(task_id)

    def _drop(self, task_id: str) -> None:
        self._rows.pop(task_id, None)
        self._logs.pop(task_id, None)


class SqliteTaskStore:
    """Tasks in a SQLite file (default: ``tasks.db`` among the server's state), kept until they are deleted."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._worker = Worker("task-store")
        self._db: sqlite3.Connection | None = None

    async def save(self, row: TaskRow) -> None:
        """See `TaskStore.save`."""
        values = (row.task_id, row.owner, row.session_id, row.status, row.status in LIVE, msgspec.json.encode(row))
        statement = (
            "INSERT INTO tasks_rows VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (task_id) DO UPDATE SET "
            "status = excluded.status, live = excluded.live, row = excluded.row"
        )
        await self._run(statement, values)

    async def load(self, owner: str, task_id: str) -> TaskRow | None:
        """See `TaskStore.load`."""
        rows = await self._run("SELECT row FROM tasks_rows WHERE task_id = ? AND owner = ?", (task_id, owner))
        return _row(rows[0]) if rows else None

    async def listed(self, owner: str, status: TaskStatus | None, limit: int) -> list[TaskRow]:
        """See `TaskStore.listed`."""
        statement = (
            "SELECT row FROM tasks_rows WHERE owner = ? AND (? IS NULL OR status = ?) ORDER BY task_id DESC LIMIT ?"
        )
        return [_row(each) for each in await self._run(statement, (owner, status, status, limit))]

    async def delete(self, tenant: Tenant, row: TaskRow) -> None:
        """See `TaskStore.delete`. The events of a session that other tasks share stay in its log."""
        await self._run("DELETE FROM tasks_rows WHERE task_id = ? AND owner = ?", (row.task_id, row.owner))
        shared = "SELECT 1 FROM tasks_rows WHERE owner = ? AND session_id = ? LIMIT 1"
        if not await self._run(shared, (row.owner, row.session_id)):
            with suppress(NotFoundError):
                await tenant.log.delete(row.session_id)

    async def unfinished(self) -> list[TaskRow]:
        """See `TaskStore.unfinished`."""
        return [_row(each) for each in await self._run("SELECT row FROM tasks_rows WHERE live", ())]

    def log(self, tenant: Tenant, task_id: str) -> EventLog:
        """See `TaskStore.log`: one per tenant."""
        del task_id
        return tenant.log

    async def close(self) -> None:
        """See `TaskStore.close`."""
        db, self._db = self._db, None
        if db is not None:
            await self._worker.run(db.close)

    async def _run(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return await self._worker.run(self._execute, statement, values)

    def _execute(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            if self._db is None:
                path = self._path or home("sandboxes") / "tasks.db"
                self._db = connect(path, component="tasks", schema=_SCHEMA, version=1)
            return self._db.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError, NewerSchemaError) as error:
            raise StoreError(
                f"the task store cannot be used: {error}",
                hint="Check free space and COMPUTERAGENT_HOME.",
            ) from error


def _row(found: tuple[Any, ...]) -> TaskRow:
    return msgspec.json.decode(found[0], type=TaskRow)
