"""A run as telemetry hears of it: a reader of the session's log for each pipeline that wants to know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from computeragent.errors import ComputerAgentError, GuardrailError
from computeragent.identity.repository import parse_repository
from computeragent.logs import Logger
from computeragent.settings import setting
from computeragent.telemetry.config import get_config
from computeragent.telemetry.described import credential_holders, described
from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.pipeline import Pipeline, Step
from computeragent.telemetry.protocols import Trip
from computeragent.telemetry.recorded import RecordedRun, RunFacts
from computeragent.telemetry.trace_context import Parent, current_parent
from computeragent.wire.events import CaSessionEnded, CaSessionStarted, CaTurnStarted, EndReason, Recorded
from computeragent.wire.identity import GitSource, IdentitySource

_READ_OUT = 2.0
_log = Logger("telemetry")


class Run(Protocol):
    """What is followed: a session whose run has begun."""

    id: str

    def events(self) -> AsyncIterator[Recorded]:
        """The events of the run, to its end."""
        ...

    def stop(self, reason: EndReason, message: str, code: str) -> None:
        """End the run."""
        ...


class RunTelemetry:
    """Tells one run to pipelines. The engine never waits for it; a guard of theirs may stop the run."""

    def __init__(self, pipelines: Sequence[Pipeline], facts: RunFacts, settings: Sequence[Any]) -> None:
        self._pipelines = pipelines
        self._facts = facts
        self._settings = settings
        self._parents: dict[int, Parent] = {}
        self._opened_in = current_parent()
        self._session: Run | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader: asyncio.Task[None] | None = None

    def follow(self, session: Run) -> None:
        """Read the run that has just begun, to its end."""
        self._session = session
        self._loop = asyncio.get_running_loop()
        runs = [(pipeline, RecordedRun(session.id, self._facts, self._parent_of)) for pipeline in self._pipelines]
        for pipeline in self._pipelines:
            pipeline.watch(session.id, self)
            pipeline.offer(Step(time.time_ns(), partial(self._learn, pipeline, session.id), vital=True))
        self._reader = asyncio.create_task(self._read(session, runs), name=f"telemetry {session.id}")

    def sent(self, turn: int) -> None:
        """A message was sent, by a caller whose span its turn joins."""
        parent = current_parent() or self._opened_in
        if parent is not None:
            self._parents[turn] = parent

    def stop(self, trip: Trip) -> None:
        """Called on a pipeline's thread when a guard trips: the run ends."""
        session, loop = self._session, self._loop
        if session is None or loop is None:
            return
        reason = "budget_exceeded" if trip.kind == "budget_exceeded" else "error"
        try:
            loop.call_soon_threadsafe(partial(session.stop, reason, trip.reason, GuardrailError.code))
        except RuntimeError:
            return  # the loop is closed, and the run with it

    async def finish(self) -> None:
        """The run has ended: wait a moment until all of it is told and safe."""
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=_READ_OUT)
        for pipeline in self._pipelines:
            await pipeline.settle()

    async def _read(self, session: Run, runs: list[tuple[Pipeline, RecordedRun]]) -> None:
        try:
            async for recorded in session.events():
                vital = isinstance(recorded.event, (CaSessionStarted, CaTurnStarted, CaSessionEnded))
                for pipeline, run in runs:
                    pipeline.offer(Step(0, partial(_tell, run, recorded), vital=vital, source=recorded.data))
        except ComputerAgentError as error:
            _log.warn("log_not_read", session=session.id, error=str(error))

    def _parent_of(self, turn: int) -> Parent | None:
        return self._parents.get(turn)

    def _learn(self, pipeline: Pipeline, session_id: str, at: int) -> Sequence[TelemetryEvent]:
        del at
        pipeline.learn(session_id, self._settings)
        return ()


def run_telemetry(
    pipelines: Sequence[Pipeline], source: IdentitySource, options: Mapping[str, Any]
) -> RunTelemetry | None:
    """What tells a run of these options to pipelines, or None where nobody listens."""
    if not pipelines:
        return None
    payload = described(options)
    if isinstance(source, GitSource):
        payload["source_url"] = parse_repository(source.url, allow_file=True).name
        if source.subdir:
            payload["source_subdir"] = source.subdir
    facts = RunFacts(payload, agent_id=get_config().agent_id or setting("agent_id"))
    return RunTelemetry(pipelines, facts, credential_holders(options))


def _tell(run: RecordedRun, recorded: Recorded, at: int) -> list[TelemetryEvent]:
    del at
    return run.read(recorded)
