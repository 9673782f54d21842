"""The frame that all agents run in: prompt, place, program, bridge, and then the work.

What differs between agents is in their rows (`computeragent.clis`) and in their `Settings`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from inspect_ai.agent import Agent, AgentState
from inspect_ai.model import Model
from inspect_ai.tool import install_skills
from inspect_ai.util import sandbox as sandbox_environment

from computeragent.clis import Run
from computeragent.errors import CliFailedError, ComputerAgentError
from computeragent.swe.agents.centaur import work_with_a_person
from computeragent.swe.agents.installing import program_in
from computeragent.swe.agents.options import Settings
from computeragent.swe.agents.places import place_of
from computeragent.swe.agents.prompts import prompt_of
from computeragent.swe.agents.working import Session, Work
from computeragent.swe.bridge import agent_bridge
from computeragent.swe.bridge.models import Models
from computeragent.swe.sandboxes.types import unwrapped
from computeragent.telemetry.redaction import SECRETS, Redactor

READY = 120.0
"""Seconds in which the bridge's tool servers must answer."""


def run_agent(settings: Settings) -> Agent:
    """The agent."""

    async def execute(state: AgentState) -> AgentState:
        with no_timeout_passes(settings.row.title):
            return await _execute(state, settings)

    return execute


@contextmanager
def no_timeout_passes(title: str) -> Generator[None]:
    """What fails in the block ends the sample as an error: a `TimeoutError` too, and with its remedy in the log."""
    try:
        yield
    except ComputerAgentError as error:
        raise _with_remedy(error)  # noqa: B904 - it is the error itself
    except TimeoutError as error:
        # Inspect takes a TimeoutError that ends a solver for its own time limit, and the sample for a success.
        failed = CliFailedError(
            f"{title}: the sandbox or its tool servers did not answer in time: {error}",
            hint="Look at the load of the machine, and at the sandbox.",
        )
        raise _with_remedy(failed) from error


def _with_remedy(error: ComputerAgentError) -> ComputerAgentError:
    # Inspect's log has an exception's text alone, and what an engine or a program says may have a key in it.
    error.message = Redactor(detectors=SECRETS).redact_text(error.message)
    if error.hint:
        error.message = f"{error.message}\nhint: {error.hint}"
    error.args = (error.message,)
    return error


async def _execute(state: AgentState, settings: Settings) -> AgentState:
    prompt = prompt_of(state.messages, settings.system_prompt)
    row, sandbox = settings.row, sandbox_environment(settings.sandbox)
    place = await place_of(sandbox, user=settings.user, cwd=settings.cwd, home=settings.env.get("HOME"))
    program = await program_in(
        place.sandbox, row.name, settings.version, user=settings.user, path=settings.env.get("PATH")
    )
    identity = settings.identity(served_name(settings.model))
    session = Session(f"computeragent:{row.name}:{settings.sandbox or 'default'}:{place.home}:{place.cwd}")
    resume = bool(prompt.before and session.known)
    asked = prompt.whole(session.seen) if resume else prompt.whole()
    if resume and row.system_prompt == "prompt" and prompt.system not in {"", session.system}:
        asked = f"{prompt.system}\n\n{asked}"  # it has begun with another one
    session.tell(prompt.system, state.messages)
    async with agent_bridge(
        state,
        sandbox=sandbox,
        model=settings.model,
        model_aliases={**identity.aliases, **settings.model_aliases},
        filter=settings.filter,
        retry_refusals=settings.retry_refusals,
        compaction=settings.compaction,
        bridged_tools=settings.bridged_tools,
        web_search=settings.web_search,
        sandbox_name=settings.sandbox,
    ) as bridge:
        run = Run(
            prompt=asked,
            model=identity.model,
            base_url=bridge.base_url,
            api_key=bridge.api_key,
            home=place.home,
            cwd=place.cwd,
            system_prompt=prompt.system,
            session_id=session.begin(resume=resume) if row.resumes == "id" else "",
            resume=resume,
            deny=settings.disallowed_tools,
            mcp=(*settings.mcp_servers, *bridge.mcp_servers),
            options=identity.options,
            debug=settings.debug,
        )
        if settings.skills:
            folder = row.skills_folder(run)
            await place.sh('mkdir -p -- "$1"', folder)
            await install_skills(settings.skills, unwrapped(place.sandbox), settings.user, folder)
        await bridge.ready(READY)
        if settings.centaur is not None:
            return await work_with_a_person(state, settings, settings.centaur, place, program, run)
        await Work(settings=settings, place=place, program=program, bridge=bridge, session=session).attempts(run)
        return bridge.state


def served_name(model: str | Model | None) -> str:
    """The name of the model that answers, without its provider."""
    served = Models(model, None).choose("").name
    return served.rpartition("/")[2] or served
