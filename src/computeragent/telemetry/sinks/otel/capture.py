"""Content for spans and log records: what a call was sent and what it replied, cut to size.

A call has what is new since the call before, not the whole history, so that a long turn takes memory and bytes in
proportion to what was said. It is freed with the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from computeragent.telemetry.bounds import shorten, truncate
from computeragent.telemetry.sinks.content import Json
from computeragent.wire.encoding import to_json

MAX_PARTS = 256
"""Parts that one call keeps; of a longer one the newest."""
_SHORTEST = 32


def as_json(value: Any) -> str:
    """A value as JSON text; what JSON has no form for as text."""
    try:
        return to_json(value).decode()
    except (TypeError, ValueError, RecursionError):
        return str(value)


def fit(value: Any, limit: int) -> Any:
    """The value with its texts cut until its JSON has at most `limit` characters, as far as cutting texts can do."""
    each, fitted = limit, value
    if len(as_json(value)) <= limit:
        return value
    while each >= _SHORTEST:
        fitted = truncate(value, each)
        if len(as_json(fitted)) <= limit:
            return fitted
        each //= 2
    return fitted


def fit_messages(messages: Sequence[Json], limit: int) -> list[Json]:
    """Messages with their texts cut until all fit; when that is not enough, the first and the newest that do."""
    fitted: list[Json] = fit(list(messages), limit)
    while len(as_json(fitted)) > limit:
        longest = max(fitted, key=lambda message: len(message.get("parts", ())))
        parts: list[Json] = longest.get("parts", [])
        if len(parts) > 1:
            shorter = {**longest, "parts": _ends(parts)}
            fitted = [shorter if message is longest else message for message in fitted]
        elif len(fitted) > 1:
            fitted = _ends(fitted)
        else:
            break
    return fitted


def _ends(items: list[Json]) -> list[Json]:
    """Half of the items: the first, and the newest."""
    kept = len(items) // 2
    return [items[0], *items[len(items) - kept + 1 :]]


def attribute(value: Any, limit: int) -> str:
    """A value as an attribute: JSON that fits, or as a last resort its beginning; a text as it is."""
    if isinstance(value, str):
        return shorten(value, limit)
    return shorten(as_json(fit(value, limit)), limit)


def say(messages: list[Json], role: str, part: Json) -> None:
    """Append to what the model is told with its next call."""
    if messages and messages[-1]["role"] == role:
        add(messages[-1]["parts"], part)
    else:
        add(messages, {"role": role, "parts": [part]})


def add(parts: list[Json], part: Json) -> None:
    """Append; of more than `MAX_PARTS` the oldest go."""
    parts.append(part)
    del parts[:-MAX_PARTS]
