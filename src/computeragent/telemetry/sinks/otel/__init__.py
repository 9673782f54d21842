"""OpenTelemetry: `OtelSink`, what it is told, and the names that it uses. Importing it needs no OpenTelemetry."""

from __future__ import annotations

from computeragent.telemetry.sinks.otel.names import *  # noqa: F403 - the names are this package's interface
from computeragent.telemetry.sinks.otel.settings import OtelSettings
from computeragent.telemetry.sinks.otel.sink import OtelSink, auto_sink

__all__ = ["OtelSettings", "OtelSink", "auto_sink"]  # and every name of `names`
