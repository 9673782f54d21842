"""Copies of sessions that other servers run, kept up to date by one reader for all of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from computeragent.errors import ComputerAgentError, NotFoundError
from computeragent.eventlog.channel import Channel
from computeragent.eventlog.redis_link import RedisLink
from computeragent.eventlog.redis_writer import refusal
from computeragent.eventlog.shared import take_over
from computeragent.logs import Logger
from computeragent.wire.events import Recorded, decode_event

_AT_ONCE = 128
_BLOCK = 1_000  # milliseconds that a read waits in Redis
_CHECK = 2.0
_UNREAD = 5.0  # seconds after which a copy that nobody reads is let go
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_log = Logger("eventlog")


class Followers:
    """Follows live sessions while somebody reads them. Redis may be away for `patience` seconds."""

    def __init__(self, link: RedisLink, prefix: str, *, patience: float) -> None:
        self._link = link
        self._prefix = prefix
        self._patience = patience
        self._channels: dict[str, Channel] = {}
        self._unread: dict[str, float] = {}
        self._missing: set[str] = set()
        self._checked = 0.0
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[Any] | None = None

    def get(self, session_id: str) -> Channel | None:
        """The copy that is here already, if it is alive."""
        channel = self._channels.get(session_id)
        return channel if channel is not None and channel.live and channel.failure is None else None

    def add(self, channel: Channel) -> None:
        """Follow one more."""
        self._channels[channel.session_id] = channel
        self._unread.pop(channel.session_id, None)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow(), name="redis followers")
        elif self._reading is not None:
            self._reading.cancel()  # it waits without this one

    async def close(self) -> None:
        """Stop."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _follow(self) -> None:
        lost_at: float | None = None
        pause = _FIRST_PAUSE
        while self._still_read():
            try:
                await self._read()
                if time.monotonic() - self._checked > _CHECK:
                    self._checked = time.monotonic()
                    await self._check()
                lost_at, pause = None, _FIRST_PAUSE
            except self._link.faults as error:
                now = time.monotonic()
                lost_at = lost_at or now
                if now - lost_at > self._patience:
                    self._break_all(self._link.failure(error))
                    return
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)
            except Exception as error:  # noqa: BLE001 - readers must not wait for ever for what will not come
                _log.error("follower_broke", error=repr(error))
                self._break_all(self._link.failure(error))
                return

    async def _read(self) -> None:
        """Wait for events of any session that is followed, and take them over."""
        streams = {f"{self._prefix}:events:{name}": f"{one.next_id}-0" for name, one in self._channels.items()}
        reading = self._reading = asyncio.ensure_future(self._link.waiting.xread(streams, _AT_ONCE, _BLOCK))
        try:
            await asyncio.wait({reading})
        finally:
            self._reading = None
            reading.cancel()
        if reading.cancelled():
            return
        for key, entries in reading.result() or ():
            channel = self._channels.get(key.decode().rpartition(":")[2])
            if channel is not None:
                take_over(channel, [recorded_of(entry) for entry in entries])

    async def _check(self) -> None:
        """Look whether the sessions are still there, and as far as they were."""
        channels = list(self._channels.values())
        pipeline = self._link.client.pipeline(transaction=False)
        for channel in channels:
            pipeline.hmget(f"{self._prefix}:session:{channel.session_id}", "newest", "earliest", "deleted")
        missing: set[str] = set()
        for channel, (newest, earliest, deleted) in zip(channels, await pipeline.execute(), strict=True):
            if deleted or newest is None:
                missing.add(channel.session_id)
                if channel.session_id in self._missing:  # twice: its last events have had the time to come
                    channel.broke(NotFoundError(f"session {channel.session_id} was deleted"))
            elif int(newest) < channel.newest:
                channel.broke(refusal(channel.session_id, "gap"))
            else:
                channel.kept_from = int(earliest or 0)
        self._missing = missing

    def _still_read(self) -> bool:
        """Let go of what has ended, or has had no reader for a while; whether anything is left."""
        now = time.monotonic()
        for name, channel in list(self._channels.items()):
            if channel.readers:
                self._unread.pop(name, None)
            else:
                self._unread.setdefault(name, now)
            if not channel.live or now - self._unread.get(name, now) > _UNREAD:
                del self._channels[name]
                self._unread.pop(name, None)
        return bool(self._channels)

    def _break_all(self, failure: ComputerAgentError) -> None:
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.broke(failure)


def recorded_of(entry: tuple[bytes, Any]) -> Recorded:
    """An entry of a stream as the event that it is."""
    key, fields = entry
    values = cast("dict[bytes, bytes]", fields) if isinstance(fields, dict) else _paired(fields)
    data = values[b"data"]
    return Recorded(int(key.partition(b"-")[0]) - 1, float(values[b"at"]), decode_event(data), data)


def _paired(fields: list[bytes]) -> dict[bytes, bytes]:
    """Names and values, which a script has one after the other."""
    return dict(zip(fields[::2], fields[1::2], strict=True))
