"""What Inspect imports to know our names: `--solver computeragent/claude_code`, `--sandbox bwrap`."""

from __future__ import annotations

from computeragent.swe.agents import claude_code as claude_code
from computeragent.swe.agents import codex_cli as codex_cli
from computeragent.swe.agents import gemini_cli as gemini_cli
from computeragent.swe.agents import mini_swe_agent as mini_swe_agent
from computeragent.swe.agents import opencode as opencode
from computeragent.swe.sandboxes import BwrapSandbox as BwrapSandbox
from computeragent.swe.sandboxes import NamespaceSandbox as NamespaceSandbox
from computeragent.swe.sessions import computeragent_agent as computeragent_agent
