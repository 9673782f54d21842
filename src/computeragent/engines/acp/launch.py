"""How an agent is launched: its program, its environment, its private home, and the terms that it runs under."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from computeragent import credentials
from computeragent.artifacts import fetch
from computeragent.clis import AcpForm, AcpTerms, Cli, McpServer, Run, cli
from computeragent.credentials import PROVIDERS, Key, Provider
from computeragent.engines.acp.options import Options, merged
from computeragent.engines.environment import of_host, redacted
from computeragent.errors import ComputerAgentError, EngineUnavailableError, ValidationError
from computeragent.logs import Logger
from computeragent.protocol_types import EngineContext

_PROVIDER_OF = {"anthropic": "anthropic", "openai_chat": "openai", "openai_responses": "openai", "gemini": "gemini"}
_NO_TERMS = AcpTerms()
_log = Logger("engine.acp")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One agent, ready to be started.

    `mode` is the session mode to set, empty: the one it begins with. `meta` is the `_meta` of `session/new`.
    `preface` goes before the first message: the system prompt of agents that have no other place for it. `asks` says
    that the agent asks before every call. `model` is empty where nobody has said.
    """

    title: str
    command: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str] = field(repr=False)
    servers: tuple[McpServer, ...] = field(default=(), repr=False)
    mode: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    preface: str = ""
    asks: bool = False
    model: str = ""

    @property
    def shown(self) -> str:
        """The command, for a person."""
        return self.redacted(shlex.join(self.command))

    def redacted(self, text: str) -> str:
        """A text without the secrets that the agent was given: keys, and what its tool servers are given."""
        text = redacted(text, self.environment)
        for server in self.servers:
            for value in (*server.env.values(), *server.headers.values()):
                text = text.replace(value, "***") if len(value) >= 6 else text
        return text


async def prepare(ctx: EngineContext, options: Options) -> Launch:
    """The launch of a run; fetches the program and writes the files of its home.

    Raises `UnknownCliError`, `EngineUnavailableError`, `ValidationError`, and what `artifacts.fetch` raises.
    """
    if options.command is not None:
        return _by_command(ctx, options, options.command)
    assert options.cli is not None
    row = cli(options.cli)
    if row.acp is None:
        raise ValidationError(
            f"{row.title} does not speak the Agent Client Protocol",
            hint="Choose another agent: gemini_cli, opencode, claude_code, codex_cli …",
        )
    terms, asks = _terms(ctx, options, row, row.acp)
    program = await asyncio.to_thread(_program, row, row.acp, options.version)
    provider, key, secret, base_url = _access(ctx, options, row)
    home = ctx.state_dir / "acp" / row.name
    run = Run(
        prompt="",
        model=options.model or row.model,
        base_url=base_url,
        api_key=secret,
        home=str(home),
        cwd=str(ctx.workspace_path),
        system_prompt=options.system_prompt,
    )
    files = dict(row.files(run)) | {str(home / path): text for each in terms for path, text in each.files.items()}
    if options.system_prompt and row.acp.system_prompt_file:
        files[str(home / row.acp.system_prompt_file)] = options.system_prompt + "\n"
    await asyncio.to_thread(_write, home, files, _passing(row.acp))
    own = dict(row.environment(run))
    for other in provider.keys:
        own.pop(other.variable, None)
    environment = (
        _without_providers({**of_host(), **ctx.envs}) | own | {key.variable: secret} | dict(row.acp.environment(run))
    )
    for each in terms:
        environment |= each.environment
    meta = merged(*(each.meta for each in terms))
    preface = ""
    if options.system_prompt and row.acp.system_prompt is not None:
        meta = merged(meta, row.acp.system_prompt(options.system_prompt))
    elif row.system_prompt != "file" and not row.acp.system_prompt_file:
        preface = options.system_prompt
    return Launch(
        title=row.title,
        command=(program, *row.acp.args),
        cwd=str(ctx.workspace_path),
        environment=environment,
        servers=options.servers,
        mode=row.acp.asking_mode if _asked(ctx, options) else row.acp.mode,
        meta=meta,
        preface=preface,
        asks=asks,
        model=run.model,
    )


