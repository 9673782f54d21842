"""Inspect's own bridge as a `Bridge`, for sandboxes whose network this process cannot listen in (docker, k8s)."""

from __future__ import annotations

import shlex
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
from inspect_ai.agent import AgentState, BridgedToolsSpec, sandbox_agent_bridge
from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    GenerateInput,
    Model,
    ModelOutput,
    ModelRefusalError,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from inspect_ai.util import SandboxEnvironment, store

from computeragent.swe.bridge.generation import Settings, takes_name
from computeragent.swe.bridge.host_tools import HostServer, HostTools
from computeragent.swe.bridge.record import Bridge

FIRST_PORT = 13101
"""The port of a sample's first bridge; each further one takes the next."""

_COUNTER = "computeragent:bridges"
_PAUSE = 0.5
_LIST = '{"jsonrpc":"2.0","id":1,"method":"tools/list"}'


@asynccontextmanager
async def wrapped(
    state: AgentState,
    sandbox: SandboxEnvironment,
    name: str | None,
    host: HostTools,
    settings: Settings,
    **models: Any,
) -> AsyncGenerator[Bridge]:
    """Open Inspect's bridge in the sandbox called `name`; `models` are its words for the choice of models."""
    number = store().get(_COUNTER, 0)
    store().set(_COUNTER, number + 1)
    port = FIRST_PORT + number
    base_url = f"http://127.0.0.1:{port}"
    bridge = Bridge(base_url=base_url, api_key="sk-bridge", state=state)
    for server in host.servers.values():
        bridge.expect_tools(server.name, [(tool.name, tool.description) for tool in server.tools.values()])
    bridge.mcp_servers = host.addresses(base_url, bridge.api_key)
    bridge.probe = _probe(sandbox, port, host)
    watch = _Watch(bridge, settings)
    async with sandbox_agent_bridge(
        state,
        sandbox=name or "default",  # with none, Inspect takes the one in which its tools are already
        port=port,
        filter=watch.asked,
        response_filter=watch.answered,
        retry_refusals=settings.retry_refusals,
        compaction=settings.compaction,
        web_search=settings.web_search,
        forward_generation_config=settings.forward_generation_config,
        approval=settings.approval,
        bridged_tools=_specs(host),
        **models,
    ):
        yield bridge


class _Watch:
    """Keeps the record of a bridge up to date from what passes it."""

    def __init__(self, bridge: Bridge, settings: Settings) -> None:
        self._bridge = bridge
        self._filter = settings.filter

    async def asked(
        self,
        model: Model,
        messages: list[ChatMessage],
        tools: list[ToolInfo],
        choice: ToolChoice | None,
        config: GenerateConfig,
    ) -> ModelOutput | GenerateInput | None:
        self._bridge.requests += 1
        self._bridge.note_tools(tools)
        if self._filter is None:
            return None
        ask = cast("Any", self._filter)
        try:
            return await ask(model.name if takes_name(self._filter) else model, messages, tools, choice, config)
        except ModelRefusalError:
            raise
        except Exception as error:
            self._bridge.fail(error)
            raise

    async def answered(self, _model: Model, output: ModelOutput, _asked: GenerateInput) -> ModelOutput | None:
        self._bridge.note_output(output)
        return None


def _specs(host: HostTools) -> Sequence[BridgedToolsSpec]:
    return [
        BridgedToolsSpec(
            name=server.name,
            tools=[tool.as_tool() for tool in server.tools.values()],
            require_proposal=server.proposed,
        )
        for server in host.servers.values()
    ]


def _probe(sandbox: SandboxEnvironment, port: int, host: HostTools) -> Any:
    """A check from inside of the sandbox, with nothing but a shell, that each server lists its tools."""

    async def probe(timeout: float) -> None:
        with anyio.fail_after(timeout):
            for server in host.servers.values():
                await _until_listed(sandbox, port, server)

    return probe


async def _until_listed(sandbox: SandboxEnvironment, port: int, server: HostServer) -> None:
    if server.tools:
        tool = next(iter(server.tools))
        while not await _lists(sandbox, port, server.name, tool):  # noqa: ASYNC110 - nobody there could tell
            await anyio.sleep(_PAUSE)


async def _lists(sandbox: SandboxEnvironment, port: int, server: str, tool: str) -> bool:
    request = (
        f"POST /mcp/{server} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        "Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(_LIST)}\r\n\r\n{_LIST}"
    )
    script = f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf %s {shlex.quote(request)} >&3 && timeout 15 cat <&3"
    try:
        done = await sandbox.exec(["bash", "-c", script], timeout=30)
    except TimeoutError:
        return False
    return done.success and tool in done.stdout
