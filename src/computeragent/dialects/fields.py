"""Reading a JSON object field by field: each field by name and type, and what nobody asked for kept as `extra`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from computeragent.errors import ValidationError
from computeragent.wire.encoding import clean_json, from_json


class Fields:
    """A JSON object that is being read. `path` is where it stands in the document, for errors.

    Every reader takes the field out; `rest()` is what was not taken. A field that is null counts as absent.
    Each method raises `ValidationError`, naming the path, for a wrong type.
    """

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, Mapping):
            raise ValidationError(f"{path or 'body'}: must be an object, not {_kind(value)}")
        self._left: dict[str, Any] = dict(cast("Mapping[str, Any]", value))
        self._whole = cast("Mapping[str, Any]", value)
        self.path = path

    def at(self, name: str) -> str:
        """The path of a field of this object."""
        return f"{self.path}.{name}" if self.path else name

    def take(self, name: str) -> Any:
        """The field as it is, or None."""
        return self._left.pop(name, None)

    def string(self, name: str) -> str:
        """A required string."""
        value = self.optional_string(name)
        if value is None:
            raise ValidationError(f"{self.at(name)}: field required")
        return value

    def optional_string(self, name: str) -> str | None:
        """A string, or None."""
        return self._typed(name, str, "a string")

    def boolean(self, name: str) -> bool | None:
        """A boolean, or None."""
        return self._typed(name, bool, "a boolean")

    def integer(self, name: str) -> int | None:
        """A whole number, or None."""
        value = self.number(name)
        if isinstance(value, float) and not value.is_integer():
            raise ValidationError(f"{self.at(name)}: must be a whole number")
        return None if value is None else int(value)

    def number(self, name: str) -> float | None:
        """A number, or None."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValidationError(f"{self.at(name)}: must be a number, not {_kind(value)}")
        return value

    def object(self, name: str) -> Fields | None:
        """An object to be read in turn, or None."""
        value = self._left.pop(name, None)
        return None if value is None else Fields(value, self.at(name))

    def mapping(self, name: str) -> dict[str, Any]:
        """An object as plain data; empty where absent."""
        value = self.object(name)
        return {} if value is None else value.whole()

    def items(self, name: str) -> Iterator[tuple[str, Any]]:
        """Each item of a list with its path; nothing where absent."""
        value = self._left.pop(name, None)
        if value is None:
            return
        if not isinstance(value, list):
            raise ValidationError(f"{self.at(name)}: must be a list, not {_kind(value)}")
        for number, item in enumerate(cast("list[Any]", value)):
            yield f"{self.at(name)}.{number}", item

    def strings(self, name: str) -> tuple[str, ...]:
        """A list of strings; empty where absent."""
        found: list[str] = []
        for path, item in self.items(name):
            if not isinstance(item, str):
                raise ValidationError(f"{path}: must be a string, not {_kind(item)}")
            found.append(item)
        return tuple(found)

    def rest(self) -> dict[str, Any]:
        """The fields that were not read."""
        return self._left

    def whole(self) -> dict[str, Any]:
        """The object as it came."""
        return dict(self._whole)

    def _typed(self, name: str, kind: type[Any], wanted: str) -> Any:
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, kind):
            raise ValidationError(f"{self.at(name)}: must be {wanted}, not {_kind(value)}")
        return value


def read_body(body: bytes | Mapping[str, Any]) -> Fields:
    """The body of a request or response, from JSON bytes or plain data. Raises `ValidationError`."""
    if isinstance(body, Mapping):
        return Fields(body)
    try:
        return Fields(from_json(clean_json(body)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValidationError(f"the body is not valid JSON: {error}") from error


def absent_if_none(**values: Any) -> dict[str, Any]:
    """The given fields without those that are None, for building an object."""
    return {name: value for name, value in values.items() if value is not None}


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(cast("type[Any]", type(value)), "null")
