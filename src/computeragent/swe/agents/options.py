"""What an agent is given, in the same words for all of them, checked when the agent is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from inspect_ai.agent import AgentAttempts, BridgedToolsSpec
from inspect_ai.model import CompactionStrategy, GenerateFilter, Model
from inspect_ai.tool import MCPServerConfig, MCPServerConfigHTTP, MCPServerConfigStdio, Skill, Tool, read_skills

from computeragent.clis import Cli, McpServer
from computeragent.errors import ValidationError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_VERSION = re.compile(r"auto|sandbox|stable|latest|\d[A-Za-z0-9._+-]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _none() -> Mapping[str, str]:
    return MappingProxyType({})


def _nobody() -> Mapping[str, str | Model]:
    return MappingProxyType({})


class CentaurOptions(NamedTuple):
    """How a person works on the task with the agent at hand: options of Inspect's `human_cli()`."""

    answer: bool | str = True
    """Whether the person submits an answer; a text is a pattern that the answer must match."""

    intermediate_scoring: bool = False
    """Whether the person may see the score while working."""

    record_session: bool = True
    """Whether the terminal session is recorded in the sandbox."""

    instructions: str | None = None
    """What the person is told beyond the usual."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which model an agent believes to talk to: its name, the agent's settings for it, and whom such names mean."""

    model: str
    options: Mapping[str, str] = field(default_factory=_none)
    aliases: Mapping[str, str | Model] = field(default_factory=_nobody)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that `frame.run_agent` needs to know. `identity` is asked for when the served model is known."""

    row: Cli
    identity: Callable[[str], Identity]
    system_prompt: str | None = None
    skills: tuple[Skill, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()
    bridged_tools: tuple[BridgedToolsSpec, ...] = ()
    disallowed_tools: tuple[str, ...] = ()
    web_search: bool = False
    centaur: CentaurOptions | None = None
    attempts: AgentAttempts = field(default_factory=AgentAttempts)
    model: str | None = None
    model_aliases: Mapping[str, str | Model] = field(default_factory=_nobody)
    filter: GenerateFilter | None = None
    retry_refusals: int | None = None
    retry_uncaught_errors: int = 0
    compaction: CompactionStrategy | None = None
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=_none)
    user: str | None = None
    sandbox: str | None = None
    version: str = "auto"
    debug: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work. Raises `ValidationError`."""
        if not _VERSION.fullmatch(self.version):
            raise ValidationError(
                f"{self.version!r} is not a version of {self.row.title}",
                hint="Use auto, sandbox, stable, latest or a version, as 1.2.3.",
            )
        if self.attempts.attempts < 1:
            raise ValidationError("attempts must be at least 1", hint="1 means: no further attempt.")
        for word, number in (
            ("retry_refusals", self.retry_refusals or 0),
            ("retry_uncaught_errors", self.retry_uncaught_errors),
        ):
            if number < 0:
                raise ValidationError(f"{word} must not be negative", hint="None or 0 means: never.")
        for name, value in self.env.items():
            if not _VARIABLE.fullmatch(name) or not isinstance(value, str) or "\0" in value:
                raise ValidationError(f"env: {name!r} is not a variable with a text", hint="Give names and texts.")
        for word in ("cwd", "user", "sandbox", "model"):
            value = getattr(self, word)
            if value is not None and (not isinstance(value, str) or not value.strip() or "\0" in value):
                raise ValidationError(f"{word} must be a text, or None", hint=f"It is {value!r}.")
        _unique("mcp_servers and bridged_tools", [server.name for server in self.mcp_servers] + self.bridged_names())

    def bridged_names(self) -> list[str]:
        """The names of the servers that the bridge serves."""
        return [spec.name for spec in self.bridged_tools]


def attempts_of(attempts: int | AgentAttempts) -> AgentAttempts:
    """How often to try."""
    if isinstance(attempts, bool) or not isinstance(attempts, (int, AgentAttempts)):
        raise ValidationError("attempts must be a number or AgentAttempts", hint="attempts=3")
    return AgentAttempts(attempts) if isinstance(attempts, int) else attempts


