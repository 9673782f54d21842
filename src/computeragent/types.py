"""Every name of `claude_agent_sdk.types`, the objects themselves."""

from __future__ import annotations

from computeragent.claude.mirror import mirror

__getattr__, __dir__ = mirror("claude_agent_sdk.types")
