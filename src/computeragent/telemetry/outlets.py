"""Where a pipeline's events go: to the spool for those sinks that must have all, and to the queues of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from computeragent.errors import ValidationError
from computeragent.telemetry.bounds import copied
from computeragent.telemetry.event import TelemetryEvent, encode
from computeragent.telemetry.feeding import Feeder
from computeragent.telemetry.protocols import SpooledSink, TelemetrySink
from computeragent.telemetry.shipping import Shipper
from computeragent.telemetry.storage import Storage, header


class Outlets:
    """The sinks of one pipeline, each with what feeds it. Raises `ValidationError` for what is no sink."""

    def __init__(
        self, sinks: Sequence[TelemetrySink | SpooledSink], folder: Callable[[], Path], *, max_bytes: int
    ) -> None:
        spooled = [sink for sink in sinks if is_spooled(sink)]
        plain = [sink for sink in sinks if not is_spooled(sink)]
        for sink in plain:
            if not isinstance(sink, TelemetrySink):
                raise ValidationError(
                    f"{sink!r} is no sink", hint="A sink has async emit(event), flush(timeout) and aclose()."
                )
        self.feeders = [Feeder(sink) for sink in plain if isinstance(sink, TelemetrySink)]
        names = [sink.destination for sink in spooled if isinstance(sink, SpooledSink)]
        for name in names:
            if names.count(name) > 1:  # each destination has one place in the spool
                raise ValidationError(f"two sinks deliver to {name}", hint="Give one sink per destination.")
        self.storage = Storage(folder, names, max_bytes=max_bytes, changed=self.notify)
        self.shippers = [Shipper(sink, self.storage.spools) for sink in spooled if isinstance(sink, SpooledSink)]

    def open(self) -> None:
        """Take over what processes that are gone left behind."""
        self.storage.open()
        self.notify()

    def commit(self, events: Sequence[TelemetryEvent]) -> None:
        """Commit events for the spooled sinks. Raises where neither disk nor memory takes them."""
        if not self.shippers:
            return
        self.storage.discard_drained()
        opened = {event.session_id: header(event) for event in events if event.kind == "session_started"}
        ended = [event.session_id for event in events if event.kind == "session_ended"]
        self.storage.commit([encode(event) for event in events], opened, ended)
        if ended:
            self.notify(hurry=True)

    def feed(self, events: list[TelemetryEvent]) -> None:
        """Queue events for the plain sinks."""
        # Each sink has events of its own, made before any sink sees one: what one of them changes, no other sees.
        copies = [[replace(event, payload=copied(event.payload)) for event in events] for _ in self.feeders[1:]]
        for feeder, its_own in zip(self.feeders, [events, *copies], strict=False):
            for event in its_own:
                feeder.put(event)

    def notify(self, *, hurry: bool = False) -> None:
        """There may be something to ship."""
        for shipper in self.shippers:
            shipper.notify(hurry=hurry)

    def deliver(self, deadline: float, *, closing: bool = False) -> bool:
        """Have all that is queued delivered; False when that is not done by the deadline (monotonic)."""
        marks = [(feeder, feeder.begin_flush(deadline, closing=closing)) for feeder in self.feeders]
        if self.storage.spools():
            self.notify(hurry=True)
        handed = [feeder.end_flush(mark) for feeder, mark in marks]
        shipped = [shipper.flush(deadline) for shipper in self.shippers] if self.storage.spools() else []
        return all(handed) and all(shipped)

    def close(self, deadline: float) -> bool:
        """Let the sinks' threads end; False when one goes on beyond the deadline. Then `discard`."""
        for feeder in self.feeders:
            feeder.close(deadline)
        stopped = [shipper.close(deadline) for shipper in self.shippers]  # each of them, whatever the others do
        return all(stopped)

    def discard(self) -> None:
        """Close the files and the sinks."""
        self.storage.close()
        for shipper in self.shippers:
            shipper.sink.close()

    @property
    def dropped(self) -> int:
        """Events that spools and queues had no room for."""
        return self.storage.dropped + sum(feeder.dropped for feeder in self.feeders)

    def stats(self) -> dict[str, Any]:
        """How each sink fares, by its name or destination."""
        sinks: dict[str, Any] = {}
        for feeder in self.feeders:
            sinks[_free(feeder.name, sinks)] = {
                "delivered": feeder.state.delivered,
                "waiting": len(feeder),
                "dropped": feeder.dropped,
                "failures": feeder.state.failures,
                "failing": feeder.state.failing,
            }
        for shipper in self.shippers:
            name = shipper.sink.destination
            waiting = sum(spool.pending(name) for spool in self.storage.spools() if name in spool.sinks)
            sinks[name] = {
                "delivered": shipper.state.delivered,
                "waiting": waiting,
                "dropped": self.storage.dropped,
                "failures": shipper.state.failures,
                "failing": shipper.state.failing,
            }
        return sinks

    def reset_after_fork(self) -> None:
        """The child has spools, connections and threads of its own."""
        self.storage.leave()
        for shipper in self.shippers:
            shipper.reset_after_fork()


def is_spooled(sink: object) -> bool:
    """Whether a sink is fed from the spool."""
    return isinstance(sink, SpooledSink) and getattr(sink, "spooled", True)


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """The name, or with a number where there are several sinks of it."""
    names = (name if number == 1 else f"{name} {number}" for number in range(1, len(taken) + 2))
    return next(each for each in names if each not in taken)
