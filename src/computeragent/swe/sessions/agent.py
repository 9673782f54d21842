"""`computeragent_agent`: an agent of ours, with any engine and source, as an agent of Inspect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, cast, overload

from inspect_ai.agent import Agent, AgentAttempts, AgentState, BridgedToolsSpec, agent, agent_with
from inspect_ai.model import CompactionStrategy, GenerateFilter, Model

from computeragent import plugins
from computeragent.agent_input import attachment, loader_choice, policy_choice, store_choice
from computeragent.errors import ValidationError
from computeragent.eventlog import EventLog
from computeragent.identity.sources import parse_source
from computeragent.policy.config import AnyPolicy
from computeragent.protocol_types import (
    Attachment,
    EngineDriver,
    IdentityLoader,
    IdentitySource,
    LocalSource,
    StoreConfig,
    Substrate,
    ToolCallback,
)
from computeragent.swe.agents.frame import no_timeout_passes
from computeragent.swe.agents.options import attempts_of, bridged_tools_of
from computeragent.swe.sessions.memory import memory_of
from computeragent.swe.sessions.model import ModelChoice
from computeragent.swe.sessions.run import Plan, run
from computeragent.telemetry.redaction import Redactor, credentials_in

P = ParamSpec("P")
_KEY_IN_ADDRESS = re.compile(r"(?<!ssh:)//[^/\s]*@|//[^/\s@]*:[^/\s]*@")  # ssh://git@host has a name, and no key


class _Shown(Mapping[str, Any]):
    """A mapping that Inspect's log has as `name`: what it holds may be secret."""

    def __init__(self, inner: Mapping[str, Any], name: str) -> None:
        self._inner = dict(inner)
        self.name = name

    def __getitem__(self, key: str) -> Any:
        return self._inner[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)


class _ShownFiles(Sequence[Any]):
    """Attachments that Inspect's log has as `name`: what is in them may be secret."""

    def __init__(self, inner: Sequence[Any]) -> None:
        self._inner = tuple(inner)
        self.name = ", ".join(str(item.get("path", "?")) for item in map(_fields, inner))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._inner[index]

    def __len__(self) -> int:
        return len(self._inner)


