"""Gemini CLI as an agent of Inspect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import Literal

from inspect_ai.agent import Agent, AgentAttempts, BridgedToolsSpec, agent, agent_with
from inspect_ai.model import GenerateFilter, Model
from inspect_ai.tool import MCPServerConfig, Skill, Tool

from computeragent.clis import cli
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
)

_SEARCH = "google_web_search"


@agent
def gemini_cli(
    name: str = "Gemini CLI",
    description: str = dedent("""
       Autonomous coding agent capable of writing, testing, debugging,
       and iterating on code across multiple languages.
    """),
    system_prompt: str | None = None,
    skills: Sequence[str | Path | Skill] | None = None,
    mcp_servers: Sequence[MCPServerConfig] | None = None,
    bridged_tools: Sequence[BridgedToolsSpec | Tool] | None = None,
    centaur: bool | CentaurOptions = False,
    attempts: int | AgentAttempts = 1,
    model: str | None = None,
    model_aliases: dict[str, str | Model] | None = None,
    gemini_model: str = "gemini-2.5-pro",
    filter: GenerateFilter | None = None,  # noqa: A002 - Inspect's word
    retry_refusals: int | None = None,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    user: str | None = None,
    sandbox: str | None = None,
    version: Literal["auto", "sandbox", "stable", "latest"] | str = "auto",
    debug: bool | None = None,
    *,
    web_search: bool = True,
) -> Agent:
    """Gemini CLI, working in the sample's sandbox with the evaluation's model.

    Args:
        name: What the agent is called in transcripts and among other agents.
        description: What it is for, when it is a tool of another agent.
        system_prompt: Comes before the prompt, after the sample's system messages: it has no other place for it.
        skills: Skills: folders with a SKILL.md, or `Skill`s.
        mcp_servers: Tool servers that it reaches from the sandbox.
        bridged_tools: Tools of Inspect that run on the host; plain tools are served as the server `tools`.
        centaur: A person works on the task, with it at hand in the terminal (`human_cli()`).
        attempts: How often it may try; between attempts the task's scorer judges, and its session goes on.
        model: The model that answers it (default: the evaluation's).
        model_aliases: Other models by the name that it asks for.
        gemini_model: The model that it believes to talk to; naming one turns its router off.
        filter: Sees each request to the model before it is made, and may answer or change it.
        retry_refusals: How often a refusal of the model is asked again; None for never.
        cwd: Its working folder (default: the sandbox's).
        env: Variables for it; they win over ours.
        user: Who runs it in the sandbox.
        sandbox: The sandbox's name, where the sample has several.
        version: `auto` (the sandbox's own, else the latest), `sandbox`, `stable`, `latest`, or a number.
        debug: Has it say more, and traces all of its output (`inspect trace`).
        web_search: Whether it has its tool for searching the web, which the model's provider does.

    Raises `ValidationError` for options that cannot work.

    """
    row = cli("gemini_cli")
    shown = model_name(gemini_model, "gemini_model")
    settings = Settings(
        row=row,
        identity=lambda _served: Identity(model=shown),
        system_prompt=system_prompt,
        skills=skills_of(skills),
        mcp_servers=mcp_servers_of(mcp_servers, row.title),
        bridged_tools=bridged_tools_of(bridged_tools),
        disallowed_tools=() if web_search else (_SEARCH,),
        web_search=web_search,
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
