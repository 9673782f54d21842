"""Command line coding agents as agents of Inspect: with no Docker, no key and no network needed."""

from __future__ import annotations

from importlib.util import find_spec

from computeragent.errors import MissingExtraError

if find_spec("inspect_ai") is None:
    raise MissingExtraError("computeragent.swe needs the [swe] extra", hint="pip install 'computer-agent-py[swe]'")

__all__: list[str] = []
