"""Command line coding agents as agents of Inspect: with no Docker, no key and no network needed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from computeragent.errors import MissingExtraError

if find_spec("inspect_ai") is None:
    raise MissingExtraError("computeragent.swe needs the [swe] extra", hint="pip install 'computer-agent-py[swe]'")

if TYPE_CHECKING:
    from computeragent.artifacts import (
        AgentBinaries,
        AgentBinary,
        CodexWebSearch,
        SandboxPlatform,
        cached_agent_binaries,
        download_agent_binary,
        download_wheels_tarball,
    )
    from computeragent.swe.agents import (
        CentaurOptions,
        claude_code,
        codex_cli,
        gemini_cli,
        mini_swe_agent,
        opencode,
    )
    from computeragent.swe.interactive import (
        ACPAgent,
        ACPAgentParams,
        acp_connection,
        bridge_mcp_to_acp,
        interactive_claude_code,
        interactive_codex_cli,
        interactive_gemini_cli,
        interactive_opencode,
    )
    from computeragent.swe.sandboxes import SandboxBind, SandboxConfig
    from computeragent.swe.sessions import ComputerAgentRun, computeragent_agent

_PLACES = {
    "ACPAgent": "swe.interactive",
    "ACPAgentParams": "swe.interactive",
    "AgentBinaries": "artifacts",
    "AgentBinary": "artifacts",
    "CentaurOptions": "swe.agents",
    "CodexWebSearch": "artifacts",
    "ComputerAgentRun": "swe.sessions",
    "SandboxBind": "swe.sandboxes",
    "SandboxConfig": "swe.sandboxes",
    "SandboxPlatform": "artifacts",
    "acp_connection": "swe.interactive",
    "bridge_mcp_to_acp": "swe.interactive",
    "cached_agent_binaries": "artifacts",
    "claude_code": "swe.agents",
    "codex_cli": "swe.agents",
    "computeragent_agent": "swe.sessions",
    "download_agent_binary": "artifacts",
    "download_wheels_tarball": "artifacts",
    "gemini_cli": "swe.agents",
    "interactive_claude_code": "swe.interactive",
    "interactive_codex_cli": "swe.interactive",
    "interactive_gemini_cli": "swe.interactive",
    "interactive_opencode": "swe.interactive",
    "mini_swe_agent": "swe.agents",
    "opencode": "swe.agents",
}
"""Each name and its module: it is imported when the name is used."""

__all__ = [
    "ACPAgent",
    "ACPAgentParams",
    "AgentBinaries",
    "AgentBinary",
    "CentaurOptions",
    "CodexWebSearch",
    "ComputerAgentRun",
    "SandboxBind",
    "SandboxConfig",
    "SandboxPlatform",
    "acp_connection",
    "bridge_mcp_to_acp",
    "cached_agent_binaries",
    "claude_code",
    "codex_cli",
    "computeragent_agent",
    "download_agent_binary",
    "download_wheels_tarball",
    "gemini_cli",
    "interactive_claude_code",
    "interactive_codex_cli",
    "interactive_gemini_cli",
    "interactive_opencode",
    "mini_swe_agent",
    "opencode",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"computeragent.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
