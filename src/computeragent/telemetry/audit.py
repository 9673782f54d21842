"""`AuditSink`: one method, called with each event of a run. The short way to write a sink."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

from computeragent.errors import ValidationError
from computeragent.telemetry.config import bind_sinks
from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.middleware import PiiRedactor
from computeragent.telemetry.pipeline import Pipeline
from computeragent.telemetry.protocols import SpooledSink, TelemetrySink

WHO = ("principal_id", "decided_by")
"""What of a decision is told as it is, also where it is an address: an audit is about who it was."""


@runtime_checkable
class AuditSink(Protocol):
    """Is told what happened: sync or async, in order, redacted, on a thread of its own.

    What it raises is logged and goes no further. `TelemetrySink`s are audit sinks as well.
    """

    def emit(self, event: TelemetryEvent) -> Any:
        """Take note of an event."""
        ...


class _Adapted:
    """An audit sink in a pipeline."""

    def __init__(self, sink: AuditSink) -> None:
        self._sink = sink

    async def emit(self, event: TelemetryEvent) -> None:
        told = self._sink.emit(event)
        if inspect.isawaitable(told):
            await told

    async def flush(self, timeout: float = 5.0) -> None:
        del timeout

    async def aclose(self) -> None:
        return None


def audit_pipeline(sinks: Sequence[AuditSink]) -> Pipeline | None:
    """A pipeline for these sinks, with redaction; None for none. Raises `ValidationError` for what is no audit sink."""
    if not sinks:
        return None
    adapted = [_adapted(sink) for sink in sinks]
    bind_sinks(adapted)
    return Pipeline(middleware=[PiiRedactor(path_allowlist=WHO)], sinks=adapted)


def _adapted(sink: AuditSink) -> TelemetrySink | SpooledSink:
    if isinstance(sink, (TelemetrySink, SpooledSink)):
        return cast("TelemetrySink | SpooledSink", sink)
    if not callable(getattr(sink, "emit", None)):
        raise ValidationError(f"{sink!r} is no audit sink", hint="An audit sink has a method emit(event).")
    return _Adapted(sink)
