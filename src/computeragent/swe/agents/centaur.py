"""A person works on the task, with the agent at hand in the terminal: Inspect's `human_cli()`."""

from __future__ import annotations

import shlex
from contextlib import nullcontext

from inspect_ai.agent import AgentState, human_cli
from inspect_ai.util import sandbox_default

from computeragent.clis import Run
from computeragent.swe.agents.options import CentaurOptions, Settings
from computeragent.swe.agents.places import Place


async def work_with_a_person(
    state: AgentState, settings: Settings, options: CentaurOptions, place: Place, program: str, run: Run
) -> AgentState:
    """Make the agent a command of the person's shell, talking to the bridged model; the person's answer."""
    row = settings.row
    await place.write(row.files(run))
    human = human_cli(
        answer=options.answer,
        intermediate_scoring=options.intermediate_scoring,
        record_session=options.record_session,
        user=settings.user,
        instructions=options.instructions,
        bashrc=_bashrc(settings, program, run),
    )
    with sandbox_default(settings.sandbox) if settings.sandbox else nullcontext():
        return await human(state)


def _bashrc(settings: Settings, program: str, run: Run) -> str:
    row = settings.row
    variables = {**row.environment(run), **settings.env}
    words = [f"{name}={value}" for name, value in variables.items()] + [program, *row.interactive(run)]
    command = " ".join(shlex.quote(word) for word in words)
    # A function: the person's own shell keeps its HOME and its variables.
    return f'{row.program}() {{\n  env {command} "$@"\n}}\ncd {shlex.quote(run.cwd)}\n'
