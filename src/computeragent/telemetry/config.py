"""The process's own pipeline: built from the environment on first use, or made with `configure`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal, cast

from computeragent import plugins
from computeragent.errors import ValidationError
from computeragent.logs import Logger
from computeragent.telemetry.pipeline import Pipeline
from computeragent.telemetry.protocols import SpooledSink, TelemetryMiddleware, TelemetrySink

_log = Logger("telemetry")
_lock = threading.RLock()
_pipeline: Pipeline | None = None
_automatic = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryConfig:
    """What `configure` was given.

    The fields from `service_name` on are for `OtelSink`s that were not told themselves; None leaves the choice to the
    environment.
    """

    agent_name: str | None = None
    agent_id: str | None = None
    fail_open: bool = False
    service_name: str | None = None
    exporter: Literal["console", "otlp-http"] | None = None
    endpoint: str | None = None
    headers: Mapping[str, str] | None = None
    sample_rate: float | None = None
    capture_content: bool | None = None
    capture_content_mode: Literal["events", "attributes", "both"] | None = None
    max_attribute_length: int | None = None
    temporality: Literal["delta", "cumulative"] | None = None

    def __repr__(self) -> str:
        shown = [f"{field.name}={_shown(field.name, getattr(self, field.name))}" for field in fields(self)]
        return f"TelemetryConfig({', '.join(shown)})"


_config = TelemetryConfig()


def configure(
    *,
    middleware: Sequence[TelemetryMiddleware] | None = None,
    sinks: Sequence[TelemetrySink | SpooledSink | str] | None = None,
    service_name: str | None = None,
    exporter: Literal["console", "otlp-http"] | None = None,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    sample_rate: float | None = None,
    capture_content: bool | None = None,
    capture_content_mode: Literal["events", "attributes", "both"] | None = None,
    max_attribute_length: int | None = None,
    fail_open: bool = False,
    temporality: Literal["delta", "cumulative"] | None = None,
    agent_name: str | None = None,
    agent_id: str | None = None,
    tail_timeout: float = 0.25,
    max_spool_bytes: int | None = None,
) -> Pipeline:
    """Make the process's pipeline anew; the one before goes on with what it has and ends.

    Args:
        middleware: What events go through; None is a `PiiRedactor`, ``[]`` is nothing.
        sinks: Where they go: sinks, or registered names such as ``"jsonl"``; None is what the environment asks for,
            ``[]`` is nowhere.
        service_name: For `OtelSink`s that were not told themselves, as are the following; None is the environment's.
        exporter: ``"otlp-http"``, or ``"console"`` for standard error.
        endpoint: The base URL of an OTLP/HTTP receiver.
        headers: Sent with each export.
        temporality: Of metrics; default ``"delta"``.
        sample_rate: The share of traces that is exported, from 0 to 1.
        capture_content: Whether prompts, replies and tool data are exported.
        capture_content_mode: Where to: on spans (``"attributes"``), in log records (``"events"``) or ``"both"``.
        max_attribute_length: How long each of them may be, in characters.
        fail_open: Whether events that middleware fails on are let through.
        agent_name: Who the agent is, where its options do not say.
        agent_id: Its id that outlives a new name; default ``COMPUTERAGENT_AGENT_ID``.
        tail_timeout: Seconds that the end of a `query` waits at most until what it told is committed to the spool.
        max_spool_bytes: What the spool may hold; default 64 MiB.

    Raises `ValidationError` for values that cannot be meant, `MissingExtraError` for a sink whose extra is missing.

    """
    if sample_rate is not None and not 0 <= sample_rate <= 1:
        raise ValidationError(f"sample_rate {sample_rate} is not between 0 and 1", hint="Use 1.0 for every trace.")
    config = TelemetryConfig(
        agent_name=agent_name,
        agent_id=agent_id,
        fail_open=fail_open,
        service_name=service_name,
        exporter=exporter,
        endpoint=endpoint,
        headers=headers,
        sample_rate=sample_rate,
        capture_content=capture_content,
        capture_content_mode=capture_content_mode,
        max_attribute_length=max_attribute_length,
        temporality=temporality,
    )
    chosen = auto_sinks() if sinks is None else [_sink(sink) for sink in sinks]
    bind_sinks(chosen, config)
    more: dict[str, Any] = {} if max_spool_bytes is None else {"max_spool_bytes": max_spool_bytes}
    made = Pipeline(middleware=middleware, sinks=chosen, fail_open=fail_open, tail_timeout=tail_timeout, **more)
    return _install(made, config)


def get_pipeline() -> Pipeline:
    """The process's pipeline; on first use built from the environment, with redaction on."""
    made = _pipeline
    if made is not None:
        return made
    with _lock:
        if _pipeline is None:
            sinks = auto_sinks()
            bind_sinks(sinks)
            made = Pipeline(sinks=sinks)
            _install(made, _config, automatic=True)
        assert _pipeline is not None
        return _pipeline


