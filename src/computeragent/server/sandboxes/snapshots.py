"""Snapshots: a sandbox's files and what it takes to start it again, kept in a store, and brought back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread

from computeragent.errors import ComputerAgentError, NotFoundError, ValidationError
from computeragent.ids import check_session_id, new_id
from computeragent.logs import Logger
from computeragent.server.policies import without_secrets
from computeragent.server.sandboxes import archive, echo
from computeragent.server.sandboxes.errors import (
    DeleteError,
    ListError,
    RestoreError,
    SnapshotError,
    SnapshotExistsError,
    UnknownStateStoreError,
)
from computeragent.server.sandboxes.limits import SandboxLimits
from computeragent.server.sandboxes.orders import IN_FOLDER, Order
from computeragent.server.sandboxes.sandbox import Sandbox
from computeragent.server.sandboxes.shapes import AgentRequest
from computeragent.server.sandboxes.snapshot_stores import SnapshotRecord, SnapshotStore, Start
from computeragent.server.times import iso, now
from computeragent.wire.requests import StoreConfig

_log = Logger("snapshots")


class Snapshots:
    """The snapshots of one server, in the stores that it was given."""

    def __init__(self, stores: Mapping[str, SnapshotStore], *, default: str, limits: SandboxLimits) -> None:
        self._stores = dict(stores)
        self._default = default
        self._caps = archive.Caps(limits.snapshot_files, limits.snapshot_bytes)

    def require(self, choice: StoreConfig | None) -> SnapshotStore:
        """The store that a request names. Raises `UnknownStateStoreError`."""
        if choice is not None and choice.options:
            raise ValidationError(
                "snapshot stores take no options from requests", hint="Whoever runs the server configures them."
            )
        return self.named(None if choice is None else choice.kind)

    def named(self, kind: str | None) -> SnapshotStore:
        """The store of a name, or the default one. Raises `UnknownStateStoreError`."""
        store = self._stores.get(kind or self._default)
        if store is None:
            raise UnknownStateStoreError(kind or self._default, self._stores)
        return store

    # ── Taking ──

    async def autosave(self, sandbox: Sandbox) -> str:
        """The snapshot of a sandbox that is about to end."""
        assert sandbox.auto_save is not None
        record = await self._taken(
            sandbox, self.require(sandbox.auto_save.state_store), f"snap_{sandbox.id}_{time.time_ns() // 1_000_000}"
        )
        return record.snapshot_id

    async def take(self, sandbox: Sandbox, choice: StoreConfig | None, snapshot_id: str | None) -> SnapshotRecord:
        """A snapshot of an idle sandbox, which takes no chat meanwhile."""
        store = self.require(choice)
        chosen = check_session_id(snapshot_id) if snapshot_id is not None else new_id("snapshot")
        sandbox.require_idle()
        sandbox.snapshotting = True
        try:
            if snapshot_id is not None:
                await self._require_new(store, sandbox.order.owner.id, chosen)
            async with sandbox.at_work:
                return await self._taken(sandbox, store, chosen)
        finally:
            sandbox.snapshotting = False

    async def _require_new(self, store: SnapshotStore, owner: str, snapshot_id: str) -> None:
        try:
            await store.load(owner, snapshot_id)
        except NotFoundError:
            return
        raise SnapshotExistsError(f"snapshot {snapshot_id} exists", hint="Choose another id, or delete it.")

    async def _taken(self, sandbox: Sandbox, store: SnapshotStore, snapshot_id: str) -> SnapshotRecord:
        try:
            with sandbox.order.tenant.scratch() as folder:
                tar = folder / "workdir.tar.gz"
                root = await sandbox.prepare()
                packed = await anyio.to_thread.run_sync(archive.pack, root, tar, self._caps)
                record = _record(sandbox, snapshot_id, packed, tar, await anyio.to_thread.run_sync(_digest, tar))
                await store.save(record, tar)
        except SnapshotError:
            raise
        except ComputerAgentError as error:
            raise SnapshotError(f"the snapshot was not taken: {error.message}", hint=error.hint) from error
        except OSError as error:
            raise SnapshotError(f"the snapshot was not taken: {error.strerror}", hint="Check free space.") from error
        _log.info("snapshot_taken", snapshot=snapshot_id, sandbox=sandbox.id, bytes=record.size_bytes)
        return record

    # ── Looking ──

    async def listed(self, owner: str, kind: str | None, sandbox_id: str | None, limit: int) -> list[dict[str, Any]]:
        """The newest snapshots of an owner. Raises `ListError`."""
        store = self.named(kind)
        try:
            records = await store.listed(owner)
        except ComputerAgentError as error:
            raise ListError(error.message, hint=error.hint) from error
        own = [each for each in records if each.owner == owner and sandbox_id in {None, each.source_sandbox_id}]
        own.sort(key=lambda each: each.taken_at, reverse=True)
        return [each.summary() for each in own[:limit]]

    async def delete(self, owner: str, kind: str | None, snapshot_id: str) -> None:
        """Forget a snapshot. Raises `DeleteError`."""
        store = self.named(kind)
        try:
            await store.delete(owner, check_session_id(snapshot_id))
        except ValidationError:
            raise
        except ComputerAgentError as error:
            raise DeleteError(error.message, hint=error.hint) from error

    async def load(self, owner: str, choice: StoreConfig | None, snapshot_id: str) -> SnapshotRecord:
        """A snapshot's record. Raises `NotFoundError`, also for somebody else's, and `RestoreError`."""
        store = self.require(choice)
        try:
            record = await store.load(owner, check_session_id(snapshot_id))
        except (NotFoundError, ValidationError):
            raise
        except ComputerAgentError as error:
            raise RestoreError(error.message, hint=error.hint) from error
        if record.owner != owner:
            raise NotFoundError(f"snapshot {snapshot_id} not found", hint="GET /snapshots lists yours.")
        return record

    # ── Bringing back ──

    async def fill(self, sandbox: Sandbox, choice: StoreConfig | None, record: SnapshotRecord) -> None:
        """Make a sandbox's files those of a snapshot; they stay as they were when that fails. Raises `RestoreError`."""
        store = self.require(choice)
        try:
            with sandbox.order.tenant.scratch() as folder:
                tar = folder / "workdir.tar.gz"
                await store.fetch(record.owner, record.snapshot_id, tar)
                if await anyio.to_thread.run_sync(_digest, tar) != record.sha256:
                    raise RestoreError("the snapshot is damaged: its checksum is wrong", hint="Take another one.")
                root = await sandbox.prepare()
                await anyio.to_thread.run_sync(archive.unpack, tar, root, self._caps)
        except RestoreError:
            raise
        except ComputerAgentError as error:
            raise RestoreError(f"the snapshot was not restored: {error.message}", hint=error.hint) from error
        except OSError as error:
            raise RestoreError(f"the snapshot was not restored: {error.strerror}", hint="Check free space.") from error
        _log.info("snapshot_restored", snapshot=record.snapshot_id, sandbox=sandbox.id)


