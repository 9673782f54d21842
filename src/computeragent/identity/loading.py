"""Which loader reads a directory when the caller names none."""

from __future__ import annotations

from pathlib import Path


def default_loader(workspace: Path) -> str:
    """The name of the loader: ``gap`` where an agent.yaml is, else ``passthrough``."""
    return "gap" if (workspace / "agent.yaml").is_file() else "passthrough"
