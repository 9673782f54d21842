"""Sinks for tests: they keep what they are given."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from computeragent.telemetry import BatchLimits, Spooled, TelemetryEvent
from computeragent.telemetry.event import decode


class Listener:
    """A plain sink that keeps every event."""

    def __init__(self) -> None:
        self.events: list[TelemetryEvent] = []
        self.flushed = 0
        self.closed = False

    async def emit(self, event: TelemetryEvent) -> None:
        self.events.append(event)

    async def flush(self, timeout: float = 5.0) -> None:
        self.flushed += 1

    async def aclose(self) -> None:
        self.closed = True

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def one(self, kind: str) -> TelemetryEvent:
        (found,) = [event for event in self.events if event.kind == kind]
        return found

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event.payload for event in self.events if event.kind == kind]


class Stuck(Listener):
    """A plain sink that never comes back from its first event."""

    async def emit(self, event: TelemetryEvent) -> None:
        await asyncio.sleep(3600)


class Depot:
    """A spooled sink that keeps what is delivered, and fails while `broken`."""

    destination = "depot test"
    limits = BatchLimits(linger=0.0)

    def __init__(self) -> None:
        self.batches: list[list[Spooled]] = []
        self.broken = False
        self.closed = False

    def open(self) -> None:
        return None

    def deliver(self, batch: Sequence[Spooled]) -> Spooled | None:
        if self.broken:
            raise ConnectionError("nobody there")
        self.batches.append(list(batch))
        return None

    def close(self) -> None:
        self.closed = True

    @property
    def events(self) -> list[TelemetryEvent]:
        return [decode(one.data) for batch in self.batches for one in batch]
