"""What each tool takes. Those that are an action take its fields (`computer.actions`); here are the others."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from computeragent.computer.types import WindowAct
from computeragent.errors import ComputerActionError

Seconds = Annotated[float, Meta(gt=0, le=600)]
Bytes = Annotated[int, Meta(ge=1, le=1_000_000)]


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments."""


class Key(Struct, frozen=True, forbid_unknown_fields=True):
    """Keys such as "ctrl+c", "Return", or several together as a list."""

    keys: str | tuple[str, ...]
    repeat: Annotated[int, Meta(ge=1, le=100)] = 1


class Text(Struct, frozen=True, forbid_unknown_fields=True):
    """A text."""

    text: Annotated[str, Meta(max_length=100_000)]


class WindowAction(Struct, frozen=True, forbid_unknown_fields=True):
    """A window by its id (of the tool windows), and what to do with it."""

    id: str
    act: WindowAct


class Command(Struct, frozen=True, forbid_unknown_fields=True):
    """A shell command, and the seconds that it may take."""

    command: str
    timeout: Seconds = 60.0


class Program(Struct, frozen=True, forbid_unknown_fields=True):
    """A program such as chromium, and its arguments."""

    program: str
    arguments: tuple[str, ...] = ()


class Path(Struct, frozen=True, forbid_unknown_fields=True):
    """A path on the computer, absolute or relative to its home."""

    path: str


class Reading(Struct, frozen=True, forbid_unknown_fields=True):
    """A file, and which of its bytes."""

    path: str
    offset: Annotated[int, Meta(ge=0)] = 0
    length: Bytes = 100_000


class Writing(Struct, frozen=True, forbid_unknown_fields=True):
    """A file and its text."""

    path: str
    text: str
    append: bool = False


class Task(Struct, frozen=True, forbid_unknown_fields=True):
    """A task in plain words; `max_steps` bounds it below the server's own limit."""

    task: Annotated[str, Meta(min_length=1, max_length=100_000)]
    max_steps: Annotated[int, Meta(ge=1)] | None = None


def parse(value: dict[str, Any], kind: Any) -> Any:
    """Arguments as a struct. Raises `ComputerActionError`, which says what is wrong."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ComputerActionError(f"these are not its arguments: {error}", hint="See the tool's schema.") from None


def schema_of(kind: Any, *, hidden: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """The JSON schema of a struct's fields, without `hidden` ones and with `more`."""
    _, components = msgspec.json.schema_components((kind,))
    schema: dict[str, Any] = components[kind.__name__]
    fields = {name: field for name, field in schema["properties"].items() if name not in hidden}
    required = [name for name in schema.get("required", ()) if name not in hidden]
    told: dict[str, Any] = {"type": "object", "properties": {**fields, **more}, "additionalProperties": False}
    return {**told, "required": required} if required else told
