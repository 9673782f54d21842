"""Obligations: what a policy asks for in return for an ``allow``.

========================  =====================================================================================
``redact``                ``{"kind": "redact", "argument": "headers.authorization", "with": "[REDACTED]"}``: the
                          tool gets the argument without its value. An argument that is absent is fine.
``cap``                   ``{"kind": "cap", "argument": "timeout", "max": 60000}``: a number is lowered to the
                          limit; an argument that is absent is set to it.
``require_approval``      ``{"kind": "require_approval", "reason": "…"}``: a person must allow the call.
========================  =====================================================================================

`argument` is a path of keys and list indexes, joined by dots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from math import isnan
from typing import Any, cast

REDACTED = "[REDACTED]"


class ObligationError(ValueError):
    """An obligation that is not understood, or that this input cannot meet."""


def fulfil(obligations: Sequence[Any], tool_input: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The input as the obligations want it, and why a person must allow the call, or None.

    The input itself is left as it is. Raises `ObligationError`.
    """
    changed, approval = deepcopy(tool_input), None
    for each in obligations:
        if not isinstance(each, Mapping):
            raise ObligationError("an obligation must be an object with a kind")
        obligation = cast("Mapping[str, Any]", each)
        match obligation.get("kind"):
            case "redact":
                _redact(changed, _keys(obligation), obligation.get("with", REDACTED))
            case "cap":
                _cap(changed, _keys(obligation), obligation.get("max"))
            case "require_approval":
                approval = str(obligation.get("reason") or "the policy requires approval")
            case kind:
                raise ObligationError(f"unknown obligation {kind!r}")
    return changed, approval


def _keys(obligation: Mapping[str, Any]) -> list[str]:
    argument = obligation.get("argument")
    if not isinstance(argument, str) or not argument:
        raise ObligationError(f"{obligation.get('kind')} needs an argument: a path such as 'headers.authorization'")
    return argument.split(".")


def _redact(value: Any, keys: list[str], replacement: Any) -> None:
    place = _place(value, keys)
    if place is not None:
        holder, key = place
        holder[key] = replacement


def _cap(value: Any, keys: list[str], limit: Any) -> None:
    if not _is_number(limit):
        raise ObligationError("cap needs a number: max")
    place = _place(value, keys)
    if place is None:
        if len(keys) != 1:
            raise ObligationError(f"the input has no {'.'.join(keys)} to cap")
        value[keys[0]] = limit
        return
    holder, key = place
    if not _is_number(holder[key]):
        raise ObligationError(f"{'.'.join(keys)} is no number and cannot be capped")
    holder[key] = min(holder[key], limit)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not isnan(value)


def _place(value: Any, keys: list[str]) -> tuple[Any, Any] | None:
    """The container and the key in it that a path leads to; None where it leads nowhere."""
    holder: Any = value
    for key in keys[:-1]:
        step = _step(holder, key)
        if step is None:
            return None
        holder = holder[step]
    last = _step(holder, keys[-1])
    return None if last is None else (holder, last)


def _step(holder: Any, key: str) -> Any:
    if isinstance(holder, dict):
        return key if key in holder else None
    if isinstance(holder, list):
        entries = cast("list[Any]", holder)
        return int(key) if key.isdecimal() and int(key) < len(entries) else None
    return None
