"""What an `OtelSink` is told, and the plan that follows from it: argument, then `configure`, then environment.

The variables are those of the OpenTelemetry specification, which the SDK's own exporters read themselves wherever they
can; read here is only what decides whether and where a signal goes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Literal, cast
from urllib.parse import urlsplit, urlunsplit

from computeragent import discovery
from computeragent.errors import ValidationError
from computeragent.logs import Logger
from computeragent.telemetry.sinks.otel.names import Profile, profile

Exporter = Literal["console", "otlp-http"]
Temporality = Literal["delta", "cumulative"]
CaptureMode = Literal["events", "attributes", "both"]
Signal = Literal["traces", "metrics", "logs"]
Kind = Literal["otlp", "grpc", "console", "none"]

SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
MAX_ATTRIBUTE_LENGTH = 4096
METRIC_INTERVAL = 5.0
_TRUE = {"1", "true", "yes", "on"}
_log = Logger("otel")


@dataclass(frozen=True, slots=True, kw_only=True)
class OtelSettings:
    """How spans, metrics and content are exported. None leaves a choice to the next source, the environment last."""

    service_name: str | None = None
    exporter: Exporter | None = None
    endpoint: str | None = field(default=None, repr=False)  # it may hold credentials, as headers do
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    sample_rate: float | None = None
    capture_content: bool | None = None
    capture_content_mode: CaptureMode | None = None
    max_attribute_length: int | None = None
    temporality: Temporality | None = None

    @classmethod
    def of(cls, given: object) -> OtelSettings:
        """From anything that has some of the fields, such as what `configure` was given."""
        return cls(**{each.name: getattr(given, each.name, None) for each in fields(cls)})

    def over(self, other: OtelSettings) -> OtelSettings:
        """These settings, and those of `other` where these say nothing."""
        mine = {each.name: getattr(self, each.name) for each in fields(self)}
        return OtelSettings(**{name: getattr(other, name) if value is None else value for name, value in mine.items()})


@dataclass(frozen=True, slots=True)
class Route:
    """Where one signal goes. `endpoint` is its full URL; None leaves it to the SDK and its variables."""

    kind: Kind
    endpoint: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first export. `key` is set for the AgentOS gateway, and only there."""

    routes: Mapping[Signal, Route]
    service_name: str | None
    headers: Mapping[str, str] | None = field(repr=False)
    gateway: bool
    key: str | None = field(repr=False)
    sample_rate: float | None
    capture: bool
    capture_mode: CaptureMode
    max_attribute_length: int
    temporality: Temporality
    profile: Profile
    metric_interval: float

    def captures(self, where: Literal["events", "attributes"]) -> bool:
        """Whether content goes there."""
        return self.capture and self.capture_mode in {where, "both"}


class NotYetKnownError(ConnectionError):
    """AgentOS's discovery document, which names the gateway, cannot be had at the moment."""


def make_plan(given: OtelSettings, *, fallback: Kind) -> Plan:
    """The plan for these settings in this environment.

    `fallback` is where signals go that nothing names a place for. Raises `NotYetKnownError` when AgentOS is to say
    where, and does not answer; `ValidationError` for settings that cannot be meant.
    """
    environ = os.environ
    elsewhere = bool(given.endpoint or given.exporter == "console")
    gateway = None if elsewhere else discovery.endpoint("otel")
    if gateway is None and discovery.configured("otel") and not (elsewhere or given.exporter or _otlp_configured()):
        if not discovery.known():
            raise NotYetKnownError("AgentOS discovery cannot be had at the moment")
        _log.warn("no_otlp_gateway", hint="AgentOS names no OTLP endpoint; set OTEL_EXPORTER_OTLP_ENDPOINT")
        fallback = "none"
    routes: dict[Signal, Route] = {signal: _route(signal, given, gateway, fallback) for signal in SIGNALS}
    if "grpc" in map(_protocol, SIGNALS) and not has_grpc():
        _log.warn("grpc_not_installed", using="http", hint="pip install opentelemetry-exporter-otlp-proto-grpc")
    mode = given.capture_content_mode or environ.get("COMPUTERAGENT_CAPTURE_CONTENT_MODE", "").strip().lower()
    capture = given.capture_content
    if capture is None:
        capture = is_true(environ.get("COMPUTERAGENT_CAPTURE_CONTENT"))
    if given.sample_rate is not None and not 0.0 <= given.sample_rate <= 1.0:
        raise ValidationError(f"sample_rate is {given.sample_rate}", hint="It is a share, from 0.0 to 1.0.")
    return Plan(
        routes=routes,
        service_name=given.service_name,
        headers=None if gateway else given.headers,
        gateway=gateway is not None,
        key=discovery.agent_key() if gateway else None,
        sample_rate=given.sample_rate,
        capture=capture,
        capture_mode=cast("CaptureMode", mode) if mode in {"events", "attributes", "both"} else "events",
        max_attribute_length=given.max_attribute_length
        or _positive("COMPUTERAGENT_MAX_ATTRIBUTE_LENGTH", MAX_ATTRIBUTE_LENGTH),
        temporality=_temporality(given.temporality),
        profile=profile(environ),
        metric_interval=_positive("OTEL_METRIC_EXPORT_INTERVAL", int(METRIC_INTERVAL * 1000)) / 1000,
    )


