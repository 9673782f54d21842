"""What a row of the table holds: a command line agent, how it is run, where it comes from. Data and pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

SandboxPlatform: TypeAlias = Literal["linux-x64", "linux-arm64", "linux-x64-musl", "linux-arm64-musl"]
"""Where a program is to run: Linux, a processor, and the C library where it is not glibc."""

CodexWebSearch: TypeAlias = Literal["live", "cached", "disabled"]
"""How Codex searches the web."""

EMPTY: Mapping[str, str] = MappingProxyType({})
ARGUMENT = 100_000
"""Bytes that a prompt may have as an argument."""


@dataclass(frozen=True, kw_only=True)
class McpServer:
    """A tool server: `command` with `args` and `env` (stdio), or `url` with `headers` (HTTP). Never both.

    `tools` names the ones to allow; None allows all of them. `required` has the agent wait for the server.
    """

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    tools: tuple[str, ...] | None = None
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Run:
    """One launch of an agent, the same words for all of them.

    `base_url` is where the model's server is, without a version path; `home` and `cwd` are absolute folders as the
    agent sees them. `session_id` names the session where an agent takes a name for it; with `resume` the run goes on
    with that session, or with the latest one of `cwd`. `allow` and `deny` are names of tools in the agent's own words.
    `system_prompt` is added to the agent's own. `options` are further settings, in the agent's own words.
    """

    prompt: str
    model: str
    base_url: str
    api_key: str
    home: str
    cwd: str
    system_prompt: str = ""
    session_id: str = ""
    resume: bool = False
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    mcp: tuple[McpServer, ...] = ()
    options: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    debug: bool = False

    @property
    def long(self) -> bool:
        """Whether the prompt is too long for an argument (128 KB): agents that read their input are given it there."""
        return len(self.text.encode()) > ARGUMENT

    @property
    def text(self) -> str:
        """The prompt, with the system prompt before it: for agents that have no other place for that."""
        first = self.system_prompt if not self.resume else ""
        return f"{first}\n\n{self.prompt}" if first else self.prompt


@dataclass(frozen=True, kw_only=True)
class Package:
    """Where a program comes from.

    `native` packages have a program for each platform: `platforms` names the package (`{version}` in it is replaced),
    `program` the path in it (`{triple}` too). `bundle` is JavaScript with its dependencies and a node of `node`.
    `wheels` is Python, in an environment of its own. `index` is the package whose versions count.
    """

    registry: Literal["npm", "pypi"]
    index: str
    kind: Literal["native", "bundle", "wheels"]
    program: str
    platforms: Mapping[SandboxPlatform, str] = field(default_factory=lambda: MappingProxyType({}))
    triples: Mapping[SandboxPlatform, str] = field(default_factory=lambda: MappingProxyType({}))
    node: str = ""
    also: tuple[str, ...] = ()
    """Packages that it needs, and does not say so."""
    stable: str = ""
    """The version that `stable` means, where the registry has no tag of that name and the newest is not meant."""


Environment: TypeAlias = Callable[[Run], Mapping[str, str]]


def _nothing(_run: Run) -> Mapping[str, str]:
    return EMPTY


@dataclass(frozen=True, kw_only=True)
class AcpTerms:
    """What puts an agent under terms: variables, files in its home, and what `session/new` takes as `_meta`."""

    environment: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    files: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    meta: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, kw_only=True)
class AcpForm:
    """How an agent speaks the Agent Client Protocol: by itself with `args`, or through `adapter`.

    `environment` is what only this form needs. `mode` is the mode to set so that nothing is asked, `asking_mode` the
    one in which it asks, where that is not the one it begins with. `asks` has it ask before every call; None: it has no
    such setting. `closed` has it ignore settings and hooks that lie in the working folder; None: nobody knows how.
    A system prompt is added by `system_prompt`, the `_meta` of `session/new`, or by a file in its home; `deny` is the
    `_meta` that takes tools from it, and `debug_args` have it say more.
    """

    args: tuple[str, ...] = ()
    adapter: Package | None = None
    mode: str = ""
    asking_mode: str = ""
    environment: Environment = _nothing
    asks: AcpTerms | None = None
    closed: AcpTerms | None = None
    system_prompt: Callable[[str], Mapping[str, Any]] | None = None
    system_prompt_file: str = ""
    deny: Callable[[tuple[str, ...]], Mapping[str, Any]] | None = None
    debug_args: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Exits:
    """What an agent's end means. `crash_when_silent`: exit 1 without a word on stderr is a crash, worth resuming.

    `chatter` is a pattern of lines on stderr that are no such word.
    """

    crash_when_silent: bool = False
    chatter: str = ""
    refuses_root: str = ""
    notes: tuple[str, ...] = ()


Arguments: TypeAlias = Callable[[Run], tuple[str, ...]]
Files: TypeAlias = Callable[[Run], Mapping[str, str]]
Folder: TypeAlias = Callable[[Run], str]
Text: TypeAlias = Callable[[Run], str]


def _no_text(_run: Run) -> str:
    return ""


def _as_it_is(text: str) -> str:
    return text


def _no_arguments(_run: Run) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Cli:
    """A command line agent.

    `arguments` are what follows the program, `given` its standard input, `environment` what is set over the caller's,
    `files` what must be written before (absolute path to text). `skills` is the folder for skills, from `{home}` or
    `{cwd}` or by a function of the run; empty: it has none. `interactive` are the arguments with which a person starts
    it in a terminal. Where what was submitted is not the model's last message, `answer_in` is the file that has it, and
    `answer` reads it from that file's text.
    `requires_servers`: it ends with an error when a tool server does not start; others go on without its tools, which
    have the server's name in theirs.
    `dialect` is the model wire it speaks, `shell_tool` and `shell_argument` what it calls its shell. `mcp` says which
    transports of tool servers it knows. `needs` are programs that must be on PATH.
    """

    name: str
    title: str
    program: str
    package: Package
    dialect: str
    model: str
    shell_tool: str
    arguments: Arguments
    environment: Environment
    files: Files
    shell_argument: str = "command"
    skills: str | Folder = ""
    given: Text = _no_text
    interactive: Arguments = _no_arguments
    answer_in: Text = _no_text
    answer: Callable[[str], str] = _as_it_is
    mcp: frozenset[Literal["stdio", "http"]] = frozenset(("stdio", "http"))
    requires_servers: bool = False
    system_prompt: Literal["flag", "file", "prompt"] = "prompt"
    denies_tools: bool = False
    resumes: Literal["id", "latest", "trajectory"] = "latest"
    acp: AcpForm | None = None
    needs: tuple[str, ...] = ()
    exits: Exits = Exits()

    def command(self, run: Run) -> tuple[str, ...]:
        """The whole command, the program's name first."""
        return (self.program, *self.arguments(run))

    def skills_folder(self, run: Run) -> str:
        """Where each skill is a folder with a SKILL.md; empty when there are no skills."""
        return self.skills.format(home=run.home, cwd=run.cwd) if isinstance(self.skills, str) else self.skills(run)


def npm_bundle(index: str, program: str, *, node: str = "22") -> Package:
    """A JavaScript program with its dependencies."""
    return Package(registry="npm", index=index, kind="bundle", program=program, node=node)
