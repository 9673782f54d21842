"""The table of harness events."""

from __future__ import annotations

import inspect
import types
import typing

import msgspec

from computeragent.wire import events

TARGET = "docs/reference/events.md"

HEAD = """\
# Harness events

A run is a list of these events with gap-free integer ids. Every event has `kind` and `sessionId`; fields marked `?` are
absent when there is nothing to say, never null. Every event of a turn carries the turn's `turnIndex`, which `send`
returned. Kinds and fields that a reader does not know are kept and relayed.
"""

CLASSES = typing.get_args(events.KnownEvent)


def generate() -> str:
    return HEAD + "".join(section(cls) for cls in CLASSES)


def section(cls: type) -> str:
    lines = [f"\n## `{cls.kind}`\n\n{' '.join(inspect.getdoc(cls).split())}\n\n| Field | Type |\n|---|---|\n"]
    hints = typing.get_type_hints(cls)
    for field in msgspec.structs.fields(cls):
        optional = not field.required
        lines.append(f"| `{field.encode_name}`{'?' if optional else ''} | {spell(hints[field.name])} |\n")
    return "".join(lines)


def spell(hint: object) -> str:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(hint))
    if origin in {types.UnionType, typing.Union}:
        return " or ".join(spell(arg) for arg in typing.get_args(hint) if arg is not types.NoneType)
    if hint in {typing.Any, msgspec.Raw}:
        return "any"
    names = {str: "string", int: "integer", float: "number", bool: "boolean"}
    if hint in names:
        return names[hint]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        inner = ", ".join(f"{f.encode_name}{'' if f.required else '?'}" for f in msgspec.structs.fields(hint))
        return f"object: {inner}"
    return "list" if origin is list else "object"
