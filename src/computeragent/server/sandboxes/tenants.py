"""Tenants: who owns runs, tasks, sandboxes and snapshots. What belongs to one does not exist for another."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio.to_thread

from computeragent import plugins
from computeragent.errors import SessionLiveError
from computeragent.eventlog import EventLog, SqliteEventLog
from computeragent.eventlog.owner import Owner
from computeragent.harness import LocalHarness
from computeragent.logs import Logger
from computeragent.policy.config import AnyPolicy, shared_policy
from computeragent.policy.types import PolicyEngine
from computeragent.server.auth import Principal
from computeragent.settings import home
from computeragent.telemetry.pipeline import Pipeline

_log = Logger("sandboxes")


class Tenant:
    """One principal's part of the server: a folder, a name in stores, and the session ids in use."""

    def __init__(
        self, owner: Principal, part: str, telemetry: Pipeline | None = None, policy: AnyPolicy | None = None
    ) -> None:
        self.owner = owner
        self.key = hashlib.sha256(owner.id.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        self.project_key = f"computeragent-{self.key}"
        self.live: set[str] = set()
        self._part = part
        self._telemetry = telemetry
        self._policy = policy
        self._log: SqliteEventLog | None = None

    @property
    def folder(self) -> Path:
        """Where this tenant's files are."""
        home("sandboxes")  # one level at a time: each is private
        return home("sandboxes", self.key)

    @property
    def work(self) -> Path:
        """Where its working directories are, as long as this server lives."""
        work = self.folder / "work" / self._part
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        return work

    @contextmanager
    def scratch(self) -> Generator[Path]:
        """A private folder beside them, gone afterwards."""
        folder = self.work / f".{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

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
            policy=self._policy,
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
    """All tenants of this server that have been seen, and what marks what is this server's."""

    def __init__(self, telemetry: Pipeline | None = None, policy: AnyPolicy | None = None) -> None:
        self._policy = None if policy is None else shared_policy(policy)
        self._owns_policy = self._policy is not policy
        self.mark = Owner()
        self._part = secrets.token_hex(4)
        self._telemetry = telemetry
        self._known: dict[str, Tenant] = {}

    def of(self, owner: Principal) -> Tenant:
        """The tenant of a principal."""
        tenant = self._known.get(owner.id)
        if tenant is None:
            tenant = self._known[owner.id] = Tenant(owner, self._part, self._telemetry, self._policy)
        return tenant

    def recover(self) -> None:
        """Delete the working directories of servers that were killed, and say which are this one's."""
        servers = home("sandboxes", "servers")
        for path in servers.glob("[!.]*"):
            with suppress(FileNotFoundError):  # its server has just ended
                if Owner.alive(path.read_text("ascii")):
                    continue
                for left in home("sandboxes").glob(f"*/work/{path.name}"):
                    _log.info("workspaces_swept", path=left.name)
                    shutil.rmtree(left, ignore_errors=True)
                path.unlink()
        draft = servers / f".{self._part}"
        draft.write_text(str(self.mark), "ascii")
        draft.rename(servers / self._part)  # whole from the start: a server that starts meanwhile reads it

    async def close(self) -> None:
        """Let go of what is open."""
        for tenant in self._known.values():
            await tenant.close()
            shutil.rmtree(tenant.work, ignore_errors=True)
        if self._owns_policy and isinstance(self._policy, PolicyEngine):
            await self._policy.aclose()
        (home("sandboxes", "servers") / self._part).unlink(missing_ok=True)
        self.mark.retire()
