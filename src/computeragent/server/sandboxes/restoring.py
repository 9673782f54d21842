"""Handlers of snapshots: take, list, delete, and restore into a new sandbox or in place."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from starlette.responses import Response

from computeragent.errors import ComputerAgentError, ValidationError
from computeragent.server.bodies import Ok
from computeragent.server.endpoint import BodyError, Call, decoded, json_response
from computeragent.server.sandboxes.limits import SandboxLimits
from computeragent.server.sandboxes.orders import Desk, Order
from computeragent.server.sandboxes.pool import Pool
from computeragent.server.sandboxes.sandbox import Sandbox
from computeragent.server.sandboxes.shapes import (
    RestoreRequest,
    SnapshotList,
    SnapshotRequest,
    SnapshotTaken,
)
from computeragent.server.sandboxes.snapshot_stores import SnapshotRecord
from computeragent.server.sandboxes.snapshots import Snapshots, request_of
from computeragent.server.sandboxes.tenants import Tenants


class Restoring:
    """Handlers of snapshots."""

    def __init__(self, desk: Desk, tenants: Tenants, pool: Pool, snapshots: Snapshots, limits: SandboxLimits) -> None:
        self._desk = desk
        self._tenants = tenants
        self._pool = pool
        self._snapshots = snapshots
        self._limits = limits

    async def snapshot(self, call: Call) -> SnapshotTaken:
        """``POST /sandboxes/{id}/snapshot``; the body may be empty."""
        body = _body(call)
        sandbox = self._pool.find(call.principal, call.path["sandbox_id"])
        record = await self._snapshots.take(sandbox, body.state_store, body.snapshot_id)
        return SnapshotTaken(
            snapshot_id=record.snapshot_id,
            size_bytes=record.size_bytes,
            taken_at=record.taken_at,
            file_count=record.workdir_file_count,
        )

    async def listing(self, call: Call) -> SnapshotList:
        """``GET /snapshots``."""
        query = call.query
        if not 1 <= query.limit <= 500:
            raise ValidationError("limit is 1 to 500", hint="Leave it out for the newest 50.")
        found = await self._snapshots.listed(call.principal.id, query.state_store, query.source_sandbox_id, query.limit)
        return SnapshotList(snapshots=found)

    async def delete(self, call: Call) -> Ok:
        """``DELETE /snapshots/{id}``: one that is not there is deleted already."""
        await self._snapshots.delete(call.principal.id, call.query.state_store, call.path["snapshot_id"])
        return Ok()

    async def restore(self, call: Call) -> Response:
        """``POST /sandboxes/restore``: 201 with a new sandbox, 200 with the one that was filled."""
        body: RestoreRequest = call.body
        if not body.snapshot_id:
            raise BodyError("the request names no snapshot", hint="Send snapshotId.")
        if body.auto_save is not None:
            self._snapshots.require(body.auto_save.state_store)
        self._limits.lives(body.ttl_ms, body.idle_ttl_ms)
        record = await self._snapshots.load(call.principal.id, body.state_store, body.snapshot_id)
        if body.target == "new":
            return await self._anew(call, body, record)
        return await self._in_place(call, body, record)

    async def _anew(self, call: Call, body: RestoreRequest, record: SnapshotRecord) -> Response:
        source = self._living_source(call, record)
        order, missing = self._order(call, body, record, source)
        sandbox = await self._pool.create(
            order, ttl_ms=body.ttl_ms, idle_ttl_ms=body.idle_ttl_ms, auto_save=body.auto_save
        )
        sandbox.restoring = True
        try:
            async with sandbox.at_work:
                await self._snapshots.fill(sandbox, body.state_store, record)
        except BaseException:
            sandbox.restoring = False
            await self._pool.dispose(sandbox, save=False)
            raise
        sandbox.restoring = False
        if sandbox.ended is not None:
            raise sandbox.gone_error()
        opened = sandbox.opened(restored=True, from_snapshot_id=record.snapshot_id, missing=missing)
        return json_response(opened, 201)

    def _order(
        self, call: Call, body: RestoreRequest, record: SnapshotRecord, source: Sandbox | None
    ) -> tuple[Order, list[str]]:
        """The snapshot's order with what the request adds; what it lacks comes from its sandbox while that lives."""
        tenant = self._tenants.of(call.principal)
        base, missing = request_of(record.start)
        envs, options, token, policy, store = {}, base.options, None, base.policy, base.session_store
        if source is not None:
            given = source.order
            envs = {name: value for name, value in given.envs.items() if name in given.given_envs}
            options, token = dict(given.options), given.git_token
            policy, store, missing = given.policy, given.asked_store, []
        is_free = record.source_session_id not in tenant.live
        asked = msgspec.structs.replace(
            base,
            envs={**envs, **body.envs},
            options={**options, **body.options},
            git_token=body.git_token or token,
            policy=body.policy or policy,
            session_store=body.session_store or store,
            runtime=body.runtime or base.runtime,
            session_id=record.source_session_id if is_free else None,
        )
        order = self._desk.order(asked, call.principal, tenant)
        return order, [name for name in missing if not _is_given(name, body)]

    async def _in_place(self, call: Call, body: RestoreRequest, record: SnapshotRecord) -> Response:
        sandbox = self._pool.find(call.principal, body.target)
        has_changes = body.policy is not None or body.git_token is not None or body.session_store is not None
        if has_changes or body.options or body.runtime not in {None, sandbox.order.runtime}:
            raise ValidationError(
                "in place, files alone are restored", hint='Use target "new" for another runtime, policy or options.'
            )
        if record.start.policy is not None and sandbox.order.policy is None:
            raise ValidationError(
                "this snapshot is of a sandbox with a policy, the target has none", hint='Use target "new".'
            )
        sandbox.require_idle()
        sandbox.restoring = True
        try:
            async with sandbox.at_work:
                await sandbox.stop()
                await self._snapshots.fill(sandbox, body.state_store, record)
        finally:
            sandbox.restoring = False
        if sandbox.ended is not None:
            raise sandbox.gone_error()
        order = sandbox.order
        if body.envs:
            sandbox.order = replace(
                order, envs={**order.envs, **body.envs}, given_envs=order.given_envs | frozenset(body.envs)
            )
        if body.auto_save is not None:
            sandbox.auto_save = body.auto_save
        if body.ttl_ms is not None or body.idle_ttl_ms is not None:
            sandbox.renew(*self._limits.lives(body.ttl_ms, body.idle_ttl_ms))
        sandbox.touch()
        return json_response(sandbox.opened(restored=True, from_snapshot_id=record.snapshot_id))

    def _living_source(self, call: Call, record: SnapshotRecord) -> Sandbox | None:
        try:
            sandbox = self._pool.find(call.principal, record.source_sandbox_id)
        except ComputerAgentError:
            return None
        return sandbox if sandbox.is_live else None


def _body(call: Call) -> SnapshotRequest:
    return decoded(call.raw, SnapshotRequest) if call.raw.strip() else SnapshotRequest()


def _is_given(name: str, body: RestoreRequest) -> bool:
    kind, _, rest = name.partition(".")
    return (
        (kind == "envs" and rest in body.envs)
        or (kind == "options" and rest.partition(".")[0] in body.options)
        or (kind == "gitToken" and body.git_token is not None)
        or (kind == "policy" and body.policy is not None)
        or (kind == "sessionStore" and body.session_store is not None)
    )
