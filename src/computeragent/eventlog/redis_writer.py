"""Group commit to Redis: whatever has gathered goes in one round trip, and is tried again until it is there.

What is sent again after a lost answer is not written twice: the script skips what it has.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from itertools import islice
from typing import Any, NamedTuple

from computeragent.errors import ComputerAgentError, EventLogError
from computeragent.eventlog import redis_scripts as scripts
from computeragent.eventlog.channel import Channel
from computeragent.eventlog.redis_link import RedisLink
from computeragent.eventlog.summary import SessionSummary
from computeragent.logs import Logger
from computeragent.wire.encoding import to_json
from computeragent.wire.events import (
    CaPermissionDecision,
    CaPermissionRequest,
    CaSessionEnded,
    CaSessionStarted,
    HarnessEvent,
    Recorded,
)

_BATCH_EVENTS = 512
_BATCH_BYTES = 4 * 1024 * 1024
_ROUND_BYTES = 16 * 1024 * 1024
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
_log = Logger("eventlog")


class Append(NamedTuple):
    """An event with the session's state as it was right after it; the channel's own runs ahead."""

    recorded: Recorded
    summary: SessionSummary
    run_start: int
    turn_start: int
    pending: tuple[str, ...]


class RedisWriter:
    """Commits what channels append. Redis may be away for `patience` seconds; after that a channel breaks."""

    def __init__(self, link: RedisLink, prefix: str, mark: str, *, max_events: int | None, patience: float) -> None:
        self._link = link
        self._prefix = prefix
        self._mark = mark
        self._max_events = max_events or 0
        self._patience = patience
        self._queues: dict[Channel, deque[Append]] = {}
        self._pending: dict[Channel, tuple[str, ...]] = {}
        self._failing: dict[Channel, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._round: asyncio.Future[None] | None = None

    def submit(self, channel: Channel, recorded: Recorded) -> None:
        """Take an event for the next round."""
        pending = self._pending[channel] = _still_pending(self._pending.get(channel, ()), recorded.event)
        queue = self._queues.setdefault(channel, deque())
        queue.append(Append(recorded, channel.summary, channel.run_start, channel.turn_start, pending))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain(), name="redis event log")

    async def flush(self, channel: Channel) -> None:
        """Return when all of a channel is committed, or it is broken."""
        while self._queues.get(channel) and channel.failure is None and self._task and not self._task.done():
            if self._round is None or self._round.done():
                self._round = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._round, self._task}, return_when=asyncio.FIRST_COMPLETED)

    def forget(self, channel: Channel) -> None:
        """A channel is given back."""
        for table in (self._queues, self._pending, self._failing):
            table.pop(channel, None)

    async def finish(self) -> None:
        """Commit what is left; bounded by the patience."""
        if self._task is not None:
            await asyncio.wait({self._task})

    # ── Rounds ──

    async def _drain(self) -> None:
        pause = _FIRST_PAUSE
        while batches := self._gathered():
            try:
                progress = await self._commit(batches)
            except Exception as error:  # noqa: BLE001 - whatever it is, readers and writers must not wait for ever
                _log.error("event_log_broke", error=repr(error))
                for channel in batches:
                    self._give_up(channel, EventLogError(f"the event log broke: {error!r}"))
                progress = True
            if self._round is not None and not self._round.done():
                self._round.set_result(None)
            if progress:
                pause = _FIRST_PAUSE
            else:
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)

    def _gathered(self) -> dict[Channel, list[Append]]:
        """What waits, up to a batch per channel and a round for all; who is served goes to the end of the line."""
        found: dict[Channel, list[Append]] = {}
        total = 0
        for channel, queue in self._queues.items():
            size = 0
            for item in islice(queue, _BATCH_EVENTS):
                found.setdefault(channel, []).append(item)
                size += len(item.recorded.data)
                if size > _BATCH_BYTES:
                    break
            total += size
            if total > _ROUND_BYTES:
                break
        for channel in found:
            self._queues[channel] = self._queues.pop(channel)
        return found

    async def _commit(self, batches: dict[Channel, list[Append]]) -> bool:
        """One round; whether anything came of it."""
        try:
            answers = await self._link.run_each(
                scripts.APPEND, [self._arguments(channel, batch) for channel, batch in batches.items()]
            )
        except self._link.faults as error:
            answers = [error] * len(batches)
        progress = False
        for (channel, batch), answer in zip(batches.items(), answers, strict=True):
            if channel not in self._queues:
                continue  # given back meanwhile
            if isinstance(answer, Exception):
                progress = self._failed(channel, answer) or progress
            else:
                self._settle(channel, batch, answer)
                progress = True
        return progress

    def _arguments(self, channel: Channel, batch: list[Append]) -> list[Any]:
        last = batch[-1]
        found: list[Any] = [
            self._prefix,
            channel.session_id,
            self._mark,
            channel.generation,
            batch[0].recorded.id,
            last.recorded.at,
            last.run_start,
            int(last.summary.live),
            to_json(last.summary),
            to_json(last.pending),
            self._max_events,
            last.turn_start,
        ]
        for item in batch:
            found += (repr(item.recorded.at), item.recorded.data)
        return found

    def _settle(self, channel: Channel, batch: list[Append], answer: list[bytes]) -> None:
        self._failing.pop(channel, None)
        verdict = answer[0].decode()
        if verdict != "ok":
            self._give_up(channel, refusal(channel.session_id, verdict))
            return
        queue = self._queues[channel]
        for _ in batch:
            queue.popleft()
        channel.kept_from = int(answer[1])
        channel.committed([item.recorded for item in batch])

    def _failed(self, channel: Channel, error: Exception) -> bool:
        """Redis did not take it; after the patience the channel breaks, and True is returned."""
        now = time.monotonic()
        if channel not in self._failing:
            _log.warn("event_log_waits", session=channel.session_id, error=str(self._link.failure(error)))
        if now - self._failing.setdefault(channel, now) < self._patience:
            return False
        self._give_up(channel, self._link.failure(error))
        return True

    def _give_up(self, channel: Channel, failure: ComputerAgentError) -> None:
        self._queues.pop(channel, None)
        channel.broke(failure)


def refusal(session_id: str, verdict: str) -> EventLogError:
    """Why Redis refuses to write to a session."""
    if verdict == "stale":
        return EventLogError(
            f"session {session_id} was taken over by another process",
            hint="Only one process may run a session; the other one goes on with it.",
        )
    if verdict == "gone":
        return EventLogError(
            f"session {session_id} is no longer in Redis", hint="It was deleted, or Redis lost its data."
        )
    return EventLogError(
        f"Redis has lost events of session {session_id} that it had taken",
        hint="Turn its persistence on (appendonly yes), or wait for replicas (min-replicas-to-write).",
    )


def _still_pending(pending: tuple[str, ...], event: HarnessEvent) -> tuple[str, ...]:
    """The tool calls that wait for an answer, after one more event."""
    if isinstance(event, CaPermissionRequest):
        return (*pending, event.call_id)
    if isinstance(event, CaPermissionDecision):
        return tuple(call for call in pending if call != event.call_id)
    return () if isinstance(event, (CaSessionStarted, CaSessionEnded)) else pending
