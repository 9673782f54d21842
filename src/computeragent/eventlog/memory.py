"""The event log of one process: nothing on disk, bounded by `Retention`."""

from __future__ import annotations

from computeragent.errors import NotFoundError, SessionLiveError
from computeragent.eventlog.channel import Channel, Retention
from computeragent.eventlog.summary import SessionSummary
from computeragent.wire.events import Recorded


class MemoryEventLog:
    """Keeps each session's tail in memory; at most `max_sessions` finished sessions, the oldest go first."""

    durable = False

    def __init__(self, retention: Retention | None = None, *, max_sessions: int = 1_000) -> None:
        self._retention = retention or Retention()
        self._max_sessions = max_sessions
        self._channels: dict[str, Channel] = {}
        self._claimed: set[str] = set()

    async def open(self, session_id: str) -> Channel:
        """See `EventLog.open`."""
        if session_id in self._claimed:
            raise SessionLiveError(f"session {session_id} is live already", hint="Use the session that is open.")
        channel = self._channels.pop(session_id, None)
        if channel is None:
            channel = Channel(self, SessionSummary(session_id), retention=self._retention)
        self._channels[session_id] = channel
        self._claimed.add(session_id)
        self._evict()
        return channel

    async def release(self, channel: Channel) -> None:
        """See `EventLog.release`."""
        self._claimed.discard(channel.session_id)

    async def read(self, session_id: str, after: int = -1, limit: int = 512) -> list[Recorded]:
        """See `EventLog.read`."""
        channel = self._channels.get(session_id)
        if channel is None:
            raise NotFoundError(f"session {session_id} not found")
        if after >= channel.newest:
            return []
        stream = channel.stream(after)
        try:
            page = await channel.take(after)
        finally:
            stream.close()
        return (page or [])[:limit]

    async def sessions(self, limit: int = 50) -> list[SessionSummary]:
        """See `EventLog.sessions`."""
        found = sorted((c.summary for c in self._channels.values()), key=lambda s: s.updated, reverse=True)
        return found[:limit]

    async def delete(self, session_id: str) -> None:
        """See `EventLog.delete`."""
        if self._channels.pop(session_id, None) is None:
            raise NotFoundError(f"session {session_id} not found")
        self._claimed.discard(session_id)

    async def close(self) -> None:
        """See `EventLog.close`."""
        self._channels.clear()
        self._claimed.clear()

    # ── Backend ──

    def submit(self, channel: Channel, recorded: Recorded) -> None:
        """Commit at once."""
        channel.committed([recorded])

    async def fetch(self, session_id: str, after: int, limit: int) -> list[Recorded]:
        """Nothing older than the tail exists."""
        del session_id, after, limit
        return []

    async def flush(self, channel: Channel) -> None:
        """All is committed already."""

    def _evict(self) -> None:
        if len(self._channels) <= self._max_sessions:
            return
        for session_id in [s for s in self._channels if s not in self._claimed]:
            del self._channels[session_id]
            if len(self._channels) <= self._max_sessions:
                return