def configure_otel(**settings: Any) -> None:
    """Set what `OtelSink`s and `OtelAuditSink`s use that were not told themselves: ``service_name``, ``exporter``,
    ``endpoint``, ``headers``, ``capture_content`` and the other settings of `TelemetryConfig`.

    A pipeline that was built from the environment is built anew; one made with `configure` stays as it is.
    """
    global _config  # noqa: PLW0603
    with _lock:
        try:
            _config = replace(_config, **settings)
        except TypeError as error:
            known = ", ".join(field.name for field in fields(TelemetryConfig))
            raise ValidationError(f"not a setting of OpenTelemetry: {error}", hint=f"Settings are {known}.") from None
        if _pipeline is not None and _automatic:
            sinks = auto_sinks()
            bind_sinks(sinks)
            _install(Pipeline(sinks=sinks), _config, automatic=True)


def get_config() -> TelemetryConfig:
    """What `configure` was given last."""
    return _config


def configured_pipeline() -> Pipeline | None:
    """The process's pipeline if it was made with `configure`, for somewhere."""
    made = None if _automatic else _pipeline
    return made if made is not None and made.active else None


async def shutdown(timeout: float = 5.0) -> None:
    """Flush and close the process's pipeline; the next use builds another one. Works under asyncio and trio."""
    global _pipeline, _config
    with _lock:
        made, _pipeline, _config = _pipeline, None, TelemetryConfig()
    if made is not None:
        await made.aclose(timeout)


def auto_sinks() -> list[TelemetrySink | SpooledSink]:
    """The sinks that the environment asks for: OTLP where an endpoint is set, AgentOS where an ingest is."""
    found: list[TelemetrySink | SpooledSink] = []
    from computeragent.telemetry.sinks import agentos

    candidates: list[Callable[[], Any]] = [agentos.auto_sink]
    if os.environ.get("COMPUTERAGENT_OTEL", "").lower() != "disabled" and find_spec("opentelemetry") is not None:
        from computeragent.telemetry.sinks import otel

        candidates.insert(0, otel.auto_sink)
    for make in candidates:
        try:
            sink = make()
        except Exception as error:  # noqa: BLE001 - telemetry that cannot be set up does not stop an agent
            _log.error("sink_not_made", sink=make.__module__, error=str(error))
            continue
        if sink is not None:
            found.append(sink)
    return found


def _sink(choice: TelemetrySink | SpooledSink | str) -> TelemetrySink | SpooledSink:
    if isinstance(choice, str):
        return cast("TelemetrySink | SpooledSink", plugins.sinks.create(choice, {}))
    return choice


def bind_sinks(sinks: Sequence[object], config: TelemetryConfig | None = None) -> None:
    """Tell sinks what was configured, before they are part of a pipeline; what they were told themselves stands."""
    for sink in sinks:
        bind = getattr(sink, "bind", None)
        if bind is not None:
            bind(config or _config)


def _install(made: Pipeline, config: TelemetryConfig, *, automatic: bool = False) -> Pipeline:
    global _pipeline, _config, _automatic
    with _lock:
        before, _pipeline, _config, _automatic = _pipeline, made, config, automatic
    if before is not None:
        _retire(before, made)
    return made


def _retire(pipeline: Pipeline, successor: Pipeline | None) -> None:
    """Let a pipeline finish behind everybody's back; what its sessions still tell goes to its successor."""
    close = partial(pipeline.close, successor=successor)
    threading.Thread(target=close, name="computeragent-telemetry-close", daemon=True).start()


def _shown(name: str, value: Any) -> str:
    if name == "headers" and value:
        return f"<{len(value)} headers>"
    return repr(value)
