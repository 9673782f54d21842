"""Keys and entries as every store of ours keeps them: a checked triple, and one line of JSON per entry."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import msgspec

from computeragent.errors import ValidationError

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class Key(NamedTuple):
    """Where a transcript is kept. `subpath` is empty for the session's main transcript."""

    project: str
    session: str
    subpath: str = ""

    @classmethod
    def of(cls, key: Mapping[str, Any]) -> Key:
        """Check a key as upstream spells it."""
        parts = [key.get("project_key"), key.get("session_id"), key.get("subpath")]
        names = ["project_key", "session_id", "subpath"]
        if "subpath" not in key:
            parts.pop()
        for name, part in zip(names, parts, strict=False):
            if not isinstance(part, str) or not part:
                raise ValidationError(
                    f"a session key needs a non-empty {name}, not {part!r}",
                    hint="Leave subpath out for the main transcript." if name == "subpath" else None,
                )
            if not part.isascii() and any("\ud800" <= char <= "\udfff" for char in part):
                raise ValidationError(f"the {name} of a session key is not valid Unicode: {part!r}")
        return cls(*cast("list[str]", parts))


class Entry(NamedTuple):
    """One entry, encoded. `uuid` is its idempotency key, where it has one."""

    uuid: str | None
    line: bytes


def encode(entries: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Entries as lines of JSON without line breaks. Raises `ValidationError` for what JSON cannot express."""
    encoded: list[Entry] = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValidationError(f"entry {position} of the batch is not an object but {type(entry).__name__}")
        encoded.append(Entry(uuid_of(entry), _encode(entry, position)))
    return encoded


def uuid_of(entry: Any) -> str | None:
    """The idempotency key of an entry, or None where it has none and is always appended."""
    uuid: object = cast("dict[str, Any]", entry).get("uuid") if isinstance(entry, dict) else None
    return uuid if isinstance(uuid, str) and uuid else None


def decode(line: bytes | str) -> Any:
    """One line of JSON as plain values. Raises `ValueError` when it is none."""
    try:
        return _decoder.decode(line)
    except msgspec.DecodeError:
        return json.loads(line)  # the standard library also takes lone surrogates, which models do produce


def _encode(entry: Mapping[str, Any], position: int) -> bytes:
    try:
        return _encoder.encode(entry)
    except UnicodeEncodeError:
        return json.dumps(entry, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValidationError(f"entry {position} of the batch is not JSON: {error}") from error
