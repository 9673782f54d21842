"""Inline sources: files and a manifest of the request, written as a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from computeragent.errors import PathEscapeError, ValidationError, WorkspaceError
from computeragent.jail import Jail
from computeragent.wire.encoding import to_json
from computeragent.wire.identity import InlineSource

MANIFEST = "agent.yaml"


def write_inline(source: InlineSource, target: Path) -> None:
    """Write the files and, unless one of them is agent.yaml, the manifest's keys as agent.yaml.

    A manifest without name or version gets ``agent`` and ``0.0.0``. Its `options` stay in memory.
    """
    target.mkdir(parents=True)
    jail = Jail(target)
    for name, text in source.files.items():
        try:
            _check_name(name)
            jail.write_bytes(name, text.encode("utf-8", "replace"))
        except (PathEscapeError, WorkspaceError) as error:
            raise type(error)(f"inline file {name[:100]!r}: {error.message}", hint=error.hint) from None
    if not source.manifest or (target / MANIFEST).exists():
        return
    keys = {"name": "agent", "version": "0.0.0"} | plain_manifest(source)
    text = yaml.safe_dump(keys, sort_keys=False, allow_unicode=True)
    jail.write_bytes(MANIFEST, text.encode("utf-8", "replace"))


def plain_manifest(source: InlineSource) -> dict[str, Any]:
    """The manifest without `options`, which may hold live objects in library mode; the rest must be plain data."""
    keys = {key: value for key, value in source.manifest.items() if key != "options"}
    try:
        to_json(keys)
        yaml.safe_dump(keys)
    except (TypeError, ValueError, RecursionError, yaml.YAMLError):
        raise ValidationError(
            "the inline manifest has a value that is not plain data", hint="Use strings, numbers, lists and mappings."
        ) from None
    return keys


def _check_name(name: str) -> None:
    """Settings of git can name programs, which run as soon as an engine asks git about the directory."""
    if any(part.lower() == ".git" for part in name.split("/")):
        raise WorkspaceError("git's own folder cannot be given", hint="Use a git source for a repository.")
