"""The OpenAPI document as a page for people: one file, made on the server, readable without scripts."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from computeragent.wire.encoding import from_json

_KINDS = {"anyOf": " or ", "oneOf": " or ", "allOf": " and "}


@lru_cache(maxsize=4)
def page(document: bytes, spec_url: str) -> bytes:
    """The page of a document that is served at `spec_url`."""
    environment = Environment(
        loader=PackageLoader("computeragent.server"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.get_template("api.html")
    return template.render(spec=from_json(document), spec_url=spec_url, shape=_shape).encode()


def _shape(schema: dict[str, Any]) -> Markup:
    """A schema in a few words, with links to the shapes that have names."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return Markup('<a href="#{0}"><code>{0}</code></a>').format(name)
    for key, word in _KINDS.items():
        if key in schema:
            parts = [_shape(part) for part in cast("list[dict[str, Any]]", schema[key])]
            return escape(word).join(dict.fromkeys(parts))
    if "enum" in schema:
        return Markup(" | ").join(Markup("<code>{}</code>").format(value) for value in schema["enum"])
    if "const" in schema:
        return Markup("<code>{}</code>").format(schema["const"])
    if schema.get("type") == "array":
        return Markup("list of {}").format(_shape(schema.get("items") or {}))
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return Markup("map of {}").format(_shape(schema["additionalProperties"]))
    return escape(schema.get("format") or schema.get("type") or "anything")
