"""An OTLP/HTTP backend on loopback: it decodes and keeps what it is sent, and fails when it is told to."""

from __future__ import annotations

import gzip
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Json = dict[str, Any]

_REQUESTS = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
_UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress, "": bytes}


@dataclass
class Answer:
    """How to answer a request. Without `status` the connection is held until the collector goes on."""

    status: int | None = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0


@dataclass
class Received:
    """A request. `message` is the decoded body, whether it was accepted or not."""

    path: str
    headers: dict[str, str]
    message: Any
    status: int | None

    @property
    def signal(self) -> str:
        return self.path.partition("?")[0].rpartition("/")[2]


class Collector:
    """`answers` are for the next requests, `refused` by signal, `always` for all others."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.answers: list[Answer] = []
        self.always = Answer()
        self.refused: dict[str, Answer] = {}
        self.changed = threading.Condition()
        self.goes_on = threading.Event()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        signal = handler.path.partition("?")[0].rpartition("/")[2]
        data = _UNPACK[handler.headers.get("content-encoding", "")](body)
        message = _REQUESTS[signal].FromString(data)
        with self.changed:
            answer = self.answers.pop(0) if self.answers else self.refused.get(signal, self.always)
            headers = {name.lower(): value for name, value in handler.headers.items()}
            self.requests.append(Received(handler.path, headers, message, answer.status))
            self.changed.notify_all()
        if answer.status is None:
            self.goes_on.wait(30)
            handler.close_connection = True
            return
        time.sleep(answer.delay)
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(answer.body)))
        handler.end_headers()
        handler.wfile.write(answer.body)

    def wait(self, count: int) -> None:
        """Until there were so many requests."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, 20), self.requests

    def accepted(self, signal: str) -> list[Any]:
        return [each.message for each in self.requests if each.signal == signal and each.status == 200]

    @property
    def spans(self) -> list[Json]:
        """What was accepted, as plain data."""
        return [
            _span(span)
            for message in self.accepted("traces")
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def metrics(self) -> list[Json]:
        """Every accepted data point."""
        return [
            _point(metric, point)
            for message in self.accepted("metrics")
            for resource in message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]

    @property
    def logs(self) -> list[Json]:
        return [
            {
                "event_name": record.event_name,
                "trace_id": record.trace_id.hex(),
                "span_id": record.span_id.hex(),
                "time": record.time_unix_nano,
                "severity": record.severity_number,
                "attributes": _attributes(record.attributes),
            }
            for message in self.accepted("logs")
            for resource in message.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    @property
    def resource(self) -> Json:
        (message, *_) = self.accepted("traces")
        return _attributes(message.resource_spans[0].resource.attributes)

    def total(self, metric: str, **dimensions: Any) -> float:
        """The sum over all points of a metric, of those with these dimensions (dots as underscores)."""
        wanted = {name.replace("__", "."): value for name, value in dimensions.items()}
        return sum(
            point["sum"]
            for point in self.metrics
            if point["name"] == metric and all(point["attributes"].get(k) == v for k, v in wanted.items())
        )


def _span(span: Any) -> Json:
    return {
        "name": span.name,
        "kind": {1: "INTERNAL", 3: "CLIENT"}[span.kind],
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "attributes": _attributes(span.attributes),
        "events": [
            {"name": event.name, "time": event.time_unix_nano, "attributes": _attributes(event.attributes)}
            for event in span.events
        ],
        "status": {0: "UNSET", 1: "OK", 2: "ERROR"}[span.status.code],
        "description": span.status.message,
    }


def _point(metric: Any, point: Any) -> Json:
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    found: Json = {
        "name": metric.name,
        "unit": metric.unit,
        "kind": kind,
        "temporality": {1: "delta", 2: "cumulative"}[data.aggregation_temporality],
        "attributes": _attributes(point.attributes),
    }
    if kind == "sum":
        return {**found, "sum": point.as_int or point.as_double}
    if kind == "histogram":
        found |= {"buckets": list(point.explicit_bounds)}
    return {**found, "sum": point.sum, "count": point.count}


def _attributes(pairs: Any) -> Json:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind) if kind else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no news."""


@contextmanager
def serving(collector: Collector, port: int = 0, *, certificate: Path | None = None) -> Iterator[str]:
    """Serve on loopback, with TLS if there is a certificate (with its key in the same file); the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            collector.answer(self)

        def log_message(self, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", port), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    finally:
        collector.goes_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