def request_of(start: Start) -> tuple[AgentRequest, list[str]]:
    """What starts a snapshot's agent again, and the names of what must be given anew."""
    options, lost = echo.without_hidden(start.options, "options")
    body = AgentRequest(
        source=start.source,
        harness=start.harness,
        runtime=start.runtime,
        options=options,
        model=start.model,
        policy=start.policy,
        session_store=start.store,
        budget_max_usd=start.budget_max_usd,
    )
    return body, [*(f"envs.{name}" for name in start.envs), *lost, *start.lost]


def _record(sandbox: Sandbox, snapshot_id: str, packed: archive.Packed, tar: Path, digest: str) -> SnapshotRecord:
    return SnapshotRecord(
        snapshot_id=snapshot_id,
        owner=sandbox.order.owner.id,
        source_sandbox_id=sandbox.id,
        source_session_id=sandbox.session_id,
        taken_at=iso(now()),
        config=sandbox.order.config,
        start=_start(sandbox.order),
        turn_count=sandbox.turns,
        usage=sandbox.used,
        size_bytes=tar.stat().st_size,
        sha256=digest,
        workdir_bytes=packed.bytes,
        workdir_file_count=packed.files,
    )


def _start(order: Order) -> Start:
    lost = ["gitToken"] if order.git_token is not None else []
    policy, store = order.policy, order.asked_store
    if policy is not None:
        policy, without = without_secrets(policy)
        lost += without
    if store is not None and store.kind not in IN_FOLDER:
        lost += [f"sessionStore.options.{name}" for name in sorted(store.options or {})]
        store = StoreConfig(kind=store.kind)
    return Start(
        source=echo.bare_source(order.source),
        harness=order.engine,
        runtime=order.runtime,
        options=echo.shown_options(order.options, order.secrets),
        model=order.model,
        envs=sorted(order.given_envs),
        policy=policy,
        store=store,
        lost=lost,
        budget_max_usd=order.budget,
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
