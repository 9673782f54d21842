"""Tenants: who owns runs, tasks, sandboxes and snapshots. What belongs to one does not exist for another."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio.to_thread

from computeragent import plugins
from computeragent.errors import SessionLiveError
from computeragent.eventlog import EventLog, SqliteEventLog
from computeragent.harness import LocalHarness
from computeragent.server.auth import Principal
from computeragent.settings import home
from computeragent.telemetry.pipeline import Pipeline


class Tenant:
    """One principal's part of the server: a folder, a name in stores, and the session ids in use."""

    def __init__(self, owner: Principal, telemetry: Pipeline | None = None) -> None:
        self.owner = owner
        self.key = hashlib.sha256(owner.id.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        self.project_key = f"computeragent-{self.key}"
        self.live: set[str] = set()
        self._telemetry = telemetry
        self._log: SqliteEventLog | None = None

    @property
    def folder(self) -> Path:
        """Where this tenant's files are."""
        home("sandboxes")  # one level at a time: each is private
        return home("sandboxes", self.key)

    @property
    def work(self) -> Path:
        """Where its working directories are."""
        work = self.folder / "work"
        work.mkdir(exist_ok=True, mode=0o700)
        return work

    @property
    def log(self) -> SqliteEventLog:
        """The durable log of its tasks."""
        if self._log is None:
            self._log = SqliteEventLog(self.folder / "tasks-events.db")
        return self._log

    def harness(self, runtime: str, log: EventLog | None = None) -> LocalHarness:
        """A harness for one run, task or sandbox, on a runtime."""
        return LocalHarness(
            log=log,
            substrate=plugins.resolve_substrate(runtime),
            library_mode=False,
            telemetry=self._telemetry,
            work=self.work,
        )

    def claim(self, session_id: str) -> None:
        """Take a session id for one run, task or sandbox. Raises `SessionLiveError` where another has it."""
        if session_id in self.live:
            raise SessionLiveError(
                f"session {session_id} is live already", hint="Use what runs, or choose another session id."
            )
        self.live.add(session_id)

    async def forget(self, session_id: str, *, transcript: bool) -> None:
        """Give a session id back: its files go, and its memory unless the caller chose a store for it."""
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(self.work / session_id, ignore_errors=True))
        if transcript:
            await plugins.resolve_session_store("memory").delete(
                {"project_key": self.project_key, "session_id": session_id}
            )
        self.live.discard(session_id)

    @contextmanager
    def claimed(self, session_id: str) -> Generator[None]:
        """Hold a session id while something is set up; it is given back when that fails."""
        self.claim(session_id)
        try:
            yield
        except BaseException:
            self.live.discard(session_id)
            raise

    async def close(self) -> None:
        """Let go of what is open."""
        if self._log is not None:
            await self._log.close()
            self._log = None


class Tenants:
    """All tenants of this server that have been seen."""

    def __init__(self, telemetry: Pipeline | None = None) -> None:
        self._telemetry = telemetry
        self._known: dict[str, Tenant] = {}

    def of(self, owner: Principal) -> Tenant:
        """The tenant of a principal."""
        tenant = self._known.get(owner.id)
        if tenant is None:
            tenant = self._known[owner.id] = Tenant(owner, self._telemetry)
        return tenant

    async def close(self) -> None:
        """Let go of what is open."""
        for tenant in self._known.values():
            await tenant.close()
