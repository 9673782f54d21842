"""``/tasks``: runs in the background, whose events stay to be read after them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from computeragent.errors import ComputerAgentError, MissingPathError, NotFoundError, ValidationError
from computeragent.eventlog import EventLog
from computeragent.eventlog.owner import Owner
from computeragent.ids import new_id
from computeragent.logs import Logger
from computeragent.server.answers import answered_by
from computeragent.server.auth import Principal
from computeragent.server.bodies import Ok
from computeragent.server.endpoint import Call, json_response
from computeragent.server.sandboxes.errors import GoneError, TooManyTasksError, UnknownTaskStoreError
from computeragent.server.sandboxes.files import content
from computeragent.server.sandboxes.orders import Desk, said
from computeragent.server.sandboxes.relay import Relay, RelayResponse, failed
from computeragent.server.sandboxes.shapes import (
    TaskAccepted,
    TaskDeleted,
    TaskEvent,
    TaskEvents,
    TaskList,
    TaskRequest,
    TaskState,
)
from computeragent.server.sandboxes.task_runner import LiveTask, buried
from computeragent.server.sandboxes.task_stores import LIVE, TaskRow, TaskStore
from computeragent.server.sandboxes.tenants import Tenants
from computeragent.server.stream import Pages, resume_point
from computeragent.server.times import iso, now
from computeragent.wire.encoding import from_json
from computeragent.wire.events import Recorded
from computeragent.wire.requests import PermissionDecision, StoreConfig

_PAGE = 512
_STOPPED = ("the server stopped before this task ended", "INTERRUPTED")
_log = Logger("tasks")


class Tasks:
    """The tasks of one server: at most `most` run at a time, at most `waiting` more wait for a place."""

    def __init__(
        self,
        desk: Desk,
        tenants: Tenants,
        stores: Mapping[str, TaskStore],
        *,
        default: str,
        most: int,
        waiting: int,
    ) -> None:
        self._desk = desk
        self._tenants = tenants
        self._stores = dict(stores)
        self._default = default
        self._most = most + waiting
        self._places = asyncio.Semaphore(most)
        self._live: dict[str, LiveTask] = {}

    async def recover(self) -> None:
        """Tell of every task that a process which is gone left behind how it ended."""
        for store in self._stores.values():
            for row in await store.unfinished():
                if Owner.alive(row.server):
                    continue
                tenant = self._tenants.of(Principal(row.owner))
                try:
                    await store.save(await buried(row, store.log(tenant, row.task_id)))
                except ComputerAgentError as error:
                    _log.error("task_not_recovered", task=row.task_id, error=error.message)

    # ── Handlers ──

    async def create(self, call: Call) -> Response:
        """``POST /tasks``."""
        body: TaskRequest = call.body
        tenant = self._tenants.of(call.principal)
        kind, store = self._store(body.task_store)
        order = self._desk.order(body, call.principal, tenant)
        message = said(body.message)
        if len(self._live) >= self._most:
            raise TooManyTasksError(len(self._live), self._most)
        task_id = new_id("task")
        row = TaskRow(
            task_id=task_id,
            owner=call.principal.id,
            session_id=order.session_id or task_id,
            status="queued",
            server=str(self._tenants.mark),
            created=now(),
            config=order.config,
            store=kind,
        )
        with tenant.claimed(row.session_id):
            task = self._live[task_id] = LiveTask(row, order, message, store)
            try:
                await store.save(row)
            except BaseException:
                del self._live[task_id]
                raise
        task.start(self._places).add_done_callback(lambda _: self._live.pop(task_id, None))
        accepted = TaskAccepted(task_id=task_id, session_id=row.session_id, status="queued")
        return json_response(accepted, 202)

    async def listing(self, call: Call) -> TaskList:
        """``GET /tasks``."""
        query = call.query
        if not 1 <= query.limit <= 500:
            raise ValidationError("limit is 1 to 500", hint="Leave it out for the newest 50.")
        stores = [self._named(query.task_store)] if query.task_store else [*self._stores.values()]
        rows = [row for store in stores for row in await store.listed(call.principal.id, query.status, query.limit)]
        rows.sort(key=lambda row: row.task_id, reverse=True)
        return TaskList(tasks=[self._state(row) for row in rows[: query.limit]])

    async def one(self, call: Call) -> TaskState:
        """``GET /tasks/{id}``."""
        return self._state((await self._find(call))[0])

    async def events(self, call: Call) -> Response | TaskEvents:
        """``GET /tasks/{id}/events``: a page as JSON, or all of them as they come."""
        row, store = await self._find(call)
        log = store.log(self._tenants.of(call.principal), row.task_id)
        if "text/event-stream" in call.request.headers.get("accept", ""):
            after = resume_point(call.request.headers.get("last-event-id"), call.query.last_event_id)
            return RelayResponse(self._relay(row, log, -1 if after is None else after))
        if call.query.since < -1:
            raise ValidationError("since is an event id, or -1", hint="Leave it out to begin at the first event.")
        return await self._page(row, log, call.query.since)

    async def artifact(self, call: Call) -> Response:
        """``GET /tasks/{id}/artifact``: a file of a task that runs."""
        if not call.query.path:
            raise MissingPathError("the query has no path", hint="Add ?path=… to the address.")
        row, _ = await self._find(call)
        task = self._live.get(row.task_id)
        if task is None or row.status not in LIVE:
            raise GoneError("the task has ended, and its files with it", details={"state": row.status})
        if task.session is None:
            raise NotFoundError("the task has not begun", hint="Try again when its status is running.")
        return await content(task.session.files, call.query.path)

    async def decide(self, call: Call) -> Ok:
        """``POST /tasks/{id}/permission/{callId}``."""
        row, _ = await self._find(call)
        task = self._live.get(row.task_id)
        if task is None or task.session is None:
            raise NotFoundError("this task asks nothing now", hint="Its pendingCalls say what waits.")
        body = call.body
        decision = PermissionDecision(decision=body.decision, input=body.input, reason=body.reason)
        await task.session.decide(call.path["call_id"], decision, by=answered_by(call))
        return Ok()

    async def delete(self, call: Call) -> TaskDeleted:
        """``DELETE /tasks/{id}``: cancels a live task, which stays to be looked at; forgets an ended one."""
        row, store = await self._find(call)
        task = self._live.get(row.task_id)
        if task is not None:
            await task.cancel()
        elif row.status not in LIVE:
            await store.delete(self._tenants.of(call.principal), row)
        return TaskDeleted(ok=True, task_id=row.task_id)

    async def close(self) -> None:
        """Break off what runs and waits, and say so."""
        await asyncio.gather(*(task.cancel(_STOPPED) for task in list(self._live.values())))
        for store in self._stores.values():
            await store.close()

    # ── Parts ──

    def _relay(self, row: TaskRow, log: EventLog, after: int) -> Relay:
        task = self._live.get(row.task_id)

        async def begin() -> Pages:
            if task is not None:
                waits = [asyncio.create_task(event.wait()) for event in (task.begun, task.over)]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for wait in waits:
                        wait.cancel()
                if task.session is not None and task.row.first is not None and not task.over.is_set():
                    return task.session.events(task.row.first + after)
            return _Kept(task.row if task is not None else row, log, after)

        async def last(failure: ComputerAgentError | None) -> dict[str, Any]:
            if failure is not None:
                return failed(failure, taskId=row.task_id, sessionId=row.session_id)
            if task is not None:
                await task.over.wait()
            ended = task.row if task is not None else row
            told: dict[str, Any] = {"kind": "ca_done", "taskId": row.task_id, "sessionId": row.session_id}
            told |= {"status": ended.status, "usage": ended.usage}
            return told | ({"error": ended.error, "code": ended.error_code} if ended.error else {})

        def first() -> int:
            return (task.row if task is not None else row).first or 0

        return Relay(begin, last, offset=first)

    async def _page(self, row: TaskRow, log: EventLog, since: int) -> TaskEvents:
        found: list[Recorded] = []
        first = row.first
        if first is not None:
            found = await log.read(row.session_id, after=first + since, limit=_PAGE)
            found = [one for one in found if row.last is None or one.id <= row.last or row.status in LIVE]
        events = [_event(one, first or 0) for one in found]
        reached = events[-1].id if events else since
        is_done = row.status not in LIVE and (row.last is None or first is None or first + reached >= row.last)
        return TaskEvents(events=events, next_since=reached, done=is_done, status=row.status)

    def _state(self, row: TaskRow) -> TaskState:
        task = self._live.get(row.task_id)
        counted = 0 if row.first is None or row.last is None else row.last - row.first + 1
        return TaskState(
            task_id=row.task_id,
            session_id=row.session_id,
            status=row.status,
            event_count=task.count if task is not None else counted,
            usage=row.usage,
            created_at=iso(row.created),
            started_at=iso(row.started),
            ended_at=iso(row.ended),
            last_event_at=iso(row.last_event),
            error=row.error,
            error_code=row.error_code,
            artifact_refs=[],
            pending_calls=task.session.pending_calls if task is not None and task.session is not None else [],
            config=row.config,
        )

    async def _find(self, call: Call) -> tuple[TaskRow, TaskStore]:
        task_id = call.path["task_id"]
        for store in self._stores.values():
            row = await store.load(call.principal.id, task_id)
            if row is not None:
                task = self._live.get(task_id)
                return (task.row if task is not None else row), store
        raise NotFoundError(f"task {task_id[:140]} not found", hint="GET /tasks lists yours.")

    def _store(self, choice: StoreConfig | None) -> tuple[str, TaskStore]:
        kind = self._default if choice is None else choice.kind
        store = self._named(kind)
        if choice is not None and choice.options:
            raise ValidationError(
                "task stores take no options from requests", hint="Whoever runs the server configures them."
            )
        return kind, store

    def _named(self, kind: str) -> TaskStore:
        store = self._stores.get(kind)
        if store is None:
            raise UnknownTaskStoreError(kind, self._stores)
        return store


class _Kept:
    """The events of an ended task, from the log that has them. Implements `Pages`."""

    def __init__(self, row: TaskRow, log: EventLog, after: int) -> None:
        self._row = row
        self._log = log
        self.position = -1 if row.first is None else row.first + after

    async def page(self) -> list[Recorded]:
        """See `Pages.page`."""
        row = self._row
        if row.first is None or row.last is None or self.position >= row.last:
            return []
        found = [one for one in await self._log.read(row.session_id, self.position, _PAGE) if one.id <= row.last]
        if found:
            self.position = found[-1].id
        return found

    def close(self) -> None:
        """See `Pages.close`."""


def _event(recorded: Recorded, first: int) -> TaskEvent:
    told: dict[str, Any] = from_json(recorded.data)
    kind = told.pop("kind")
    return TaskEvent(id=recorded.id - first, ts=int(recorded.at * 1000), kind=kind, payload=told)
