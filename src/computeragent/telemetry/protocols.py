"""What takes part in a pipeline: middleware, sinks, and sinks that are fed from the spool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from computeragent.telemetry.event import TelemetryEvent
from computeragent.telemetry.spool import Spooled


@runtime_checkable
class TelemetryMiddleware(Protocol):
    """Sees every event before any sink, in order: returns it, another one in its place, or None to drop it.

    What it raises drops the event, unless the pipeline was made with ``fail_open=True``.
    """

    async def __call__(self, event: TelemetryEvent) -> TelemetryEvent | None: ...


@runtime_checkable
class TelemetrySink(Protocol):
    """Takes events somewhere. It runs on a thread and an event loop of its own, one event at a time, in order.

    What it raises is counted and logged; the event is gone. A sink that must lose nothing is a `SpooledSink`.
    """

    async def emit(self, event: TelemetryEvent) -> None: ...
    async def flush(self, timeout: float = 5.0) -> None: ...
    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How a spooled sink wants its events: at most `events` and `bytes` at a time, gathered for `linger` seconds.

    The end of a session, and a flush, do not wait for more.
    """

    events: int = 500
    bytes: int = 4_000_000
    linger: float = 1.0


@runtime_checkable
class SpooledSink(Protocol):
    """A sink whose events are kept on disk until it has delivered them.

    `destination` says where they go, such as ``agentos https://host/path``: without credentials, and the same in the
    next process, which delivers what this one could not. `open` is called once before, to load what is needed, and may
    fail: `deliver` tries again. `deliver` is called on a thread of the sink's own and may
    block. It returns the oldest event that it still needs, should this process die (None: none of them), or raises:
    `RetryLater` when it knows how long to wait, anything else to be called again, with the same list, after a growing
    pause.
    """

    destination: str
    limits: BatchLimits

    def open(self) -> None: ...
    def deliver(self, batch: Sequence[Spooled]) -> Spooled | None: ...
    def close(self) -> None: ...


class RetryLater(Exception):  # noqa: N818 - not an error: what the other side asked for
    """Delivery failed and is to be tried again, after `after` seconds if the other side said so."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True, slots=True)
class Trip:
    """A guard's verdict on a session: the run is to stop. `kind` is ``budget_exceeded`` or ``content_blocked``."""

    kind: str
    reason: str


@runtime_checkable
class Guard(Protocol):
    """Middleware that may stop a run. `enforced_ceiling_usd` is what a session may cost, None for any amount."""

    @property
    def enforced_ceiling_usd(self) -> float | None: ...

    def verdict(self, session_id: str) -> Trip | None: ...


@runtime_checkable
class KeepsSecrets(Protocol):
    """Middleware that finds credentials by value: it is told which ones a session holds, and when it is over."""

    def learn(self, session_id: str, settings: Sequence[Any]) -> None: ...
    def forget(self, session_id: str) -> None: ...
