"""The programs of agents come from the machine's own cache, as in `tests/swe/agents`."""

from __future__ import annotations

from swe.agents.conftest import programs

__all__ = ["programs"]
