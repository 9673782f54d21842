"""Telemetry as text on stderr, a line for each span, measurement and record: for a look at what would be exported."""

from __future__ import annotations

import sys
from typing import Any

from computeragent.telemetry.sinks.otel import names
from computeragent.telemetry.sinks.otel.capture import as_json
from computeragent.telemetry.sinks.otel.settings import Signal

_SHOWN = (
    names.ERROR_TYPE,
    names.GEN_AI_USAGE_INPUT_TOKENS,
    names.GEN_AI_USAGE_OUTPUT_TOKENS,
    names.COMPUTERAGENT_USAGE_COST_USD,
    names.POLICY_DECISION,
)
_WIDEST = 2_000


class ConsoleExporter:
    """Writes one signal's data to stderr. Never to stdout, which is the program's."""

    def __init__(self, signal: Signal) -> None:
        self._lines = {"traces": _span_lines, "metrics": _metric_lines, "logs": _log_lines}[signal]

    def export(self, data: Any) -> None:
        """Write a batch of spans or log records, or a `MetricsData`."""
        for line in self._lines(data):
            sys.stderr.write(f"{line[:_WIDEST]}\n")

    def close(self) -> None:
        """There is nothing to close."""


def _span_lines(spans: Any) -> list[str]:
    return [_span_line(span) for span in spans]


def _span_line(span: Any) -> str:
    seconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
    facts = [f"{name.rpartition('.')[2]}={span.attributes[name]}" for name in _SHOWN if name in span.attributes]
    above = f"{span.parent.span_id:016x}" if span.parent is not None else "-"
    ids = f"trace={span.context.trace_id:032x} span={span.context.span_id:016x} parent={above}"
    content = [f"{name}={value}" for name, value in span.attributes.items() if name.endswith(_CONTENT)]
    return " ".join(["[otel] span", f"{span.name!r}", f"{seconds:.3f}s", *facts, ids, *content])


_CONTENT = ("messages", "system_instructions", "call.arguments", "call.result")


def _metric_lines(data: Any) -> list[str]:
    lines: list[str] = []
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    value = getattr(point, "value", None)
                    shown = f"sum={point.sum:g} count={point.count}" if value is None else f"value={value:g}"
                    dims = " ".join(f"{name.removeprefix('gen_ai.')}={item}" for name, item in point.attributes.items())
                    lines.append(f"[otel] metric {metric.name} {shown} {metric.unit} {dims}")
    return lines


def _log_lines(records: Any) -> list[str]:
    return [
        f"[otel] log {record.log_record.event_name} {as_json(dict(record.log_record.attributes))}" for record in records
    ]
