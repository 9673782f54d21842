"""How an agent of ours reaches Inspect's model: the bridge's address and key where engines look for a provider's."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from inspect_ai.agent import AgentState, BridgedToolsSpec
from inspect_ai.model import CompactionStrategy, GenerateFilter, Model

from computeragent.clis import Run, cli
from computeragent.clis.formats import mcp_claude
from computeragent.credentials import PROVIDERS
from computeragent.errors import ValidationError
from computeragent.swe.bridge import Bridge, agent_bridge

_READY = 120.0
_BARE = frozenset({"anthropic", "gemini"})
"""Providers whose base URL has no version path."""
_OF_CLAUDE = (
    *("CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS", "CLAUDE_CODE_DISABLE_AUTO_MEMORY", "DISABLE_AUTOUPDATER"),
    *("ENABLE_TOOL_SEARCH", "MCP_CONNECTION_NONBLOCKING", "MCP_TIMEOUT", "MCP_TOOL_TIMEOUT"),
)
"""What Claude Code is told wherever it runs for an evaluation; it waits for its tool servers, for one thing."""
_OTHER_LOGINS = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model answers, and what is done to what it is asked; the words of `agent_bridge`."""

    model: str | None = None
    model_aliases: Mapping[str, str | Model] | None = None
    filter: GenerateFilter | None = None
    retry_refusals: int | None = None
    compaction: CompactionStrategy | None = None
    bridged_tools: Sequence[BridgedToolsSpec] = ()


@dataclass(frozen=True)
class ModelAccess:
    """What an engine needs for its model: variables, and options. Without a `bridge` both are empty."""

    bridge: Bridge | None = None
    envs: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def refused(self) -> bool:
        """Whether the model's last answer was a refusal: that is scored, and no error."""
        return self.bridge is not None and self.bridge.refused

    def check(self) -> None:
        """Raise `ValidationError` where tools never reached the model: what is measured is an agent with them."""
        if self.bridge is not None and self.bridge.requests and (missing := sorted(self.bridge.missing_tools)):
            raise ValidationError(
                f"the model was never offered the bridged tools {', '.join(missing)}",
                hint="The engine did not connect to them in time, or its options turn them off.",
            )


@asynccontextmanager
async def bridged(choice: ModelChoice, state: AgentState) -> AsyncGenerator[ModelAccess]:
    """Inspect's model behind an address on this machine, while an agent runs."""
    copied = AgentState(messages=list(state.messages))
    async with agent_bridge(
        copied,
        model=choice.model,
        model_aliases=dict(choice.model_aliases or {}),
        filter=choice.filter,
        retry_refusals=choice.retry_refusals,
        compaction=choice.compaction,
        bridged_tools=choice.bridged_tools,
    ) as bridge:
        await bridge.ready(_READY)
        servers = {server.name: mcp_claude(server) for server in bridge.mcp_servers}
        yield ModelAccess(
            bridge, environment(bridge.base_url, bridge.api_key), {"mcp_servers": servers} if servers else {}
        )


def environment(base_url: str, api_key: str) -> dict[str, str]:
    """The variables of every provider, all meaning the bridge: no key and no login of this machine's is used."""
    of_claude = cli("claude_code").environment(Run(prompt="", model="", base_url="", api_key="", home="", cwd=""))
    envs = {name: of_claude[name] for name in _OF_CLAUDE} | dict.fromkeys(_OTHER_LOGINS, "")
    for provider in PROVIDERS:
        envs[provider.base_url_variable] = base_url if provider.name in _BARE else f"{base_url}/v1"
        envs |= {key.variable: "" for key in provider.keys} | {provider.keys[0].variable: api_key}
    for name in ("NO_PROXY", "no_proxy"):
        envs[name] = ",".join(part for part in (os.environ.get(name, ""), "127.0.0.1", "localhost") if part)
    return envs
