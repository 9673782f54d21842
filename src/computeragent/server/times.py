"""Moments: epoch seconds inside, ISO 8601 in UTC on the wire."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import overload


def now() -> float:
    """Epoch seconds."""
    return time.time()


@overload
def iso(moment: float) -> str: ...
@overload
def iso(moment: None) -> None: ...
def iso(moment: float | None) -> str | None:
    """A moment as clients read it, to the millisecond."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
