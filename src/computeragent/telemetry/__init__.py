"""Telemetry: what an agent did, made safe and sent where it is wanted. Start with `configure` and `Pipeline`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from computeragent.telemetry.audit import AuditSink as AuditSink
    from computeragent.telemetry.config import TelemetryConfig as TelemetryConfig
    from computeragent.telemetry.config import configure as configure
    from computeragent.telemetry.config import configure_otel as configure_otel
    from computeragent.telemetry.config import get_config as get_config
    from computeragent.telemetry.config import get_pipeline as get_pipeline
    from computeragent.telemetry.config import shutdown as shutdown
    from computeragent.telemetry.event import EventKind as EventKind
    from computeragent.telemetry.event import TelemetryEvent as TelemetryEvent
    from computeragent.telemetry.event import new_session_id as new_session_id
    from computeragent.telemetry.middleware import GuardrailFilter as GuardrailFilter
    from computeragent.telemetry.middleware import PiiRedactor as PiiRedactor
    from computeragent.telemetry.pipeline import Pipeline as Pipeline
    from computeragent.telemetry.protocols import BatchLimits as BatchLimits
    from computeragent.telemetry.protocols import RetryLater as RetryLater
    from computeragent.telemetry.protocols import SpooledSink as SpooledSink
    from computeragent.telemetry.protocols import TelemetryMiddleware as TelemetryMiddleware
    from computeragent.telemetry.protocols import TelemetrySink as TelemetrySink
    from computeragent.telemetry.sinks import MongoTelemetry as MongoTelemetry
    from computeragent.telemetry.sinks import OtelAuditSink as OtelAuditSink
    from computeragent.telemetry.spool import Spooled as Spooled

_HOME_OF = {
    "audit": ["AuditSink"],
    "config": ["TelemetryConfig", "configure", "configure_otel", "get_config", "get_pipeline", "shutdown"],
    "event": ["EventKind", "TelemetryEvent", "new_session_id"],
    "middleware": ["GuardrailFilter", "PiiRedactor"],
    "pipeline": ["Pipeline"],
    "protocols": ["BatchLimits", "RetryLater", "SpooledSink", "TelemetryMiddleware", "TelemetrySink"],
    "sinks": ["MongoTelemetry", "OtelAuditSink"],
    "spool": ["Spooled"],
}
_MODULES = {name: module for module, names in _HOME_OF.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