def _by_command(ctx: EngineContext, options: Options, command: tuple[str, ...]) -> Launch:
    """A program that whoever owns it has set up: it gets the run's environment, and this process's home."""
    if ctx.strict:
        raise EngineUnavailableError(
            "nobody knows whether this command asks before every call, so no policy can hold it",
            hint="Name an agent of the table with cli=, or run it in your own process without a policy.",
        )
    program = shutil.which(command[0])
    if program is None:
        raise EngineUnavailableError(
            f"{command[0]!r} is not an executable file", hint="Mend options['command'], or install the program."
        )
    if options.model is not None:
        _log.warn("option_ignored", option="model", reason="the command's own settings choose its model")
    own = credentials.of_process() if ctx.library_mode else {}
    return Launch(
        title=Path(program).name,
        command=(program, *command[1:]),
        cwd=str(ctx.workspace_path),
        environment={**of_host(), **own, **ctx.envs},
        servers=options.servers,
        preface=options.system_prompt,
    )


def _asked(ctx: EngineContext, options: Options) -> bool:
    """Whether the agent asks: always, but where its owner bypasses it and no policy judges."""
    if options.permission_mode == "default":
        return True
    if ctx.strict:
        _log.warn("bypass_is_gated", hint="permission_mode bypassPermissions bypasses no policy")
    return ctx.strict


def _terms(ctx: EngineContext, options: Options, row: Cli, form: AcpForm) -> tuple[list[AcpTerms], bool]:
    """What puts the agent under the permission chain, and whether it then asks before every call."""
    if ctx.strict and form.asks is None:
        raise EngineUnavailableError(
            f"{row.title} runs some calls without asking, so no policy can hold it",
            hint="Use gemini_cli, opencode or claude_code; or run it in your own process without a policy.",
        )
    if not ctx.trusted and form.closed is None:
        raise EngineUnavailableError(
            f"{row.title} may be told what to do by settings in a source that is not yours",
            hint="Use gemini_cli, opencode or claude_code; or run it on a local folder of your own.",
        )
    terms: list[AcpTerms] = []
    asks = form.asks is not None and _asked(ctx, options)
    if asks:
        terms.append(form.asks or _NO_TERMS)
    if form.closed is not None and (ctx.strict or not ctx.trusted):
        terms.append(form.closed)
    return terms, asks


def _passing(form: AcpForm) -> list[str]:
    """The files of a home that are there for some runs alone."""
    terms = [each for each in (form.asks, form.closed) if each is not None]
    own = [form.system_prompt_file] if form.system_prompt_file else []
    return [*own, *(path for each in terms for path in each.files)]


def _program(row: Cli, form: AcpForm, version: str) -> str:
    """What is to be run: on PATH, or from its package. Blocks."""
    name = row.name if form.adapter is None else f"{row.name}_acp"
    word = row.program if form.adapter is None else form.adapter.program
    installed = shutil.which(word) if version in {"auto", "sandbox"} else None
    if installed is not None:
        return installed
    if version == "sandbox":
        raise EngineUnavailableError(
            f"{word} is not on PATH", hint="Install it, or use version auto, stable, latest or a number."
        )
    try:
        return str(fetch(name, version).program)
    except ComputerAgentError as error:
        raise EngineUnavailableError(f"{row.title} cannot be had: {error.message}", hint=error.hint) from error


def _access(ctx: EngineContext, options: Options, row: Cli) -> tuple[Provider, Key, str, str]:
    """The provider of the agent's model, how its key is called, the key, and where the provider is."""
    model = options.model or row.model
    named = {each.name: each for each in PROVIDERS}
    prefix = model.partition("/")[0] if "/" in model else ""
    provider = named.get(prefix) or named[_PROVIDER_OF[row.dialect]]
    envs = {**(credentials.of_process() if ctx.library_mode else {}), **ctx.envs}
    base_url = (envs.get(provider.base_url_variable) or provider.base_url).rstrip("/").removesuffix("/v1")
    for key in provider.keys:
        if value := envs.get(key.variable):
            return provider, key, value, base_url
    names = " or ".join(key.variable for key in provider.keys)
    raise EngineUnavailableError(
        f"no key for {row.title}'s model: {names} is not set",
        hint="Set it, or pass it in envs=; for one with a login of its own name the command.",
    )


def _without_providers(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without keys and addresses of providers: the agent gets the ones it needs, under its own names."""
    names = {name for each in PROVIDERS for name in (each.base_url_variable, *(key.variable for key in each.keys))}
    return {name: value for name, value in environment.items() if name not in names}


def _write(home: Path, files: Mapping[str, str], passing: list[str]) -> None:
    """Write the files of a home; `passing` ones of an earlier run are removed."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in passing:
        if str(home / name) not in files:
            (home / name).unlink(missing_ok=True)
    for path, text in files.items():
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
        file.write_text(text, "utf-8")
