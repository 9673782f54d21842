"""The routes as an OpenAPI 3.1 document, from the same declarations that serve them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from computeragent.server.endpoint import Endpoint
from computeragent.wire.encoding import to_json

_REFERENCE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "hint": {"type": "string"},
                "details": {},
            },
        }
    },
}


def document(endpoints: Sequence[Endpoint], *, title: str = "computeragent harness") -> bytes:
    """The document, as JSON."""
    from importlib import metadata

    types = [type_ for each in endpoints for type_ in (each.body, each.answer, each.query) if type_ is not None]
    unique = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(unique, ref_template=_REFERENCE)
    schema_of = dict(zip(unique, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        path = _PARAMETER.sub(r"{\1}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, schema_of, components)
    return to_json(
        {
            "openapi": "3.1.0",
            "info": {"title": title, "version": metadata.version("computer-agent-py")},
            "paths": paths,
            "components": {
                "schemas": {**components, "Error": _ERROR},
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"bearer": []}],
        }
    )


def _operation(each: Endpoint, schema_of: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": each.summary, "responses": _responses(each, schema_of)}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(each.path)
    ]
    if each.query is not None:
        shape = components[each.query.__name__]
        parameters += [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in shape["properties"].items()
        ]
    if each.stream:
        header = {"name": "Last-Event-ID", "in": "header", "required": False, "schema": {"type": "string"}}
        parameters.append(header)
    if parameters:
        operation["parameters"] = parameters
    if each.body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema_of[each.body]}}}
    elif each.raw and each.method == "PUT":
        binary = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {"required": True, "content": {"application/octet-stream": binary}}
    if each.public:
        operation["security"] = []
    return operation


def _responses(each: Endpoint, schema_of: dict[Any, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": each.summary}
    if each.stream:
        good["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    elif each.answer is not None:
        good["content"] = {"application/json": {"schema": schema_of[each.answer]}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        str(each.status): good,
        "default": {"description": "An error in the envelope of the protocol", "content": error},
    }
