"""Arguments of tools that nobody knows: what their names say, in any spelling and at any depth of the input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@lru_cache(maxsize=4096)
def last_word(name: str) -> str:
    """The last word of a name in small letters: ``path`` of ``absolutePath``, ``target_path`` and ``PATH``."""
    parts = _PART.findall(name[-100:])
    return parts[-1].lower() if parts else ""


def named_texts(tool_input: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """The texts of an input, each with the last word of the name that it has; those in a list have the list's."""
    found: list[tuple[str, str]] = []
    rest: list[tuple[str, Any]] = []
    for key, value in tool_input.items():
        if isinstance(value, str):
            found.append((last_word(str(key)), value))
        elif isinstance(value, dict | list):
            rest.append((last_word(str(key)), cast("Any", value)))
    while rest:
        name, value = rest.pop()
        if isinstance(value, str):
            found.append((name, value))
        elif isinstance(value, dict):
            rest.extend((last_word(str(key)), each) for key, each in cast("dict[Any, Any]", value).items())
        elif isinstance(value, list):
            rest.extend((name, each) for each in cast("list[Any]", value))
    return found
