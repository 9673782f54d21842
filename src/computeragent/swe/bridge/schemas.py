"""JSON Schemas of an agent's tools as Inspect holds them, which knows fewer words: the others are said in those."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from inspect_ai.tool import ToolParams
from inspect_ai.util import JSONSchema
from pydantic import ValidationError as PydanticError

_DEPTH = 40
_REFERENCES = ("#/$defs/", "#/definitions/")
_TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})
_KNOWN = frozenset(JSONSchema.model_fields)
_SCHEMAS = ("items", "additionalProperties")

Schema = Mapping[str, Any]


def tool_params(schema: Schema) -> ToolParams:
    """The parameters of a tool. What cannot be said in Inspect's words is left open, never made stricter."""
    plain = _plain(schema, _definitions(schema), 0)
    try:
        return ToolParams.model_validate(
            {
                "properties": plain.get("properties", {}),
                "required": plain.get("required", []),
                "additionalProperties": plain.get("additionalProperties", False),
            }
        )
    except PydanticError:
        return ToolParams(additionalProperties=True)


def json_schema(schema: Schema) -> JSONSchema:
    """A schema, such as that of an answer. What cannot be said in Inspect's words is left open."""
    try:
        return JSONSchema.model_validate(_plain(schema, _definitions(schema), 0))
    except PydanticError:
        return JSONSchema()


def _definitions(schema: Schema) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for prefix in _REFERENCES:
        named = schema.get(prefix[2:-1])
        if isinstance(named, Mapping):
            found |= {f"{prefix}{name}": value for name, value in cast("Schema", named).items()}
    return found


def _plain(value: Any, definitions: Mapping[str, Any], depth: int) -> dict[str, Any]:
    if not isinstance(value, Mapping) or depth > _DEPTH:
        return {}
    schema = dict(cast("Schema", value))
    if isinstance(reference := schema.pop("$ref", None), str):
        # A schema that holds itself is cut where it gets too deep.
        return {**_plain(definitions.get(reference), definitions, depth + 1), **_plain(schema, definitions, depth + 1)}
    if "const" in schema:
        schema.setdefault("enum", [schema.pop("const")])
    if "oneOf" in schema:
        schema.setdefault("anyOf", schema.pop("oneOf"))
    if isinstance(several := schema.get("allOf"), list):
        for each in cast("list[Any]", several):
            schema = _merged(_plain(each, definitions, depth + 1), schema)
    built = {name: each for name, each in schema.items() if name in _KNOWN and each is not None}
    return _nested(_typed(built), definitions, depth)


def _typed(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    kinds: list[Any] = cast("list[Any]", kind) if isinstance(kind, list) else [kind]
    if kind is not None and not all(each in _TYPES for each in kinds):
        del schema["type"]
    if not isinstance(schema.get("required", []), list):
        del schema["required"]
    if not isinstance(schema.get("enum", []), list):
        del schema["enum"]
    return schema


def _nested(schema: dict[str, Any], definitions: Mapping[str, Any], depth: int) -> dict[str, Any]:
    for name in _SCHEMAS:
        if isinstance(schema.get(name), Mapping):
            schema[name] = _plain(schema[name], definitions, depth + 1)
        elif name == "items" and name in schema:
            del schema[name]  # a list of schemas by position
    properties = schema.get("properties")
    if properties is not None:
        named: Schema = cast("Schema", properties) if isinstance(properties, Mapping) else {}
        schema["properties"] = {key: _plain(each, definitions, depth + 1) for key, each in named.items()}
    if (options := schema.get("anyOf")) is not None:
        listed = cast("list[Any]", options) if isinstance(options, list) else []
        schema["anyOf"] = [_plain(each, definitions, depth + 1) for each in listed]
    return schema


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    both = {**first, **second}
    for name in ("properties", "required"):
        one, two = first.get(name), second.get(name)
        if isinstance(one, dict) and isinstance(two, dict):
            both[name] = {**cast("dict[str, Any]", one), **cast("dict[str, Any]", two)}
        elif isinstance(one, list) and isinstance(two, list):
            both[name] = [*cast("list[Any]", one), *cast("list[Any]", two)]
    return both
