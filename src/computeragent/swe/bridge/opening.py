"""Opens a bridge where an agent in a sandbox can reach it."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
from inspect_ai.agent import AgentState, BridgedToolsSpec
from inspect_ai.approval import ApprovalPolicy
from inspect_ai.model import CompactionStrategy, GenerateFilter, Model
from inspect_ai.tool import Tool, WebSearchProviders
from inspect_ai.util import SandboxEnvironment

from computeragent.errors import UnsupportedRuntimeError, ValidationError
from computeragent.models.serving.http import HttpServer
from computeragent.swe.bridge.generation import Generation, Settings
from computeragent.swe.bridge.host_tools import HostTools
from computeragent.swe.bridge.models import Models
from computeragent.swe.bridge.record import Bridge
from computeragent.swe.bridge.server import Service
from computeragent.swe.bridge.tools import SEARCHES
from computeragent.swe.bridge.wrapped import wrapped
from computeragent.swe.sandboxes.types import is_local, own


@asynccontextmanager
async def agent_bridge(
    state: AgentState,
    *,
    sandbox: SandboxEnvironment | None = None,
    model: str | Model | None = None,
    model_aliases: Mapping[str, str | Model] | None = None,
    filter: GenerateFilter | None = None,  # noqa: A002 - Inspect's word
    retry_refusals: int | None = None,
    compaction: CompactionStrategy | None = None,
    bridged_tools: Sequence[BridgedToolsSpec | Tool] = (),
    web_search: WebSearchProviders | bool = False,
    forward_generation_config: bool = False,
    approval: list[ApprovalPolicy] | None = None,
    unix_socket: str | None = None,
    sandbox_name: str | None = None,
) -> AsyncGenerator[Bridge]:
    """A bridge from an agent's API of a provider to a model of Inspect, open for the time of the block.

    Args:
        state: Where the agent begins; it is kept up to date with the agent's main conversation.
        sandbox: Where the agent runs; None for this machine.
        model: The model that answers; None (or ``inspect``) for that of the evaluation.
        model_aliases: Models by the exact names that the agent asks for, before everything else.
        filter: Sees each request to the model, and may answer or change it.
        retry_refusals: How often a refused request is asked again.
        compaction: What is done to the main conversation when it gets too long for the model.
        bridged_tools: Tools of the host for the agent, as MCP servers. Tools without a server are the server ``tools``.
        web_search: Whether the provider's web search is granted; an agent that only asks for it does not get it.
        forward_generation_config: Whether the agent's limits and sampling count, rather than the evaluation's.
        approval: Policies for the agent's tool calls, instead of the evaluation's.
        unix_socket: A path to listen on instead of a port, where the sandbox is this machine.
        sandbox_name: What the sandbox is called in the task, where there are several and it is none of ours.

    Sandboxes of ours and this machine are served directly. In all others it is Inspect's own bridge that is opened: it
    asks for no key, and takes up to two seconds for each request.

    A limit of Inspect's, a filter that fails, a host tool that is broken and a failure of the model that no provider
    told of end the sample: the block is cancelled, and raises it. Raises `ValidationError` for tools that cannot be
    served and a socket that cannot be, `UnsupportedRuntimeError` under trio, and what `get_model` raises for a model
    that is none.

    """
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        hint = "Leave INSPECT_ASYNC_BACKEND out, or set it to asyncio."
        raise UnsupportedRuntimeError("the model bridge runs on asyncio", hint=hint) from error
    if unix_socket is not None and sandbox is not None and not is_local(sandbox):
        raise ValidationError("unix_socket: a bridge into a sandbox listens on a port there")
    models = Models(model, model_aliases)
    host = HostTools.of(bridged_tools, approval)
    grant: WebSearchProviders | None = SEARCHES if web_search is True else web_search or None
    settings = Settings(
        filter=filter,
        retry_refusals=retry_refusals,
        compaction=compaction,
        web_search=grant,
        forward_generation_config=forward_generation_config,
        approval=approval,
    )
    if sandbox is not None and own(sandbox) is None and not is_local(sandbox):
        names: dict[str, Any] = {"model": model, "model_aliases": dict(model_aliases or {})}
        if isinstance(model, Model):  # Inspect's own takes an object as the answer to a name alone
            names |= {"model": None, "model_resolver": partial(_always, model)}
        opened = wrapped(state, sandbox, sandbox_name, host, settings, **names)
    else:
        opened = _served(state, models, host, settings, await _listener(sandbox), unix_socket)
    async with opened as bridge:
        with anyio.CancelScope() as block:
            bridge.on_failure = block.cancel
            try:
                yield bridge
            except Exception as error:
                if bridge.failure is not None:
                    raise bridge.failure from error
                raise
    if bridge.failure is not None:
        raise bridge.failure


@asynccontextmanager
async def _served(
    state: AgentState,
    models: Models,
    host: HostTools,
    settings: Settings,
    listener: socket.socket | None,
    unix_socket: str | None,
) -> AsyncGenerator[Bridge]:
    bridge = Bridge(base_url="", api_key=f"sk-{secrets.token_urlsafe(24)}", state=state, socket_path=unix_socket)
    for server in host.servers.values():
        bridge.expect_tools(server.name, [(tool.name, tool.description) for tool in server.tools.values()])
    service = Service(bridge, Generation(bridge, models, host, settings), models, host)
    http = HttpServer(service.handle, listener=listener, path=unix_socket)
    try:
        await http.start()
    except OSError as error:
        if unix_socket is None:
            raise
        hint = "Name a short path of a file that is not there yet, in a folder that is."
        raise ValidationError(f"unix_socket: {unix_socket} cannot be listened on: {error}", hint=hint) from error
    try:
        bridge.base_url = f"http://127.0.0.1:{http.port}" if http.port else "http://localhost"
        bridge.mcp_servers = host.addresses(bridge.base_url, bridge.api_key)
        yield bridge
    finally:
        with anyio.CancelScope(shield=True):
            await http.stop()  # first, so that nobody asks once more for what is ended next
            await service.close()


def _always(model: Model, _asked: str) -> Model:
    return model


async def _listener(sandbox: SandboxEnvironment | None) -> socket.socket | None:
    """A listener inside of the sandbox; None where this machine's own loopback is the sandbox's."""
    if sandbox is None or (found := own(sandbox)) is None:
        return None
    return await found.listener()
