"""Agents whose session is led by code of yours, over the Agent Client Protocol: several turns, interrupts."""

from __future__ import annotations

from computeragent.swe.interactive.agent import ACPAgent, ACPAgentParams, Program
from computeragent.swe.interactive.agents import (
    interactive_claude_code,
    interactive_codex_cli,
    interactive_gemini_cli,
    interactive_opencode,
)
from computeragent.swe.interactive.connection import ErrorInfo, acp_connection, bridge_mcp_to_acp

__all__ = [
    "ACPAgent",
    "ACPAgentParams",
    "ErrorInfo",
    "Program",
    "acp_connection",
    "bridge_mcp_to_acp",
    "interactive_claude_code",
    "interactive_codex_cli",
    "interactive_gemini_cli",
    "interactive_opencode",
]
