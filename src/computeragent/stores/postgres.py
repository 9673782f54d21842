"""The `postgres` store: all transcripts in a PostgreSQL database, shared by processes and hosts.

Names and entries are kept as bytes, because PostgreSQL's texts have no NUL, and what models say does. A transcript is
found by a digest of its key, so that keys of any length have an index.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

from computeragent.errors import MissingExtraError, StoreError, ValidationError
from computeragent.settings import setting
from computeragent.stores import options
from computeragent.stores.driver import DriverLoop
from computeragent.stores.entries import Entry, Key, decode, encode
from computeragent.wire.encoding import to_json

if TYPE_CHECKING:
    from claude_agent_sdk.types import (
        SessionKey,
        SessionListSubkeysKey,
        SessionStoreEntry,
        SessionStoreListEntry,
        SessionSummaryEntry,
    )

_VERSION = 1
_SCHEMA_LOCK = 0x63615F73  # two processes that start at once must not both create the tables
_SCHEMA = """
CREATE TABLE IF NOT EXISTS computeragent_meta (component TEXT PRIMARY KEY, version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS computeragent_transcripts (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  digest BYTEA NOT NULL UNIQUE,
  project_digest BYTEA NOT NULL,
  session_digest BYTEA NOT NULL,
  session_id BYTEA NOT NULL,
  subpath BYTEA NOT NULL,
  mtime BIGINT NOT NULL,
  folded BIGINT NOT NULL DEFAULT 0,
  summary BYTEA
);
CREATE INDEX IF NOT EXISTS computeragent_transcripts_project ON computeragent_transcripts (project_digest);
CREATE INDEX IF NOT EXISTS computeragent_transcripts_session ON computeragent_transcripts (session_digest);
CREATE TABLE IF NOT EXISTS computeragent_entries (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  transcript BIGINT NOT NULL REFERENCES computeragent_transcripts (id) ON DELETE CASCADE,
  uuid_digest BYTEA,
  entry BYTEA NOT NULL
);
CREATE INDEX IF NOT EXISTS computeragent_entries_order ON computeragent_entries (transcript, id);
CREATE UNIQUE INDEX IF NOT EXISTS computeragent_entries_uuid
  ON computeragent_entries (transcript, uuid_digest) WHERE uuid_digest IS NOT NULL;
"""
_FIND = "SELECT id FROM computeragent_transcripts WHERE digest = $1"


class PostgresSessionStore:
    """A `SessionStore` in PostgreSQL. Needs the extra ``postgres``.

    Args:
        url: Such as ``postgresql://user@host/database``; default ``COMPUTERAGENT_POSTGRES_URL``.
        timeout: Seconds for connecting and for each statement.
        max_connections: Connections of this process at most.

    Its tables begin with ``computeragent_`` and are made on first use.

    """

    def __init__(self, url: str | None = None, *, timeout: float = 30.0, max_connections: int = 4) -> None:
        self._url = setting("postgres_url", options.url(url))
        if self._url is None:
            raise ValidationError(
                "the postgres store needs the address of a database",
                hint='Set COMPUTERAGENT_POSTGRES_URL, or {"kind": "postgres", "options": {"url": "postgresql://…"}}.',
            )
        self._timeout = options.seconds("timeout", timeout)
        self._most = options.count("max_connections", max_connections)
        self._driver = DriverLoop("postgres-store")
        self._pool: Any = None
        self._epoch = 0
        self._opening: asyncio.Lock | None = None
        self._orders: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Add a batch, all of it or nothing; entries whose uuid is there already are left out."""
        where, batch = Key.of(key), encode(entries)
        if batch:
            await self._run(self._append(where, batch))

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """All entries in the order in which they were appended, or None."""
        return await self._run(self._load(Key.of(key)))

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The sessions of a project, with the time of their last change in milliseconds."""
        return await self._run(self._list_sessions(project_key))

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """Upstream's summaries, folded from the entries that came since the last call and kept."""
        return await self._run(self._list_session_summaries(project_key))

    async def delete(self, key: SessionKey) -> None:
        """Remove a session with its sub-agents, or one sub-agent's transcript."""
        await self._run(self._delete(Key.of(key)))

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """The sub-agent paths of a session."""
        return await self._run(self._list_subkeys(Key.of(key)))

    async def close(self) -> None:
        """Close the connections. The store opens them again when it is used again."""
        await self._run(self._close())

    # ── On the driver's loop ────────────────────────────────────────────────────────────────────────────────

    async def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            import asyncpg  # pyright: ignore[reportMissingTypeStubs]
        except ImportError:
            work.close()
            hint = "pip install 'computer-agent-py[postgres]'"
            raise MissingExtraError("the postgres store needs the [postgres] extra", hint=hint) from None
        try:
            return await self._driver.run(lambda: work)
        except (TimeoutError, asyncpg.PostgresError, *self._broken()) as error:
            said = str(error) or type(error).__name__
            raise StoreError(
                f"the postgres session store failed: {said}", hint="Check the database and COMPUTERAGENT_POSTGRES_URL."
            ) from error

    async def _append(self, where: Key, batch: list[Entry]) -> None:
        await self._open()  # after a fork, what keeps the order begins anew
        now, digest = time.time_ns() // 1_000_000, _digest(*where)
        order = self._orders.get(digest)
        if order is None:
            order = self._orders[digest] = asyncio.Lock()  # the appends of one process are stored as they were called
        async with order, self._transaction() as connection:
            # The row's lock orders the batches of a transcript, so that ids go up as batches are committed.
            transcript = await connection.fetchval(
                "INSERT INTO computeragent_transcripts"
                " (digest, project_digest, session_digest, session_id, subpath, mtime)"
                " VALUES ($1, $2, $3, $4, $5, $6)"
                " ON CONFLICT (digest) DO UPDATE SET mtime = greatest(computeragent_transcripts.mtime, excluded.mtime)"
                " RETURNING id",
                *(digest, _digest(where.project), _digest(where.project, where.session)),
                *(where.session.encode(), where.subpath.encode(), now),
            )
            await connection.executemany(
                "INSERT INTO computeragent_entries (transcript, uuid_digest, entry) VALUES ($1, $2, $3)"
                " ON CONFLICT DO NOTHING",
                [(transcript, None if each.uuid is None else _digest(each.uuid), each.line) for each in batch],
            )

    async def _load(self, where: Key) -> list[SessionStoreEntry] | None:
        rows = await self._fetch(
            f"SELECT entry FROM computeragent_entries WHERE transcript = ({_FIND}) ORDER BY id",  # noqa: S608
            _digest(*where),
        )
        return [decode(row["entry"]) for row in rows] or None

    async def _list_sessions(self, project: str) -> list[SessionStoreListEntry]:
        rows = await self._fetch(
            "SELECT session_id, mtime FROM computeragent_transcripts WHERE project_digest = $1 AND subpath = ''",
            _digest(project),
        )
        return [{"session_id": row["session_id"].decode(), "mtime": row["mtime"]} for row in rows]

    async def _list_session_summaries(self, project: str) -> list[SessionSummaryEntry]:
        from claude_agent_sdk import fold_session_summary

        summaries: list[SessionSummaryEntry] = []
        async with self._transaction() as connection:
            rows = await connection.fetch(
                "SELECT id, session_id, mtime, folded, summary FROM computeragent_transcripts"
                " WHERE project_digest = $1 AND subpath = '' ORDER BY id FOR UPDATE",
                _digest(project),
            )
            for row in rows:
                session = row["session_id"].decode()
                new = await connection.fetch(
                    "SELECT id, entry FROM computeragent_entries WHERE transcript = $1 AND id > $2 ORDER BY id",
                    *(row["id"], row["folded"]),
                )
                kept: Any = decode(row["summary"]) if row["summary"] else {}
                summary = cast("SessionSummaryEntry", {"session_id": session, "mtime": row["mtime"], "data": kept})
                if new:
                    entries: list[SessionStoreEntry] = [decode(each["entry"]) for each in new]
                    summary = fold_session_summary(summary, {"project_key": project, "session_id": session}, entries)
                    await connection.execute(
                        "UPDATE computeragent_transcripts SET folded = $1, summary = $2 WHERE id = $3",
                        *(new[-1]["id"], to_json(summary["data"]), row["id"]),
                    )
                summaries.append(summary)
        return summaries

    async def _delete(self, where: Key) -> None:
        column, digest = ("digest", _digest(*where)) if where.subpath else ("session_digest", _digest(*where[:2]))
        async with self._transaction() as connection:
            await connection.execute(f"DELETE FROM computeragent_transcripts WHERE {column} = $1", digest)  # noqa: S608

    async def _list_subkeys(self, where: Key) -> list[str]:
        rows = await self._fetch(
            "SELECT subpath FROM computeragent_transcripts WHERE session_digest = $1 AND subpath != ''"
            " ORDER BY subpath",
            _digest(*where[:2]),
        )
        return [row["subpath"].decode() for row in rows]

    # ── The connections ─────────────────────────────────────────────────────────────────────────────────────

    async def _fetch(self, query: str, *arguments: object) -> list[Any]:
        async with self._transaction() as connection:
            return await connection.fetch(query, *arguments)

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[Any]:
        """A connection in a transaction. One that broke while it was idle is only noticed now, and replaced."""
        pool = await self._open()
        left = self._most
        while True:
            connection = await pool.acquire()
            transaction = connection.transaction()
            try:
                await transaction.start()
                break
            except self._broken():
                connection.terminate()
                await pool.release(connection)
                left -= 1
                if left < 0:
                    raise
        try:
            async with _ended(transaction):
                yield connection
        finally:
            await pool.release(connection)

    @staticmethod
    def _broken() -> tuple[type[Exception], ...]:
        """What the driver raises on connections that are gone."""
        import asyncpg  # pyright: ignore[reportMissingTypeStubs]

        library: Any = asyncpg
        return (
            OSError,
            library.InterfaceError,
            library.InternalClientError,
            library.PostgresConnectionError,
            library.AdminShutdownError,
        )

    async def _open(self) -> Any:
        if self._epoch != self._driver.epoch:
            self._pool, self._epoch, self._opening = None, self._driver.epoch, asyncio.Lock()
            self._orders = WeakValueDictionary()
        assert self._opening is not None
        async with self._opening:
            if self._pool is None:
                import asyncpg  # pyright: ignore[reportMissingTypeStubs]

                library: Any = asyncpg
                pool = await library.create_pool(
                    self._url, min_size=0, max_size=self._most, timeout=self._timeout, command_timeout=self._timeout
                )
                try:
                    await _make_tables(pool)
                except BaseException:
                    await pool.close()
                    raise
                self._pool = pool
            return self._pool

    async def _close(self) -> None:
        if self._pool is not None and self._epoch == self._driver.epoch:
            await self._pool.close()
        self._pool = None


@asynccontextmanager
async def _ended(transaction: Any) -> AsyncGenerator[None]:
    """Commit a started transaction, or take it back."""
    try:
        yield
    except BaseException:
        await transaction.rollback()
        raise
    await transaction.commit()


async def _make_tables(pool: Any) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
        await connection.execute(_SCHEMA)
        version = await connection.fetchval(
            "INSERT INTO computeragent_meta (component, version) VALUES ('store', $1)"
            " ON CONFLICT (component) DO UPDATE SET version = computeragent_meta.version RETURNING version",
            _VERSION,
        )
        if version > _VERSION:
            raise StoreError(
                f"the postgres store has schema {version}, newer than this version's {_VERSION}",
                hint="Upgrade computer-agent-py, or choose another database.",
            )


def _digest(*parts: str) -> bytes:
    """A name of any length as 32 bytes; parts cannot run into each other."""
    return hashlib.sha256(b"".join(b"%d:%s" % (len(part.encode()), part.encode()) for part in parts)).digest()
