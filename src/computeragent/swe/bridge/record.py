"""What a bridge tells the one who opened it: where it is, and what has happened on it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from inspect_ai.agent import AgentState
from inspect_ai.model import ModelOutput, StopReason
from inspect_ai.tool import ToolInfo

from computeragent.clis import McpServer
from computeragent.errors import ModelCallError

_NONE: Mapping[str, str] = MappingProxyType({})
_TELLING = 40
"""Characters from which on a description says by itself which tool it is of."""

Key = tuple[str, str]
"""A tool of the host: its server and its name."""

_WORDS = re.compile(r"[^0-9A-Za-z]+")


@dataclass(kw_only=True)
class Bridge:
    """A bridge that is open.

    `base_url` is where the agent reaches it, without a version path; `api_key` is what it must bring, fresh for each
    bridge. `mcp_servers` are the tools of the host. On a Unix socket `socket_path` says where it is.
    `state` is kept up to date with the agent's main conversation.

    `requests` counts the answers that were asked for, `last_stop_reason` says how the last one ended. `last_error` is
    the last failure that the agent was told of. `failure` ends the sample: the block of the bridge is cancelled, and
    raises it.
    """

    base_url: str
    api_key: str = field(repr=False)
    state: AgentState
    mcp_servers: tuple[McpServer, ...] = field(default=(), repr=False)  # they hold the key
    requests: int = 0
    last_stop_reason: StopReason | None = None
    last_error: Exception | None = None
    failure: Exception | None = None
    socket_path: str | None = None
    probe: Callable[[float], Awaitable[None]] | None = field(default=None, repr=False)
    on_failure: Callable[[], None] | None = field(default=None, repr=False)
    _offered: dict[Key, str] = field(default_factory=dict[Key, str], repr=False)
    _seen: set[Key] = field(default_factory=set[Key], repr=False)
    _names: set[str] = field(default_factory=set[str], repr=False)

    @property
    def refused(self) -> bool:
        """Whether the last answer was a refusal (Inspect's `content_filter`)."""
        return self.last_stop_reason == "content_filter"

    @property
    def missing_tools(self) -> tuple[str, ...]:
        """The tools of the host that no request to the model has offered so far, as `server/tool`."""
        return tuple(f"{server}/{tool}" for server, tool in self._offered if (server, tool) not in self._seen)

    def offered(self, server: str) -> bool:
        """Whether some request has offered the model a tool that has this server's name in its own."""
        word = f"{_plain(server)}_"
        return any(word in name for name in self._names)

    async def ready(self, timeout: float = 120.0) -> None:
        """Return once the agent can reach all that is served.

        Raises `ModelCallError` where it cannot within `timeout` seconds: a `TimeoutError` that ends a solver is taken
        for the end of an ordinary sample.
        """
        if self.probe is None:
            return
        try:
            await self.probe(timeout)
        except TimeoutError as error:
            message = f"the bridge and its tools could not be reached from the sandbox within {timeout:g} s"
            hint = "The sandbox must have bash; look at its load, and at its log."
            raise ModelCallError(message, hint=hint) from error

    def fail(self, error: Exception) -> None:
        """End the sample with this error; the first one counts."""
        if isinstance(error, TimeoutError):
            # As it is, Inspect would take it for the end of an ordinary sample.
            error = ModelCallError(f"the model did not answer in time: {error}")
        if self.failure is None:
            self.failure = error
        if self.on_failure is not None:
            self.on_failure()

    def expect_tools(self, server: str, tools: Iterable[tuple[str, str]]) -> None:
        """Tools (names and descriptions) that the model should be offered."""
        self._offered.update({(server, name): description for name, description in tools})

    def note_tools(self, tools: Collection[ToolInfo], spaces: Mapping[str, str] = _NONE) -> None:
        """A request offers these to the model; `spaces` are the namespaces of those that have one."""
        for tool in tools:
            self._names.add(_plain(f"{spaces.get(tool.name, '')}_{tool.name}"))
            self._seen.update(meant(tool, self._offered, spaces.get(tool.name, "")))

    def note_output(self, output: ModelOutput) -> None:
        """The agent gets this answer."""
        self.last_stop_reason = None if output.empty else output.stop_reason


def meant(tool: ToolInfo, ours: Mapping[Key, str], space: str = "") -> tuple[Key, ...]:
    """Which of `ours` (descriptions by server and name) a tool of the agent's is, in its namespace `space`.

    Agents call it ``mcp__server__name`` and the like. A name alone may be that of a tool of the agent's own. There are
    several only where nothing tells them apart.
    """
    called = _plain(f"{space}_{tool.name}")
    named = {key: len(_plain("_".join(key))) for key in ours if called.endswith(_plain("_".join(key)))}
    if named:
        # `my_calc_add` ends with `calc_add` as well.
        return tuple(key for key, length in named.items() if length == max(named.values()))
    # Agents shorten names that are long, or leave the server out, but pass the description on.
    said = tool.description.strip()
    return tuple(
        key
        for key, description in ours.items()
        if said == description.strip() and (len(said) > _TELLING or (bool(said) and tool.name == key[1]))
    )


def _plain(name: str) -> str:
    return "_" + _WORDS.sub("_", name).strip("_").lower()
