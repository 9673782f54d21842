"""The pool: which sandboxes there are, whose they are, and when each has lived long enough."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Literal

from computeragent.errors import NotFoundError
from computeragent.ids import new_id
from computeragent.logs import Logger
from computeragent.server.auth import Principal
from computeragent.server.sandboxes.errors import GoneError, TooManySandboxesError
from computeragent.server.sandboxes.limits import SandboxLimits
from computeragent.server.sandboxes.orders import Order
from computeragent.server.sandboxes.sandbox import Sandbox
from computeragent.server.sandboxes.shapes import AutoSave, SandboxPhase
from computeragent.server.times import now

_REMEMBERED = 10_000
_log = Logger("sandboxes")

Save = Callable[[Sandbox], Awaitable[str]]
"""Takes the snapshot that a sandbox's `autoSave` asks for; its id."""


class Pool:
    """The sandboxes of one server. Those that are gone are remembered for a while, so that they can be told as gone."""

    def __init__(self, limits: SandboxLimits, save: Save) -> None:
        self._limits = limits
        self._save = save
        self._all: dict[str, Sandbox] = {}
        self._gone: OrderedDict[str, tuple[str, SandboxPhase]] = OrderedDict()
        self._ending: dict[str, asyncio.Task[str | Literal[False]]] = {}

    def of(self, owner: Principal) -> list[Sandbox]:
        """An owner's sandboxes, newest first."""
        return [sandbox for sandbox in reversed(self._all.values()) if sandbox.order.owner.id == owner.id]

    def find(self, owner: Principal, sandbox_id: str) -> Sandbox:
        """A sandbox of this owner's. Raises `GoneError` for one that was, `NotFoundError` for any other."""
        sandbox = self._all.get(sandbox_id)
        if sandbox is not None and sandbox.order.owner.id == owner.id:
            return sandbox
        whose, phase = self._gone.get(sandbox_id, ("", "disposed"))
        if whose == owner.id:
            raise GoneError(f"sandbox {sandbox_id} is gone", hint="Open a new one.", details={"state": phase})
        raise NotFoundError(f"sandbox {sandbox_id[:140]} not found", hint="GET /sandboxes lists yours.")

    def warm(self, owner: Principal, session_id: str) -> Sandbox | None:
        """The live sandbox of a session."""
        own = (each for each in self._all.values() if each.order.owner.id == owner.id)
        return next((each for each in own if each.session_id == session_id and each.is_live), None)

    async def create(
        self,
        order: Order,
        *,
        ttl_ms: float | None,
        idle_ttl_ms: float | None,
        auto_save: AutoSave | None,
    ) -> Sandbox:
        """A new sandbox; nothing starts yet. Waits for one of the same session that is about to end."""
        ttl, idle_ttl = self._limits.lives(ttl_ms, idle_ttl_ms)
        for other in self.of(order.owner):
            if other.session_id == order.session_id and not other.is_live:
                await asyncio.shield(self._end(other, "expired", save=True))
        if len(self._all) >= self._limits.max_sandboxes:
            raise TooManySandboxesError(len(self._all), self._limits.max_sandboxes)
        sandbox_id = new_id("sandbox")
        session_id = order.session_id or sandbox_id
        with order.tenant.claimed(session_id):
            sandbox = Sandbox(sandbox_id, session_id, order, ttl=ttl, idle_ttl=idle_ttl, auto_save=auto_save)
        self._all[sandbox_id] = sandbox
        _log.info("sandbox_made", sandbox=sandbox_id, runtime=order.runtime)
        return sandbox

    async def dispose(
        self, sandbox: Sandbox, phase: SandboxPhase = "disposed", *, save: bool = True
    ) -> str | Literal[False]:
        """End a sandbox. The id of the snapshot that was taken before, or False."""
        return await asyncio.shield(self._end(sandbox, phase, save=save))

    def _end(self, sandbox: Sandbox, phase: SandboxPhase, *, save: bool) -> asyncio.Task[str | Literal[False]]:
        task = self._ending.get(sandbox.id)
        if task is None:
            sandbox.ended = phase
            task = asyncio.create_task(self._disposed(sandbox, phase, save=save), name=f"end of {sandbox.id}")
            self._ending[sandbox.id] = task
        return task

    async def _disposed(self, sandbox: Sandbox, phase: SandboxPhase, *, save: bool) -> str | Literal[False]:
        saved: str | Literal[False] = False
        async with sandbox.at_work:
            pass  # a snapshot or a restore under way comes to its end first
        try:
            await sandbox.stop()
            if save and sandbox.auto_save is not None:
                saved = await self._save(sandbox)
        except Exception as error:  # noqa: BLE001 - what cannot be saved must still end
            _log.error("autosave_failed", sandbox=sandbox.id, error=str(error))
        try:
            await sandbox.close()
        except Exception as error:  # noqa: BLE001 - its place must become free
            _log.error("dispose_failed", sandbox=sandbox.id, error=repr(error))
        finally:
            self._all.pop(sandbox.id, None)
            self._ending.pop(sandbox.id, None)
            self._gone[sandbox.id] = (sandbox.order.owner.id, phase)
            while len(self._gone) > _REMEMBERED:
                self._gone.popitem(last=False)
        _log.info("sandbox_gone", sandbox=sandbox.id, state=phase, turns=sandbox.turns)
        return saved

    # ── Life ──

    async def reap(self) -> None:
        """End what has lived long enough; runs for ever."""
        while True:
            await asyncio.sleep(self._limits.reaper_interval_ms / 1000)
            for sandbox in list(self._all.values()):
                if sandbox.id not in self._ending and self._is_due(sandbox):
                    self._end(sandbox, "expired", save=True)

    def _is_due(self, sandbox: Sandbox) -> bool:
        moment = now()
        if sandbox.restoring or sandbox.snapshotting:
            return False
        if sandbox.turn is not None:  # no new turn begins after the end of its life, but one under way may end
            return moment >= sandbox.expires + self._limits.grace_ms / 1000
        if not sandbox.touched and moment >= sandbox.created + self._limits.boot_deadline_ms / 1000:
            return True
        return moment >= sandbox.idle_expires

    async def close(self) -> None:
        """End all of them, saved as they ask for it."""
        await asyncio.gather(*(self._end(sandbox, "disposed", save=True) for sandbox in list(self._all.values())))