def destination(given: OtelSettings) -> str:
    """Where the plan leads, said without asking anybody: the same in every process, and without credentials."""
    environ = os.environ
    if given.exporter == "console":
        return "otel console"
    url = given.endpoint or discovery.override("otel") or discovery.document_url()
    for name in ("", "TRACES_", "METRICS_", "LOGS_"):
        url = url or environ.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT")
    if url:
        return f"otel {public(url)}"
    wants_default = given.exporter == "otlp-http" or any(_asked(signal) == "otlp" for signal in SIGNALS)
    return "otel http://localhost:4318" if wants_default else "otel console"


def configured() -> bool:
    """Whether the environment names a place to export to."""
    if is_true(os.environ.get("OTEL_SDK_DISABLED")):
        return False
    if discovery.configured("otel"):
        return True
    return any(_route(signal, OtelSettings(), None, "none").kind != "none" for signal in SIGNALS) and (
        _otlp_configured() or any(_asked(signal) == "console" for signal in SIGNALS)
    )


def public(url: str) -> str:
    """A URL without user, password, query and fragment."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "(not a URL)"
    return urlunsplit((parts.scheme, host + port, parts.path.rstrip("/"), "", "")).lstrip("/")


def signal_url(base: str, signal: Signal) -> str:
    """The URL of a signal below a base URL; a URL that ends in a signal's path already is for that one's siblings too.

    The query of the base stays.
    """
    parts = urlsplit(base)
    path = parts.path.rstrip("/")
    for known in SIGNALS:
        path = path.removesuffix(f"/v1/{known}")
    return urlunsplit(parts._replace(path=f"{path}/v1/{signal}"))


def is_true(value: str | None) -> bool:
    """Whether a variable says yes: 1, true, yes or on, in any case."""
    return (value or "").strip().lower() in _TRUE


def has_grpc() -> bool:
    """Whether the exporters for OTLP over gRPC are installed. They are not part of the extra."""
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.grpc") is not None
    except ModuleNotFoundError:
        return False


def _protocol(signal: Signal) -> str:
    general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    return (os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or general).strip().lower()


def _otlp_configured() -> bool:
    return any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT") for name in ("", "TRACES_", "METRICS_", "LOGS_"))


def _asked(signal: Signal) -> str | None:
    """The exporter that ``OTEL_<SIGNAL>_EXPORTER`` names, the first that exists here; None when it is not set."""
    names = [name.strip().lower() for name in os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").split(",")]
    for name in names:
        if name in {"otlp", "console", "none"}:
            return name
    if any(names):
        _log.warn("exporter_unknown", variable=f"OTEL_{signal.upper()}_EXPORTER", using="none")
        return "none"
    return None


def _route(signal: Signal, given: OtelSettings, gateway: str | None, fallback: Kind) -> Route:
    if given.exporter == "console":
        return Route("console")
    asked = _asked(signal)
    if asked == "none":
        return Route("none")
    if given.endpoint:
        return Route("otlp", signal_url(given.endpoint, signal))
    if asked == "console" and given.exporter is None:
        return Route("console")
    if gateway:
        return Route("otlp", signal_url(gateway, signal))
    kind: Kind = "grpc" if given.exporter is None and _protocol(signal) == "grpc" and has_grpc() else "otlp"
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    if own:  # by the specification it is used as it is
        return Route(kind, own)
    general = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if general:
        return Route(kind, general if kind == "grpc" else signal_url(general, signal))
    if given.exporter == "otlp-http" or asked == "otlp":
        return Route(kind)
    return Route("none" if _otlp_configured() or any(map(_asked, SIGNALS)) else fallback)


def _temporality(given: Temporality | None) -> Temporality:
    if given is not None:
        return given
    own = os.environ.get("COMPUTERAGENT_OTEL_TEMPORALITY", "").strip().lower()
    if own in {"delta", "cumulative"}:
        return cast("Temporality", own)
    standard = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip().lower()
    # `lowmemory` is delta for all that is recorded here: counters and histograms
    return "cumulative" if standard == "cumulative" and not own else "delta"


def _positive(variable: str, default: int) -> int:
    try:
        value = int(os.environ.get(variable, ""))
    except ValueError:
        return default
    return value if value > 0 else default
