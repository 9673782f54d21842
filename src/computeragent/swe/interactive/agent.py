"""`ACPAgent`: an agent in a sandbox whose session is led by code of yours, prompt by prompt."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from inspect_ai.agent import Agent, AgentState, BridgedToolsSpec
from inspect_ai.model import ChatMessageSystem, GenerateFilter, Model
from inspect_ai.tool import MCPServerConfig, Tool
from inspect_ai.util import sandbox as sandbox_environment

from computeragent.clis import McpServer
from computeragent.engines.acp.connection import answered, initialize, told
from computeragent.engines.acp.prompts import server_blocks, takes_urls
from computeragent.errors import CliFailedError, ComputerAgentError, ValidationError
from computeragent.swe.agents.frame import READY, no_timeout_passes
from computeragent.swe.agents.launching import start
from computeragent.swe.agents.options import bridged_tools_of, mcp_servers_of
from computeragent.swe.agents.places import Place, place_of
from computeragent.swe.bridge import Bridge, agent_bridge
from computeragent.swe.interactive.connection import ErrorInfo, acp_connection
from computeragent.telemetry.redaction import Redactor, credentials_in

if TYPE_CHECKING:
    from acp.core import ClientSideConnection
    from acp.schema import PromptResponse

T = TypeVar("T")

_AGAIN = 1.0
_SETTLE = 5.0
START = 120.0
"""Seconds that a program may take for each step until its session is open."""


class ACPAgentParams(TypedDict, total=False):
    """What every interactive agent takes.

    Attributes:
        model: The model that answers it (default: the evaluation's).
        filter: Sees each request to the model before it is made, and may answer or change it.
        bridged_tools: Tools of Inspect that run on the host; plain tools are served as the server `tools`.
        mcp_servers: Tool servers that it reaches from the sandbox.
        system_prompt: Added to its own system prompt, after the sample's system messages.
        retry_refusals: How often a refusal of the model is asked again; None for never.
        model_map: Other models by the name that it asks for.
        cwd: Its working folder (default: the sandbox's).
        env: Variables for it; they win over ours.
        user: Who runs it in the sandbox.
        sandbox: The sandbox's name, where the sample has several.
        start_timeout: Seconds that it may take for each step until its session is open (default: `START`).

    """

    model: str | Model | None
    filter: GenerateFilter | None
    bridged_tools: Sequence[BridgedToolsSpec | Tool] | None
    mcp_servers: Sequence[MCPServerConfig] | None
    system_prompt: str | None
    retry_refusals: int | None
    model_map: dict[str, str | Model] | None
    cwd: str | None
    env: dict[str, str] | None
    user: str | None
    sandbox: str | None
    start_timeout: float


@dataclass(frozen=True, kw_only=True)
class Program:
    """How an agent's program is started in the sandbox, and what its session is opened with.

    `mode` is the session's mode, where it is offered; `meta` is the `_meta` of `session/new`. `files` (absolute paths)
    are written before.
    """

    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    files: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    mode: str = ""
    meta: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


class ACPAgent(Agent):
    """An agent that speaks the Agent Client Protocol, in the sample's sandbox, led by code of yours.

    Called, in a task of its own, it opens the bridge to the evaluation's model, starts the program and opens its
    session. It then waits until it is cancelled, ends the program with all that it started, and returns the
    conversation::

        agent = interactive_claude_code()
        task = asyncio.create_task(agent(state))
        await agent.prompt("Write the proof.")
        task.cancel()
        state = await task

    `ready` is set when there is a session, and when there will be none: `conn` then raises what went wrong. `conn` is
    the SDK's connection: `prompt`, `cancel` and the rest of the protocol are yours. One call at a time, each with a
    session of its own: make an agent for each sample.

    For an agent of your own derive from it, set `title`, and write `_start_agent`.
    """

    title = "the agent"
    web_search = False

    def __init__(self, **params: Unpack[ACPAgentParams]) -> None:
        self._params = params
        self._servers = mcp_servers_of(params.get("mcp_servers"), self.title)
        self._bridged = bridged_tools_of(params.get("bridged_tools"))
        for server in self._servers:
            if server.tools is not None:
                raise ValidationError(
                    f"the tool server {server.name} cannot be held to some of its tools in an interactive agent",
                    hint="The Agent Client Protocol has no word for it: use tools='all'.",
                )
        if (limit := params.get("start_timeout", START)) <= 0:
            raise ValidationError(f"start_timeout must be positive, not {limit}", hint="It is in seconds.")
        self.ready = asyncio.Event()
        self._over = asyncio.Event()
        self._running = False
        self._failure: BaseException | None = None
        self._connection: ClientSideConnection | None = None
        self._session_id = ""
        self._bridge: Bridge | None = None
        self._asking: asyncio.Future[PromptResponse] | None = None
        self._stopping: asyncio.Future[None] | None = None

    @abstractmethod
    async def _start_agent(self, bridge: Bridge, place: Place, system: str) -> Program:
        """What to start where (`place`), for a bridge that is open; `system` is to be added to its system prompt."""

    def _aliases(self) -> Mapping[str, str | Model]:
        """The models by the names that the program asks for, besides `model_map`."""
        return {}

    # ── For whoever leads it ──

    @property
    def conn(self) -> ClientSideConnection:
        """The connection. Raises what went wrong, and `CliFailedError` before `ready` and after the end."""
        if self._connection is None:
            raise self._reason()
        return self._connection

    @property
    def session_id(self) -> str:
        """The session's id; empty before there is one."""
        return self._session_id

    async def prompt(self, prompt: str | list[Any]) -> PromptResponse:
        """Wait until it is ready, send a prompt (a text, or blocks of the protocol) and wait for the turn's end.

        Cancelled, it has the agent end the turn, and does not wait for that.

        Raises what ends the agent meanwhile (a limit of the sample, the program's end), and `CliFailedError` for a
        prompt that it refuses and for bridged tools that never reached the model.
        """
        from acp import RequestError, text_block

        await self.ready.wait()
        blocks: list[Any] = [text_block(prompt)] if isinstance(prompt, str) else prompt
        asking = self._asking = asyncio.ensure_future(self.conn.prompt(self.session_id, blocks))
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({asking, over}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise self._reason()
            response = asking.result()
        except ConnectionError:
            raise await self._lost() from None
        except asyncio.CancelledError:
            if not asking.done() and self._connection is not None:
                self._stopping = asyncio.ensure_future(self._stop(self._connection))
            raise
        except ValueError as error:  # the SDK's, of an answer that has another shape
            raise CliFailedError(
                f"{self.title} answers the prompt with what the protocol does not know", hint="The session goes on."
            ) from error
        except RequestError as error:
            raise CliFailedError(
                f"{self.title} refuses the prompt: {told(error, self._redacted)}", hint="The session goes on."
            ) from error
        finally:
            over.cancel()
            asking.cancel()
        self._require_tools()
        return response

    async def interrupt(self) -> None:
        """End the turn of `prompt`, which returns with the stop reason ``cancelled``; the session goes on."""
        asking = self._asking
        try:
            await self.conn.cancel(self.session_id)
            while asking is not None and not asking.done():
                await asyncio.wait({asking}, timeout=_AGAIN)
                if not asking.done():
                    await self.conn.cancel(self.session_id)  # one that came before the prompt was lost
        except ConnectionError:
            raise await self._lost() from None

    async def _stop(self, connection: ClientSideConnection) -> None:
        """Nobody waits for the turn any more."""
        with suppress(ConnectionError):
            await connection.cancel(self.session_id)

    async def _lost(self) -> BaseException:
        """Why nothing can be sent: mostly because it has ended, which is known in a moment."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), _SETTLE)
        if self._connection is None:
            await self._over.wait()  # it is being ended
            return self._reason()
        return CliFailedError(
            f"{self.title} runs, but has closed its end of the connection", hint="Cancel it, and call it again."
        )

    # ── The run ──

    async def __call__(self, state: AgentState, *args: Any, **kwargs: Any) -> AgentState:
        """See the class. Raises `CliFailedError` for a program that does not get ready, or ends by itself."""
        del args, kwargs
        if self._running:
            raise ValidationError("this interactive agent runs already", hint="Make one for each sample.")
        if self._over.is_set():  # once more
            self._over.clear()
            self.ready.clear()
        self._running, self._failure, self._session_id = True, None, ""
        try:
            with no_timeout_passes(self.title):
                return await self._run(state)
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._running, self._connection = False, None
            self._over.set()
            self.ready.set()

    async def _run(self, state: AgentState) -> AgentState:
        params = self._params
        env = params.get("env") or {}
        sandbox = sandbox_environment(params.get("sandbox"))
        place = await place_of(sandbox, user=params.get("user"), cwd=params.get("cwd"), home=env.get("HOME"))
        async with agent_bridge(
            state,
            sandbox=sandbox,
            sandbox_name=params.get("sandbox"),
            model=params.get("model"),
            model_aliases={**self._aliases(), **(params.get("model_map") or {})},
            filter=params.get("filter"),
            retry_refusals=params.get("retry_refusals"),
            bridged_tools=self._bridged,
            web_search=self.web_search,
        ) as bridge:
            self._bridge = bridge
            try:
                await self._live(bridge, place, _system_text(state, params.get("system_prompt")))
            except asyncio.CancelledError:
                if bridge.failure is not None:
                    raise
        self._require_tools()
        return bridge.state

    async def _live(self, bridge: Bridge, place: Place, system: str) -> None:
        """Start the program and its session, and wait for its end, which only a fault brings."""
        program = await self._start_agent(bridge, place, system)
        await place.write(program.files)
        await bridge.ready(READY)
        env = {**program.env, **(self._params.get("env") or {})}
        process = await start(place.sandbox, program.command, cwd=place.cwd, env=env, user=place.user, stdin=True)
        async with acp_connection(process) as (connection, feeder, info):
            await self._open(connection, feeder, info, program, place.cwd)
            self._connection = connection
            self.ready.set()
            try:
                await asyncio.wait({feeder})
            finally:
                self._connection = None
            raise CliFailedError(
                f"{self.title} ended by itself: {info.describe(self._redacted)}",
                hint="Look at its stderr, at env and at the memory of the sandbox.",
            )

    async def _open(
        self,
        connection: ClientSideConnection,
        feeder: asyncio.Task[None],
        info: ErrorInfo,
        program: Program,
        cwd: str,
    ) -> None:
        async def step(request: Awaitable[T], what: str) -> T:
            return await self._step(request, what, feeder, info)

        hello = await step(initialize(connection), "initialize")
        assert self._bridge is not None
        servers = [*self._servers, *self._bridge.mcp_servers]
        blocks = server_blocks(servers, urls=takes_urls(hello.agent_capabilities))
        session = await step(connection.new_session(cwd, mcp_servers=blocks, **program.meta), "session/new")
        offered = [mode.id for mode in session.modes.available_modes] if session.modes is not None else []
        if program.mode in offered:
            await step(connection.set_session_mode(session.session_id, program.mode), "session/set_mode")
        self._session_id = session.session_id

    async def _step(self, request: Awaitable[T], what: str, feeder: asyncio.Task[None], info: ErrorInfo) -> T:
        from acp import RequestError

        limit = self._params.get("start_timeout", START)
        try:
            return await answered(request, limit, feeder)
        except TimeoutError:
            problem = f"did not answer {what} within {limit:g} s"
            hint = "Look at its stderr and at mcp_servers, which it may wait for; start_timeout= gives it longer."
        except ConnectionError:
            await asyncio.wait({feeder}, timeout=1.0)  # its last words
            problem = f"ended before it answered {what}"
            hint = "version= and env= choose another program or settings."
        except ComputerAgentError as error:
            problem, hint = error.message, error.hint or ""
        except (RequestError, ValueError) as error:  # a refusal, or an answer of another shape
            problem, hint = f"refused {what}: {told(error, self._redacted)}", "Look at its stderr."
        raise CliFailedError(f"{self.title} is not ready: it {problem}: {info.describe(self._redacted)}", hint=hint)

    # ── Faults ──

    def _reason(self) -> BaseException:
        if self._failure is not None and not isinstance(self._failure, asyncio.CancelledError):
            return self._failure
        if self._over.is_set():
            return CliFailedError(f"{self.title} has ended", hint="Call it again for another session.")
        return CliFailedError(
            f"{self.title} has no session yet", hint="Call it in a task of its own, and wait for `ready` first."
        )

    def _require_tools(self) -> None:
        if self._bridge is not None and self._bridge.requests and self._bridge.missing_tools:
            raise CliFailedError(
                f"{self.title} did not offer the model {', '.join(self._bridge.missing_tools)}",
                hint="Bridged tools that the model never sees make another task of it: look at its own settings.",
            )

    def _redacted(self, text: str) -> str:
        known = [*credentials_in(dict(self._params.get("env") or {}))]
        servers: list[McpServer] = [*self._servers]
        if self._bridge is not None:
            known.append(self._bridge.api_key)
        for server in servers:
            known += credentials_in({"headers": dict(server.headers), "env": dict(server.env)})
        return Redactor(known_values=known).redact_text(text)


def _system_text(state: AgentState, own: str | None) -> str:
    said = [message.text for message in state.messages if isinstance(message, ChatMessageSystem)]
    return "\n\n".join(part for part in (*said, own or "") if part.strip())
