"""Keeping payloads small: long texts are cut, and encoded pictures are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from re import compile as regex
from typing import Any, cast

MAX_TEXT = 65_536
"""Characters of one text in an event. Longer ones end with ``…(+N chars)``."""
MARGIN = 1_024
"""What a text may have beyond `MAX_TEXT` until it is redacted, so that a secret at the cut is still seen whole."""

_DEEPEST = 64
_SUFFIX = regex(r"…\(\+(\d+) chars\)\Z")


def shorten(text: str, limit: int) -> str:
    """The text, or its beginning and how much is missing. A text that was cut before keeps its count true."""
    earlier = _SUFFIX.search(text[-40:]) if len(text) > 40 else None
    body, missing = text, 0
    if earlier is not None:
        body, missing = text[: len(text) - len(earlier.group())], int(earlier.group(1))
    if len(body) <= limit:
        return text
    return f"{body[:limit]}…(+{len(body) - limit + missing} chars)"


def prune(value: Any) -> Any:
    """The value without what telemetry has no use for: picture data, and texts beyond `MAX_TEXT` and `MARGIN`.

    A copy, as those of `truncate` and `copied`: no list or dict in it is the one that was given, so that whoever
    changes an event changes nobody's message.
    """
    return _walk(value, lambda text: shorten(text, MAX_TEXT + MARGIN), 0)


def truncate(value: Any, limit: int) -> Any:
    """The value with every text of at most `limit` characters and the count of what is missing."""
    return _walk(value, lambda text: shorten(text, limit), 0)


def copied(value: Any) -> Any:
    """The value with lists and dicts of its own."""
    return _walk(value, lambda text: text, 0)


def weigh_message(message: Any) -> int:
    """Roughly how many bytes a message, or a text, holds on to."""
    if isinstance(message, (bytes, str)):
        return len(message)
    content = getattr(message, "content", None)
    if content is None:
        return 256
    if isinstance(content, str):
        return 256 + len(content)
    return 256 + sum(size(vars(block)) if hasattr(block, "__dict__") else 256 for block in content)


def size(value: Any, depth: int = 0) -> int:
    """Roughly how many bytes a value takes."""
    if isinstance(value, str):
        return len(value)
    if depth > _DEEPEST:
        return 64
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return 64 + sum(len(str(key)) + size(item, depth + 1) for key, item in items)
    if isinstance(value, (list, tuple)):
        return 64 + sum(size(item, depth + 1) for item in cast("list[Any]", value))
    return 16


def _walk(value: Any, text: Callable[[str], str], depth: int) -> Any:
    if isinstance(value, str):
        return text(value)
    if depth > _DEEPEST:
        return value
    if isinstance(value, Mapping):
        given = cast("Mapping[Any, Any]", value)
        data = given.get("data")
        if given.get("type") == "base64" and isinstance(data, str) and len(data) > 64:
            return {**given, "data": f"[{len(data)} base64 characters]"}
        return {key: _walk(item, text, depth + 1) for key, item in given.items()}
    if isinstance(value, (list, tuple)):
        return [_walk(item, text, depth + 1) for item in cast("list[Any]", value)]
    return value
