"""One task, from the queue to its end: a run whose events are kept, whoever listens."""

from __future__ import annotations

import asyncio
import time

from msgspec.structs import replace

from computeragent.errors import ComputerAgentError
from computeragent.eventlog import EventLog
from computeragent.harness.harness import end_interrupted_run
from computeragent.harness.session import LocalSession
from computeragent.logs import Logger
from computeragent.server.sandboxes.orders import Order
from computeragent.server.sandboxes.shapes import TaskStatus, Usage
from computeragent.server.sandboxes.task_stores import TaskRow, TaskStore
from computeragent.wire.events import CaSessionEnded, CaUsageSnapshot
from computeragent.wire.requests import UserInput
from computeragent.wire.usage import UsageRollup

_OUTCOMES: dict[str, TaskStatus] = {
    "complete": "complete",
    "budget_exceeded": "complete",
    "cancelled": "cancelled",
    "error": "errored",
}
_log = Logger("tasks")


class LiveTask:
    """A task that waits or runs in this process. `row` is what is known of it; the store is told of each change."""

    def __init__(self, row: TaskRow, order: Order, message: UserInput, store: TaskStore) -> None:
        self.row = row
        self.order = order
        self.session: LocalSession | None = None
        self.begun = asyncio.Event()
        self.over = asyncio.Event()
        self.count = 0
        self._message = message
        self._store = store
        self._usage = UsageRollup()
        self._why: tuple[str, str] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, places: asyncio.Semaphore) -> asyncio.Task[None]:
        """Run as soon as there is a place."""
        self._task = asyncio.create_task(self._run(places), name=f"task {self.row.task_id}")
        return self._task

    async def cancel(self, why: tuple[str, str] | None = None) -> None:
        """End it, and wait for that. `why` is a message and a code for one that is not cancelled but broken off."""
        if self.over.is_set():
            return
        self._why = self._why or why
        if self.session is not None:
            await self.session.cancel()
        elif self._task is not None:
            self._task.cancel()
        await self.over.wait()

    async def _run(self, places: asyncio.Semaphore) -> None:
        status: TaskStatus = "cancelled"
        error: tuple[str, str] | None = None
        try:
            async with places:
                ended = await self._work()
            status = _OUTCOMES[ended.reason]
            if ended.error_message is not None:
                error = (ended.error_message, ended.error_code or "INTERNAL")
        except asyncio.CancelledError:
            status = "cancelled"
        except ComputerAgentError as failure:
            status, error = "errored", (failure.message, failure.code)
        except Exception as failure:  # noqa: BLE001 - the task's own outcome
            _log.error("task_failed", task=self.row.task_id, error=repr(failure))
            status, error = "errored", ("internal error", "INTERNAL")
        finally:
            if self._why is not None:
                status, error = "errored", self._why
            await asyncio.shield(self._end(status, error))

    async def _work(self) -> CaSessionEnded:
        row, order = self.row, self.order
        harness = order.tenant.harness(order.runtime, self._store.log(order.tenant, row.task_id))
        try:
            session = await harness.open(order.request(row.session_id))
            stream = session.events()
            self.session = session
            await session.send(self._message)
            await session.end_input()
            async for recorded in stream:
                self.count += 1
                self.row = replace(self.row, last_event=recorded.at, last=recorded.id)
                if not self.begun.is_set():
                    await self._save(replace(self.row, status="running", started=recorded.at, first=recorded.id))
                    self.begun.set()
                if isinstance(recorded.event, CaUsageSnapshot):
                    self._usage.absorb(recorded.event)
            assert session.ended is not None
            return session.ended
        finally:
            await harness.close()

    async def _end(self, status: TaskStatus, error: tuple[str, str] | None) -> None:
        message, code = error or (None, None)
        ended = replace(
            self.row,
            status=status,
            ended=time.time(),
            error=message,
            error_code=code,
            usage=Usage.of(self._usage),
        )
        try:  # first, so that the session can be had again by whoever sees that the task is over
            await self.order.tenant.forget(ended.session_id, transcript=self.order.store is None)
            await self._save(ended)
        except ComputerAgentError as failure:
            _log.error("task_not_saved", task=ended.task_id, error=failure.message)
        finally:
            self.row = ended
            self.over.set()

    async def _save(self, row: TaskRow) -> None:
        await self._store.save(row)
        self.row = row


async def buried(row: TaskRow, log: EventLog) -> TaskRow:
    """A task whose process is gone: what became of it, by its events; a run without an end gets one."""
    status: TaskStatus = "errored"
    why: tuple[str | None, str | None] = ("the server stopped before this task ended", "INTERRUPTED")
    last = row.last
    if row.first is not None:
        channel = await log.open(row.session_id)
        try:
            end_interrupted_run(channel)
            await channel.flush()
        finally:
            await log.release(channel)
        last = channel.newest
        events = await log.read(row.session_id, after=last - 1)
        ended = events[-1].event if events else None
        if isinstance(ended, CaSessionEnded):
            status = _OUTCOMES[ended.reason]
            why = (ended.error_message, ended.error_code)
    return replace(row, status=status, last=last, ended=time.time(), error=why[0], error_code=why[1])
