"""Options of stores, as configuration gives them: looked at when a store is made, not when it is used."""

from __future__ import annotations

import os
from typing import Any, cast

from computeragent.errors import ValidationError


def path(name: str, value: Any) -> str | None:
    """A path, or None for the default. Raises `ValidationError`."""
    if value is None:
        return None
    text: object = os.fspath(cast("os.PathLike[str]", value)) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text or "\0" in text:
        hint = "Leave it out for the default."
        raise ValidationError(f"{name} of a session store is a path, not {text!r}", hint=hint)
    return text


def url(value: Any) -> str | None:
    """An address, or None for that of the environment. Raises `ValidationError`, without the address."""
    if value is not None and not isinstance(value, str):
        raise ValidationError(
            f"url of a session store is a string, not {type(value).__name__}", hint="Leave it out for the default."
        )
    return value


def seconds(name: str, value: Any) -> float:
    """A time above zero. Raises `ValidationError`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValidationError(f"{name} of a session store is seconds above zero, not {value!r}", hint="Such as 30.")
    return float(value)


def count(name: str, value: Any) -> int:
    """A number of at least 1. Raises `ValidationError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValidationError(f"{name} of a session store is a number from 1 up, not {value!r}", hint="Such as 4.")
    return value
