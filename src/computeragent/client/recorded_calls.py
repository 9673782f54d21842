"""The tool calls that are on record at a harness server: those of the sessions of whoever asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import msgspec

from computeragent.client.harness_client import HarnessClient
from computeragent.errors import EventsGoneError, HarnessProtocolError, NotFoundError
from computeragent.policy.recorded import RecordedCall, SessionCalls, Wanted
from computeragent.wire.events import Recorded

_PAGE = 200

Json = dict[str, Any]


class ServerCalls:
    """A recording of the calls on a server, of all that it keeps of each session, up to now.

    A server does not say when a call was made: `RecordedCall.at` is None, and a time in `wanted` has no effect.
    """

    def __init__(self, client: HarnessClient, wanted: Wanted | None = None) -> None:
        self.skipped: Counter[str] = Counter()
        self._client = client
        self._wanted = wanted or Wanted()

    async def __aiter__(self) -> AsyncIterator[RecordedCall]:
        self.skipped.clear()
        async for session in self._sessions():
            session_id, newest = session.get("sessionId"), session.get("newest")
            if not isinstance(session_id, str) or not isinstance(newest, int):
                self.skipped["a session that is not told as one"] += 1
            elif self._wanted.session(session_id):
                async for call in self._calls(session_id, newest, session):
                    yield call

    async def _calls(self, session_id: str, newest: int, session: Json) -> AsyncIterator[RecordedCall]:
        identity: Any = session.get("identity")
        agent = str(cast("Json", identity).get("name", "")) if isinstance(identity, dict) else ""
        calls = SessionCalls(session_id, self.skipped, agent=agent, engine=str(session.get("engine", "")))
        try:
            async for recorded in self._events(session_id, newest):
                for call in calls.feed(recorded.event, None):
                    if self._wanted.call(call):
                        yield call
        except NotFoundError:
            self.skipped["a session that was deleted meanwhile"] += 1
        except HarnessProtocolError as error:
            if not isinstance(error.__cause__, NotFoundError | msgspec.DecodeError):
                raise
            self.skipped["a session that cannot be read to its end"] += 1
        for call in calls.end():
            if self._wanted.call(call):
                yield call

    async def _events(self, session_id: str, newest: int) -> AsyncIterator[Recorded]:
        """The events that are kept, oldest first; before those of earlier runs the first one of the newest run.

        By id, the very first event cannot be asked for: it comes with its run alone.
        """
        after: int | None = None
        while newest >= 0 and (after is None or after < newest):
            try:
                async with aclosing(self._client.stream_events(session_id, after)) as events:
                    async for recorded in events:
                        yield recorded
                        if after is None and recorded.id > 0:
                            after = 0
                            break
                        after = recorded.id
                        if after >= newest:
                            return
            except EventsGoneError as gone:
                earliest = _earliest(gone)
                if earliest <= (after or 0) + 1:
                    return
                self.skipped["an event that the server does not keep any more"] += earliest - (after or 0) - 1
                after = earliest - 1

    async def _sessions(self) -> AsyncIterator[Json]:
        """The sessions, newest first. One that begins meanwhile may come twice, and is told once."""
        offset: int | None = 0
        told: set[str] = set()
        while offset is not None:
            answer = await self._client.request("GET", f"/v1/sessions?limit={_PAGE}&offset={offset}")
            page = msgspec.json.decode(answer.content, type=dict[str, Any])
            for session in page.get("sessions", []):
                if session.get("sessionId") not in told:
                    told.add(session.get("sessionId"))
                    yield session
            following = page.get("next")
            offset = following if isinstance(following, int) and following > offset else None


def _earliest(gone: EventsGoneError) -> int:
    """The oldest event that is kept, as the server tells; 0 where it does not."""
    details: Any = gone.details
    earliest: Any = cast("Json", details).get("earliest") if isinstance(details, dict) else None
    return earliest if isinstance(earliest, int) else 0
