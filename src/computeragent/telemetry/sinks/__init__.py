"""Sinks: where events go. Each is loaded on first use, so that an extra is needed only by those who use it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from computeragent.telemetry.sinks.agentos import AgentOSHttpSink as AgentOSHttpSink
    from computeragent.telemetry.sinks.audit_file import AuditFileSink as AuditFileSink
    from computeragent.telemetry.sinks.console import ConsoleSink as ConsoleSink
    from computeragent.telemetry.sinks.jsonl import JsonlSink as JsonlSink
    from computeragent.telemetry.sinks.mongo import MongoTelemetry as MongoTelemetry
    from computeragent.telemetry.sinks.otel import OtelAuditSink as OtelAuditSink
    from computeragent.telemetry.sinks.otel import OtelSink as OtelSink

_HOME_OF = {
    "AgentOSHttpSink": "agentos",
    "AuditFileSink": "audit_file",
    "ConsoleSink": "console",
    "JsonlSink": "jsonl",
    "MongoTelemetry": "mongo",
    "OtelAuditSink": "otel",
    "OtelSink": "otel",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
