"""What an agent is given, in the same words for all of them, checked when the agent is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard, TypeVar

from inspect_ai.agent import AgentAttempts, BridgedToolsSpec
from inspect_ai.model import CompactionStrategy, GenerateFilter, Model
from inspect_ai.tool import MCPServerConfig, MCPServerConfigHTTP, MCPServerConfigStdio, Skill, Tool, read_skills

from computeragent.clis import Cli, McpServer
from computeragent.errors import ValidationError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_VERSION = re.compile(r"auto|sandbox|stable|latest|\d[A-Za-z0-9._+-]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
T = TypeVar("T")


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
    retry_uncaught_errors: int | None = 0
    compaction: CompactionStrategy | None = None
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=_none)
    user: str | None = None
    sandbox: str | None = None
    version: str = "auto"
    debug: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work. Raises `ValidationError`."""
        if not isinstance(self.version, str) or not _VERSION.fullmatch(self.version):
            raise ValidationError(
                f"{self.version!r} is not a version of {self.row.title}",
                hint="Use auto, sandbox, stable, latest or a version, as 1.2.3.",
            )
        if self.attempts.attempts < 1:
            raise ValidationError("attempts must be at least 1", hint="1 means: no further attempt.")
        for word, number in (
            ("retry_refusals", self.retry_refusals),
            ("retry_uncaught_errors", self.retry_uncaught_errors),
        ):
            if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
                raise ValidationError(f"{word} must not be negative, and a number", hint="None or 0 means: never.")
        for word in ("cwd", "user", "sandbox", "model"):
            value = getattr(self, word)
            if value is not None and (not is_text(value) or not value.strip()):
                raise ValidationError(f"{word} must be a text, or None", hint=f"It is {value!r}.")
        if self.system_prompt is not None and not is_text(self.system_prompt):
            raise ValidationError("system_prompt must be a text, or None", hint="No NUL, no half characters.")
        if self.filter is not None and not callable(self.filter):
            raise ValidationError(
                "filter must be a function, or None", hint="It is one of Inspect's `GenerateFilter`s."
            )
        _check_env(self.env)
        _check_aliases(self.model_aliases)
        _unique("mcp_servers and bridged_tools", [server.name for server in self.mcp_servers] + self.bridged_names())

    def bridged_names(self) -> list[str]:
        """The names of the servers that the bridge serves."""
        return [spec.name for spec in self.bridged_tools]


def _check_env(env: Mapping[str, str]) -> None:
    for name, value in mapping_of(env, "env").items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name) or not is_text(value):
            raise ValidationError(f"env: {name!r} is not a variable with a text", hint="Give names and texts.")
    if not env.get("HOME", "/").startswith("/"):
        raise ValidationError("env: HOME must be a whole path", hint="It begins with /, as the sandbox has it.")


def _check_aliases(aliases: Mapping[str, str | Model]) -> None:
    for name, model in mapping_of(aliases, "model_aliases").items():
        if not isinstance(name, str) or not isinstance(model, (str, Model)):
            raise ValidationError(f"model_aliases: {name!r} does not name a model", hint='{"name": "openai/gpt-5"}')


def attempts_of(attempts: int | AgentAttempts) -> AgentAttempts:
    """How often to try."""
    if isinstance(attempts, bool) or not isinstance(attempts, (int, AgentAttempts)):
        raise ValidationError("attempts must be a number or AgentAttempts", hint="attempts=3")
    if isinstance(attempts, int):
        return AgentAttempts(attempts)
    message = attempts.incorrect_message
    if not callable(message) and not (is_text(message) and message.strip()):
        raise ValidationError("attempts: incorrect_message must be a text or a function", hint="It is the next prompt.")
    return attempts


def centaur_of(centaur: bool | CentaurOptions) -> CentaurOptions | None:
    """Whether a person works with the agent, and how."""
    if isinstance(centaur, bool):
        return CentaurOptions() if centaur else None
    if not isinstance(centaur, CentaurOptions):
        raise ValidationError("centaur must be a bool or CentaurOptions", hint="centaur=True")
    return centaur


def skills_of(skills: Sequence[str | Path | Skill] | None) -> tuple[Skill, ...]:
    """Skills, read from their folders. Raises `ValidationError` for what is none."""
    given = list_of(skills, "skills")
    try:
        found = read_skills(given)
    except Exception as error:  # Inspect's own kind of error has no public name
        raise ValidationError(
            f"a skill cannot be read: {error}",
            hint="A skill is a folder with a SKILL.md: name, description, text.",
        ) from error
    _unique("skills", [skill.name for skill in found])
    return tuple(found)


def mcp_servers_of(servers: Sequence[MCPServerConfig] | None, title: str) -> tuple[McpServer, ...]:
    """Tool servers for the agent `title`, as the table has them. Raises `ValidationError` for what it cannot use."""
    return tuple(_mcp_server(server, title) for server in list_of(servers, "mcp_servers"))


def _mcp_server(server: MCPServerConfig, title: str) -> McpServer:
    if not isinstance(server, (MCPServerConfigStdio, MCPServerConfigHTTP)):
        raise ValidationError(
            f"a {type(server).__name__} is no tool server",
            hint="Use MCPServerConfigStdio or MCPServerConfigHTTP of inspect_ai.tool.",
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
    given = list_of(tools, "bridged_tools")
    specs = [each for each in given if isinstance(each, BridgedToolsSpec)]
    plain = [each for each in given if not isinstance(each, BridgedToolsSpec)]
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
    if not is_text(name) or not name.strip() or name.startswith("-") or name.split() != [name]:
        raise ValidationError(f"{what}: {name!r} is no model's name", hint="Give a name without blanks.")
    return name


def words_of(words: Sequence[str] | None, what: str) -> tuple[str, ...]:
    """A list of names."""
    given = list_of(words, what)
    if not all(is_text(word) and word.strip() for word in given):
        raise ValidationError(f"{what} must be a list of names", hint="Each is a text.")
    return tuple(given)


def list_of(given: Sequence[T] | None, what: str) -> list[T]:
    """What was given as a list. Raises `ValidationError` for one thing alone, and for what is no list."""
    if given is None:
        return []
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes, BridgedToolsSpec)):
        raise ValidationError(f"{what} must be a list", hint=f"{what}=[…], with one in it, too.")
    return list(given)


def mapping_of(given: Mapping[str, T], what: str) -> Mapping[str, T]:
    """What was given by name. Raises `ValidationError`."""
    if not isinstance(given, Mapping):
        raise ValidationError(f"{what} must be a dict", hint=f"It is a {type(given).__name__}.")
    return given


def is_text(value: Any) -> TypeGuard[str]:
    """Whether this is a text that a command, a variable or a file can have."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False
    return True


def _unique(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValidationError(f"{what} have the name {', '.join(twice)} twice", hint="Each needs a name of its own.")
