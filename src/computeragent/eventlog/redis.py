"""The shared event log: sessions in Redis or Valkey, each written by one server, read by all.

A server's claims are worth as much as its lease, one key that it renews and Redis lets expire. A claim
bumps the session's generation; events of an older one are refused, so a server that was taken for dead writes no more.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Self

import msgspec

from computeragent.errors import (
    EventLogError,
    EventLogUnavailableError,
    EventsGoneError,
    NotFoundError,
    SessionLiveError,
)
from computeragent.eventlog import redis_scripts as scripts
from computeragent.eventlog.channel import Channel, Retention
from computeragent.eventlog.owner import Owner
from computeragent.eventlog.redis_followers import Followers, recorded_of
from computeragent.eventlog.redis_lease import Lease
from computeragent.eventlog.redis_link import RedisLink
from computeragent.eventlog.redis_writer import RedisWriter, refusal
from computeragent.eventlog.shared import Entry, take_over
from computeragent.eventlog.summary import SessionSummary
from computeragent.wire.events import Recorded

LEASE = 10.0
"""Seconds that a server may be silent before its sessions are free."""
PATIENCE = 30.0
"""Seconds that Redis may be away before runs and readers break off."""
_TAIL = Retention(max_events=256, max_age=30.0)
_LAST_READERS = 30_000  # milliseconds that a deleted session stays for who reads it
_RESERVED = 3_600_000
_ANSWERS_KEPT = 24 * 3_600_000
_PAUSE = 0.1
_SCHEMA_VERSION = 1  # part of every key: versions that differ do not see each other's sessions
_CATCH_UP = 512

_summaries = msgspec.json.Decoder(SessionSummary)


class RedisEventLog:
    """An event log in Redis (6.2 or newer) or Valkey, which servers share; implements `SharedEventLog`.

    Args:
        url: ``redis://[user:password@]host:6379/0``, ``rediss://…`` or ``unix:///path``.
        lease: Seconds that this process may be silent before its sessions are free for others.
        prefix: What all its keys begin with.
        max_events: Events kept per session, apart from the current turn's; default all.
        keep_finished: Seconds that a session is kept after its last run; default until it is deleted.
        retention: What of it is held in memory as well; above `max_bytes` writers wait.
        patience: Seconds that Redis may be away before runs and readers break off.

    Events are safe as far as Redis is: turn its persistence on. Belongs to one event loop. Raises `ValidationError` for
    a URL that is none, `MissingExtraError` without redis-py; its methods `EventLogUnavailableError` without Redis.

    """

    durable = True

    def __init__(
        self,
        url: str,
        *,
        lease: float = LEASE,
        prefix: str = "computeragent",
        max_events: int | None = None,
        keep_finished: float | None = None,
        retention: Retention = _TAIL,
        patience: float = PATIENCE,
    ) -> None:
        self._owner = Owner()
        self._link = RedisLink(url)
        self._prefix = prefix = f"{prefix}:{_SCHEMA_VERSION}"
        self._keep_finished = int((keep_finished or 0) * 1000)
        self._retention = retention
        self._patience = patience
        self._held: dict[str, Channel | None] = {}
        self._lease = Lease(self._link, prefix, self.mark, lease, self._check_claims)
        self._writer = RedisWriter(self._link, prefix, self.mark, max_events=max_events, patience=patience)
        self._followers = Followers(self._link, prefix, patience=patience)
        self._closed = False

    @property
    def mark(self) -> str:
        """See `SharedEventLog.mark`."""
        return str(self._owner)

    @property
    def lease(self) -> float:
        """See `SharedEventLog.lease`."""
        return self._lease.seconds

    def reached_at(self, address: str) -> None:
        """See `SharedEventLog.reached_at`."""
        self._lease.address = address

    async def ping(self) -> None:
        """Return when Redis answers. Raises `EventLogUnavailableError`."""
        await self._link.command("ping")

    # ── EventLog ──

    async def open(self, session_id: str) -> Channel:
        """See `EventLog.open`. A run that its process left open is reported by `Channel.live`."""
        self._require_open()
        if session_id in self._held:
            raise _live(session_id)
        self._held[session_id] = None
        claiming = asyncio.ensure_future(self._claim(session_id))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # Redis may have been asked already; nobody else will give it back.
            claiming.add_done_callback(self._give_back)
            raise

    async def _claim(self, session_id: str) -> Channel:
        try:
            await self._lease.hold()
            answer = await self._run(scripts.CLAIM, session_id, self.mark)
            if answer[0] != b"ok":
                raise _live(session_id)
            generation, newest, run_start, kept_from = (int(value) for value in answer[1:5])
            channel = self._held[session_id] = Channel(
                self,
                _summary(session_id, answer[5]),
                retention=self._retention,
                newest=newest,
                run_start=run_start,
                generation=generation,
                kept_from=kept_from,
            )
        except BaseException:
            del self._held[session_id]
            raise
        return channel

    def _give_back(self, claiming: asyncio.Task[Channel]) -> None:
        if not claiming.cancelled() and claiming.exception() is None:
            self._background = asyncio.ensure_future(self.release(claiming.result()))

    async def release(self, channel: Channel) -> None:
        """See `EventLog.release`. Tried again while Redis is away, for as long as the patience."""
        self._require_open()
        try:
            await self._writer.flush(channel)
            give_back = [channel.session_id, self.mark, channel.generation, self._keep_finished]
            await self._insist(lambda: self._run(scripts.RELEASE, *give_back), once=channel.failure is not None)
        finally:
            self._held.pop(channel.session_id, None)
            self._writer.forget(channel)

    async def read(self, session_id: str, after: int = -1, limit: int = 512) -> list[Recorded]:
        """See `EventLog.read`. Raises `EventsGoneError` for what is no longer kept."""
        entry = await self.look_up(session_id)
        if entry is None or entry.newest < 0:
            raise NotFoundError(f"session {session_id} not found")
        found = await self.fetch(session_id, after, limit)
        if found and found[0].id > after + 1:
            raise EventsGoneError(after, found[0].id)
        return found

    async def sessions(self, limit: int = 50, offset: int = 0) -> list[SessionSummary]:
        """See `EventLog.sessions`; `offset` gives the next page."""
        found, _ = await self._listed(f"{self._prefix}:sessions", limit, offset)
        return [entry.summary for entry in found]

    async def close(self) -> None:
        """See `EventLog.close`. What this log still holds is free at once."""
        if self._closed:
            return
        self._closed = True
        await self._writer.finish()
        await self._followers.close()
        await self._lease.give_up()
        await self._link.close()
        self._owner.retire()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ── Backend ──

    def submit(self, channel: Channel, recorded: Recorded) -> None:
        """Queue the event for the next round."""
        self._require_open()
        self._writer.submit(channel, recorded)

    async def fetch(self, session_id: str, after: int, limit: int) -> list[Recorded]:
        """Read committed events back; empty for a session that is not there."""
        entries = await self._insist(lambda: self._run(scripts.READ, session_id, after, limit))
        return [recorded_of(entry) for entry in entries]

    async def flush(self, channel: Channel) -> None:
        """Wait until everything appended is committed and announced."""
        await self._writer.flush(channel)

    # ── SharedEventLog ──

    async def reserve(self, session_id: str, principal: str) -> bool:
        """See `SharedEventLog.reserve`."""
        return bool(await self._run(scripts.RESERVE, session_id, principal, _RESERVED))

    async def unreserve(self, session_id: str) -> None:
        """See `SharedEventLog.unreserve`."""
        await self._run(scripts.UNRESERVE, session_id)

    async def describe(self, session_id: str, principal: str, about: bytes) -> None:
        """See `SharedEventLog.describe`."""
        await self._run(scripts.DESCRIBE, session_id, self.mark, principal, about, self._list_of(principal))

    async def look_up(self, session_id: str) -> Entry | None:
        """See `SharedEventLog.look_up`."""
        return _entry(session_id, await self._run(scripts.LOOK_UP, session_id))

    async def listing(self, principal: str, limit: int, offset: int = 0) -> tuple[list[Entry], bool]:
        """See `SharedEventLog.listing`."""
        return await self._listed(self._list_of(principal), limit, offset)

    async def follow(self, session_id: str) -> Channel:
        """See `SharedEventLog.follow`."""
        entry = await self.look_up(session_id)
        self._require_open()  # closed meanwhile, nothing is followed any more
        if entry is None:
            raise NotFoundError(f"session {session_id} not found")
        channel = self._followers.get(session_id)  # looked for after the last await: there is never a second one
        if channel is None:
            channel = Channel(
                self,
                entry.summary,
                retention=self._retention,
                newest=entry.newest,
                run_start=entry.run_start,
                generation=entry.generation,
            )
            if channel.live:
                self._followers.add(channel)
        channel.kept_from = entry.kept_from
        while channel.live and channel.newest < entry.newest:  # whoever asks may have been told of these elsewhere
            page = await self.fetch(session_id, channel.newest, _CATCH_UP)
            if not page:
                break  # deleted meanwhile: the followers notice
            take_over(channel, page)
        return channel

    async def orphans(self) -> list[str]:
        """See `SharedEventLog.orphans`."""
        dead, own = await self._run(scripts.ORPHANS, self.mark)
        return [*_names(dead), *(name for name in _names(own) if name not in self._held)]

    async def delete(self, session_id: str) -> None:
        """See `SharedEventLog.delete`."""
        if not await self._run(scripts.DELETE, session_id, _LAST_READERS):
            raise NotFoundError(f"session {session_id} not found")

    async def answer(self, place: str) -> bytes | None:
        """See `SharedEventLog.answer`."""
        await self._lease.hold()
        return await self._run(scripts.ANSWER, _digest(place), self.mark, _ANSWERS_KEPT)

    async def keep_answer(self, place: str, answer: bytes | None) -> None:
        """See `SharedEventLog.keep_answer`."""
        key = f"{self._prefix}:answer:{_digest(place)}"
        if answer is None:
            await self._link.command("delete", key)
        else:
            await self._link.command("psetex", key, _ANSWERS_KEPT, answer)

    async def peer_secret(self) -> bytes:
        """See `SharedEventLog.peer_secret`: made by the first who asks, and kept in Redis."""
        key = f"{self._prefix}:peer-secret"
        found: bytes | None = await self._link.command("get", key)
        if found is None:
            await self._link.command("setnx", key, secrets.token_urlsafe(32))
            found = await self._link.command("get", key)
        return found or b""

    # ── Inside ──

    async def _check_claims(self) -> None:
        """The lease had run out: what others have taken over meanwhile ends here."""
        held = [channel for channel in self._held.values() if channel is not None and channel.failure is None]
        entries = await self._look_up_all([channel.session_id for channel in held])
        for channel, entry in zip(held, entries, strict=True):
            if entry is None:
                channel.broke(refusal(channel.session_id, "gone"))
            elif entry.generation != channel.generation:
                channel.broke(refusal(channel.session_id, "stale"))

    def _list_of(self, principal: str) -> str:
        return f"{self._prefix}:of:{_digest(principal)}"

    async def _listed(self, key: str, limit: int, offset: int) -> tuple[list[Entry], bool]:
        """A page of a list; what has expired is taken off it, and the page is read again."""
        while True:
            names = _names(await self._link.command("zrevrange", key, offset, offset + limit))
            entries = await self._look_up_all(names)
            gone = [name for name, entry in zip(names, entries, strict=True) if entry is None]
            if not gone:
                return [entry for entry in entries if entry is not None][:limit], len(names) > limit
            await self._link.command("zrem", key, *gone)

    async def _look_up_all(self, names: list[str]) -> list[Entry | None]:
        try:
            found = await self._link.run_each(scripts.LOOK_UP, [(self._prefix, name) for name in names])
        except self._link.faults as error:
            raise self._link.failure(error) from error
        fault = next((each for each in found if isinstance(each, Exception)), None)
        if fault is not None:
            raise self._link.failure(fault)
        return [_entry(name, values) for name, values in zip(names, found, strict=True)]

    async def _run(self, script: str, *arguments: Any) -> Any:
        self._require_open()
        return await self._link.run(script, self._prefix, *arguments)

    async def _insist(self, do: Callable[[], Awaitable[Any]], *, once: bool = False) -> Any:
        """Do it, trying again while Redis is away."""
        deadline = asyncio.get_running_loop().time() + (0 if once else self._patience)
        while True:
            try:
                return await do()
            except EventLogUnavailableError:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
            await asyncio.sleep(_PAUSE)

    def _require_open(self) -> None:
        if self._closed:
            raise EventLogError("the event log is closed", hint="Open a new one.")


def _entry(session_id: str, values: list[bytes] | None) -> Entry | None:
    if values is None:
        return None
    principal, about, summary, newest, run_start, kept_from, generation, pending, owner, ran_on, held, address = values
    return Entry(
        session_id=session_id,
        principal=principal.decode(),
        about=about,
        summary=_summary(session_id, summary),
        newest=int(newest),
        run_start=int(run_start),
        kept_from=int(kept_from),
        generation=int(generation),
        pending=msgspec.json.decode(pending, type=list[str]),
        held=bool(owner),
        held_alive=bool(held),
        ran_on=ran_on.decode(),
        address=address.decode(),
    )


def _summary(session_id: str, data: bytes) -> SessionSummary:
    return _summaries.decode(data) if data else SessionSummary(session_id)


def _names(values: list[bytes]) -> list[str]:
    return [value.decode() for value in values]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _live(session_id: str) -> SessionLiveError:
    return SessionLiveError(
        f"session {session_id} is live in another harness", hint="Wait until it ends, or choose another session id."
    )
