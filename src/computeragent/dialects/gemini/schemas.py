"""Gemini's own schemas (of OpenAPI) as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from computeragent.dialects.gemini.spelling import camel
from computeragent.errors import ValidationError

_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_BY_NAME = frozenset({"properties", "$defs", "defs"})


def json_schema(schema: Any, path: str) -> dict[str, Any]:
    """The JSON Schema that says the same. Raises `ValidationError`."""
    try:
        return _convert(schema, path)
    except RecursionError:
        raise ValidationError(f"{path}: too deep") from None


def _convert(schema: Any, path: str) -> dict[str, Any]:
    if not isinstance(schema, Mapping):
        raise ValidationError(f"{path}: must be an object")
    made: dict[str, Any] = {}
    nullable = False
    for given, value in cast("Mapping[str, Any]", schema).items():
        name = camel(given)
        if name == "nullable":
            nullable = value is True
        elif name != "propertyOrdering" and value is not None:
            made |= _field(name, value, f"{path}.{name}")
    return _or_null(made) if nullable else made


def _field(name: str, value: Any, path: str) -> dict[str, Any]:
    if name == "type" and isinstance(value, str):
        return {} if value == "TYPE_UNSPECIFIED" else {name: value.lower()}
    if name in _BY_NAME and isinstance(value, Mapping):
        inner = cast("Mapping[str, Any]", value)
        return {name: {each: _convert(item, f"{path}.{each}") for each, item in inner.items()}}
    if name == "items" or (name == "additionalProperties" and isinstance(value, Mapping)):
        return {name: _convert(value, path)}
    if name == "anyOf" and isinstance(value, list):
        return {name: [_convert(item, f"{path}.{at}") for at, item in enumerate(cast("list[Any]", value))]}
    if name in _COUNTS and isinstance(value, str) and value.isdecimal():  # how the wire writes large numbers
        return {name: int(value)}
    return {name: value}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("enum"), list):
        schema["enum"] = [*schema["enum"], None]
    if isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    return schema
