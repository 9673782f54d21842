"""The SDK's OTLP exporters, made so that a failure says what it was and nothing else.

Each attempt is one request: waiting and trying again is left to whoever keeps the events. An exporter logs every
failed attempt, with the URL; ours are told once, by the pipeline, without credentials.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any

import requests

from computeragent.telemetry.protocols import RetryLater
from computeragent.telemetry.sinks.otel.settings import Plan, Signal, public

_CREDENTIAL_PROVIDERS = "OTEL_PYTHON_EXPORTER_OTLP_{}CREDENTIAL_PROVIDER"
_OUR_HEADERS = {
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "user-agent",
}
_REFUSALS = {400, 413, 422}
"""What a backend answers to data that it will never take. Anything else may be mended on its side."""


class RejectedError(Exception):
    """The backend will not take this data, now or later."""


class NotTakenError(ConnectionError):
    """The backend does not let us in, or has no such place: mended on its side, or for this signal never."""


class _AttemptError(Exception):
    """Ends an attempt. Not one of `requests`' errors, which the SDK would try again by itself."""


class GuardedSession(requests.Session):
    """A session that notes why a request failed, and lets the AgentOS gateway have its key and no other header.

    Vendor keys are in the SDK's headers when ``OTEL_EXPORTER_OTLP_HEADERS`` is set; they are taken out here, where the
    request is complete.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self._gateway = plan.gateway
        self._key = plan.key

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request, once."""
        self.failure = None
        if self.verify is not True:  # a certificate that OTEL_* names goes before REQUESTS_CA_BUNDLE
            kwargs["verify"] = self.verify
        if self._gateway:
            for name in [name for name in request.headers if name.lower() not in _OUR_HEADERS]:
                del request.headers[name]
            if self._key:
                request.headers["Authorization"] = f"Bearer {self._key}"
        where = public(request.url or "")
        try:
            response = self._attempt(request, kwargs)
        except requests.RequestException as error:
            self.failure = ConnectionError(f"{where} cannot be reached: {type(error).__name__}")
            raise _AttemptError(str(self.failure)) from None
        if 200 <= response.status_code < 300:
            return response
        self.failure = _verdict(response, where)
        raise _AttemptError(str(self.failure))

    def _attempt(self, request: requests.PreparedRequest, kwargs: dict[str, Any]) -> requests.Response:
        try:
            return super().send(request, **kwargs)
        except requests.Timeout:
            raise
        except requests.ConnectionError:  # a connection that was kept, and has gone: a new one may do
            return super().send(request, **kwargs)


def _verdict(response: requests.Response, where: str) -> Exception:
    status = response.status_code
    reason = f"{where} answers {status}"
    if status in _REFUSALS:
        return RejectedError(reason)
    after = _seconds(response.headers.get("Retry-After"))
    if after is not None:
        return RetryLater(reason, after)
    if status in {401, 403}:
        return NotTakenError(f"{reason}: is the key in the headers right?")
    if status in {404, 405, 501}:
        return NotTakenError(f"{reason}: is that the base URL of an OTLP/HTTP backend?")
    return ConnectionError(reason)


def _seconds(retry_after: str | None) -> float | None:
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    import time

    return max(0.0, at.timestamp() - time.time())


class OtlpExporter:
    """Sends one signal's data, with the SDK's exporter of that signal."""

    def __init__(self, signal: Signal, plan: Plan) -> None:
        self._signal: Signal = signal
        self._plan = plan
        self._session: GuardedSession | None = None
        self._exporter = self._make()

    def export(self, data: Any) -> None:
        """Send a batch of spans or log records, or a `MetricsData`.

        Raises `RejectedError` for data that nobody will take, `RetryLater` or `ConnectionError` for what may pass.
        """
        session = self._session
        if session is not None:
            session.failure = None
        with quiet():
            result = self._exporter.export(data)
        if result.name == "SUCCESS":
            return
        if session is None:
            raise ConnectionError(f"the {self._signal} could not be exported")
        raise session.failure or RejectedError(f"the {self._signal} could not be encoded")

    def close(self) -> None:
        """Close the connections."""
        with quiet():
            self._exporter.shutdown()

    def _make(self) -> Any:
        route = self._plan.routes[self._signal]
        headers = dict(self._plan.headers) if self._plan.headers else None
        if route.kind == "grpc":
            return _class("grpc", self._signal)(endpoint=route.endpoint, headers=headers)
        exporter = _class("http", self._signal)
        if not self._plan.gateway and _has_credential_provider(self._signal):
            return exporter(endpoint=route.endpoint, headers=headers)
        self._session = GuardedSession(self._plan)
        return exporter(endpoint=route.endpoint, headers=headers, session=self._session)


_MODULES: Mapping[Signal, tuple[str, str]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}


def _class(protocol: str, signal: Signal) -> Any:
    module, name = _MODULES[signal]
    return getattr(import_module(f"opentelemetry.exporter.otlp.proto.{protocol}.{module}"), name)


def _has_credential_provider(signal: Signal) -> bool:
    names = (_CREDENTIAL_PROVIDERS.format("HTTP_"), _CREDENTIAL_PROVIDERS.format(f"HTTP_{signal.upper()}_"))
    return any(os.environ.get(name) for name in names)


# ── The SDK's own log, while it works for us ──

_LOGGERS = (
    "opentelemetry.attributes",
    "opentelemetry.exporter.otlp.common.http",
    *(f"opentelemetry.exporter.otlp.proto.http.{module}" for module, _ in _MODULES.values()),
    *(f"opentelemetry.exporter.otlp.proto.grpc.{module}" for module, _ in _MODULES.values()),
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
)
_working = threading.local()
_filters: list[logging.Filter] = []


class _NotOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_working, "quiet", False)


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Keep the SDK from logging what it does on this thread: failures come back as errors, and cuts are asked for."""
    if not _filters:
        _filters.append(_NotOurs())
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_filters[0])
    before = getattr(_working, "quiet", False)
    _working.quiet = True
    try:
        yield
    finally:
        _working.quiet = before


def halves(items: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """A sequence in two."""
    middle = len(items) // 2
    return list(items[:middle]), list(items[middle:])
