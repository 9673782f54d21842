"""OpenCode as an agent of Inspect."""

from __future__ import annotations

from collections.abc import Sequence
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
    is_text,
    mcp_servers_of,
    model_name,
    skills_of,
)

_PROVIDERS = ("anthropic", "openai")


@agent
def opencode(
    name: str = "OpenCode",
    description: str = dedent("""
       Open-source autonomous coding agent for the terminal, capable
       of writing, testing, debugging, and iterating on code across
       multiple languages.
    """),
    system_prompt: str | None = None,
    skills: Sequence[str | Path | Skill] | None = None,
    mcp_servers: Sequence[MCPServerConfig] | None = None,
    bridged_tools: Sequence[BridgedToolsSpec | Tool] | None = None,
    centaur: bool | CentaurOptions = False,
    attempts: int | AgentAttempts = 1,
    model: str | None = None,
    model_aliases: dict[str, str | Model] | None = None,
    opencode_model: str = "anthropic/claude-sonnet-4-5",
    filter: GenerateFilter | None = None,  # noqa: A002 - Inspect's word
    retry_refusals: int | None = None,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    user: str | None = None,
    sandbox: str | None = None,
    version: Literal["auto", "sandbox", "stable", "latest"] | str = "auto",
    debug: bool | None = None,
    *,
    session_title: str | None = None,
) -> Agent:
    """OpenCode, working in the sample's sandbox with the evaluation's model.

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
        model_aliases: Other models by the name that it asks for (without the provider).
        opencode_model: The model that it believes to talk to, as `provider/model`; the provider (`anthropic` or
            `openai`) says which wire it speaks.
        filter: Sees each request to the model before it is made, and may answer or change it.
        retry_refusals: How often a refusal of the model is asked again; None for never.
        cwd: Its working folder (default: the sandbox's).
        env: Variables for it; they win over ours.
        user: Who runs it in the sandbox.
        sandbox: The sandbox's name, where the sample has several.
        version: `auto` (the sandbox's own, else the latest), `sandbox`, `stable`, `latest`, or a number.
        debug: Has it say more, and traces all of its output (`inspect trace`).
        session_title: The title of its session; with any title it asks no model for one.

    Raises `ValidationError` for options that cannot work.

    """
    row = cli("opencode")
    shown = checked_model(opencode_model)
    if session_title is not None and not is_text(session_title):
        raise ValidationError("session_title must be a text, or None", hint="session_title='a title'")
    options = {"session_title": session_title} if session_title else {}
    settings = Settings(
        row=row,
        identity=lambda _served: Identity(model=shown, options=options),
        system_prompt=system_prompt,
        skills=skills_of(skills),
        mcp_servers=mcp_servers_of(mcp_servers, row.title),
        bridged_tools=bridged_tools_of(bridged_tools),
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


def checked_model(opencode_model: str) -> str:
    """The model that it believes to talk to. Raises `ValidationError` for a provider that is not bridged."""
    shown = model_name(opencode_model, "opencode_model")
    provider, slash, rest = shown.partition("/")
    if provider not in _PROVIDERS or not slash or not rest:
        raise ValidationError(
            f"opencode_model: {shown!r} is not provider/model with a provider that is bridged",
            hint=f"The providers are {' and '.join(_PROVIDERS)}; any model can answer on their wires.",
        )
    return shown
