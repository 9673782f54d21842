"""Providers of the sink's own, which hand finished telemetry to its outbox. None of them is ever made global.

They are the SDK's: it applies samplers, limits and the resource. What is ours is where ids come from and what happens
to what has ended. Imported only where the SDK is installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from computeragent.telemetry.sinks.otel.settings import Plan, Temporality

DEFAULT_SERVICE_NAME = "computeragent"


def make_resource(plan: Plan) -> Resource:
    """The resource of everything: the environment's attributes, and the service's name."""
    resource = Resource.create()
    name = plan.service_name
    if name is None and str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        name = DEFAULT_SERVICE_NAME
    return resource if name is None else resource.merge(Resource({SERVICE_NAME: name}))


class DerivedIds(IdGenerator):
    """Gives a span the ids that were set for it just before it is started."""

    def __init__(self) -> None:
        self.trace_id = 1
        self.span_id = 1

    def generate_span_id(self) -> int:
        """The id that was set."""
        return self.span_id

    def generate_trace_id(self) -> int:
        """The id that was set."""
        return self.trace_id


class _Ended(SpanProcessor):
    def __init__(self, put: Callable[[ReadableSpan], None]) -> None:
        self._put = put

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self._put(span)


class _Logs(LogRecordExporter):
    def __init__(self, put: Callable[[Any], None]) -> None:
        self._put = put

    def export(self, batch: Sequence[Any]) -> LogRecordExportResult:
        for record in batch:
            self._put(record)
        return LogRecordExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        return True

    def shutdown(self) -> None:
        """There is nothing to close."""


def make_tracer_provider(
    plan: Plan, resource: Resource, put: Callable[[ReadableSpan], None]
) -> tuple[TracerProvider, DerivedIds]:
    """A tracer provider that puts sampled spans that have ended; without `sample_rate` the environment's sampler."""
    ids = DerivedIds()
    sampler = None if plan.sample_rate is None else ParentBased(TraceIdRatioBased(plan.sample_rate))
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False, id_generator=ids)
    provider.add_span_processor(_Ended(put))
    return provider, ids


def make_logger_provider(resource: Resource, put: Callable[[Any], None]) -> LoggerProvider:
    """A logger provider that puts every record."""
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(_Logs(put)))
    return provider


class HeldReader(MetricReader):
    """Collects when it is asked to, and holds what it collected until it is said to be exported.

    Until then nothing more is collected: the SDK goes on adding up, so that nothing is lost or sent twice, however long
    an outage lasts.
    """

    def __init__(self, temporality: Temporality) -> None:
        chosen = AggregationTemporality.DELTA if temporality == "delta" else AggregationTemporality.CUMULATIVE
        aggregation = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "").strip().lower()
        exponential = aggregation == "base2_exponential_bucket_histogram"
        super().__init__(
            preferred_temporality={Counter: chosen, Histogram: chosen},
            preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()} if exponential else None,
        )
        self.held: MetricsData | None = None

    def take(self) -> MetricsData | None:
        """What is to be exported, or None; the same again until `exported` is called."""
        if self.held is None:
            self.collect()
        return self.held

    def exported(self) -> None:
        """What was taken is out."""
        self.held = None

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        if metrics_data.resource_metrics:
            self.held = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """There is nothing to close."""


def make_meter_provider(resource: Resource, reader: HeldReader) -> MeterProvider:
    """A meter provider with one reader."""
    return MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
