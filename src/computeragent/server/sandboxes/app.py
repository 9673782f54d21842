"""`create_sandbox_server`: runs, tasks, warm sandboxes and snapshots as an ASGI application."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from computeragent import plugins
from computeragent.errors import ComputerAgentError
from computeragent.logs import Logger
from computeragent.policy.config import AnyPolicy
from computeragent.server.auth import LOOPBACK, Authenticate, Gate
from computeragent.server.endpoint import BodyError, Call, NotJsonError, failed, http_error
from computeragent.server.openapi import document
from computeragent.server.sandboxes.errors import UnknownRuntimeError, UnknownStateStoreError, UnknownTaskStoreError
from computeragent.server.sandboxes.limits import SandboxLimits
from computeragent.server.sandboxes.orders import Desk
from computeragent.server.sandboxes.pool import Pool
from computeragent.server.sandboxes.restoring import Restoring
from computeragent.server.sandboxes.routes import Handlers, routes
from computeragent.server.sandboxes.runs import Runs
from computeragent.server.sandboxes.sandboxes import Sandboxes
from computeragent.server.sandboxes.shapes import ServerHealth
from computeragent.server.sandboxes.snapshot_stores import SnapshotStore, stores_from_environment
from computeragent.server.sandboxes.snapshots import Snapshots
from computeragent.server.sandboxes.task_stores import MemoryTaskStore, SqliteTaskStore, TaskStore
from computeragent.server.sandboxes.tasks import Tasks
from computeragent.server.sandboxes.tenants import Tenants
from computeragent.telemetry.pipeline import Pipeline
from computeragent.wire.encoding import to_json

PUBLIC = ("/health",)
_NEEDS: dict[str, Callable[[], object]] = {
    "bwrap": lambda: shutil.which("bwrap"),
    "docker": lambda: shutil.which("docker") or os.environ.get("DOCKER_HOST"),
    "e2b": lambda: os.environ.get("E2B_API_KEY"),
    "vz": lambda: shutil.which("tart"),
}
"""What a runtime cannot do without on this machine."""
_log = Logger("sandboxes")


def create_sandbox_server(
    *,
    auth: Authenticate | None = None,
    engines: Sequence[str] | None = None,
    runtimes: Sequence[str] | None = None,
    default_runtime: str | None = None,
    forward_env: Iterable[str] = (),
    policy: AnyPolicy | None = None,
    source_roots: Iterable[str | Path] | None = None,
    task_stores: Mapping[str, TaskStore] | None = None,
    default_task_store: str | None = None,
    snapshot_stores: Mapping[str, SnapshotStore] | None = None,
    default_snapshot_store: str | None = None,
    limits: SandboxLimits | None = None,
    telemetry: Pipeline | None = None,
    allowed_hosts: Iterable[str] = LOOPBACK,
) -> Starlette:
    """The sandbox server as an ASGI application. What belongs to one principal does not exist for another.

    Args:
        auth: Who a bearer token is, such as `bearer(["…"])`. Without it everybody is let in: for loopback alone.
        engines: The engines that may be asked for; default all that are registered.
        runtimes: Where agents may run; default every substrate that can be made here.
        default_runtime: Where they run when a request does not say; default the first of `runtimes`.
        forward_env: Names of the server's own environment variables that agents get, below what requests say.
            Whoever may run an agent can read them. Default: none.
        policy: Judges every tool call of every agent, beside the policy that a request brings along.
        source_roots: Folders that local sources may lie in; default any but the server's own state.
        task_stores: By kind, where tasks are kept; default ``sqlite`` and ``memory``.
        default_task_store: For requests that name none; default the first of `task_stores`.
        snapshot_stores: By kind, where snapshots are kept; default ``memory`` and ``file``, and ``s3`` where
            ``S3_BUCKET`` is set.
        default_snapshot_store: For requests that name none; default ``s3`` where there is one, else ``file``.
        limits: How much is taken on; default `SandboxLimits.from_environment()`.
        telemetry: The pipeline that runs are told to; default the process's own.
        allowed_hosts: Host names that requests may be for; empty for any.

    """
    limits = limits or SandboxLimits.from_environment()
    offered = _engines(engines)
    places = available_runtimes(runtimes)
    default = default_runtime or ("local" if runtimes is None and "local" in places else next(iter(places), "local"))
    if default not in places:
        raise UnknownRuntimeError(default, places)
    desk = Desk(
        engines=offered,
        runtimes=places,
        default_runtime=default,
        forward_env=tuple(forward_env),
        source_roots=None if source_roots is None else tuple(Path(root).resolve() for root in source_roots),
        approval_timeout=limits.approval_timeout,
    )
    tenants = Tenants(telemetry, policy)
    task_kinds = dict(task_stores or {"sqlite": SqliteTaskStore(), "memory": MemoryTaskStore()})
    snapshot_kinds = dict(snapshot_stores or stores_from_environment())
    task_kind = default_task_store or next(iter(task_kinds))
    if task_kind not in task_kinds:
        raise UnknownTaskStoreError(task_kind, task_kinds)
    kept_in = default_snapshot_store or next(name for name in ("s3", "file", *snapshot_kinds) if name in snapshot_kinds)
    if kept_in not in snapshot_kinds:
        raise UnknownStateStoreError(kept_in, snapshot_kinds)
    snapshots = Snapshots(snapshot_kinds, default=kept_in, limits=limits)
    pool = Pool(limits, snapshots.autosave)
    runs = Runs(desk, tenants, limits.max_runs)
    tasks = Tasks(desk, tenants, task_kinds, default=task_kind, most=limits.max_tasks, waiting=limits.max_waiting_tasks)

    async def health(_: Call) -> ServerHealth:
        return ServerHealth(
            ok=True,
            version=metadata.version("computer-agent-py"),
            active_runs=runs.active,
            max=runs.most,
            runtimes=list(places),
            default_runtime=default,
            engines=list(offered),
        )

    handlers = Handlers(
        health=health,
        runs=runs,
        tasks=tasks,
        sandboxes=Sandboxes(desk, tenants, pool, snapshots),
        restoring=Restoring(desk, tenants, pool, snapshots, limits),
    )
    endpoints = routes(handlers)
    described = document(endpoints, title="computeragent sandboxes")

    async def openapi(_: Request) -> Response:
        return Response(described, media_type="application/json")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        await anyio.to_thread.run_sync(tenants.recover)
        await tasks.recover()
        reaper = asyncio.create_task(pool.reap())
        try:
            yield
        finally:
            reaper.cancel()
            await asyncio.gather(runs.close(), tasks.close(), pool.close())
            await tenants.close()

    return Starlette(
        routes=[*(each.route() for each in endpoints), Route("/openapi.json", openapi, methods=["GET"])],
        lifespan=lifespan,
        middleware=[Middleware(Gate, authenticate=auth, hosts=allowed_hosts, public=PUBLIC)],
        exception_handlers={ComputerAgentError: _told, HTTPException: http_error, Exception: failed},
    )


def available_runtimes(wanted: Sequence[str] | None = None) -> list[str]:
    """The runtimes of this machine: those whose substrate can be made here. One that was named must be there."""
    if wanted is not None:
        for name in wanted:
            plugins.resolve_substrate(name)
        return list(dict.fromkeys(wanted))
    found: list[str] = []
    for name in plugins.substrates.names():
        if name in _NEEDS and not _NEEDS[name]():
            continue
        try:
            plugins.resolve_substrate(name)
        except Exception as error:  # noqa: BLE001 - a plug-in that cannot be made is one that is not offered
            _log.info("runtime_not_offered", runtime=name, error=str(error))
        else:
            found.append(name)
    return found


def _engines(wanted: Sequence[str] | None) -> list[str]:
    names = sorted(set(wanted or plugins.engines.names()))
    for name in names:
        plugins.engines.require(name)
    return names


async def _told(request: Request, error: Exception) -> Response:
    """An error in the envelope. What clients of this server look for beside the code, such as `available`, is there."""
    del request
    assert isinstance(error, ComputerAgentError)
    wire = error.to_wire()
    if isinstance(error, NotJsonError):
        wire["error"]["code"] = "INVALID_JSON"
    elif isinstance(error, BodyError):
        wire["error"]["code"] = "INVALID_BODY"
    if isinstance(error.details, dict):
        wire["error"] = error.details | wire["error"]
    headers = {"retry-after": "5"} if error.status == 429 else None
    return Response(to_json(wire), error.status, headers, media_type="application/json")
