"""Tools of the host that an agent may call: they run here, in the sample, once for each call that the model made."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from inspect_ai.agent import BridgedToolsSpec
from inspect_ai.approval import ApprovalPolicy
from inspect_ai.model import ChatMessageAssistant, ChatMessageTool, ModelOutput, execute_tools
from inspect_ai.tool import Tool, ToolCall, ToolDef, ToolInfo

from computeragent.clis import McpServer
from computeragent.errors import ValidationError
from computeragent.logs import Logger
from computeragent.swe.bridge.record import Key, meant
from computeragent.wire.encoding import to_json

_log = Logger("swe.bridge")
PLAIN = "tools"
"""The server of tools that were given without one."""

_MOST = 10_000
"""Calls of the model that were not run, and still may be."""


@dataclass(frozen=True)
class HostServer:
    """Tools under one name. With `proposed` each runs only where the model has called it."""

    name: str
    tools: dict[str, ToolDef]
    proposed: bool = True


@dataclass(frozen=True)
class Proposal:
    """A call that the model made of a tool of the host: of one of `tools`, where nothing tells which."""

    tools: tuple[Key, ...]
    arguments: dict[str, Any]
    call_id: str


@dataclass
class HostTools:
    """The servers of one bridge, and the calls of the model that are still to be run."""

    servers: dict[str, HostServer]
    approval: list[ApprovalPolicy] | None = None
    _proposals: deque[Proposal] = field(default_factory=lambda: deque[Proposal](maxlen=_MOST))

    @classmethod
    def of(cls, given: Sequence[BridgedToolsSpec | Tool], policies: list[ApprovalPolicy] | None = None) -> HostTools:
        """The servers for these tools. Raises `ValidationError` for a name that is there twice."""
        plain = [each for each in given if not isinstance(each, BridgedToolsSpec)]
        specs = [each for each in given if isinstance(each, BridgedToolsSpec)]
        if plain:
            specs.append(BridgedToolsSpec(name=PLAIN, tools=plain))
        servers: dict[str, HostServer] = {}
        for spec in specs:
            if spec.name in servers:
                raise ValidationError(f"bridged_tools: the name {spec.name!r} is there twice")
            if not spec.name or "/" in spec.name:
                raise ValidationError(f"bridged_tools: {spec.name!r} is no name for a server")
            tools = [ToolDef(tool) for tool in spec.tools]
            servers[spec.name] = HostServer(spec.name, {tool.name: tool for tool in tools}, spec.require_proposal)
        return cls(servers, policies)

    def addresses(self, base_url: str, api_key: str) -> tuple[McpServer, ...]:
        """Where an agent finds the servers."""
        return tuple(
            McpServer(
                name=server.name,
                url=f"{base_url}/mcp/{server.name}",
                headers={"authorization": f"Bearer {api_key}"},
                tools=tuple(server.tools),
            )
            for server in self.servers.values()
            if server.tools
        )

    def proposals(
        self, output: ModelOutput, infos: Sequence[ToolInfo], spaces: Mapping[str, str]
    ) -> tuple[Proposal, ...]:
        """The calls of these tools in an answer; `infos` and `spaces` are the agent's tools and their namespaces."""
        calls = [] if output.empty else output.message.tool_calls or []
        declared = {info.name: info for info in infos}
        ours = {
            (server.name, name): tool.description
            for server in self.servers.values()
            for name, tool in server.tools.items()
        }
        return tuple(
            Proposal(tools, call.arguments, call.id)
            for call in calls
            if (info := declared.get(call.function)) is not None
            if (tools := meant(info, ours, spaces.get(info.name, "")))
        )

    def propose(self, proposals: Sequence[Proposal]) -> None:
        """The agent gets an answer with these calls: each may be run once."""
        self._proposals.extend(proposals)

    async def run(self, server: HostServer, name: str, arguments: dict[str, Any]) -> ChatMessageTool:
        """Run a tool in the sample, as Inspect runs its own: validated, approved, limited, and in the log.

        The result has an `error` for a tool that fails as tools may, and for a call that the model did not make. What
        else a tool raises is raised.
        """
        tool = server.tools[name]
        proposal = self._taken(server, tool, arguments)
        if proposal is None and server.proposed:
            _log.warn("not_proposed", server=server.name, tool=name)
            raise NotProposedError(
                f"{server.name}/{name} runs only for a call of the model, and it made none like this"
            )
        call = ToolCall(id=proposal.call_id if proposal else f"call_{uuid4().hex}", function=name, arguments=arguments)
        message = ChatMessageAssistant(content="", tool_calls=[call])
        done = await execute_tools([message], [tool], approval=self.approval)
        return next(each for each in done.messages if isinstance(each, ChatMessageTool))

    def _taken(self, server: HostServer, tool: ToolDef, arguments: dict[str, Any]) -> Proposal | None:
        for proposal in self._proposals:
            if (server.name, tool.name) in proposal.tools and _same(tool, proposal, arguments):
                self._proposals.remove(proposal)
                return proposal
        return None


class NotProposedError(Exception):
    """An agent called a tool of the host that the model did not."""


def _same(tool: ToolDef, proposal: Proposal, arguments: dict[str, Any]) -> bool:
    proposed = proposal.arguments
    if not tool.parameters.additionalProperties:
        # Agents let the model say more to a tool than they pass on.
        proposed = {name: value for name, value in proposed.items() if name in tool.parameters.properties}
    return _canonical(proposed) == _canonical(arguments)


def _canonical(value: Any) -> Any:
    """JSON as it is compared: 5 and 5.0 are the same number, true and 1 are not."""
    match value:
        case dict():
            return {name: _canonical(each) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case list():
            return [_canonical(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
        case bool() | None | str():
            return to_json(value)
        case _:
            return value
