"""The engine's options: read once per run, every name and value checked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct

from computeragent.clis import McpServer
from computeragent.errors import UnknownOptionError, ValidationError
from computeragent.logs import Logger

_IGNORED = frozenset({"max_turns"})  # what agent.yaml may say, and this protocol has no word for
_log = Logger("engine.acp")


class Server(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool server: `command` with `args` and `env`, or `url` with `headers`."""

    type: Literal["stdio", "http"] | None = None
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    url: str = ""
    headers: dict[str, str] = {}


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the engine `acp`.

    Attributes:
        cli: An agent of the table (``gemini_cli``, ``opencode``, ``claude_code``, ``codex_cli`` …): its program is
            fetched, its home is private, its model's address and key are the run's.
        command: Instead of `cli`: a program that speaks the protocol, with its arguments, set up by whoever owns it.
        version: Which version of `cli`: ``auto`` (the one on PATH, else the stable one), ``sandbox`` (the one on
            PATH), ``stable``, ``latest``, a number.
        model: The model's name, as the agent knows it. Default: the agent's row of the table.
        permission_mode: ``default`` asks before every call; ``bypassPermissions`` sets the agent's own mode that does
            not ask, unless a policy judges.
        system_prompt: Added to the agent's own.
        mcp_servers: Tool servers by name, such as ``{"docs": {"command": "docs-mcp"}}`` or ``{"web": {"url": "http://…"}}``.
        include_partial_messages: Tell text as it is written.
        start_timeout: Seconds that the agent may take until it answers for the first time.

    """

    cli: str | None = None
    command: tuple[str, ...] | None = None
    version: str = "auto"
    model: str | None = None
    permission_mode: Literal["default", "bypassPermissions"] = "default"
    system_prompt: str = ""
    mcp_servers: dict[str, Server] = {}
    include_partial_messages: bool = True
    start_timeout: Annotated[float, Meta(gt=0)] = 60.0

    @property
    def servers(self) -> tuple[McpServer, ...]:
        """The tool servers, as the table of agents has them."""
        return tuple(
            McpServer(name=name, command=each.command, args=each.args, env=each.env, url=each.url, headers=each.headers)
            for name, each in self.mcp_servers.items()
        )


def read_options(given: Mapping[str, Any]) -> Options:
    """The options of a run.

    Raises `UnknownOptionError` for a name that there is not, and `ValidationError` for a value that is none.
    """
    known = {field.name for field in msgspec.structs.fields(Options)}
    chosen: dict[str, Any] = {}
    for name, value in given.items():
        if name in _IGNORED:
            _log.warn("option_ignored", option=name, reason="the Agent Client Protocol has no such setting")
            continue
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f'Did you mean "{close[0]}"?' if close else f"Options are: {', '.join(sorted(known))}."
            raise UnknownOptionError(f"engine acp has no option {name!r}", hint=hint)
        chosen[name] = value
    if isinstance(chosen.get("command"), str):
        chosen["command"] = (chosen["command"],)
    try:
        options = msgspec.convert(chosen, Options)
    except msgspec.ValidationError as error:
        raise ValidationError(f"options of engine acp: {error}", hint="Mend options=.") from None
    if (options.cli is None) == (options.command is None):
        raise ValidationError(
            "engine acp needs to know its agent: cli or command, one of them",
            hint='Such as options={"cli": "gemini_cli"}, or {"command": ["my-agent", "--acp"]}.',
        )
    if options.command is not None and not all(options.command or ("",)):
        raise ValidationError("options of engine acp: command is empty", hint='Such as ["my-agent", "--acp"].')
    for name, server in options.mcp_servers.items():
        if bool(server.command) == bool(server.url):
            raise ValidationError(
                f"options of engine acp: tool server {name!r} needs a command or a url, one of them",
                hint='Such as {"command": "docs-mcp", "args": []}, or {"url": "http://127.0.0.1:8000/mcp"}.',
            )
    return options


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings laid over one another, the ones in them too; what comes later wins."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            below = result.get(key)
            both = isinstance(below, Mapping) and isinstance(value, Mapping)
            result[key] = merged(cast("Json", below), cast("Json", value)) if both else value
    return result


Json = Mapping[str, Any]
