"""The public API is a contract: its names and signatures are kept in docs/reference/api.txt.

tools/api_contract.py            show what differs, exit code 1
tools/api_contract.py --update   accept the API as it is
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "api.txt"
MODULES = ["computeragent", "computeragent.protocol_types"]


class Bare(str):
    """An annotation that is text already, shown without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def contract() -> str:
    """Every public name with its shape; an object that has several names is described under its own."""
    lines: list[str] = []
    described: set[int] = set()
    for name in MODULES:
        module = importlib.import_module(name)
        lines.append(f"# {name}")
        for public in names_of(module):
            value = getattr(module, public)
            lines += describe(public, value, known=id(value) in described)
            if getattr(value, "__name__", None) == public:
                described.add(id(value))
        lines.append("")
    return "\n".join(lines)


def names_of(module: types.ModuleType) -> list[str]:
    listed = getattr(module, "__all__", None)
    if listed is None:
        listed = [name for name, value in vars(module).items() if not inspect.ismodule(value)]
    return sorted(name for name in listed if not name.startswith("_") and name != "annotations")


def describe(name: str, value: object, *, known: bool) -> Iterator[str]:
    home = getattr(value, "__module__", None) or ""
    own_name = getattr(value, "__qualname__", name)
    if typing.get_origin(value) is not None:
        yield f"{name} = {plain(value)}"
    elif own_name and (known or own_name != name or not home.startswith("computeragent")) and callable(value):
        yield f"{name} is {home}.{own_name}"
    elif inspect.isclass(value):
        yield from describe_class(name, value)
    elif inspect.isfunction(value):
        yield f"{kind_of(value)} {name}{signature_of(value)}"
    else:
        yield f"{name}: {type(value).__name__}"


def describe_class(name: str, cls: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base not in {object, typing.Generic})
    yield f"class {name}" + (f"({bases})" if bases else "")
    if not getattr(cls, "_is_protocol", False):
        yield f"    {name}{signature_of(cls)}"
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    for member, value in sorted(vars(cls).items()):
        if member.startswith("_") and member not in {"__aenter__", "__aiter__", "__await__", "__call__"}:
            continue
        if isinstance(value, property):
            yield f"    {member}: property"
        elif isinstance(value, (staticmethod, classmethod)):
            yield f"    {type(value).__name__} {member}{signature_of(value.__func__)}"
        elif inspect.isfunction(value):
            yield f"    {kind_of(value)} {member}{signature_of(value)}"
        elif member not in fields and isinstance(value, (str, int)):
            yield f"    {member} = {value!r}"


def kind_of(function: object) -> str:
    return "async def" if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function) else "def"


def signature_of(value: typing.Any) -> str:
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    bare = [parameter.replace(annotation=unquoted(parameter.annotation)) for parameter in signature.parameters.values()]
    return plain(signature.replace(parameters=bare, return_annotation=unquoted(signature.return_annotation)))


def unquoted(annotation: object) -> object:
    return Bare(annotation.strip("\"'")) if isinstance(annotation, str) else annotation


def plain(value: object) -> str:
    """Text that is the same for every run and every version of Python."""
    text = re.sub(r" at 0x[0-9a-f]+", "", str(value))
    return text.replace("typing.", "").replace("collections.abc.", "").replace("pathlib._local.", "pathlib.")


def main(arguments: list[str]) -> int:
    now, kept = contract(), PAGE.read_text("utf-8") if PAGE.is_file() else ""
    if now == kept:
        return 0
    if "--update" in arguments:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(now, "utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")
        return 0
    name = str(PAGE.relative_to(ROOT))
    sys.stdout.writelines(difflib.unified_diff(kept.splitlines(True), now.splitlines(True), name, "the code"))
    print("error[API_CHANGED]: the public API is not as recorded\nhint: make docs accepts it; say so in the changelog")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
