"""What Inspect imports to know our names: `--solver computeragent/claude_code`, `--sandbox bwrap`."""

from computeragent.swe.agents import claude_code, codex_cli, gemini_cli, mini_swe_agent, opencode
from computeragent.swe.sandboxes import BwrapSandbox, NamespaceSandbox
from computeragent.swe.sessions import computeragent_agent

__all__ = [
    "BwrapSandbox",
    "NamespaceSandbox",
    "claude_code",
    "codex_cli",
    "computeragent_agent",
    "gemini_cli",
    "mini_swe_agent",
    "opencode",
]
