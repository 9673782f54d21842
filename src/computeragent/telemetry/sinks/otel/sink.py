"""`OtelSink`: sessions as OpenTelemetry traces, metrics and, where asked for, content."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from computeragent.errors import MissingExtraError
from computeragent.logs import Logger
from computeragent.telemetry.event import TelemetryEvent, decode
from computeragent.telemetry.protocols import BatchLimits
from computeragent.telemetry.sinks.otel.settings import (
    Exporter,
    OtelSettings,
    Temporality,
    configured,
    destination,
    make_plan,
)
from computeragent.telemetry.spool import Spooled

if TYPE_CHECKING:
    from computeragent.telemetry.sinks.otel.outlet import Outlet

_log = Logger("otel")
_KEPT_SPOOLS = 256


class OtelSink:
    """Exports a trace for each turn over OTLP, with GenAI semantic conventions, and metrics beside it.

    Without arguments it does what ``configure`` and the ``OTEL_*`` variables say; with nowhere to send to it prints to
    stderr. It has providers of its own and never touches the global ones. With `tracer_provider`, `meter_provider` or
    `logger_provider` telemetry goes to those instead, with their ids, samplers and processors.

    Args:
        service_name: ``service.name``, in place of ``OTEL_SERVICE_NAME``; by default ``computeragent``.
        exporter: ``"otlp-http"`` or ``"console"`` (stderr).
        endpoint: The base URL of an OTLP/HTTP backend; ``/v1/traces`` and so on are appended.
        headers: Headers for it, beside those of ``OTEL_EXPORTER_OTLP_HEADERS``.
        temporality: ``"delta"`` (the default) or ``"cumulative"``, of metrics.
        tracer_provider: Where spans go, in place of an exporter.
        meter_provider: Where measurements go, in place of an exporter.
        logger_provider: Where content goes that is recorded as events, in place of an exporter.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.

    """

    exports_spans = True

    def __init__(
        self,
        *,
        service_name: str | None = None,
        exporter: Exporter | None = None,
        endpoint: str | None = None,
        headers: Mapping[str, str] | None = None,
        temporality: Temporality | None = None,
        tracer_provider: Any = None,
        meter_provider: Any = None,
        logger_provider: Any = None,
    ) -> None:
        if not installed():
            raise MissingExtraError("OtelSink requires the [otel] extra", hint="pip install 'computer-agent-py[otel]'")
        self._own = OtelSettings(
            service_name=service_name, exporter=exporter, endpoint=endpoint, headers=headers, temporality=temporality
        )
        self._bound = OtelSettings()
        self._providers = {
            "tracer_provider": tracer_provider,
            "meter_provider": meter_provider,
            "logger_provider": logger_provider,
        }
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._pid = os.getpid()
        self._feeding = threading.RLock()
        self._exporting = threading.RLock()  # taken after `_feeding`, where both are
        self._outlet: Outlet | None = None
        self._fed: dict[str, int] = {}  # up to where each spool has been taken in
        self._told = False
        self._hurry = False  # whether a session has ended whose measurements are not out

    def __repr__(self) -> str:
        return f"OtelSink({self.destination})"

    def bind(self, settings: object) -> None:
        """Take what `configure` was given, for all that the constructor was not told. Before the first event."""
        self._bound = OtelSettings.of(settings)

    # ── Fed from a spool ──

    @property
    def spooled(self) -> bool:
        """Whether events are to be kept on disk until they are exported: not for stderr and foreign providers."""
        return not self._given and self.destination != "otel console"

    @property
    def destination(self) -> str:
        """Where it exports to, without credentials."""
        return destination(self._settings)

    @property
    def limits(self) -> BatchLimits:
        """How events are wanted: gathered for as long as the SDK's own batches are, where that is said."""
        try:
            linger = max(0.0, int(os.environ["OTEL_BSP_SCHEDULE_DELAY"]) / 1000)
        except (KeyError, ValueError):
            return BatchLimits()
        return BatchLimits(linger=linger)

    def open(self) -> None:
        """Make the exporters, without connecting. Raises `RetryLater` when it is not known yet where to."""
        with self._feeding, self._exporting:
            if self._outlet is None:
                self._open()

    def deliver(self, batch: Sequence[Spooled]) -> Spooled | None:
        """Take in a batch and export what has ended with it. Returns the oldest event that an open turn began with.

        Raises `RetryLater` and `ConnectionError` when the backend cannot take it now; with the same batch again it goes
        on where it was.
        """
        if os.getpid() != self._pid:  # what the parent was about to export is the parent's to export
            self._start_afresh()
        with self._feeding, self._exporting:
            outlet = self._outlet or self._open()
            ended = False
            with outlet.quiet():
                for spooled in batch:
                    if spooled.position > self._fed.get(spooled.spool, 0):
                        ended |= self._feed(outlet, spooled)
                        self._fed[spooled.spool] = spooled.position
            while len(self._fed) > _KEPT_SPOOLS:
                del self._fed[next(iter(self._fed))]
            self._hurry = ended or self._hurry
            outlet.export(hurry=self._hurry)
            self._hurry = False
            return outlet.builder.needed(batch[-1].spool) if batch else None

    def _feed(self, outlet: Outlet, spooled: Spooled) -> bool:
        """Take in one event; whether it ends a session."""
        try:
            event = decode(spooled.data)
            outlet.builder.feed(event, spooled)
        except Exception as error:  # noqa: BLE001 - an event that makes no sense must not stop those behind it
            if not self._told:
                self._told = True
                _log.error("event_unreadable", error=f"{type(error).__name__}: {error}")
            return False
        return event.kind == "session_ended"

    def close(self) -> None:
        """Close the connections. Turns that are open stay in the spool, for the process that ends them."""
        with self._exporting:
            outlet, self._outlet = self._outlet, None
            if outlet is not None:
                outlet.close()

    # ── Fed directly ──

    async def emit(self, event: TelemetryEvent) -> None:
        """Take in one event. What is finished is exported at the end of a session, or when there is enough of it."""
        if os.getpid() != self._pid:
            self._start_afresh()
        with self._feeding:
            outlet = self._outlet or self._open()
            with outlet.quiet():
                outlet.builder.feed(event)
        if self.destination == "otel console":
            self._export(outlet, hurry=event.kind == "session_ended")
        elif event.kind == "session_ended" or outlet.spans.full:
            await self.flush()

    async def flush(self, timeout: float = 5.0) -> None:
        """Export what is finished, in at most `timeout` seconds. What could not be exported is kept, up to a bound."""
        from anyio import move_on_after, to_thread

        outlet = self._outlet
        if outlet is None:
            return
        with move_on_after(timeout):
            if self._given:
                await to_thread.run_sync(partial(outlet.flush_given, timeout), abandon_on_cancel=True)
            await to_thread.run_sync(partial(self._export, outlet), abandon_on_cancel=True)

    async def aclose(self) -> None:
        """End what is open, export it, and close the connections."""
        from anyio import to_thread

        with self._feeding:
            if self._outlet is not None:
                self._outlet.builder.end_all()
        await self.flush()
        await to_thread.run_sync(self.close, abandon_on_cancel=True)

    def _export(self, outlet: Outlet, *, hurry: bool = True) -> None:
        with self._exporting:
            try:
                outlet.export(hurry=hurry)
            except Exception as error:  # noqa: BLE001 - telemetry never breaks what it watches
                outlet.spans.trim()
                outlet.records.trim()
                if not self._told:
                    self._told = True
                    _log.warn("export_failing", sink=self.destination, error=str(error))
            else:
                self._told = False

    # ── What it is made of ──

    @property
    def _given(self) -> bool:
        return any(provider is not None for provider in self._providers.values())

    @property
    def _settings(self) -> OtelSettings:
        return self._own.over(self._bound)

    def _open(self) -> Outlet:
        from computeragent.telemetry.sinks.otel.late import loaded

        self._outlet = loaded(self._make)
        return self._outlet

    def _make(self) -> Outlet:
        from computeragent.telemetry.sinks.otel.outlet import Outlet

        return Outlet(make_plan(self._settings, fallback="none" if self._given else "console"), **self._providers)


def installed() -> bool:
    """Whether the `otel` extra is there."""
    try:
        return all(find_spec(f"opentelemetry.{name}") for name in ("sdk", "exporter.otlp.proto.http"))
    except ModuleNotFoundError:
        return False


def auto_sink() -> OtelSink | None:
    """A sink if the environment names a place to export to and the extra is installed, else None."""
    if os.environ.get("COMPUTERAGENT_OTEL", "").strip().lower() == "disabled" or not configured() or not installed():
        return None
    return OtelSink()
