"""Command line coding agents as agents of Inspect, one-shot: each runs a real program in the sample's sandbox."""

from computeragent.swe.agents.claude_code import claude_code
from computeragent.swe.agents.codex_cli import codex_cli
from computeragent.swe.agents.gemini_cli import gemini_cli
from computeragent.swe.agents.mini_swe_agent import mini_swe_agent
from computeragent.swe.agents.opencode import opencode
from computeragent.swe.agents.options import CentaurOptions

__all__ = ["CentaurOptions", "claude_code", "codex_cli", "gemini_cli", "mini_swe_agent", "opencode"]
