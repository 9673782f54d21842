"""JSON as Cedar sees it. Cedar has no null, no floats and no numbers above 64 bits, and two keys of its own.

===========================  ===================================================================================
null                         left out, at any depth
``5.0``                      the number 5
``1.5``                      a decimal, of four places: ``context.tool_input.x.lessThan(decimal("2.0"))``
floats beyond decimal, NaN   their text
numbers beyond 64 bits       their digits as text
lists                        sets: without order, and a value in them once
a key that begins with __    with one more underscore, so that a tool's input cannot name entities
below 50 levels              JSON text
half a surrogate pair        U+FFFD
===========================  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from computeragent.wire.encoding import to_json

_DEEPEST = 50
_LONGS = range(-(2**63), 2**63)
_LARGEST_DECIMAL = 922_337_203_685_477.0


def cedar_value(value: Any, depth: int = 0) -> Any:
    """A JSON value as Cedar's JSON; None only for None."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if value in _LONGS else str(value)
        case float():
            return _number(value)
        case Mapping() if depth < _DEEPEST:
            return cedar_record(cast("Mapping[Any, Any]", value), depth)
        case list() | tuple() | set() | frozenset() if depth < _DEEPEST:
            entries = cast("Iterable[Any]", value)
            return [cedar_value(entry, depth + 1) for entry in entries if entry is not None]
        case Mapping() | list() | tuple() | set() | frozenset():
            return to_json(value).decode()
        case _:
            return str(value)


def cedar_record(value: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """A JSON object as a Cedar record."""
    return {_key(key): cedar_value(entry, depth + 1) for key, entry in value.items() if entry is not None}


def cedar_text(text: str) -> str:
    """Text that UTF-8 can express."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    return text


def _key(key: Any) -> str:
    name = str(key)
    return f"_{name}" if name.startswith("__") else name


def _number(value: float) -> Any:
    if not -_LARGEST_DECIMAL < value < _LARGEST_DECIMAL:  # NaN is not either
        whole = value.is_integer() and int(value) in _LONGS
        return int(value) if whole else repr(value)
    if value.is_integer():
        return int(value)
    return {"__extn": {"fn": "decimal", "arg": f"{value:.4f}"}}
