"""What an `OtelSink` is made of once its plan is known: a span builder, and behind it what exports its work.

Finished spans, log records and measurements wait here until they are out. Imported only where the SDK is installed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Protocol

from computeragent.logs import Logger
from computeragent.telemetry.sinks.otel.console import ConsoleExporter
from computeragent.telemetry.sinks.otel.contents import ContentWriter
from computeragent.telemetry.sinks.otel.maker import Maker
from computeragent.telemetry.sinks.otel.metrics import Recorder
from computeragent.telemetry.sinks.otel.names import INSTRUMENTATION_SCOPE_NAME
from computeragent.telemetry.sinks.otel.providers import (
    HeldReader,
    make_logger_provider,
    make_meter_provider,
    make_resource,
    make_tracer_provider,
)
from computeragent.telemetry.sinks.otel.settings import Plan, Signal
from computeragent.telemetry.sinks.otel.spans import SpanBuilder
from computeragent.telemetry.sinks.otel.wire import NotTakenError, OtlpExporter, RejectedError, halves, quiet

_log = Logger("otel")


class Exporter(Protocol):
    """Sends a batch, or raises: `RejectedError` for what nobody will ever take."""

    def export(self, data: Any) -> None:
        """Send spans, log records or a `MetricsData`."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


class Box:
    """Spans or log records that wait for their exporter. Without one, nothing is kept."""

    def __init__(self, exporter: Exporter | None, *, batch: int, most: int) -> None:
        self.items: list[Any] = []
        self.dropped = 0
        self._exporter = exporter
        self._batch = batch
        self._most = most

    def put(self, item: Any) -> None:
        """Keep an item until it is sent."""
        if self._exporter is not None:
            self.items.append(item)

    def trim(self) -> None:
        """Let the oldest go beyond what a queue may hold, counted."""
        surplus = len(self.items) - self._most
        if surplus > 0:
            del self.items[:surplus]
            self.dropped += surplus

    @property
    def full(self) -> bool:
        """Whether there is enough for a request."""
        return len(self.items) >= self._batch

    def send(self) -> None:
        """Send all, in batches. What could not be sent stays; the exporter's error is raised."""
        while self.items:
            batch = self.items[: self._batch]
            self._send(batch)
            del self.items[: len(batch)]

    def drop(self) -> None:
        """Let all go, counted."""
        self.dropped += len(self.items)
        self.items.clear()

    def _send(self, batch: Sequence[Any]) -> None:
        assert self._exporter is not None
        try:
            self._exporter.export(batch)
        except RejectedError as error:
            if len(batch) == 1:
                self.dropped += 1
                _log.warn("otlp_rejected", error=str(error), dropped=self.dropped)
                return
            for half in halves(batch):  # so that what is wrong with one item costs that item only
                self._send(half)

    def close(self) -> None:
        """Close the exporter."""
        if self._exporter is not None:
            self._exporter.close()


class Outlet:
    """Builds spans and brings them out, to providers that are given or by exporters of its own."""

    quiet = staticmethod(quiet)

    def __init__(
        self, plan: Plan, *, tracer_provider: Any = None, meter_provider: Any = None, logger_provider: Any = None
    ) -> None:
        self.plan = plan
        self._given = [each for each in (tracer_provider, meter_provider, logger_provider) if each is not None]
        batch, most = _number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512), _number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)
        self.spans = Box(self._exporter("traces", tracer_provider), batch=batch, most=most)
        self.records = Box(
            self._exporter("logs", logger_provider) if plan.captures("events") else None, batch=batch, most=most
        )
        self._metrics = self._exporter("metrics", meter_provider)
        self._reader = HeldReader(plan.temporality)
        self._metrics_at = time.monotonic()
        self._takes_traces = False
        self._given_up: set[Signal] = set()
        with quiet():
            self._build(tracer_provider, meter_provider, logger_provider)

    def _exporter(self, signal: Signal, given: Any) -> Exporter | None:
        kind = self.plan.routes[signal].kind
        if given is not None or kind == "none":
            return None
        return ConsoleExporter(signal) if kind == "console" else OtlpExporter(signal, self.plan)

    def _build(self, tracer_provider: Any, meter_provider: Any, logger_provider: Any) -> None:
        plan, ids = self.plan, None
        resource = make_resource(plan)
        if tracer_provider is None:
            tracer_provider, ids = make_tracer_provider(plan, resource, self.spans.put)
        scope, version, schema = INSTRUMENTATION_SCOPE_NAME, _version(), plan.profile.schema_url
        if meter_provider is None and self._metrics is not None:
            meter_provider = make_meter_provider(resource, self._reader)
        self._recorder: Recorder | None = None
        if meter_provider is not None:
            self._recorder = Recorder(meter_provider.get_meter(scope, version, schema), plan.profile)
        writer = None
        if plan.capture:
            if logger_provider is None and plan.captures("events"):
                logger_provider = make_logger_provider(resource, self.records.put)
            logger = None if logger_provider is None else logger_provider.get_logger(scope, version, schema)
            writer = ContentWriter(plan, logger)
        tracer = tracer_provider.get_tracer(scope, version, schema)
        self.builder = SpanBuilder(Maker(plan.profile, tracer, ids, self._recorder, writer))

    def export(self, *, hurry: bool) -> None:
        """Bring out what is finished: spans, then measurements if it is time or with `hurry`, then log records.

        Raises what the first exporter raises that fails; what is not out is kept for the next call.
        """
        self._takes_traces = self._takes_traces or bool(self.spans.items)
        try:
            self.spans.send()
        except BaseException:
            self._takes_traces = False
            raise
        if self._metrics is not None and self._recorder is not None:
            overdue = time.monotonic() - self._metrics_at >= self.plan.metric_interval
            if self._reader.held is not None or (self._recorder.dirty and (hurry or overdue or self.builder.idle)):
                self._send_metrics(self._metrics, self._recorder)
        try:
            self.records.send()
        except NotTakenError as error:
            self._give_up("logs", error)
            self.records.drop()

    def _give_up(self, signal: Signal, error: NotTakenError) -> None:
        """Let a signal's data go where the backend takes traces but not this; raises where it takes no traces either.

        Many backends are for traces alone: they must not hold up what they do take.
        """
        if not self._takes_traces:
            raise error
        if signal not in self._given_up:
            self._given_up.add(signal)
            _log.warn("signal_not_taken", signal=signal, error=str(error), hint=f"OTEL_{signal.upper()}_EXPORTER=none")

    def _send_metrics(self, exporter: Exporter, recorder: Recorder) -> None:
        with quiet():
            fresh = self._reader.held is None
            data = self._reader.take()
        if fresh:
            recorder.dirty = False
            self.builder.measured()
        if data is not None:
            try:
                exporter.export(data)
            except RejectedError as error:
                _log.warn("otlp_rejected", error=str(error))
            except NotTakenError as error:
                self._give_up("metrics", error)
            self._reader.exported()
        self._metrics_at = time.monotonic()

    def flush_given(self, timeout: float) -> None:
        """Flush the providers that were given."""
        for provider in self._given:
            flush = getattr(provider, "force_flush", None)
            if flush is not None:
                flush(int(timeout * 1000))

    def close(self) -> None:
        """Close the exporters. Providers that were given stay open: they are their owner's."""
        for box in (self.spans, self.records):
            box.close()
        if self._metrics is not None:
            self._metrics.close()


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("computer-agent-py")
    except metadata.PackageNotFoundError:
        return "0"


def _number(variable: str, default: int) -> int:
    try:
        return max(1, int(os.environ.get(variable, "")))
    except ValueError:
        return default
