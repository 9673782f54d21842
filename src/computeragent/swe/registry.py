"""What Inspect imports to know our names: `--solver computeragent/claude_code`, `--sandbox bwrap`."""

from collections.abc import Callable
from typing import Any

from inspect_ai.agent import Agent, agent
from inspect_ai.util import registry_info

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


def _named(function: Callable[..., Agent]) -> None:
    # Inspect puts the package before a name only where it finds the package under the distribution's name. In an
    # editable installation it does not, and the command line would not know `computeragent/…`.
    name = registry_info(function).name
    if "/" not in name:
        agent(name=f"computeragent/{name}")(function)


_AGENTS: tuple[Any, ...] = (claude_code, codex_cli, computeragent_agent, gemini_cli, mini_swe_agent, opencode)
for _each in _AGENTS:
    _named(_each)
