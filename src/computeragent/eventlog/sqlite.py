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
from typing import Any, Self

from computeragent.errors import EventLogError, NotFoundError
from computeragent.eventlog import tables
from computeragent.eventlog.channel import Channel, Retention
from computeragent.eventlog.owner import Owner
from computeragent.eventlog.summary import SessionSummary
from computeragent.settings import home
from computeragent.wire.events import Recorded, decode_event

TAIL = Retention(max_events=256, max_age=30.0)

Job = Callable[[sqlite3.Connection | EventLogError], None]


class SqliteEventLog:
    """An event log in a SQLite file (default: ``sessions.db`` under `COMPUTERAGENT_HOME`), mode 0600."""

    durable = True

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path else home() / "sessions.db"
        self._jobs: queue.SimpleQueue[tables.Append | Job | None] = queue.SimpleQueue()
        self._owner = Owner()
        self._loops: dict[str, asyncio.AbstractEventLoop] = {}
        self._held: set[str] = set()  # claimed through this log; touched by the writer thread alone
        self._thread: threading.Thread | None = None
        self._closed = False

    async def open(self, session_id: str) -> Channel:
        """See `EventLog.open`. A run that its process left open is reported by `Channel.live`."""
        claimed: list[Channel] = []

        def claim(connection: sqlite3.Connection) -> Channel:
            newest, run_start, generation, summary = tables.claim(session_id, self._owner, self._held, connection)
            self._held.add(session_id)
            claimed.append(
                Channel(self, summary, retention=TAIL, newest=newest, run_start=run_start, generation=generation)
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
        tables.release(channel.session_id, channel.generation, connection)

    async def read(self, session_id: str, after: int = -1, limit: int = 512) -> list[Recorded]:
        """See `EventLog.read`."""
        found = await self.fetch(session_id, after, limit)
        if not found and not await self._do(partial(tables.exists, session_id)):
            raise NotFoundError(f"session {session_id} not found")
        return found

    async def sessions(self, limit: int = 50) -> list[SessionSummary]:
        """See `EventLog.sessions`."""
        return await self._do(partial(tables.listing, limit))

    async def orphans(self) -> list[str]:
        """Sessions whose run is open although their process is gone."""
        return await self._do(tables.orphans)

    async def delete(self, session_id: str) -> None:
        """Forget a session. Raises `NotFoundError`."""
        if not await self._do(partial(tables.delete, session_id)):
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
        self._jobs.put(tables.Append(channel, recorded, channel.summary, channel.run_start))

    async def fetch(self, session_id: str, after: int, limit: int) -> list[Recorded]:
        """Read committed events back."""
        rows = await self._do(partial(tables.fetch, session_id, after, limit))
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
            connection = tables.open_file(self.path)
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
        events: list[tables.Append] = []
        while True:
            if isinstance(item, tables.Append):
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

    def _commit(self, connection: sqlite3.Connection, events: list[tables.Append]) -> None:
        if not events:
            return
        batches: dict[Channel, list[tables.Append]] = {}
        for item in events:
            batches.setdefault(item.channel, []).append(item)
        stale: list[Channel] = []
        try:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for channel, batch in batches.items():
                    if not tables.write(connection, batch):
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
            if isinstance(item, tables.Append):
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