def _fields(item: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", item) if isinstance(item, Mapping) else {"path": getattr(item, "path", "?")}


def _without_secrets(factory: Callable[P, Agent]) -> Callable[P, Agent]:
    """Inspect writes an agent's arguments into its log: keep out of it `envs` and files, and keys in others."""

    @wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> Agent:
        given = cast("dict[str, Any]", kwargs)
        for name in ("envs", "options", "policy", "session_store"):
            value = given.get(name)
            if isinstance(value, Mapping) and value:
                given[name] = _Shown(cast("Mapping[str, Any]", value), _shown(name, cast("Mapping[str, Any]", value)))
        if given.get("attachments"):
            given["attachments"] = _ShownFiles(given["attachments"])
        source: object = given.get("source")
        text = str(source) if isinstance(source, str | Path) else json.dumps(source, default=str)
        if isinstance(source, Mapping) and "url" not in source:
            text = _shown("source", cast("Mapping[str, Any]", source))
            given["source"] = _Shown(cast("Mapping[str, Any]", source), text)
        if _KEY_IN_ADDRESS.search(text):
            raise ValidationError(
                "the source's address has a key in it, which Inspect would write into its log",
                hint="Take it out, and pass envs={'GITHUB_TOKEN': …}.",
            )
        return factory(*args, **kwargs)

    return make


def _source(given: IdentitySource | Mapping[str, Any] | str | Path) -> IdentitySource:
    """A source as it is meant where the agent is made: samples may run in other folders."""
    source = parse_source(given)
    return (
        LocalSource(path=str(Path(source.path).expanduser().absolute())) if isinstance(source, LocalSource) else source
    )


def _plain(given: Any) -> Any:
    return dict(given) if isinstance(given, _Shown) else given


def _shown(name: str, value: Mapping[str, Any]) -> str:
    if name == "envs":
        return ", ".join(f"{key}=***" for key in value)
    if isinstance(files := value.get("files"), Mapping) and name == "source":
        value = {**value, "files": [str(path) for path in cast("Mapping[Any, Any]", files)]}
    redacted = Redactor(known_values=credentials_in(value)).redact(json.loads(json.dumps(dict(value), default=str)))
    return json.dumps(redacted)


_WITH_TOOLS = ("claude-agent-sdk", "acp")
_DESCRIPTION = "Autonomous agent that works in a folder with the tools of its engine."


@_without_secrets
@agent
def computeragent_agent(
    name: str = "ComputerAgent",
    description: str = _DESCRIPTION,
    *,
    source: IdentitySource | Mapping[str, Any] | str | Path | None = None,
    engine: str | EngineDriver = "claude-agent-sdk",
    runtime: str | Substrate | None = None,
    identity_loader: str | IdentityLoader | None = None,
    session_store: str | StoreConfig | Mapping[str, Any] | None = None,
    event_log: EventLog | None = None,
    options: Mapping[str, Any] | None = None,
    envs: Mapping[str, str] | None = None,
    attachments: Sequence[Attachment | Mapping[str, Any]] = (),
    policy: AnyPolicy | None = None,
    on_tool_call: ToolCallback | None = None,
    budget_max_usd: float | None = None,
    approval_timeout: float = 600.0,
    system_prompt: str | None = None,
    attempts: int | AgentAttempts = 1,
    bridge: bool | None = None,
    bridged_tools: Sequence[BridgedToolsSpec] | None = None,
    model: str | None = None,
    model_config: str | None = None,
    model_aliases: Mapping[str, str | Model] | None = None,
    filter: GenerateFilter | None = None,  # noqa: A002 - the word of Inspect's agents
    retry_refusals: int | None = None,
    compaction: CompactionStrategy | None = None,
    sandbox: str | None = None,
    cwd: str | None = None,
) -> Agent:
    """A `ComputerAgent` for each sample: the sample's messages are its turn, its events become the sample's messages.

    It works in the folder of the sample's sandbox: of `local` in place, of any other on a copy that is carried in and
    out, in a jail of this machine (``.git`` does not travel); without a sandbox in a folder of its own. What the source
    has is copied there; the sample's files win. A later agent of the same sample goes on with the session. What a run
    used, and which calls were denied, is in `ComputerAgentRun` of the sample's store.

    Args:
        name: Name of the agent, for `as_tool` and `handoff`.
        description: Description of the agent, for the same.
        source: Who the agent is, as for `ComputerAgent`. Default: the sample's folder itself.
        engine: How it thinks: a registered name or an `EngineDriver`.
        runtime: Where it runs: a registered substrate or a `Substrate`. Default: ``local`` for Inspect's `local`
            sandbox and for none, ``bwrap`` for others, which take no ``local``.
        identity_loader: Who reads the agent's definition, as for `ComputerAgent`.
        session_store: What remembers. Default: memory, as long as the sample lives.
        event_log: Keeps the events, such as a `SqliteEventLog`, for ``computeragent sessions``. Default: memory.
        options: The engine's own options.
        envs: Variables for the engine; they win over those of the bridge. Inspect's log has their names alone.
        attachments: Files written into the folder before the engine starts.
        policy: Judges every tool call, as for `ComputerAgent`.
        on_tool_call: Decides tool calls. Without it and a policy all are allowed but destructive ones.
        budget_max_usd: Ends the sample, as a cost limit of Inspect's does, when the engine has cost more.
        approval_timeout: Seconds that a call waits for a person.
        system_prompt: Put before the prompt, after the sample's system messages.
        attempts: How often an answer may be given: it is scored, and a wrong one is told to the agent.
        bridge: Whether the engine's model is Inspect's. Default: yes, but for ``scripted``, which has none. Without it
            the engine uses its own provider, whose calls Inspect does not see; tokens and cost are then held to the
            sample's limits by what the engine reports.
        bridged_tools: Tools of Inspect's that the agent gets over MCP; engines ``claude-agent-sdk`` and ``acp``,
            runtime ``local``.
        model: The model that answers. Default: the evaluation's.
        model_config: The model that the engine believes to talk to, which picks its prompts.
        model_aliases: Models by the names that the engine asks for.
        filter: Sees every request to the model, and may answer it or change it.
        retry_refusals: How often a refused answer is asked for again.
        compaction: How a conversation that grows too long is made shorter.
        sandbox: Name of the sandbox, where the sample has several.
        cwd: The folder in the sandbox to work in. Default: the sandbox's working folder.

    Raises a `ComputerAgentError` at once for what can be seen at once.

    """
    wired = engine != "scripted" if bridge is None else bridge
    if isinstance(engine, str):
        plugins.engines.require(engine)
    if isinstance(runtime, str):
        plugins.substrates.require(runtime)
    tries, tools = attempts_of(attempts), bridged_tools_of(bridged_tools)
    if tries.attempts < 1:
        raise ValidationError(f"attempts must be 1 or more, got {tries.attempts}", hint="Leave it out for one.")
    if tools and (engine not in _WITH_TOOLS or runtime not in {None, "local"} or not wired):
        raise ValidationError(
            f"bridged_tools need the engine {' or '.join(_WITH_TOOLS)}, runtime='local' and the bridge",
            hint="Give the tools to one of these engines, or leave them out.",
        )
    plan = Plan(
        agent={
            "source": None if source is None else _source(_plain(source)),
            "engine": engine,
            "identity_loader": loader_choice(identity_loader),
            "policy": policy_choice(_plain(policy), None),
            "on_tool_call": on_tool_call,
            "budget_max_usd": budget_max_usd,
            "approval_timeout": approval_timeout,
            "model": model_config,
        },
        kept={
            "session_store": None if session_store is None else store_choice(_plain(session_store)),
            "event_log": event_log,
        },
        runtime=runtime,
        options=dict(options or {}),
        envs=dict(envs or {}),
        attachments=[attachment(item) for item in attachments],
        system_prompt=system_prompt,
        attempts=tries,
        wired=wired,
        choice=ModelChoice(
            model=model,
            model_aliases=model_aliases,
            filter=filter,
            retry_refusals=retry_refusals,
            compaction=compaction,
            bridged_tools=tools,
        ),
        sandbox=sandbox,
        cwd=cwd,
    )
    itself = object()

    async def execute(state: AgentState) -> AgentState:
        with no_timeout_passes(name):
            return await run(plan, state, memory_of(itself))

    return agent_with(execute, name=name, description=description)
