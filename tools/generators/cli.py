"""The help of every command."""

from __future__ import annotations

import argparse
import os

from computeragent.cli.main import build_parser

TARGET = "docs/reference/cli.md"

HEAD = """\
# The command line

`computeragent COMMAND --help` prints the same. Errors are one line `error[CODE]: message` and one line `hint: …` on
stderr. Exit status: 0 done, 1 failed, 2 wrong usage, 130 ended by Ctrl-C.
"""


def generate() -> str:
    os.environ["COLUMNS"] = "100"
    os.environ["NO_COLOR"] = "1"
    return HEAD + "".join(f"\n## {name}\n\n```text\n{text}```\n" for name, text in pages(build_parser()))


def pages(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    """Each command's name and help, depth first."""
    found = [(parser.prog, parser.format_help())]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                found.extend(pages(command))
    return found
