"""`computeragent sessions fork`: a new session that begins with what another one remembers."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from msgspec import Raw
from msgspec.structs import replace

from computeragent.cli.sessions import resolve
from computeragent.cli.store_choice import store_choice
from computeragent.errors import NotFoundError, SessionLiveError, ValidationError
from computeragent.eventlog import SqliteEventLog
from computeragent.harness.harness import end_interrupted_run
from computeragent.ids import check_session_id, new_id
from computeragent.settings import home, setting
from computeragent.stores.binding import engine_session_id, resolve_store
from computeragent.stores.file import FileSessionStore
from computeragent.stores.sqlite import SqliteSessionStore
from computeragent.wire.encoding import from_json, to_json
from computeragent.wire.events import HarnessEvent, UnknownEvent

if TYPE_CHECKING:
    from claude_agent_sdk import SessionKey, SessionStore

_PROJECT = "computeragent"


def fork(args: argparse.Namespace) -> int:
    """Copy a session; prints the new id on stdout, and what was copied on stderr."""
    new = check_session_id(args.id) if args.id else new_id("session")
    copied = asyncio.run(_fork(args, new))
    print(new)
    print(f"copied {copied}; both go on apart from each other", file=sys.stderr)
    return 0


async def _fork(args: argparse.Namespace, new: str) -> str:
    choice = setting("session_store", args.session_store)
    stores = _stores(choice)
    async with SqliteEventLog() as log:
        old = await resolve(log, args.session_id)
        await _require_quiet(log, old)
        if await _is_there(log, stores, new):
            raise ValidationError(f"there is a session {new} already", hint="Choose another --id, or leave it out.")
        try:
            entries, agents = await _copy_transcripts(stores, old, new)
            folder = await asyncio.to_thread(_copy_folder, old, new)
            events = await _copy_events(log, old, new)
        except BaseException:
            await _take_back(log, stores, new)
            raise
        finally:
            for store in stores.values():
                if callable(close := getattr(store, "close", None)):
                    await cast("Any", close)()
    whose = f" and those of {agents} sub-agents" if agents else ""
    return f"{events} events, {entries} entries of the transcript{whose}" + (", its working folder" if folder else "")


def _stores(choice: str | None) -> dict[str, SessionStore]:
    """Where transcripts may be: in the store that is named, else in those that the command line uses by itself."""
    if choice in {None, "sqlite"}:
        return {"sqlite": SqliteSessionStore(), "file": cast("SessionStore", FileSessionStore())}
    store = resolve_store(store_choice(choice))
    assert store is not None
    return {str(choice): store}


async def _require_quiet(log: SqliteEventLog, session_id: str) -> None:
    """Raise `SessionLiveError` where a run goes on: half a turn is nothing to go on from."""
    found = next(s for s in await log.sessions(1_000_000) if s.session_id == session_id)
    if found.live and session_id not in await log.orphans():
        raise SessionLiveError(f"session {session_id} is running", hint="Fork it when it has ended.")


async def _is_there(log: SqliteEventLog, stores: dict[str, SessionStore], session_id: str) -> bool:
    try:
        await log.read(session_id, limit=1)
    except NotFoundError:
        return any([await store.load(_key(session_id)) for store in stores.values()])
    return True


async def _copy_transcripts(stores: dict[str, SessionStore], old: str, new: str) -> tuple[int, int]:
    """The transcript and those of sub-agents: how many entries, and how many sub-agents. Raises `NotFoundError`."""
    entries, agents = 0, 0
    for store in stores.values():
        copied = await _copy_transcript(store, _key(old), _key(new))
        if not copied:
            continue
        entries += copied
        if hasattr(store, "list_subkeys"):
            for subpath in await store.list_subkeys({"project_key": _PROJECT, "session_id": old}):
                await _copy_transcript(store, _key(old, subpath), _key(new, subpath))
                agents += 1
    if not entries:
        raise NotFoundError(
            f"session {old} has no transcript in {' or '.join(_named(stores))}",
            hint="Name the store that it was run with: --session-store. What was kept in memory is gone.",
        )
    return entries, agents


def _named(stores: dict[str, SessionStore]) -> list[str]:
    """The names of stores, without what may be a password."""
    return [name.partition("=")[0].partition(":")[0] for name in stores]


async def _copy_transcript(store: SessionStore, old: SessionKey, new: SessionKey) -> int:
    entries = await store.load(old) or []
    before, after = engine_session_id(old["session_id"]), engine_session_id(new["session_id"])
    renamed = [{**entry, "sessionId": after} if entry.get("sessionId") == before else entry for entry in entries]
    await store.append(new, cast("Any", renamed))
    return len(entries)


def _copy_folder(old: str, new: str) -> bool:
    """The session's own working folder, which a clone is, with its receipt; not what its engine keeps for itself."""
    source, target = home("work") / old, home("work") / new
    if not (source / "source").is_dir():
        return False
    target.mkdir(mode=0o700, exist_ok=True)
    shutil.copytree(source / "source", target / "source", symlinks=True)
    receipt = Path("source.json")
    if (source / receipt).is_file():
        shutil.copy2(source / receipt, target / receipt)
    return True


async def _copy_events(log: SqliteEventLog, old: str, new: str) -> int:
    """The recorded events, under the same ids. A run that was interrupted is ended in the copy."""
    channel = await log.open(new)
    try:
        after = -1
        while page := await log.read(old, after):
            for recorded in page:
                channel.append(_renamed(recorded.event, new))
            await channel.flush()
            after = page[-1].id
        end_interrupted_run(channel)
        await channel.flush()
    finally:
        await log.release(channel)
    return after + 1


def _renamed(event: HarnessEvent, session_id: str) -> HarnessEvent:
    if isinstance(event, UnknownEvent):
        told = from_json(bytes(event.raw))
        return replace(event, session_id=session_id, raw=Raw(to_json({**told, "sessionId": session_id})))
    return replace(event, session_id=session_id)


async def _take_back(log: SqliteEventLog, stores: dict[str, SessionStore], new: str) -> None:
    """Remove what a fork that failed has made."""
    for store in stores.values():
        if hasattr(store, "delete"):
            await store.delete(_key(new))
    await asyncio.to_thread(shutil.rmtree, home("work") / new, ignore_errors=True)
    try:
        await log.delete(new)
    except NotFoundError:
        return


def _key(session_id: str, subpath: str | None = None) -> SessionKey:
    key: SessionKey = {"project_key": _PROJECT, "session_id": session_id}
    if subpath is not None:
        key["subpath"] = subpath
    return key
