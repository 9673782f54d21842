"""What waits in a pipeline's queue, and where it goes once the pipeline is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from computeragent.telemetry.bounds import weigh_message
from computeragent.telemetry.event import TelemetryEvent

if TYPE_CHECKING:
    from computeragent.telemetry.pipeline import Pipeline

Tell = Callable[[int], Iterable[TelemetryEvent]]


@dataclass(slots=True)
class Step:
    """One thing for the pipeline's thread: `tell` turns it into events. `vital` ones outlive an overflow.

    `source` is what it holds on to, weighed when the queue grows.
    """

    at: int
    tell: Tell
    vital: bool = False
    source: Any = None


@dataclass(slots=True)
class Mark:
    """A place in the queue up to which somebody waits."""

    done: threading.Event = field(default_factory=threading.Event)


def weigh(item: Step | Mark) -> int:
    """Roughly how many bytes an item holds on to."""
    return 0 if isinstance(item, Mark) else weigh_message(item.source)


def is_vital(item: Step | Mark) -> bool:
    """Whether an overflow passes it by."""
    return isinstance(item, Mark) or item.vital


class Handover:
    """Steps of sessions that outlive their pipeline: kept while it tells what it had, then its successor's.

    So a session is told in order, and by one thread at a time.
    """

    def __init__(self) -> None:
        self.successor: Pipeline | None = None
        self.lost = 0
        self._held: list[Step] | None = []
        self._lock = threading.RLock()

    def offer(self, step: Step) -> None:
        """Take a step that came late; without a successor it is counted in `lost`."""
        with self._lock:
            if self.successor is None:
                self.lost += 1
            elif self._held is not None:
                self._held.append(step)
            else:
                self.successor.offer(step)

    @property
    def finished(self) -> bool:
        """Whether the successor goes on."""
        return self.successor is not None and self._held is None

    def finish(self, first: Iterable[Step]) -> None:
        """The pipeline has told what it had: `first`, then what was held back, goes to the successor."""
        with self._lock:
            held, self._held = self._held or [], None
            if self.successor is not None:
                for step in [*first, *held]:
                    self.successor.offer(step)

    def reset_after_fork(self) -> None:
        """The pipeline is closed by the parent, not here: nothing is held for it."""
        self._lock = threading.RLock()
        self._held = None
