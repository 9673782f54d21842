"""The Agent Client Protocol, as its client: an engine that drives any agent which speaks it."""

from __future__ import annotations

from computeragent.engines.acp.engine import AcpEngine

__all__ = ["AcpEngine"]
