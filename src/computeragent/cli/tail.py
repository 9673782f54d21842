"""`computeragent sessions tail`: a session as it goes on, here or on a server."""

from __future__ import annotations

import argparse
import asyncio

from computeragent.cli import remote_sessions
from computeragent.cli.playback import Playback
from computeragent.cli.server_choice import server_url
from computeragent.cli.sessions import resolve
from computeragent.errors import EngineError, EventIdAheadError, told
from computeragent.eventlog import SqliteEventLog
from computeragent.wire.events import CaSessionEnded, CaSessionStarted

_POLL = 0.2
_LOOK = 10
"""Polls without an event after which it is looked whether the process that runs the session is still there."""


def tail(args: argparse.Namespace) -> int:
    """Print a session's events as they come. The exit status is that of the run."""
    url = server_url(args)
    return asyncio.run(_tail(args)) if url is None else remote_sessions.tail(url, args)


async def _tail(args: argparse.Namespace) -> int:
    async with SqliteEventLog() as log:
        session_id = await resolve(log, args.session_id)
        start, newest, ended = await _newest_run(log, session_id)
        after = start - 1 if args.after is None else args.after
        if after > newest:
            raise EventIdAheadError(
                f"event {after} does not exist yet; the newest is {newest}", hint="Begin after one that there is."
            )
        silent = 0
        with Playback(as_json=args.json, with_ids=True) as playback:
            while True:
                page = await log.read(session_id, after)
                for recorded in page:
                    playback.play(recorded)
                    ended = recorded.event if isinstance(recorded.event, CaSessionEnded) else None
                    after = recorded.id
                if page:
                    silent = 0
                    continue
                if ended is not None and not args.follow:
                    return playback.status if playback.ended is not None else 0
                silent += 1
                if ended is None and silent % _LOOK == 0 and session_id in await log.orphans():
                    raise told(
                        "INTERRUPTED",
                        f"the process that ran session {session_id} is gone",
                        f"Resume it with --session-id {session_id}.",
                        None,
                        default=EngineError,
                    )
                await asyncio.sleep(_POLL)


async def _newest_run(log: SqliteEventLog, session_id: str) -> tuple[int, int, CaSessionEnded | None]:
    """Where the newest run began, the newest event's id, and the run's end if it has ended."""
    start, newest, ended = 0, -1, None
    while page := await log.read(session_id, newest):
        for recorded in page:
            if isinstance(recorded.event, CaSessionStarted):
                start = recorded.id
            ended = recorded.event if isinstance(recorded.event, CaSessionEnded) else None
        newest = page[-1].id
    return start, newest, ended
