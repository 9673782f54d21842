"""`computeragent sessions` of a harness server: what whoever asks has there."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
from rich.table import Table

from computeragent.approval import printable
from computeragent.cli.playback import Playback
from computeragent.cli.render import terminal
from computeragent.cli.server_choice import harness_client, place_of
from computeragent.client import HarnessClient
from computeragent.errors import NotFoundError
from computeragent.ids import check_session_id
from computeragent.wire.events import CaSessionEnded, Recorded

T = TypeVar("T")
Json = dict[str, Any]
_LARGEST_PAGE = 500
_POLL = 1.0
"""Seconds between two looks at a session that waits for its next run."""


def ls(url: str, args: argparse.Namespace) -> int:
    """List the sessions there, newest first."""
    found = _with_client(url, args, lambda client: _sessions(client, args.limit))
    if args.json:
        for session in found:
            print(msgspec.json.encode(session).decode())
        return 0
    if not found:
        print(f"no sessions at {place_of(url)}", file=sys.stderr)
        return 0
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("SESSION", "AGENT", "ENGINE", "STATUS", "EVENTS", "ASKS"):
        table.add_column(name, justify="right" if name in {"EVENTS", "ASKS"} else "left", no_wrap=True)
    for session in found:
        texts = (session.get("sessionId"), session.get("identity", {}).get("name"), session.get("engine"))
        waiting = len(session.get("pendingCalls", []))
        shown = [printable(str(text or "")) for text in (*texts, session.get("status"))]
        table.add_row(*shown, str(session.get("newest", -1) + 1), str(waiting or ""))
    terminal().print(table)
    return 0


def show(url: str, args: argparse.Namespace) -> int:
    """Show the newest run of a session there, as far as it is."""

    async def play(client: HarnessClient) -> int:
        with Playback(as_json=args.json) as playback:
            newest = int((await client.session(args.session_id))["newest"])
            async for recorded in client.stream_events(args.session_id):
                playback.play(recorded)
                if recorded.id >= newest:
                    break
        return 0

    check_session_id(args.session_id)
    return _with_client(url, args, play)


def rm(url: str, args: argparse.Namespace) -> int:
    """Delete a session there."""
    check_session_id(args.session_id)
    _with_client(url, args, lambda client: client.delete_session(args.session_id))
    print(f"deleted {args.session_id}")
    return 0


def tail(url: str, args: argparse.Namespace) -> int:
    """Follow a session there; a lost connection is made again."""

    async def play(client: HarnessClient) -> int:
        with Playback(as_json=args.json, with_ids=True) as playback:
            async for recorded in _followed(client, args.session_id, args.after, forever=args.follow):
                playback.play(recorded)
            return playback.status if playback.ended is not None else 0

    check_session_id(args.session_id)
    return _with_client(url, args, play)


async def _followed(
    client: HarnessClient, session_id: str, after: int | None, *, forever: bool
) -> AsyncGenerator[Recorded]:
    """The newest run's events, or those after an id, to the end of the newest run; with `forever` all to come."""
    ended = False
    while True:
        try:
            state = await client.session(session_id)
        except NotFoundError:
            if ended:
                return  # whoever ran it has deleted it
            raise
        if after is None or state["newest"] > after or state["status"] in {"pending", "running"}:
            async for recorded in client.stream_events(session_id, after):
                after, ended = recorded.id, isinstance(recorded.event, CaSessionEnded)
                yield recorded
            if ended and not forever and after is not None and after >= state["newest"]:
                return
        elif forever:
            await asyncio.sleep(_POLL)
        else:
            return


async def _sessions(client: HarnessClient, limit: int) -> list[Json]:
    found: list[Json] = []
    offset: int | None = 0
    while offset is not None and len(found) < limit:
        size = min(limit - len(found), _LARGEST_PAGE)
        answer = await client.request("GET", f"/v1/sessions?limit={size}&offset={offset}")
        page = msgspec.json.decode(answer.content, type=dict[str, Any])
        found += page.get("sessions", [])
        offset = page.get("next")
    return found[:limit]


def _with_client(url: str, args: argparse.Namespace, do: Callable[[HarnessClient], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        async with harness_client(url, args) as client:
            return await do(client)

    return asyncio.run(run())
