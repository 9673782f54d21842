"""Every name of `claude_agent_sdk._version`: upstream's version, for code that asks for it by this path."""

from __future__ import annotations

from computeragent.claude.mirror import mirror

__getattr__, __dir__ = mirror("claude_agent_sdk._version")
