"""`computeragent sessions`: what was recorded, and how to get rid of it."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time

import msgspec
from msgspec.structs import replace
from rich.table import Table

from computeragent.approval import printable
from computeragent.cli import remote_sessions
from computeragent.cli.playback import Playback
from computeragent.cli.render import terminal
from computeragent.cli.server_choice import server_url
from computeragent.errors import NotFoundError, SessionLiveError
from computeragent.eventlog import SessionSummary, SqliteEventLog
from computeragent.ids import check_session_id
from computeragent.settings import home
from computeragent.stores.file import FileSessionStore
from computeragent.stores.sqlite import SqliteSessionStore

_DAY = 86_400
_ALL = 1_000_000


def ls(args: argparse.Namespace) -> int:
    """List the sessions used last."""
    if (url := server_url(args)) is not None:
        return remote_sessions.ls(url, args)
    found = asyncio.run(_sessions(args.limit))
    if args.json:
        for session in found:
            print(msgspec.json.encode(session).decode())
        return 0
    if not found:
        print("no sessions yet; `computeragent run` makes one", file=sys.stderr)
        return 0
    rows = [
        (s.session_id, printable(s.agent), s.status, str(s.turns), f"${s.cost_usd:.4f}", _ago(s.updated), s.title)
        for s in found
    ]
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    for index, name in enumerate(("SESSION", "AGENT", "STATUS", "TURNS", "COST", "LAST")):
        width = max(len(name), *(len(row[index]) for row in rows))
        justify = "right" if name in {"TURNS", "COST"} else "left"
        table.add_column(name, justify=justify, no_wrap=True, min_width=width)
    table.add_column("TITLE", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        table.add_row(*row[:-1], printable(row[-1]))
    terminal().print(table)
    return 0


def show(args: argparse.Namespace) -> int:
    """Show what happened in a session."""
    if (url := server_url(args)) is not None:
        return remote_sessions.show(url, args)
    return asyncio.run(_show(args.session_id, as_json=args.json))


def rm(args: argparse.Namespace) -> int:
    """Delete a session's events, transcript and workspace."""
    if (url := server_url(args)) is not None:
        return remote_sessions.rm(url, args)
    asyncio.run(_remove(args.session_id))
    for folder in (home("work") / args.session_id, *home("work").glob(f"{args.session_id}@*")):
        shutil.rmtree(folder, ignore_errors=True)
    print(f"deleted {args.session_id}")
    return 0


async def _sessions(limit: int) -> list[SessionSummary]:
    async with SqliteEventLog() as log:
        dead = set(await log.orphans())
        found = await log.sessions(limit)
        return [replace(s, status="interrupted") if s.live and s.session_id in dead else s for s in found]


async def _show(prefix: str, *, as_json: bool) -> int:
    async with SqliteEventLog() as log:
        session_id = await resolve(log, prefix)
        after = -1
        with Playback(as_json=as_json) as playback:
            while page := await log.read(session_id, after):
                for recorded in page:
                    playback.play(recorded)
                after = page[-1].id
        return 0


async def _remove(session_id: str) -> None:
    check_session_id(session_id)
    log, database, files = SqliteEventLog(), SqliteSessionStore(), FileSessionStore()
    try:
        found = next((s for s in await log.sessions(_ALL) if s.session_id == session_id), None)
        if found is None:
            hint = "`computeragent sessions ls` lists them; give the whole id."
            raise NotFoundError(f"session {session_id!r} not found", hint=hint)
        if found.live and session_id not in await log.orphans():
            raise SessionLiveError(f"session {session_id} is running", hint="Delete it when it has ended.")
        for store in (database, files):
            await store.delete({"project_key": "computeragent", "session_id": session_id})
        await log.delete(session_id)
    finally:
        await log.close()
        await database.close()


async def resolve(log: SqliteEventLog, prefix: str) -> str:
    """A session id from its beginning."""
    matches = [s.session_id for s in await log.sessions(_ALL) if s.session_id.startswith(prefix)]
    if prefix in matches:
        return prefix
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise NotFoundError(f"{len(matches)} sessions begin with {prefix!r}", hint="Give more of the id.")
    raise NotFoundError(f"session {prefix!r} not found", hint="`computeragent sessions ls` lists them.")


def _ago(at: float) -> str:
    seconds = max(time.time() - at, 0)
    for size, unit in ((_DAY, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"
