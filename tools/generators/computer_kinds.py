"""The table of computers: which of ours a request gets, or what to do instead."""

from __future__ import annotations

from computeragent.computer.asking import IGNORED, OPTIONS, REFUSED
from computeragent.computer.custom import FUNCTIONS
from computeragent.computer.kinds import TABLE

TARGET = "docs/reference/computer-kinds.md"

HEAD = """\
# Which computer a request gets

What `computer_kwargs` of a request, or a spec as plain data, leads to. The first row that fits counts; `*` is anything.
Where a row needs more than was said, the error is `COMPUTER_UNSUPPORTED` and its hint is the last column.

| `os_type` | `provider_type` | Served by | Else |
|---|---|---|---|
"""


def generate() -> str:
    parts = [HEAD]
    for row in TABLE:
        asked = [f"`{each}`" if each else "(none)" for each in (row.os_type, row.provider_type)]
        parts.append(f"| {' | '.join(asked)} | {row.served} | {row.remedy} |\n")
    parts.append("\n## Options\n\n| Option | Meaning |\n|---|---|\n")
    parts.extend(f"| `{name}` | {meaning} |\n" for name, meaning in OPTIONS.items())
    listed = ", ".join(f"`{name}`" for name in IGNORED)
    parts.append(f"\nTaken, and without effect, since they are about machines that are not started here: {listed}.\n")
    parts.append("\n| Refused | Instead |\n|---|---|\n")
    parts.extend(f"| `{name}` | {remedy} |\n" for name, remedy in REFUSED.items())
    parts.append(
        "\n## Functions\n\nA mapping of functions is a computer, too. `screenshot` is required; what is missing\n"
        "cannot be done, and says so.\n\n| Function | Called as |\n|---|---|\n"
    )
    parts.extend(f"| `{name}` | {shape} |\n" for name, shape in FUNCTIONS.items())
    return "".join(parts)