def centaur_of(centaur: bool | CentaurOptions) -> CentaurOptions | None:
    """Whether a person works with the agent, and how."""
    if isinstance(centaur, bool):
        return CentaurOptions() if centaur else None
    if not isinstance(centaur, CentaurOptions):
        raise ValidationError("centaur must be a bool or CentaurOptions", hint="centaur=True")
    return centaur


def skills_of(skills: Sequence[str | Path | Skill] | None) -> tuple[Skill, ...]:
    """Skills, read from their folders. Raises `ValidationError` for what is none."""
    if isinstance(skills, (str, Path)):
        raise ValidationError("skills must be a list", hint=f"skills=[{str(skills)!r}]")
    try:
        found = read_skills(skills or ())
    except Exception as error:  # Inspect's own kind of error has no public name
        raise ValidationError(
            f"a skill cannot be read: {error}",
            hint="A skill is a folder with a SKILL.md: name, description, text.",
        ) from error
    _unique("skills", [skill.name for skill in found])
    return tuple(found)


def mcp_servers_of(servers: Sequence[MCPServerConfig] | None, title: str) -> tuple[McpServer, ...]:
    """Tool servers for the agent `title`, as the table has them. Raises `ValidationError` for what it cannot use."""
    return tuple(_mcp_server(server, title) for server in servers or ())


def _mcp_server(server: MCPServerConfig, title: str) -> McpServer:
    if not isinstance(server, (MCPServerConfigStdio, MCPServerConfigHTTP)):
        raise ValidationError(
            f"{server!r} is no tool server", hint="Use MCPServerConfigStdio or MCPServerConfigHTTP of inspect_ai.tool."
        )
    if not _NAME.fullmatch(server.name):
        raise ValidationError(
            f"{server.name!r} cannot name a tool server", hint="Use letters, digits, '-' and '_', 64 at most."
        )
    tools = None if server.tools == "all" else tuple(server.tools)
    if isinstance(server, MCPServerConfigHTTP):
        if server.type != "http":
            raise ValidationError(
                f"{title} is not given the tool server {server.name} over {server.type}",
                hint="The transport is superseded: use type='http', which is streamable HTTP.",
            )
        return McpServer(name=server.name, url=server.url, headers=server.headers or {}, tools=tools)
    command, args = server.command, tuple(server.args)
    if server.cwd is not None:
        # Not every agent has a word for the folder that a server starts in; every system has a shell.
        args = ("-c", 'cd "$0" && exec "$@"', str(server.cwd), command, *args)
        command = "/bin/sh"
    return McpServer(name=server.name, command=command, args=args, env=server.env or {}, tools=tools)


def bridged_tools_of(tools: Sequence[BridgedToolsSpec | Tool] | None) -> tuple[BridgedToolsSpec, ...]:
    """Tools of the host, by server; plain tools are served as one server, `tools`."""
    specs = [each for each in tools or () if isinstance(each, BridgedToolsSpec)]
    plain = [each for each in tools or () if not isinstance(each, BridgedToolsSpec)]
    for each in plain:
        if not callable(each):
            raise ValidationError(f"{each!r} is no tool", hint="Give BridgedToolsSpec, or tools of Inspect.")
    if plain:
        specs.append(BridgedToolsSpec(name="tools", tools=plain))
    for spec in specs:
        if not _NAME.fullmatch(spec.name):
            raise ValidationError(
                f"{spec.name!r} cannot name bridged tools", hint="Use letters, digits, '-' and '_', 64 at most."
            )
    return tuple(specs)


def model_name(name: str, what: str) -> str:
    """A model's name as a program is told it."""
    if not isinstance(name, str) or not name.strip() or name.startswith("-") or name.split() != [name]:
        raise ValidationError(f"{what}: {name!r} is no model's name", hint="Give a name without blanks.")
    return name


def words_of(words: Sequence[str] | None, what: str) -> tuple[str, ...]:
    """A list of names."""
    if isinstance(words, str) or not all(isinstance(word, str) and word.strip() for word in words or ()):
        raise ValidationError(f"{what} must be a list of names", hint="Each is a text.")
    return tuple(words or ())


def _unique(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValidationError(f"{what} have the name {', '.join(twice)} twice", hint="Each needs a name of its own.")
