"""The `mongo` store: all transcripts in a MongoDB database, shared by processes and hosts, without transactions.

``computeragent_transcripts`` has one document per transcript, ``computeragent_batches`` one per batch, numbered without
gaps. A batch is there once the transcript's ``count`` has reached its number; one whose writer died between the two is
counted by the next writer, who finds its number taken. So a batch is whole or not there, whoever is killed, and
entries that were sent twice are told by their uuid when they are loaded. Nothing grows with the length of a session but
the number of documents: MongoDB's bound of 16 MB per document binds neither a session, nor a batch, nor an entry.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
import uuid
import weakref
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakValueDictionary

from computeragent.errors import MissingExtraError, StoreError, ValidationError
from computeragent.settings import setting
from computeragent.stores import options
from computeragent.stores.driver import DriverLoop
from computeragent.stores.entries import Entry, Key, decode, encode, uuid_of
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
Document = dict[str, Any]
_VERSION = 1
_DATABASE = "computeragent_sessions"
_TRANSCRIPTS, _BATCHES, _META = "computeragent_transcripts", "computeragent_batches", "computeragent_meta"
_PART = 8 * 1024 * 1024
"""Bytes of a batch in one document; what is more goes into parts, which are written before it."""
_forked: list[Any] = []  # clients of a parent process: must be neither used nor closed on this side of the fork


class MongoSessionStore:
    """A `SessionStore` in MongoDB or what speaks its protocol, such as DocumentDB. Needs the extra ``mongo``.

    Args:
        url: Such as ``mongodb://host:27017``; default ``COMPUTERAGENT_MONGO_URL``, then ``MONGO_URL``.
        database: Default ``MONGO_DATABASE``, then ``computeragent_sessions``.
        timeout: Seconds for finding the server and for each command.
        max_connections: Connections of this process at most.

    Its collections begin with ``computeragent_`` and are made on first use. It reads from the primary and, unless the
    URL says otherwise, waits until a majority has what it wrote. An append that failed on the way may have been stored:
    send the same batch again, entries that are there already are left out.

    """

    def __init__(
        self,
        url: str | None = None,
        database: str | None = None,
        *,
        timeout: float = 30.0,
        max_connections: int = 4,
    ) -> None:
        address = setting("mongo_url", options.url(url)) or os.environ.get("MONGO_URL")
        if not address:
            raise ValidationError(
                "the mongo store needs the address of a server",
                hint='Set COMPUTERAGENT_MONGO_URL, or {"kind": "mongo", "options": {"url": "mongodb://…"}}.',
            )
        if not address.startswith(("mongodb://", "mongodb+srv://")):
            raise ValidationError(
                "the mongo store's URL must be mongodb://… or mongodb+srv://…", hint="Such as mongodb://host:27017."
            )
        name = database or os.environ.get("MONGO_DATABASE") or _DATABASE
        if re.search(r'[/\\. "$\x00]', name):
            raise ValidationError(f"{name!r} cannot be the name of a database", hint=f"Such as {_DATABASE}.")
        self._url = address
        self._database = name
        self._timeout = options.seconds("timeout", timeout)
        self._most = options.count("max_connections", max_connections)
        self._driver = DriverLoop("mongo-store")
        self._client: Any = None
        self._epoch = 0
        self._opening: asyncio.Lock | None = None
        self._orders: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._running: dict[asyncio.Future[Any], None] = {}

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Add a batch, all of it or nothing; entries whose uuid is there already are left out."""
        where, batch = Key.of(key), encode(entries)
        if batch:
            await self._run(lambda: self._append(where, batch))

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """All entries in the order in which they were appended, or None."""
        where = Key.of(key)
        return await self._run(lambda: self._load(where))

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The sessions of a project, with the time of their last change in milliseconds."""
        return await self._run(lambda: self._list_sessions(project_key))

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """Upstream's summaries, kept; those of sessions that changed since are folded from all their entries."""
        return await self._run(lambda: self._list_session_summaries(project_key))

    async def delete(self, key: SessionKey) -> None:
        """Remove a session with its sub-agents, or one sub-agent's transcript."""
        where = Key.of(key)
        await self._run(lambda: self._delete(where))

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """The sub-agent paths of a session."""
        where = Key.of(key)
        return await self._run(lambda: self._list_subkeys(where))

    async def close(self) -> None:
        """Close the connections. The store opens them again when it is used again."""
        await self._run(self._close)

    # ── On the driver's loop ────────────────────────────────────────────────────────────────────────────────

    async def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        if find_spec("pymongo") is None:
            hint = "pip install 'computer-agent-py[mongo]'"
            raise MissingExtraError("the mongo store needs the [mongo] extra", hint=hint)
        errors = import_module("pymongo.errors")

        async def on_the_loop() -> T:
            self._after_a_fork()
            running = asyncio.ensure_future(work())
            self._running[running] = None
            running.add_done_callback(self._finished)
            # What has begun is done also where nobody waits any more: the driver leaves sockets open that it was
            # connecting when it is cancelled.
            return await asyncio.shield(running)

        try:
            return await self._driver.run(on_the_loop)
        except (errors.PyMongoError, OSError) as error:
            # What cannot be parsed may be quoted, and a URL has a password in it.
            unread = isinstance(error, errors.ConfigurationError | errors.InvalidURI)
            said = "its URL cannot be used" if unread else str(error) or type(error).__name__
            raise StoreError(
                f"the mongo session store failed: {said[:500]}", hint="Check the server and COMPUTERAGENT_MONGO_URL."
            ) from (None if unread else error)

    def _finished(self, running: asyncio.Future[Any]) -> None:
        del self._running[running]
        if not running.cancelled():
            running.exception()  # seen: whoever still waits is told of it

    async def _append(self, where: Key, batch: list[Entry]) -> None:
        order = self._orders.get(transcript := _id(where))
        if order is None:
            # The appends of one process are stored as they were called.
            order = self._orders[transcript] = asyncio.Lock()
        async with order:
            db = await self._open()
            lines = b"\n".join(each.line for each in batch)
            while True:
                head = await self._head(db, where)
                number = head["count"] + 1
                written = await self._insert(db, _prefix(head), number, lines)
                counted = await self._count(db, head, number)
                if written and counted:
                    return
                # Else another writer took the number, and its batch is counted by now; or the transcript was deleted.
                if not counted:
                    await db[_BATCHES].delete_many(_below(_prefix(head)))

    async def _head(self, db: Any, where: Key) -> Document:
        """The transcript's document, made if need be."""
        while True:
            found = await db[_TRANSCRIPTS].find_one({"_id": _id(where)})
            if found is not None and not found["gone"]:
                return found
            if found is not None:
                await self._remove(db, found)
            made: Document = {
                "_id": _id(where),
                "generation": uuid.uuid4().hex,
                "gone": False,
                "count": 0,
                "project": _digest(where.project),
                "session": _digest(where.project, where.session),
                "sessionId": where.session.encode(),
                "subpath": where.subpath.encode(),
                "mtime": 0,
                "folded": 0,
            }
            if await self._unless_there(db[_TRANSCRIPTS].insert_one(made)):
                return made

    async def _insert(self, db: Any, prefix: str, number: int, lines: bytes) -> bool:
        """Write a batch under its number, unless the number is taken. Parts go first, so that it is whole."""
        batches, token = db[_BATCHES], uuid.uuid4().hex
        rest = range(_PART, len(lines), _PART)
        document: Document = {"_id": f"{prefix}/{number:016x}", "lines": lines[:_PART]}
        if rest:
            document["parts"] = token
            for start in rest:
                part = {"_id": f"{prefix}/p{token}/{start:016x}", "lines": lines[start : start + _PART]}
                await batches.insert_one(part)
        if await self._unless_there(batches.insert_one(document)):
            return True
        if rest:
            await batches.delete_many(_below(f"{prefix}/p{token}"))
        return False

    async def _count(self, db: Any, head: Document, number: int) -> bool:
        """Make the batch of this number seen, unless the transcript was deleted."""
        done = await db[_TRANSCRIPTS].update_one(
            {"_id": head["_id"], "generation": head["generation"], "gone": False},
            {"$max": {"count": number, "mtime": time.time_ns() // 1_000_000}},
        )
        return bool(done.matched_count)

    @staticmethod
    async def _unless_there(insertion: Awaitable[Any]) -> bool:
        try:
            await insertion
        except import_module("pymongo.errors").DuplicateKeyError:
            return False
        return True

    async def _load(self, where: Key) -> list[SessionStoreEntry] | None:
        db, before = await self._open(), None
        while True:
            head = await db[_TRANSCRIPTS].find_one({"_id": _id(where), "gone": False})
            if head is None or not head["count"]:
                return None
            entries = await self._entries(db, head)
            if entries is not None:
                return entries
            if head["generation"] == before:
                raise StoreError(
                    f"batches of session {where.session!r} are missing in the mongo store",
                    hint="Restore them from a backup, or delete the session.",
                )
            before = head["generation"]

    async def _entries(self, db: Any, head: Document) -> list[SessionStoreEntry] | None:
        """The entries of a transcript, each uuid once; None if it was deleted meanwhile."""
        prefix, batches, read = _prefix(head), db[_BATCHES], 0
        entries: list[SessionStoreEntry] = []
        known: set[str] = set()
        wanted = {"_id": {"$gte": f"{prefix}/{1:016x}", "$lte": f"{prefix}/{head['count']:016x}"}}
        async for batch in batches.find(wanted).sort("_id", 1):
            read += 1
            lines = bytes(batch["lines"])
            if "parts" in batch:
                parts = batches.find(_below(f"{prefix}/p{batch['parts']}")).sort("_id", 1)
                lines = b"".join([lines, *[bytes(part["lines"]) async for part in parts]])
            for line in lines.split(b"\n"):
                entry = decode(line)
                name = uuid_of(entry)
                if name is None or name not in known:
                    entries.append(entry)
                    known.update([name] if name else [])
        return entries if read == head["count"] else None

    async def _list_sessions(self, project: str) -> list[SessionStoreListEntry]:
        found = await self._heads({"project": _digest(project), "subpath": b""})
        return [{"session_id": head["sessionId"].decode(), "mtime": head["mtime"]} for head in found]

    async def _list_session_summaries(self, project: str) -> list[SessionSummaryEntry]:
        from claude_agent_sdk import fold_session_summary

        db = await self._open()
        summaries: list[SessionSummaryEntry] = []
        for head in await self._heads({"project": _digest(project), "subpath": b""}):
            session = head["sessionId"].decode()
            if head["folded"] == head["count"]:
                kept = {"session_id": session, "mtime": head["mtime"], "data": decode(head["summary"])}
                summaries.append(cast("SessionSummaryEntry", kept))
                continue
            entries = await self._entries(db, head)
            if entries is None:
                continue  # deleted just now
            summary = fold_session_summary(None, {"project_key": project, "session_id": session}, entries)
            summary["mtime"] = head["mtime"]
            await db[_TRANSCRIPTS].update_one(
                {"_id": head["_id"], "generation": head["generation"], "folded": head["folded"]},
                {"$set": {"folded": head["count"], "summary": to_json(summary["data"])}},
            )
            summaries.append(summary)
        return summaries

    async def _delete(self, where: Key) -> None:
        """Mark it first: from then on it is not there, and whoever comes next finishes what this process did not."""
        db = await self._open()
        which = {"_id": _id(where)} if where.subpath else {"session": _digest(*where[:2])}
        await db[_TRANSCRIPTS].update_many(which, {"$set": {"gone": True}})
        for head in await db[_TRANSCRIPTS].find({**which, "gone": True}).to_list():
            await self._remove(db, head)

    async def _remove(self, db: Any, head: Document) -> None:
        """Remove a transcript that is marked, and not one that was begun in its place."""
        await db[_BATCHES].delete_many(_below(_prefix(head)))
        await db[_TRANSCRIPTS].delete_one({"_id": head["_id"], "generation": head["generation"]})

    async def _list_subkeys(self, where: Key) -> list[str]:
        found = await self._heads({"session": _digest(where.project, where.session), "subpath": {"$ne": b""}})
        return sorted(head["subpath"].decode() for head in found)

    async def _heads(self, query: Document) -> list[Document]:
        db = await self._open()
        return await db[_TRANSCRIPTS].find({**query, "gone": False, "count": {"$gt": 0}}).to_list()

    # ── The connections ─────────────────────────────────────────────────────────────────────────────────────

    def _after_a_fork(self) -> None:
        if self._epoch != self._driver.epoch:
            if self._client is not None:
                _forked.append(self._client)
            self._client, self._epoch, self._opening = None, self._driver.epoch, asyncio.Lock()
            self._orders, self._running = WeakValueDictionary(), {}

    async def _open(self) -> Any:
        pymongo: Any = import_module("pymongo")
        assert self._opening is not None
        async with self._opening:
            if self._client is None:
                milliseconds = int(self._timeout * 1000)
                client = pymongo.AsyncMongoClient(
                    self._url,
                    **({} if re.search(r"[?&]w=", self._url) else {"w": "majority"}),
                    retryWrites=False,  # servers that speak the protocol do not all have them
                    serverSelectionTimeoutMS=milliseconds,
                    connectTimeoutMS=milliseconds,
                    socketTimeoutMS=milliseconds,
                    maxPoolSize=self._most,
                    appname="computeragent",
                )
                try:
                    await _prepare(client[self._database])
                except BaseException:
                    await client.close()
                    raise
                self._client = client
                weakref.finalize(self, _abandon, client, asyncio.get_running_loop(), os.getpid()).atexit = False
        # A URL may prefer secondaries, which lag behind what was just written.
        return self._client.get_database(self._database, read_preference=pymongo.ReadPreference.PRIMARY)

    async def _close(self) -> None:
        begun = list(self._running)
        if before := begun[: begun.index(cast("Any", asyncio.current_task()))]:
            await asyncio.wait(before)
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _abandon(client: Any, loop: asyncio.AbstractEventLoop, owner: int) -> None:
    """Close what a store that is gone has left open."""
    if owner == os.getpid() and loop.is_running():
        asyncio.run_coroutine_threadsafe(client.close(), loop)
    else:
        _forked.append(client)


async def _prepare(db: Any) -> None:
    await db[_TRANSCRIPTS].create_index("project")
    await db[_TRANSCRIPTS].create_index("session")
    await db[_META].update_one({"_id": "store"}, {"$setOnInsert": {"version": _VERSION}}, upsert=True)
    kept = await db[_META].find_one({"_id": "store"})
    if kept["version"] > _VERSION:
        raise StoreError(
            f"the mongo store has schema {kept['version']}, newer than this version's {_VERSION}",
            hint="Upgrade computer-agent-py, or choose another database.",
        )


def _below(prefix: str) -> Document:
    """Everything whose id begins with this and a slash."""
    return {"_id": {"$gt": f"{prefix}/", "$lt": f"{prefix}0"}}  # "0" comes right after "/"


def _prefix(head: Document) -> str:
    """What the ids of a transcript's batches begin with. One that is deleted and begun again has another."""
    return f"{head['_id']}/{head['generation']}"


def _id(where: Key) -> str:
    return _digest(*where)


def _digest(*parts: str) -> str:
    """A name of any length as 40 characters; parts cannot run into each other."""
    joined = b"".join(b"%d:%s" % (len(part.encode()), part.encode()) for part in parts)
    return hashlib.sha256(joined).hexdigest()[:40]
