"""mini-swe-agent as an agent of Inspect."""

from __future__ import annotations

from textwrap import dedent
from typing import Literal

from inspect_ai.agent import Agent, AgentAttempts, agent, agent_with
from inspect_ai.model import CompactionStrategy, GenerateFilter, Model

from computeragent.clis import cli
from computeragent.errors import ValidationError
from computeragent.swe.agents.frame import run_agent
from computeragent.swe.agents.options import CentaurOptions, Identity, Settings, attempts_of, centaur_of


@agent
def mini_swe_agent(
    name: str = "mini-swe-agent",
    description: str = dedent("""
       Minimal AI agent that solves software engineering tasks using bash commands.
       100 lines of Python, radically simple, scores >74% on SWE-bench verified.
    """),
    system_prompt: str | None = None,
    centaur: bool | CentaurOptions = False,
    attempts: int | AgentAttempts = 1,
    model: str | None = None,
    model_aliases: dict[str, str | Model] | None = None,
    filter: GenerateFilter | None = None,  # noqa: A002 - Inspect's word
    retry_refusals: int | None = None,
    compaction: CompactionStrategy | None = None,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    user: str | None = None,
    sandbox: str | None = None,
    version: Literal["stable", "sandbox", "latest"] | str = "stable",
    debug: bool | None = None,
) -> Agent:
    """mini-swe-agent, working in the sample's sandbox with the evaluation's model; its one tool is a shell.

    Args:
        name: What the agent is called in transcripts and among other agents.
        description: What it is for, when it is a tool of another agent.
        system_prompt: Comes before the task, after the sample's system messages.
        centaur: A person works on the task, with it at hand in the terminal (`human_cli()`).
        attempts: How often it may try; between attempts the task's scorer judges, and its trajectory goes on.
        model: The model that answers it (default: the evaluation's).
        model_aliases: Other models by the name that it asks for, which is `inspect`.
        filter: Sees each request to the model before it is made, and may answer or change it.
        retry_refusals: How often a refusal of the model is asked again; None for never.
        compaction: How the conversation is made shorter when the model's window is full: it does not do so by itself.
        cwd: Its working folder (default: the sandbox's).
        env: Variables for it; they win over ours.
        user: Who runs it in the sandbox.
        sandbox: The sandbox's name, where the sample has several.
        version: `stable` (a version known to work), `sandbox`, `latest`, or a number; `auto` takes the sandbox's own.
        debug: Traces all of its output (`inspect trace`).

    Raises `ValidationError` for options that cannot work.

    """
    row = cli("mini_swe_agent")
    if centaur and system_prompt:
        hint = "Tell the person: centaur=CentaurOptions(instructions=...)."
        raise ValidationError("mini-swe-agent takes no system_prompt from a terminal", hint=hint)
    settings = Settings(
        row=row,
        identity=lambda _served: Identity(model=row.model),
        system_prompt=system_prompt,
        centaur=centaur_of(centaur),
        attempts=attempts_of(attempts),
        model=model,
        model_aliases=model_aliases or {},
        filter=filter,
        retry_refusals=retry_refusals,
        compaction=compaction,
        cwd=cwd,
        env=env or {},
        user=user,
        sandbox=sandbox,
        version=version,
        debug=bool(debug),
    )
    return agent_with(run_agent(settings), name=name, description=description)
