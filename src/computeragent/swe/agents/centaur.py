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
    row, command = settings.row, f"{place.home}/.local/share/computeragent/{settings.row.program}"
    files = {**row.files(run), command: _command(settings, program, run)}
    if row.system_prompt == "prompt" and run.system_prompt and row.acp and row.acp.system_prompt_file:
        files[f"{place.home}/{row.acp.system_prompt_file}"] = f"{run.system_prompt}\n"  # the prompt is the person's
    await place.write(files)
    human = human_cli(
        answer=options.answer,
        intermediate_scoring=options.intermediate_scoring,
        record_session=options.record_session,
        user=settings.user,
        instructions=options.instructions,
        bashrc=_bashrc(row.program, command, run.cwd),
    )
    with sandbox_default(settings.sandbox) if settings.sandbox else nullcontext():
        return await human(state)


def _command(settings: Settings, program: str, run: Run) -> str:
    # A file of the person's: what Inspect is given is in its log, and arguments are for all to see.
    variables = {**settings.row.environment(run), **settings.env}
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    return f'{exports}exec {shlex.join((program, *settings.row.interactive(run)))} "$@"\n'


def _bashrc(name: str, command: str, cwd: str) -> str:
    # A function: the person's own shell keeps its HOME and its variables.
    return f'{name}() {{\n  /bin/sh {shlex.quote(command)} "$@"\n}}\ncd {shlex.quote(cwd)}\n'
