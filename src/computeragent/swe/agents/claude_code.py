"""Claude Code as an agent of Inspect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Literal

from inspect_ai.agent import Agent, AgentAttempts, BridgedToolsSpec, agent, agent_with
from inspect_ai.model import GenerateFilter, Model
from inspect_ai.tool import MCPServerConfig, Skill, Tool

from computeragent.clis import cli
from computeragent.errors import ValidationError
from computeragent.swe.agents.frame import run_agent
from computeragent.swe.agents.options import (
    CentaurOptions,
    Identity,
    Settings,
    attempts_of,
    bridged_tools_of,
    centaur_of,
    mcp_servers_of,
    model_name,
    skills_of,
    words_of,
)

_MODES = ("default", "acceptEdits", "plan", "auto", "dontAsk", "bypassPermissions")


@agent
def claude_code(  # noqa: PLR0917 - the parameters that users of Inspect know, in their order
    name: str = "Claude Code",
    description: str = dedent("""
       Autonomous coding agent capable of writing, testing, debugging,
       and iterating on code across multiple languages.
    """),
    system_prompt: str | None = None,
    skills: Sequence[str | Path | Skill] | None = None,
    mcp_servers: Sequence[MCPServerConfig] | None = None,
    bridged_tools: Sequence[BridgedToolsSpec | Tool] | None = None,
    disallowed_tools: list[str] | None = None,
    centaur: bool | CentaurOptions = False,
    attempts: int | AgentAttempts = 1,
    model: str | None = None,
    model_config: str | None = None,
    model_aliases: dict[str, str | Model] | None = None,
    opus_model: str | None = None,
    sonnet_model: str | None = None,
    haiku_model: str | None = None,
    subagent_model: str | None = None,
    filter: GenerateFilter | None = None,  # noqa: A002 - Inspect's word
    auto_mode: bool = False,
    retry_refusals: int | None = 3,
    retry_uncaught_errors: int | None = 3,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    user: str | None = None,
    sandbox: str | None = None,
    version: Literal["auto", "sandbox", "stable", "latest"] | str = "auto",
    debug: bool | None = None,
    *,
    permission_mode: str | None = None,
    replace_system_prompt: bool = False,
) -> Agent:
    """Claude Code, working in the sample's sandbox with the evaluation's model.

    Args:
        name: What the agent is called in transcripts and among other agents.
        description: What it is for, when it is a tool of another agent.
        system_prompt: Added to its own system prompt, after the sample's system messages.
        skills: Skills: folders with a SKILL.md, or `Skill`s.
        mcp_servers: Tool servers that it reaches from the sandbox.
        bridged_tools: Tools of Inspect that run on the host; plain tools are served as the server `tools`.
        disallowed_tools: Names of its tools that it must not have, such as `WebSearch`.
        centaur: A person works on the task, with it at hand in the terminal (`human_cli()`).
        attempts: How often it may try; between attempts the task's scorer judges, and its session goes on.
        model: The model that answers it (default: the evaluation's).
        model_config: The model that it believes to be (default: the one that answers).
        model_aliases: Other models by the name that it asks for.
        opus_model: Which model it gets for `opus` (default: `model`).
        sonnet_model: Which model it gets for `sonnet` (default: `model`).
        haiku_model: Which model it gets for `haiku` and background work (default: `model`).
        subagent_model: Which model its sub-agents get (default: `model`).
        filter: Sees each request to the model before it is made, and may answer or change it.
        auto_mode: Its permission mode `auto` instead of skipping permissions; calls may be refused.
        retry_refusals: How often a refusal of the model is asked again; None for never.
        retry_uncaught_errors: How often it is resumed after it ended with status 1 and not a word; None for never.
        cwd: Its working folder (default: the sandbox's).
        env: Variables for it; they win over ours.
        user: Who runs it in the sandbox.
        sandbox: The sandbox's name, where the sample has several.
        version: `auto` (the sandbox's own, else stable), `sandbox`, `stable`, `latest`, or a number.
        debug: Has it say more, and traces all of its output (`inspect trace`).
        permission_mode: One of its permission modes, instead of skipping permissions.
        replace_system_prompt: Whether `system_prompt` replaces its own system prompt.

    Raises `ValidationError` for options that cannot work.

    """
    row = cli("claude_code")
    if auto_mode and permission_mode not in {None, "auto"}:
        raise ValidationError("auto_mode and permission_mode say two things", hint="Give one of them.")
    mode = "auto" if auto_mode else permission_mode
    if mode is not None and mode not in _MODES:
        raise ValidationError(f"{mode!r} is no permission mode", hint=f"They are {', '.join(_MODES)}.")
    if replace_system_prompt and not system_prompt:
        raise ValidationError("replace_system_prompt needs a system_prompt", hint="Give one, or leave it out.")
    options = {
        **({"permission_mode": mode} if mode else {}),
        **({"system_prompt": "replace"} if replace_system_prompt else {}),
    }
    if model_config is not None:
        model_name(model_config, "model_config")
    roles = {
        "opus_model": opus_model,
        "sonnet_model": sonnet_model,
        "haiku_model": haiku_model,
        "subagent_model": subagent_model,
    }
    for role, given in roles.items():
        if given is not None and not isinstance(given, Model):
            model_name(given, role)
    denied = words_of(disallowed_tools, "disallowed_tools")
    settings = Settings(
        row=row,
        identity=partial(identity_of, config=model_config, roles=roles, options=options),
        system_prompt=system_prompt,
        skills=skills_of(skills),
        mcp_servers=mcp_servers_of(mcp_servers, row.title),
        bridged_tools=bridged_tools_of(bridged_tools),
        disallowed_tools=denied,
        web_search="WebSearch" not in denied,
        centaur=centaur_of(centaur),
        attempts=attempts_of(attempts),
        model=model,
        model_aliases=model_aliases or {},
        filter=filter,
        retry_refusals=retry_refusals,
        retry_uncaught_errors=retry_uncaught_errors,
        cwd=cwd,
        env=env or {},
        user=user,
        sandbox=sandbox,
        version=version,
        debug=bool(debug),
    )
    return agent_with(run_agent(settings), name=name, description=description)


def identity_of(
    served: str, *, config: str | None, roles: Mapping[str, str | Model | None], options: Mapping[str, str]
) -> Identity:
    """Whom it believes to talk to, with a name of its own for each role that another model has."""
    main = config or served
    names: dict[str, str] = {}
    aliases: dict[str, str | Model] = {}
    for role, model in roles.items():
        if model is None:
            continue
        shown = (model if isinstance(model, str) else model.name).rpartition("/")[2]
        if shown == main or aliases.get(shown, model) != model:
            shown = f"{shown}-{role.removesuffix('_model')}"  # the same name, and another model
        names[role], aliases[shown] = shown, model
    return Identity(model=main, options={**options, **names}, aliases=aliases)
