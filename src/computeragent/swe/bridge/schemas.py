"""JSON Schemas of an agent's tools as Inspect holds them, which knows fewer words: the others are said in those."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from inspect_ai.tool import ToolParams
from inspect_ai.util import JSONSchema
from pydantic import ValidationError as PydanticError

_DEPTH = 40
_MOST = 10_000
"""Schemas within one: a short text of references can mean more than any computer holds."""

LEVELS = 100
"""Levels of plain data that Inspect takes; its log cannot be written with many more."""

_REFERENCES = ("#/$defs/", "#/definitions/")
_TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})
_KNOWN = frozenset(JSONSchema.model_fields)
_VALUES = ("default", "enum", "examples")
_SCHEMAS = ("items", "additionalProperties")

Schema = Mapping[str, Any]


@dataclass
class _Scope:
    """Where the references of a schema lead, which of them are being followed, and how many schemas are left."""

    definitions: Mapping[str, Any]
    followed: list[str] = field(default_factory=list[str])
    left: int = _MOST


def tool_params(schema: Schema) -> ToolParams:
    """The parameters of a tool. What cannot be said in Inspect's words is left open, never made stricter."""
    plain = _united(_plain(schema, _Scope(_definitions(schema)), 0))
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
        return JSONSchema.model_validate(_plain(schema, _Scope(_definitions(schema)), 0))
    except PydanticError:
        return JSONSchema()


def too_deep(value: Any) -> bool:
    """Whether plain data has more than `LEVELS` levels."""
    level: list[Any] = [value]
    for _ in range(LEVELS + 1):
        level = [inner for each in level for inner in _inner(each)]
        if not level:
            return False
    return True


def _inner(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).values()
    return cast("list[Any]", value) if isinstance(value, list) else ()


def _definitions(schema: Schema) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for prefix in _REFERENCES:
        named = schema.get(prefix[2:-1])
        if isinstance(named, Mapping):
            found |= {f"{prefix}{name}": value for name, value in cast("Schema", named).items()}
    return found


def _united(plain: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a tool that has alternatives: those of all of them, required where each one requires them."""
    options: list[Schema] = plain.get("anyOf", [])
    if not any(option.get("properties") for option in options):
        return plain
    properties: dict[str, Any] = dict(plain.get("properties", {}))
    for option in options:
        for name, each in option.get("properties", {}).items():
            known = properties.setdefault(name, each)
            properties[name] = each if known == each else {"anyOf": [known, each]}
    demanded: list[list[Any]] = [option.get("required", []) for option in options]
    always = [name for name in demanded[0] if all(name in each for each in demanded)]
    required = [*plain.get("required", []), *always]
    return {"properties": properties, "required": required, "additionalProperties": True}


def _plain(value: Any, scope: _Scope, depth: int) -> dict[str, Any]:
    scope.left -= 1
    if not isinstance(value, Mapping) or depth > _DEPTH or scope.left < 0:
        return {}
    schema = dict(cast("Schema", value))
    if isinstance(reference := schema.pop("$ref", None), str):
        return {**_referred(reference, scope, depth), **_plain(schema, scope, depth + 1)}
    if "const" in schema:
        schema.setdefault("enum", [schema.pop("const")])
    if "oneOf" in schema:
        schema.setdefault("anyOf", schema.pop("oneOf"))
    if isinstance(several := schema.get("allOf"), list):
        for each in cast("list[Any]", several):
            schema = _merged(_plain(each, scope, depth + 1), schema)
    built = {name: each for name, each in schema.items() if name in _KNOWN and each is not None}
    for name in _VALUES:
        if too_deep(built.get(name)):
            del built[name]
    return _nested(_typed(built), scope, depth)


def _referred(reference: str, scope: _Scope, depth: int) -> dict[str, Any]:
    if scope.followed.count(reference) > 1:
        return {}  # a schema that holds itself, which is said twice
    scope.followed.append(reference)
    try:
        return _plain(scope.definitions.get(reference), scope, depth + 1)
    finally:
        scope.followed.pop()


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


def _nested(schema: dict[str, Any], scope: _Scope, depth: int) -> dict[str, Any]:
    for name in _SCHEMAS:
        if isinstance(schema.get(name), Mapping):
            schema[name] = _plain(schema[name], scope, depth + 1)
        elif name == "items" and name in schema:
            del schema[name]  # a list of schemas by position
    properties = schema.get("properties")
    if properties is not None:
        named: Schema = cast("Schema", properties) if isinstance(properties, Mapping) else {}
        schema["properties"] = {key: _plain(each, scope, depth + 1) for key, each in named.items()}
    if (options := schema.get("anyOf")) is not None:
        listed = cast("list[Any]", options) if isinstance(options, list) else []
        schema["anyOf"] = [_plain(each, scope, depth + 1) for each in listed]
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
