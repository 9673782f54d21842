"""Both spellings of this wire's field names: `maxOutputTokens` and `max_output_tokens` are the same field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from computeragent.dialects.fields import Fields

_UNDERSCORE = re.compile(r"(?<=[a-z0-9])_([a-z0-9])")


def camel(name: str) -> str:
    """The name as the wire's JSON writes it; one that is written so already stays."""
    return _UNDERSCORE.sub(lambda match: match[1].upper(), name)


def read(value: Any, path: str = "") -> Fields:
    """An object whose own fields are read in either spelling; what is inside of them stays as it is."""
    if isinstance(value, Mapping):
        value = {camel(str(name)): item for name, item in cast("Mapping[Any, Any]", value).items()}
    return Fields(value, path)


def inner(fields: Fields, name: str) -> Fields | None:
    """An object inside of `fields`, or None."""
    value = fields.take(name)
    return None if value is None else read(value, fields.at(name))


def several(fields: Fields, name: str) -> Iterator[tuple[str, Any]]:
    """Each item of a list with its path; an object that stands alone is a list of one, as the provider takes it."""
    if isinstance(fields.whole().get(name), Mapping):
        yield fields.at(name), fields.take(name)
        return
    yield from fields.items(name)
