"""A run as telemetry hears of it: a reader of the session's log for each pipeline that wants to know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from computeragent.errors import ComputerAgentError, GuardrailError
from computeragent.identity.repository import parse_repository
from computeragent.logs import Logger
from computeragent.protocol_types import SessionRequest
from computeragent.settings import setting
from computeragent.telemetry.config import get_config
from computeragent.telemetry.described import credential_holders, described
from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.pipeline import Pipeline
from computeragent.telemetry.protocols import Trip
from computeragent.telemetry.recorded import RecordedRun, RunFacts
from computeragent.telemetry.steps import Step
from computeragent.telemetry.trace_context import Parent, current_parent
from computeragent.wire.events import (
    CaPermissionDecision,
    CaSessionEnded,
    CaSessionStarted,
    CaTurnStarted,
    EndReason,
    Recorded,
)
from computeragent.wire.identity import GitSource

_READ_OUT = 2.0
_VITAL = (CaSessionStarted, CaTurnStarted, CaPermissionDecision, CaSessionEnded)
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


class _Listener:
    """A pipeline that hears of a run. Implements the pipeline's `Watcher`."""

    def __init__(self, pipeline: Pipeline, run: RecordedRun, stop: Callable[[Trip], None]) -> None:
        self.pipeline = pipeline
        self.stop = stop
        self._run = run
        self._abandoned = False

    def learn(self, session_id: str, settings: Sequence[Any]) -> None:
        """Let the pipeline know a run's credentials."""
        self.pipeline.offer(Step(0, partial(self.pipeline.learned, session_id, settings), vital=True))

    def tell(self, recorded: Recorded, *, vital: bool) -> None:
        """An event of the run was recorded."""
        if not self._abandoned:
            self.pipeline.offer(Step(0, partial(_tell, self._run, recorded), vital=vital, source=recorded.data))

    def leave(self, error: ComputerAgentError | None = None) -> None:
        """The run will be told no further: because of an error, or because nobody goes on."""
        if not self._abandoned:
            self.pipeline.offer(Step(time.time_ns(), partial(self._run.leave, error), vital=True))

    def abandon(self) -> None:
        """After a fork, in the child: the parent tells the rest."""
        self._abandoned = True


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
        self._listeners: list[_Listener] = []

    def follow(self, session: Run) -> None:
        """Read the run that has just begun, to its end."""
        self._session = session
        self._loop = asyncio.get_running_loop()
        for pipeline in self._pipelines:
            run = RecordedRun(session.id, self._facts, self._parent_of)
            listener = _Listener(pipeline, run, self._stop)
            pipeline.watch(session.id, listener)
            listener.learn(session.id, self._settings)
            self._listeners.append(listener)
        self._reader = asyncio.create_task(self._read(session), name=f"telemetry {session.id}")

    def sent(self, turn: int) -> None:
        """A message was sent, by a caller whose span its turn joins."""
        parent = current_parent() or self._opened_in
        if parent is not None:
            self._parents[turn] = parent

    def _stop(self, trip: Trip) -> None:
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

    async def _read(self, session: Run) -> None:
        failure: ComputerAgentError | None = None
        try:
            async for recorded in session.events():
                vital = isinstance(recorded.event, _VITAL)
                for listener in self._listeners:
                    listener.tell(recorded, vital=vital)
        except ComputerAgentError as error:
            failure = error
            _log.warn("log_not_read", session=session.id, error=str(error))
        finally:  # the log broke, or the loop ends with the run under way; else the end was told
            for listener in self._listeners:
                listener.leave(failure)

    def _parent_of(self, turn: int) -> Parent | None:
        return self._parents.get(turn)


def run_telemetry(
    pipelines: Sequence[Pipeline], request: SessionRequest, options: Mapping[str, Any]
) -> RunTelemetry | None:
    """What tells a run of these options to pipelines, or None where nobody listens."""
    if not pipelines:
        return None
    payload, source = described(options), request.source
    if isinstance(source, GitSource):
        payload["source_url"] = parse_repository(source.url, allow_file=True).name
        if source.subdir:
            payload["source_subdir"] = source.subdir
    facts = RunFacts(
        payload,
        agent_id=request.agent_id or get_config().agent_id or setting("agent_id"),
        agent_name=request.agent_name,
        agent_description=request.agent_description,
    )
    return RunTelemetry(pipelines, facts, credential_holders(options))


def _tell(run: RecordedRun, recorded: Recorded, at: int) -> list[TelemetryEvent]:
    del at
    return run.read(recorded)
