"""Runs elsewhere, told to pipelines of this process: where the caller asked for it, since the server tells its own."""

from __future__ import annotations

from collections.abc import Sequence

from computeragent.harness.told import Run, RunTelemetry, run_telemetry
from computeragent.protocol_types import SessionRequest
from computeragent.telemetry.audit import AuditSink, audit_pipeline
from computeragent.telemetry.pipeline import Pipeline


class Telling:
    """Tells runs to `telemetry` and to each of `audit_sinks`; to nobody where neither is given."""

    def __init__(self, telemetry: Pipeline | None = None, audit_sinks: Sequence[AuditSink] = ()) -> None:
        self._audit = audit_pipeline(audit_sinks)
        self._pipelines = [pipeline for pipeline in (telemetry, self._audit) if pipeline is not None]

    def follow(self, run: Run, request: SessionRequest) -> RunTelemetry | None:
        """Tell a run that has just begun, to its end; None where nobody listens."""
        listening = [pipeline for pipeline in self._pipelines if pipeline.active]
        told = run_telemetry(listening, request, {**request.options, "env": request.envs})
        if told is not None:
            told.follow(run)
        return told

    async def close(self) -> None:
        """End what was made here."""
        if self._audit is not None:
            await self._audit.aclose()
