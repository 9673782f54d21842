"""The table of error codes."""

from __future__ import annotations

import inspect

import computeragent.server.sandboxes.errors  # noqa: F401 - its errors are of the family, too
from computeragent.errors import ComputerAgentError, error_classes

TARGET = "docs/reference/errors.md"

HEAD = """\
# Error codes

Every error is a `computeragent.errors.ComputerAgentError` with a `code`, a message, often a `hint`, and the HTTP status
that a server answers it with. The same fault has the same code in the library, on the wire and on the command line.

| Code | HTTP | Class | When |
|---|---|---|---|
"""


def generate() -> str:
    rows = [f"| `{cls.code}` | {cls.status} | {names(cls)} | {meaning(cls)} |\n" for cls in error_classes()]
    return HEAD + "".join(rows)


def names(cls: type[ComputerAgentError]) -> str:
    module = inspect.getmodule(cls)
    aliases = [name for name, value in vars(module).items() if value is cls and name != cls.__name__]
    return ", ".join(f"`{name}`" for name in [cls.__name__, *sorted(aliases)])


def meaning(cls: type[ComputerAgentError]) -> str:
    first = inspect.getdoc(cls).split("\n\n")[0]
    return " ".join(first.split()).replace("|", "\\|")
