"""What the environment asks for, asserted where it counts: on the wire."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
import threading
import types
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from computeragent import discovery
from computeragent.telemetry.protocols import SpooledSink, TelemetrySink
from computeragent.telemetry.sinks.otel import OtelSettings, OtelSink, auto_sink
from computeragent.telemetry.sinks.otel.settings import public, signal_url

from .collector import Answer, Collector, serving
from .stories import Teller, deliver, one_turn

SECRET = "s3cr3t-k3y"


def paths(collector: Collector) -> Counter[str]:
    return Counter(each.path for each in collector.requests)


def headers(collector: Collector) -> dict[str, str]:
    assert collector.requests
    return collector.requests[0].headers


def exported(**arguments: Any) -> None:
    """A turn through a sink that takes the rest from the environment."""
    deliver(OtelSink(**arguments), one_turn())


# ── Destinations that the documentation names ──


@pytest.mark.parametrize(
    ("backend", "header", "name", "value"),
    [
        ("New Relic", f"api-key={SECRET}", "api-key", SECRET),
        ("Datadog, through its agent", None, "api-key", None),
        ("Honeycomb", f"x-honeycomb-team={SECRET}", "x-honeycomb-team", SECRET),
        ("Grafana Cloud", "authorization=Basic%20dXNlcjpwYXNz", "authorization", "Basic dXNlcjpwYXNz"),
        ("Jaeger", None, "authorization", None),
    ],
)
def test_two_variables_point_it_at_a_backend(
    backend: str,
    header: str | None,
    name: str,
    value: str | None,
    collector: Collector,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    if header is not None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", header)
    sink = auto_sink()
    assert sink is not None
    assert sink.spooled
    deliver(sink, one_turn())
    assert paths(collector) == {"/v1/traces": 1, "/v1/metrics": 1}
    assert {each.headers.get(name) for each in collector.requests} == {value}
    assert {each.headers["content-type"] for each in collector.requests} == {"application/x-protobuf"}
    assert {point["temporality"] for point in collector.metrics} == {"delta"}


@pytest.mark.parametrize("base", ["", "/", "/otlp", "/otlp/", "/otlp/v1/traces", "/otlp/v1/metrics/"])
def test_paths_are_appended_unless_they_are_there(base: str, collector: Collector, endpoint: str) -> None:
    exported(endpoint=endpoint + base)
    prefix = "/otlp" if "otlp" in base else ""
    assert paths(collector) == {f"{prefix}/v1/traces": 1, f"{prefix}/v1/metrics": 1}


def test_a_query_stays_behind_the_path() -> None:
    assert signal_url("https://host/base?tenant=7", "logs") == "https://host/base/v1/logs?tenant=7"


def test_arguments_go_before_configuration_and_that_before_the_environment(
    collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1/environment")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "environment")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-from=environment,x-kept=yes")
    sink = OtelSink(endpoint=f"{endpoint}/argument")
    sink.bind(OtelSettings(endpoint="http://127.0.0.1:1/bound", service_name="bound", headers={"x-from": "bound"}))
    deliver(sink, one_turn())
    assert set(paths(collector)) == {"/argument/v1/traces", "/argument/v1/metrics"}
    assert collector.resource["service.name"] == "bound"
    assert headers(collector)["x-from"] == "bound"
    assert headers(collector)["x-kept"] == "yes"


def test_settings_may_come_after_the_sink(collector: Collector, endpoint: str) -> None:
    sink = OtelSink(endpoint=endpoint)
    sink.bind(OtelSettings(capture_content=True, capture_content_mode="attributes"))
    deliver(sink, one_turn())
    assert any("gen_ai.input.messages" in span["attributes"] for span in collector.spans)


# ── AgentOS ──


def agentos(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={SECRET},authorization=Bearer%20{SECRET}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", f"x-vendor={SECRET}")
    monkeypatch.setenv("COMPUTERAGENT_HARNESS_TOKEN", "cak_live_123")
    monkeypatch.setenv("AGENTOS_OTEL_URL", url)


def test_the_gateway_gets_the_agents_key_and_no_vendor_header(
    collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agentos(monkeypatch, f"{endpoint}/agentos/api/otlp/")
    sink = OtelSink()
    sink.bind(OtelSettings(headers={"x-other": SECRET}, capture_content=True))
    deliver(sink, one_turn())
    assert set(paths(collector)) == {f"/agentos/api/otlp/v1/{signal}" for signal in ("traces", "metrics", "logs")}
    assert {each.headers["authorization"] for each in collector.requests} == {"Bearer cak_live_123"}
    assert SECRET not in json.dumps([each.headers for each in collector.requests])


def test_the_gateways_older_key_is_still_taken(
    collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agentos(monkeypatch, endpoint)
    monkeypatch.delenv("COMPUTERAGENT_HARNESS_TOKEN")
    monkeypatch.setenv("AGENTOS_INGEST_TOKEN", "cak_old")
    exported()
    assert headers(collector)["authorization"] == "Bearer cak_old"


def test_an_endpoint_that_is_given_goes_before_the_gateway(
    collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agentos(monkeypatch, "http://127.0.0.1:1")
    exported(endpoint=endpoint)
    assert headers(collector)["api-key" if "api-key" in headers(collector) else "x-vendor"] == SECRET
    assert "cak_live_123" not in json.dumps([each.headers for each in collector.requests])


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """AgentOS's discovery document, which may be changed; a status in place of it is an outage."""
    found: dict[str, Any] = {"status": 200, "endpoints": {}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"endpoints": found["endpoints"]}).encode()
            self.send_response(found["status"])
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("AGENTOS_DISCOVERY_URL", f"http://127.0.0.1:{server.server_port}/api/discovery")
    monkeypatch.setenv("COMPUTERAGENT_HARNESS_TOKEN", "cak_live_123")
    discovery.forget()
    yield found
    discovery.forget()
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_discovery_document_names_the_gateway(
    document: dict[str, Any], collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={SECRET}")
    document["endpoints"] = {"otel": f"{endpoint}/gateway"}
    sink = auto_sink()
    assert sink is not None
    assert sink.destination.endswith("/api/discovery")
    deliver(sink, one_turn())
    assert set(paths(collector)) == {"/gateway/v1/traces", "/gateway/v1/metrics"}
    assert headers(collector)["authorization"] == "Bearer cak_live_123"
    assert SECRET not in json.dumps([each.headers for each in collector.requests])


def test_events_wait_until_the_discovery_document_is_there(
    document: dict[str, Any], collector: Collector, endpoint: str
) -> None:
    document |= {"status": 503, "endpoints": {"otel": endpoint}}
    sink = OtelSink()
    batch = one_turn().batch()
    with pytest.raises(ConnectionError, match="discovery"):
        sink.deliver(batch)
    document["status"] = 200
    discovery.forget()  # as after a minute
    assert sink.deliver(batch) is None
    sink.close()
    assert len(collector.spans) == 4


def test_a_document_that_names_no_gateway_leaves_it_to_the_variables(
    document: dict[str, Any], collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    exported()
    assert len(collector.spans) == 4
    assert "authorization" not in headers(collector)


def test_with_no_gateway_and_no_variables_nothing_is_kept(
    document: dict[str, Any], collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    assert deliver(OtelSink(), one_turn()) is None
    assert caplog.text.count("no_otlp_gateway") == 1
    assert collector.requests == []


# ── Variables of the specification ──


def test_each_signal_may_have_an_endpoint_of_its_own(
    collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{endpoint}/all")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{endpoint}/mine/traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-only=traces")
    exported()
    assert set(paths(collector)) == {"/mine/traces", "/all/v1/metrics"}
    assert [each.headers.get("x-only") for each in collector.requests] == ["traces", None]


def test_an_endpoint_of_one_signal_alone_is_for_that_one(
    collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{endpoint}/v1/traces")
    sink = auto_sink()
    assert sink is not None
    deliver(sink, one_turn())
    assert paths(collector) == {"/v1/traces": 1}


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression_is_used(
    compression: str, collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    exported(endpoint=endpoint)
    assert {each.headers["content-encoding"] for each in collector.requests} == {compression}
    assert len(collector.spans) == 4


def test_the_resource_is_the_environments(collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.namespace=review")
    exported(endpoint=endpoint)
    told = {"deployment.environment.name": "prod", "service.namespace": "review", "service.name": "computeragent"}
    assert told.items() <= collector.resource.items()


@pytest.mark.parametrize(
    ("variables", "argument", "name"),
    [
        ({}, None, "computeragent"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=resource"}, None, "resource"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=resource", "OTEL_SERVICE_NAME": "service"}, None, "service"),
        ({"OTEL_SERVICE_NAME": "service"}, "argument", "argument"),
    ],
)
def test_the_service_has_a_name(
    variables: dict[str, str],
    argument: str | None,
    name: str,
    collector: Collector,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    exported(endpoint=endpoint, service_name=argument)
    assert collector.resource["service.name"] == name


def test_a_disabled_sdk_exports_nothing(collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    exported(endpoint=endpoint)
    assert collector.requests == []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    assert auto_sink() is None


@pytest.mark.parametrize(
    ("variables", "rate", "spans"),
    [
        ({"OTEL_TRACES_SAMPLER": "always_off"}, None, 0),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.0"}, None, 0),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1.0"}, None, 4),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, 1.0, 4),
        ({}, 0.0, 0),
    ],
)
def test_traces_are_sampled_and_measurements_are_not(
    variables: dict[str, str],
    rate: float | None,
    spans: int,
    collector: Collector,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    sink = OtelSink(endpoint=endpoint)
    sink.bind(OtelSettings(sample_rate=rate))
    deliver(sink, one_turn())
    assert len(collector.spans) == spans
    assert collector.total("gen_ai.client.token.usage", gen_ai__token__type="output") == 42


def test_a_share_of_traces_is_whole_traces(collector: Collector, endpoint: str) -> None:
    sink = OtelSink(endpoint=endpoint)
    sink.bind(OtelSettings(sample_rate=0.5))
    for number in range(64):
        sink.deliver(one_turn(f"ca_{number}").batch(f"spool-{number}"))
    sink.close()
    sizes = Counter(span["trace_id"] for span in collector.spans)
    assert set(sizes.values()) == {4}
    assert 10 < len(sizes) < 54


def test_a_parent_that_is_not_recorded_is_followed(collector: Collector, endpoint: str) -> None:
    told = one_turn()
    told.events[1].payload |= {
        "trace_id": "a" * 32,
        "span_id": "c" * 16,
        "parent_span_id": "b" * 16,
        "sampled": False,
    }
    deliver(OtelSink(endpoint=endpoint), told)
    assert collector.spans == []


@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_a_signal_may_be_turned_off(
    signal: str, collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv(f"OTEL_{signal.upper()}_EXPORTER", "none")
    exported()
    assert {each.signal for each in collector.requests} == {"traces", "metrics"} - {signal}


def test_what_is_turned_off_is_off_wherever_the_rest_goes(
    collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    exported(endpoint=endpoint, exporter="otlp-http")
    assert {each.signal for each in collector.requests} == {"traces"}


def test_limits_of_spans_are_kept(collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "4")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "5")
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "0")
    exported(endpoint=endpoint)
    assert {len(span["attributes"]) for span in collector.spans} == {4}
    assert (
        max(len(value) for span in collector.spans for value in span["attributes"].values() if isinstance(value, str))
        == 5
    )
    assert [span["events"] for span in collector.spans] == [[]] * 4


@pytest.mark.parametrize(
    ("variables", "argument", "temporality"),
    [
        ({}, None, "delta"),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative"}, None, "cumulative"),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "lowmemory"}, None, "delta"),
        ({"COMPUTERAGENT_OTEL_TEMPORALITY": "cumulative"}, None, "cumulative"),
        ({"COMPUTERAGENT_OTEL_TEMPORALITY": "sometimes"}, None, "delta"),
        ({"COMPUTERAGENT_OTEL_TEMPORALITY": "cumulative"}, "delta", "delta"),
    ],
)
def test_temporality_is_chosen(
    variables: dict[str, str],
    argument: Any,
    temporality: str,
    collector: Collector,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    exported(endpoint=endpoint, temporality=argument)
    assert {point["temporality"] for point in collector.metrics} == {temporality}


def test_histograms_may_be_exponential(collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram")
    exported(endpoint=endpoint)
    assert {point["kind"] for point in collector.metrics} == {"exponential_histogram"}


def test_batches_are_of_the_size_and_age_that_are_asked_for(
    collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "250")
    sink = OtelSink(endpoint=endpoint)
    assert sink.limits.linger == 0.25
    deliver(sink, one_turn())
    sizes = [len(message.resource_spans[0].scope_spans[0].spans) for message in collector.accepted("traces")]
    assert sizes == [3, 1]


def self_signed(path: Path) -> None:
    """A certificate for the loopback address, and its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "collector")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=1))
    made = made.add_extension(address, critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *form)
        + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )


def test_a_certificate_of_ones_own_is_trusted_where_it_is_named(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    certificate, other = tmp_path / "collector.pem", tmp_path / "other.pem"
    self_signed(certificate)
    self_signed(other)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))  # what the machine trusts does not go before it
    with serving(collector, certificate=certificate) as url:
        stranger = OtelSink(endpoint=url)
        with pytest.raises(ConnectionError, match="SSLError"):
            stranger.deliver(one_turn().batch())
        stranger.close()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificate))
        exported(endpoint=url)
    assert len(collector.spans) == 4


def test_grpc_is_http_with_a_warning_where_it_is_not_installed(
    collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    exported()
    assert caplog.text.count("grpc_not_installed") == 1
    assert paths(collector) == {"/v1/traces": 1, "/v1/metrics": 1}


def test_grpc_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    class Exporter:
        def __init__(self, **arguments: Any) -> None:
            made.append(arguments)

        def export(self, data: Any) -> Any:
            return types.SimpleNamespace(name="SUCCESS")

        def shutdown(self) -> None:
            pass

    from computeragent.telemetry.sinks.otel import settings, wire

    monkeypatch.setattr(settings, "has_grpc", lambda: True)
    monkeypatch.setattr(wire, "_class", lambda protocol, signal: Exporter if protocol == "grpc" else None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    exported()
    assert [each["endpoint"] for each in made] == ["http://127.0.0.1:4317"] * 2


# ── The interface ──


def test_it_is_a_sink_of_both_kinds() -> None:
    assert isinstance(OtelSink(), TelemetrySink)
    assert isinstance(OtelSink(), SpooledSink)


def test_names_that_others_import_are_there() -> None:
    from computeragent.telemetry.sinks import content, otel

    assert otel.INSTRUMENTATION_SCOPE_NAME == "@computeragent/observability"
    assert otel.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS == "gen_ai.usage.cache_creation.input_tokens"
    assert otel.METRIC_TOKEN_USAGE == "gen_ai.client.token.usage"
    assert otel.METRIC_OPERATION_DURATION == "gen_ai.client.operation.duration"
    assert otel.METRIC_COST_USD == otel.COMPUTERAGENT_USAGE_COST_USD == "computeragent.usage.cost_usd"
    assert tuple(4**power for power in range(14)) == otel.TOKEN_USAGE_BUCKETS
    assert tuple(round(0.01 * 2**power, 2) for power in range(14)) == otel.OPERATION_DURATION_BUCKETS
    assert otel.COST_USD_BUCKETS[0] == 0.0001
    assert otel.MAX_TRACKED_SESSIONS == 10_000
    assert content.GEN_AI_INPUT_MESSAGES == "gen_ai.input.messages"
    assert content.EVENT_GEN_AI_CLIENT_INFERENCE_OPERATION_DETAILS == "gen_ai.client.inference.operation.details"
    assert set(otel.__all__) <= set(vars(otel))


# ── Nowhere to go ──


def test_without_a_place_to_go_there_is_no_sink() -> None:
    assert auto_sink() is None


def test_it_may_be_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("COMPUTERAGENT_OTEL", "Disabled")
    assert auto_sink() is None


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["argument", "variable", "nothing"])
async def test_the_console_is_stderr_and_a_line_for_each(
    way: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if way == "variable":
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
        sink = auto_sink()
        assert sink is not None
    else:
        sink = OtelSink(exporter="console" if way == "argument" else None)
    assert not sink.spooled
    for event in one_turn().events:
        await sink.emit(event)
    await sink.aclose()
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len([line for line in lines if line.startswith("[otel] span")]) == 4
    assert any(line.startswith("[otel] metric") for line in lines) == (way != "variable")
    assert any("'invoke_agent reviewer' 3.500s" in line and "cost_usd=0.02" in line for line in lines)


# ── Credentials ──


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@host:4318/x/?api-key=abc#frag", "https://host:4318/x"),
        ("http://[::1]:4318", "http://[::1]:4318"),
        ("host:4318", "host:4318"),
        ("https://host:port", "(not a URL)"),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert public(url) == shown


def test_credentials_are_on_the_wire_alone(
    collector: Collector,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    host = endpoint.removeprefix("http://")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={SECRET}")
    sink = OtelSink(endpoint=f"http://user:{SECRET}@{host}/x?key={SECRET}", headers={"x-more": SECRET})
    sink.bind(OtelSettings(headers={"x-bound": SECRET}))
    shown = [repr(sink), sink.destination, repr(sink._own), repr(sink._bound), repr(sink._settings)]
    collector.answers = [Answer(503), Answer(None), Answer(401), Answer(400)]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    batch = one_turn().batch()
    with caplog.at_level("DEBUG", "computeragent"):
        for _ in range(3):
            with pytest.raises(ConnectionError) as caught:
                sink.deliver(batch)
            shown += [str(caught.value), repr(caught.value), str(caught.value.__cause__)]
        collector.goes_on.set()
        sink.deliver(batch)
    shown.append(repr(sink._outlet.plan))
    sink.close()
    assert all(SECRET in json.dumps(each.headers) for each in collector.requests)
    assert sink.destination == f"otel http://{host}/x"
    assert SECRET not in " ".join([*shown, caplog.text, *capfd.readouterr()])
    assert SECRET not in json.dumps([collector.spans, collector.metrics, collector.resource if collector.spans else {}])


def test_the_destination_is_the_same_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"https://user:{SECRET}@host:4318/?k={SECRET}")
    program = "from computeragent.telemetry.sinks.otel import auto_sink; print(auto_sink().destination)"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50)
    assert other.stdout.strip() == OtelSink().destination == "otel https://host:4318"


# ── Providers of the user's ──


@pytest.mark.anyio
async def test_providers_that_are_given_get_everything(capfd: pytest.CaptureFixture[str]) -> None:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, records, reader = InMemorySpanExporter(), InMemoryLogRecordExporter(), InMemoryMetricReader()
    tracer = TracerProvider(shutdown_on_exit=False)
    tracer.add_span_processor(SimpleSpanProcessor(spans))
    logger = LoggerProvider(shutdown_on_exit=False)
    logger.add_log_record_processor(SimpleLogRecordProcessor(records))
    meter = MeterProvider([reader], shutdown_on_exit=False)
    sink = OtelSink(tracer_provider=tracer, meter_provider=meter, logger_provider=logger)
    sink.bind(OtelSettings(capture_content=True))
    assert not sink.spooled
    told = one_turn()
    for event in told.events:
        await sink.emit(event)
    await sink.aclose()
    finished = {span.name: span for span in spans.get_finished_spans()}
    assert set(finished) == {"invoke_agent reviewer", "chat claude-sonnet-4-5", "execute_tool Bash"}
    root, tool = finished["invoke_agent reviewer"], finished["execute_tool Bash"]
    assert tool.parent.span_id == root.context.span_id
    assert (root.end_time - root.start_time) == 3_500_000_000
    names = {
        metric.name
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert "gen_ai.client.token.usage" in names
    assert len(records.get_finished_logs()) == 2
    assert capfd.readouterr() == ("", "")


def test_no_global_provider_is_made(collector: Collector, endpoint: str) -> None:
    program = f"""
from telemetry.otel.stories import one_turn, deliver
from computeragent.telemetry.sinks.otel import OtelSink
deliver(OtelSink(endpoint={endpoint!r}), one_turn())
from opentelemetry import metrics, trace, _logs
for provider in (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()):
    assert "Proxy" in type(provider).__name__, provider
"""
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=root, check=True, timeout=50)
    assert len(collector.spans) == 4


# ── Fed directly ──


@pytest.mark.anyio
async def test_without_a_pipeline_events_are_exported_at_the_end_of_a_session(
    collector: Collector, endpoint: str
) -> None:
    sink = OtelSink(endpoint=endpoint)
    told = one_turn()
    for event in told.events[:-1]:
        await sink.emit(event)
    assert collector.requests == []
    await sink.emit(told.events[-1])
    assert len(collector.spans) == 4
    await sink.aclose()


@pytest.mark.anyio
async def test_closing_ends_what_is_open(collector: Collector, endpoint: str) -> None:
    sink = OtelSink(endpoint=endpoint)
    for event in Teller().prompt(0).calls(1, "msg_1", "Bash", "toolu_1").events:
        await sink.emit(event)
    await sink.aclose()
    assert {span["name"] for span in collector.spans} == {
        "invoke_agent reviewer",
        "chat claude-sonnet-4-5",
        "execute_tool Bash",
    }


@pytest.mark.anyio
async def test_an_outage_keeps_so_many_and_breaks_nothing(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "6")
    with serving(collector) as url:
        collector.always = Answer(503)
        sink = OtelSink(endpoint=url)
        for number in range(3):
            for event in one_turn(f"ca_{number}").events:
                await sink.emit(event)
        collector.always = Answer()
        await sink.aclose()
    assert len(collector.spans) == 6
    assert collector.total("computeragent.usage.cost_usd") == pytest.approx(0.06)
    assert caplog.text.count("export_failing") == 1
