"""A conversation: the session behind a chain of responses, kept open between them with its screen as it was left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from computeragent.harness.session import LocalSession
from computeragent.logs import Logger
from computeragent.protocol_types import SessionRequest

Open = Callable[[SessionRequest], Awaitable[LocalSession]]
MakeRoom = Callable[[], Awaitable[None]]
KEEP = 120.0
"""Seconds that a session stays open for the next response of its conversation."""
_log = Logger("responses")


class Conversation:
    """A session that opens with its first response, and again where a later one needs another or comes too late.

    `make_room` is awaited before a session opens and when it rests: others may want its computer, or it theirs.
    """

    def __init__(self, session_id: str, open_session: Open, make_room: MakeRoom, *, keep: float = KEEP) -> None:
        self.session_id = session_id
        self.resting = False
        """Whether its session is open and no response of it is under way."""
        self.under_way = False
        """Whether a response of it is under way."""
        self.ends: set[str] = set()
        """The responses that it may go on from: the newest that came to an end of its own, and what failed since."""
        self._open = open_session
        self._make_room = make_room
        self._keep = keep
        self._opening: SessionRequest | None = None
        self._session: LocalSession | None = None
        self._timer: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def session(self, opening: SessionRequest) -> LocalSession:
        """The session for a response: the open one where it was opened alike, else a new run of it."""
        async with self._lock:
            self._take_up()
            if self._session is not None and (self._session.ended is not None or self._opening != opening):
                await self._close()
            if self._session is None:
                await self._make_room()
                self._session, self._opening = await self._open(opening), opening
            return self._session

    def begin(self) -> None:
        """A response begins: the session is not given away any more."""
        self.under_way = True
        self._take_up()

    def end(self, response_id: str, *, failed: bool) -> None:
        """That response has ended."""
        self.under_way = False
        self.ends = {*self.ends, response_id} if failed else {response_id}

    def _take_up(self) -> None:
        self.resting = False
        timer, self._timer = self._timer, None
        if timer is not None and timer is not asyncio.current_task():
            timer.cancel()

    async def rest(self) -> None:
        """A response has ended; the next one may come."""
        if self._session is not None and self._timer is None:
            self.resting = True
            self._timer = asyncio.create_task(self._expire())
            await self._make_room()

    async def give_way(self) -> None:
        """End the session, unless a response of it has begun."""
        if self.resting:
            await self.close()

    async def close(self) -> None:
        """End the session."""
        self._take_up()
        async with self._lock:
            await self._close()

    async def _expire(self) -> None:
        await asyncio.sleep(self._keep)
        await self.close()

    async def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()
