"""Codex CLI as an agent of Inspect."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Literal, get_args

from inspect_ai.agent import Agent, AgentAttempts, BridgedToolsSpec, agent, agent_with
from inspect_ai.model import GenerateFilter, Model
from inspect_ai.tool import MCPServerConfig, Skill, Tool

from computeragent.clis import CodexWebSearch, cli
from computeragent.errors import ValidationError
from computeragent.swe.agents.frame import run_agent
from computeragent.swe.agents.options import (
    CentaurOptions,
    Identity,
    Settings,
    attempts_of,
    bridged_tools_of,
    centaur_of,
    is_text,
    mapping_of,
    mcp_servers_of,
    model_name,
    skills_of,
    words_of,
)

_KEY = re.compile(r"[A-Za-z0-9_-]+(\.([A-Za-z0-9_-]+|\"[^\"=]+\"))*")
_OF_OPENAI = re.compile(r"gpt-|codex-|o\d")
_OURS = ("home", "model_provider", "web_search", "features.goals")


@agent
def codex_cli(  # noqa: PLR0917 - the parameters that users of Inspect know, in their order
    name: str = "Codex CLI",
    description: str = dedent("""
       Autonomous coding agent capable of writing, testing, debugging,
       and iterating on code across multiple languages.
    """),
    system_prompt: str | None = None,
    model_config: str | None = None,
    skills: Sequence[str | Path | Skill] | None = None,
    mcp_servers: Sequence[MCPServerConfig] | None = None,
    bridged_tools: Sequence[BridgedToolsSpec | Tool] | None = None,
    web_search: CodexWebSearch = "live",
    goals: bool = True,
    centaur: bool | CentaurOptions = False,
    attempts: int | AgentAttempts = 1,
    model: str | None = None,
    model_aliases: dict[str, str | Model] | None = None,
    filter: GenerateFilter | None = None,  # noqa: A002 - Inspect's word
    retry_refusals: int | None = None,
    home_dir: str | None = None,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    user: str | None = None,
    sandbox: str | None = None,
    version: Literal["auto", "sandbox", "latest"] | str = "auto",
    config_overrides: dict[str, str] | None = None,
    debug: bool | None = None,
    *,
    disallowed_tools: list[Literal["web_search"]] | None = None,
) -> Agent:
    """Codex CLI, working in the sample's sandbox with the evaluation's model.

    Args:
        name: What the agent is called in transcripts and among other agents.
        description: What it is for, when it is a tool of another agent.
        system_prompt: Added to its own system prompt, after the sample's system messages (as AGENTS.md).
        model_config: The model whose prompt and tools it uses (default: the one that answers, where it is OpenAI's).
        skills: Skills: folders with a SKILL.md, or `Skill`s.
        mcp_servers: Tool servers that it reaches from the sandbox.
        bridged_tools: Tools of Inspect that run on the host; plain tools are served as the server `tools`.
        web_search: `live`, `cached` or `disabled`.
        goals: Whether it has its tools for goals.
        centaur: A person works on the task, with it at hand in the terminal (`human_cli()`).
        attempts: How often it may try; between attempts the task's scorer judges, and its session goes on.
        model: The model that answers it (default: the evaluation's).
        model_aliases: Other models by the name that it asks for.
        filter: Sees each request to the model before it is made, and may answer or change it.
        retry_refusals: How often a refusal of the model is asked again; None for never.
        home_dir: Its CODEX_HOME: AGENTS.md, skills and configuration go there (default: `.codex` in its home).
        cwd: Its working folder (default: the sandbox's).
        env: Variables for it; they win over ours.
        user: Who runs it in the sandbox.
        sandbox: The sandbox's name, where the sample has several.
        version: `auto` (the sandbox's own, else the latest), `sandbox`, `latest`, or a number.
        config_overrides: More of its configuration, each as `-c key=value`.
        debug: Has it say more, and traces all of its output (`inspect trace`).
        disallowed_tools: `["web_search"]` is another way to say `web_search="disabled"`.

    Raises `ValidationError` for options that cannot work.

    """
    row = cli("codex_cli")
    if model_config is not None:
        model_name(model_config, "model_config")
    options, searches = options_of(web_search, goals, home_dir, config_overrides, disallowed_tools)
    settings = Settings(
        row=row,
        identity=partial(identity_of, config=model_config, options=options),
        system_prompt=system_prompt,
        skills=skills_of(skills),
        mcp_servers=mcp_servers_of(mcp_servers, row.title),
        bridged_tools=bridged_tools_of(bridged_tools),
        web_search=searches,
        centaur=centaur_of(centaur),
        attempts=attempts_of(attempts),
        model=model,
        model_aliases=model_aliases or {},
        filter=filter,
        retry_refusals=retry_refusals,
        cwd=cwd,
        env=env or {},
        user=user,
        sandbox=sandbox,
        version=version,
        debug=bool(debug),
    )
    return agent_with(run_agent(settings), name=name, description=description)


def identity_of(served: str, *, config: str | None, options: Mapping[str, str]) -> Identity:
    """Whom it believes to talk to."""
    # With a name that it does not know, Codex warns, and falls back to a prompt that is made for no model.
    known = served if _OF_OPENAI.match(served) else cli("codex_cli").model
    return Identity(model=config or known, options=options)


def options_of(
    web_search: CodexWebSearch,
    goals: bool,
    home_dir: str | None,
    config_overrides: Mapping[str, str] | None,
    disallowed_tools: Sequence[str] | None,
) -> tuple[Mapping[str, str], bool]:
    """Its settings in its own words, and whether it searches the web. Raises `ValidationError`."""
    if web_search not in get_args(CodexWebSearch):
        raise ValidationError(f"web_search: {web_search!r} is no mode", hint="Use live, cached or disabled.")
    denied = words_of(disallowed_tools, "disallowed_tools")
    if set(denied) - {"web_search"}:
        raise ValidationError(
            f"Codex cannot do without {', '.join(sorted(set(denied) - {'web_search'}))}",
            hint="Only web_search can be disallowed; config_overrides turns features off.",
        )
    search = "disabled" if denied else web_search
    if home_dir is not None and not (is_text(home_dir) and home_dir.strip()):
        raise ValidationError("home_dir must be a folder, or None", hint=f"It is {home_dir!r}.")
    overrides = mapping_of(config_overrides or {}, "config_overrides")
    for key, value in overrides.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key) or key in _OURS or not is_text(value):
            raise ValidationError(
                f"config_overrides: {key!r} is not a key with a text that can be set here",
                hint="Use dotted keys of Codex's config.toml; home_dir, web_search and goals have arguments.",
            )
    options = {
        "web_search": f'"{search}"',
        "features.goals": "true" if goals else "false",
        **overrides,
        **({"home": home_dir} if home_dir else {}),
    }
    return options, search != "disabled"
