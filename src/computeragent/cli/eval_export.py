"""`computeragent eval export`: a recorded session, found where it is kept, as a task of Inspect."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from computeragent.approval import printable
from computeragent.cli.server_choice import harness_client, server_url
from computeragent.cli.sessions import resolve
from computeragent.cli.store_choice import store_choice, without_secrets
from computeragent.client import HarnessClient
from computeragent.client.files import RemoteWorkspace
from computeragent.errors import ComputerAgentError, EventsGoneError, NotFoundError, SessionLiveError, ValidationError
from computeragent.evals import RecordedSession, TaskFile, files_at, files_of, of_events, of_transcript, write_task
from computeragent.eventlog import SqliteEventLog
from computeragent.harness.workspace import LocalWorkspace
from computeragent.ids import check_session_id
from computeragent.protocol_types import Workspace
from computeragent.settings import home
from computeragent.stores.binding import engine_session_id, resolve_store
from computeragent.telemetry.redaction import SECRETS, Redactor, credentials_in
from computeragent.wire.events import HarnessEvent, Recorded

_SANDBOX = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class _Found:
    """A session, and its working folder where there still is one: on this machine, or on a server."""

    session: RecordedSession
    folder: Path | None = None
    files: Workspace | None = field(default=None)


def export(args: argparse.Namespace) -> int:
    """Write the folder; its path on stdout, what is in it on stderr."""
    if not _SANDBOX.fullmatch(args.sandbox):
        raise ValidationError(f"{args.sandbox!r} cannot name a sandbox", hint="Such as bwrap, local or docker.")
    url = server_url(args)
    if url is not None and args.session_store:
        raise ValidationError("--session-store is for this machine", hint="Leave out one of the two.")
    return asyncio.run(_export(args, url))


async def _export(args: argparse.Namespace, url: str | None) -> int:
    if url is not None:
        check_session_id(args.session_id)
        async with harness_client(url, args) as client:
            session = of_events(args.session_id, await _events_there(client, args.session_id))
            return await _write(args, _Found(session, files=RemoteWorkspace(client, session.session_id)))
    if args.session_store:
        return await _write(args, await _of_store(args))
    return await _write(args, await _of_log(args.session_id))


async def _events_there(client: HarnessClient, session_id: str) -> list[HarnessEvent]:
    """A session's events on a server, from its first run on as far as they are kept."""
    newest = int((await client.session(session_id))["newest"])

    async def read(after: int | None) -> list[Recorded]:
        """The newest run, or the run that an id is in, after it."""
        found: list[Recorded] = []
        async with aclosing(client.stream_events(session_id, after)) as stream:
            async for recorded in stream:
                found.append(recorded)
                if recorded.id >= newest:
                    break
        return found

    run = await read(None)
    if not run or run[0].id == 0:
        return [recorded.event for recorded in run]
    whole = run[:1]  # a stream gives what comes after an id: all but the very first event, which is one like this
    after = 0
    try:
        while after < newest and (more := await read(after)):
            whole += more
            after = more[-1].id
    except EventsGoneError:
        whole = run
    return [recorded.event for recorded in whole]


async def _of_log(prefix: str) -> _Found:
    async with SqliteEventLog() as log:
        session_id = await resolve(log, prefix)
        summary = next(each for each in await log.sessions(1_000_000) if each.session_id == session_id)
        if summary.live and session_id not in await log.orphans():
            raise SessionLiveError(f"session {session_id} is running", hint="Export it when it has ended.")
        events = [event async for event in _events(log, session_id)]
    session = of_events(session_id, events)
    return _Found(session, _folder(session))


async def _events(log: SqliteEventLog, session_id: str) -> AsyncIterator[HarnessEvent]:
    after = -1
    while page := await log.read(session_id, after):
        for recorded in page:
            yield recorded.event
        after = page[-1].id


async def _of_store(args: argparse.Namespace) -> _Found:
    session_id = check_session_id(args.session_id)
    store: Any = resolve_store(store_choice(args.session_store))
    try:
        entries: list[dict[str, Any]] = []
        for known in dict.fromkeys((session_id, engine_session_id(session_id))):
            key = {"project_key": "computeragent", "session_id": known}
            entries = entries or cast("list[dict[str, Any]]", await store.load(key) or [])
    finally:
        if callable(close := getattr(store, "close", None)):
            await cast("Any", close)()
    if not entries:
        named = (without_secrets(args.session_store) or "").partition(":")[0]
        raise NotFoundError(f"session {session_id} has no transcript in {named}", hint="Check the id and the store.")
    session = of_transcript(session_id, entries)
    return _Found(session, _folder(session))


def _folder(session: RecordedSession) -> Path | None:
    """Where the session's working folder is on this machine: in place, or in the state folder. It may be gone."""
    own = home("work") / session.session_id / "source"
    cwd = Path(session.cwd) if session.cwd else None
    is_here = cwd is not None and cwd.is_absolute() and cwd.is_dir()
    if own.is_dir():  # in a jail it had another name, which may mean something else here
        return cwd if cwd is not None and is_here and cwd.resolve().is_relative_to(own.resolve()) else own
    return cwd if is_here else None


async def _write(args: argparse.Namespace, found: _Found) -> int:
    files, state = await _files(args.files, found)
    redactor = Redactor(
        detectors=SECRETS if args.keep_personal_data else None, known_values=credentials_in(dict(os.environ))
    )
    session_id = found.session.session_id
    out = Path(args.out) if args.out else Path(f"eval-{session_id}")
    written = await asyncio.to_thread(
        write_task, found.session, out, files=files, state=state, redactor=redactor, sandbox=args.sandbox
    )
    print(written.folder)
    changed = f", {written.redacted} of them redacted" if written.redacted else ""
    said = f"{_count(len(found.session.prompts), 'message')}, {_count(written.files, 'file')}"
    print(f"{said} ({printable(state)}){changed}; read task.py where it says EDIT, then:", file=sys.stderr)
    # Inspect finds tasks by relative paths.
    go, task = ("", out / "task.py") if not out.is_absolute() else (f"cd {shlex.quote(str(out))} && ", "task.py")
    command = f"inspect eval {shlex.quote(str(task))} --solver computeragent/claude_code --model mockllm/model"
    print(f"  {go}{command}", file=sys.stderr)
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


async def _files(choice: str, found: _Found) -> tuple[list[TaskFile], str]:
    """The files of a choice of ``--files``, and what they are in words."""
    if choice == "none":
        return [], "left out"
    commit = found.session.commit
    if choice in {"auto", "start"} and found.folder is not None and commit:
        files = await files_at(found.folder, commit)
        if files is not None:
            in_place = not found.folder.is_relative_to(home("work"))
            lacking = "what was not committed then is missing" if in_place else "which the agent began with"
            return files, f"as commit {commit[:12]} has them, {lacking}"
    if choice == "start":
        raise NotFoundError(
            f"the files that session {found.session.session_id} began with are not on record",
            hint="They are known where the source was a Git checkout that is still here; use --files now or none.",
        )
    workspace = found.files or (LocalWorkspace(found.folder) if found.folder is not None else None)
    if workspace is None:
        return [], "the session's folder is gone"
    try:
        return await files_of(workspace), "as they are now, after the session: take out what the agent has made"
    except ComputerAgentError as error:
        if choice == "now" or found.files is None:
            raise
        return [], f"the server gives none: {error.message}"
