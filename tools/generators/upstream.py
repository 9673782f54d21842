"""The contract of upstream's surface, to see what a newer version changes."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from upstream_surface import surface

TARGET = "docs/reference/claude-agent-sdk.txt"


def generate() -> str:
    return surface()
