"""What a log that several servers share tells of a session, and does for them. `RedisEventLog` is one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from msgspec import Struct

from computeragent.errors import EventsGoneError
from computeragent.eventlog.channel import Channel, EventLog
from computeragent.eventlog.summary import SessionSummary
from computeragent.wire.events import Recorded


class Entry(Struct, frozen=True, kw_only=True):
    """A session as the shared log knows it.

    `principal` owns it; `about` is what the server that ran it last said of it (JSON, empty before that). `held` says
    that a server has it claimed, `held_alive` that this server's lease has not run out. `ran_on` marks the server that
    ran it last, `address` is where that one is reached: empty when it is gone, or cannot be reached.
    """

    session_id: str
    principal: str
    about: bytes
    summary: SessionSummary
    newest: int
    run_start: int
    kept_from: int
    generation: int
    pending: list[str]
    held: bool
    held_alive: bool
    ran_on: str
    address: str

    @property
    def abandoned(self) -> bool:
        """Whether a run is open whose server is gone: it wants an end."""
        return self.summary.live and not self.held_alive


@runtime_checkable
class SharedEventLog(EventLog, Protocol):
    """An event log that several servers write to, each its own sessions, and all of them read."""

    mark: str
    """This server's, in `Entry.ran_on`."""
    lease: float
    """Seconds that a server may be silent before its sessions are free."""

    def reached_at(self, address: str) -> None:
        """Say where the other servers reach this one; before it opens anything."""
        ...

    async def reserve(self, session_id: str, principal: str) -> bool:
        """Make a new session somebody's; False when it is somebody else's, or has no owner and a past."""
        ...

    async def unreserve(self, session_id: str) -> None:
        """Take a reservation back that nothing came of."""
        ...

    async def describe(self, session_id: str, principal: str, about: bytes) -> None:
        """Say what others need to know of a session that this server has opened for a principal, and list it."""
        ...

    async def look_up(self, session_id: str) -> Entry | None:
        """A session, or None when there is none."""
        ...

    async def listing(self, principal: str, limit: int, offset: int = 0) -> tuple[list[Entry], bool]:
        """A principal's sessions, opened last first, and whether there are more."""
        ...

    async def follow(self, session_id: str) -> Channel:
        """A copy of a session that is kept up to date as long as somebody reads it. Raises `NotFoundError`."""
        ...

    async def orphans(self) -> list[str]:
        """Sessions that are claimed, or whose run is open, although nobody holds them any more."""
        ...

    async def delete(self, session_id: str) -> None:
        """Forget a session. Raises `NotFoundError`."""
        ...

    async def answer(self, place: str) -> bytes | None:
        """The answer kept for an idempotency key; empty while somebody works on it; None: the caller is to."""
        ...

    async def keep_answer(self, place: str, answer: bytes | None) -> None:
        """Keep the answer that was found, or with None let the next one try."""
        ...

    async def peer_secret(self) -> bytes:
        """A secret that all servers on this log have, and nobody else."""
        ...


def take_over(channel: Channel, page: list[Recorded]) -> None:
    """Add what a copy does not have yet."""
    for recorded in page:
        if recorded.id > channel.next_id:
            channel.broke(EventsGoneError(channel.newest, recorded.id))
            return
        if recorded.id == channel.next_id:
            channel.replicate(recorded)
