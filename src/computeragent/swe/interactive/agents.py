"""The interactive agents of the table: Claude Code, Codex, Gemini CLI and OpenCode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, ParamSpec, Unpack, cast

from inspect_ai.agent import agent
from inspect_ai.model import Model
from inspect_ai.tool import Skill, install_skills

from computeragent.clis import Cli, CodexWebSearch, Run, cli
from computeragent.engines.acp.options import merged
from computeragent.swe.agents.claude_code import identity_of
from computeragent.swe.agents.codex_cli import identity_of as codex_identity
from computeragent.swe.agents.codex_cli import options_of
from computeragent.swe.agents.frame import served_name
from computeragent.swe.agents.installing import program_in
from computeragent.swe.agents.opencode import checked_model
from computeragent.swe.agents.options import Identity, model_name, skills_of, words_of
from computeragent.swe.agents.places import Place
from computeragent.swe.bridge import Bridge
from computeragent.swe.interactive.agent import ACPAgent, ACPAgentParams, Program
from computeragent.swe.sandboxes.types import unwrapped

P = ParamSpec("P")


class TableAgent(ACPAgent):
    """An agent of the table. `identity` says whom it believes to talk to, by the name of the model that answers."""

    def __init__(
        self,
        row: Cli,
        identity: Callable[[str], Identity],
        *,
        skills: Sequence[str | Path | Skill] | None = None,
        deny: tuple[str, ...] = (),
        web_search: bool = False,
        version: str = "auto",
        debug: bool = False,
        **params: Unpack[ACPAgentParams],
    ) -> None:
        self.title = row.title
        self.web_search = web_search
        super().__init__(**params)
        self._row = row
        self._identity = identity
        self._skills = skills_of(skills)
        self._deny = deny
        self._version = version
        self._debug = debug

    def _aliases(self) -> Mapping[str, str | Model]:
        return self._identity(served_name(self._params.get("model"))).aliases

    async def _start_agent(self, bridge: Bridge, place: Place, system: str) -> Program:
        row, form = self._row, self._row.acp
        assert form is not None
        user = self._params.get("user")
        name = row.name if form.adapter is None else f"{row.name}_acp"
        program = await program_in(place.sandbox, name, self._version, user=user)
        identity = self._identity(served_name(self._params.get("model")))
        run = Run(
            prompt="",
            model=identity.model,
            base_url=bridge.base_url,
            api_key=bridge.api_key,
            home=place.home,
            cwd=place.cwd,
            system_prompt=system,
            deny=self._deny,
            options=identity.options,
            debug=self._debug,
        )
        if self._skills:
            folder = row.skills_folder(run)
            await place.sh('mkdir -p -- "$1"', folder)
            await install_skills(self._skills, unwrapped(place.sandbox), user, folder)
        files = dict(row.files(run))
        if system and form.system_prompt_file:
            files[f"{run.home}/{form.system_prompt_file}"] = system + "\n"
        return Program(
            command=(program, *form.args, *(form.debug_args if self._debug else ())),
            env={**row.environment(run), **form.environment(run)},
            files=files,
            mode=form.mode,
            meta=merged(
                form.system_prompt(system) if system and form.system_prompt is not None else {},
                form.deny(self._deny) if self._deny and form.deny is not None else {},
            ),
        )


def _interactive(make: Callable[P, ACPAgent]) -> Callable[P, ACPAgent]:
    """Registered with Inspect, so that transcripts have its name; and still what it is."""
    return cast("Callable[P, ACPAgent]", agent(make))


@_interactive
def interactive_claude_code(
    *,
    disallowed_tools: list[str] | None = None,
    skills: Sequence[str | Path | Skill] | None = None,
    opus_model: str | Model | None = None,
    sonnet_model: str | Model | None = None,
    haiku_model: str | Model | None = None,
    subagent_model: str | Model | None = None,
    version: Literal["auto", "sandbox", "stable", "latest"] | str = "auto",
    **params: Unpack[ACPAgentParams],
) -> ACPAgent:
    """Claude Code, led prompt by prompt; see `ACPAgent`, and `ACPAgentParams` for what else it takes.

    Args:
        disallowed_tools: Tools that it must not have, by its own names.
        skills: Skills: folders with a SKILL.md, or `Skill`s.
        opus_model: The model for `opus`.
        sonnet_model: The model for `sonnet`.
        haiku_model: The model for `haiku`, and for what it does in the background.
        subagent_model: The model for its sub-agents.
        version: Of its adapter: `auto` (the sandbox's own, else stable), `sandbox`, `stable`, `latest`, or a number.
        params: See `ACPAgentParams`.

    Raises `ValidationError` for options that cannot work.

    """
    roles = {
        "opus_model": opus_model,
        "sonnet_model": sonnet_model,
        "haiku_model": haiku_model,
        "subagent_model": subagent_model,
    }
    denied = words_of(disallowed_tools, "disallowed_tools")
    return TableAgent(
        cli("claude_code"),
        partial(identity_of, config=None, roles=roles, options={}),
        skills=skills,
        deny=denied,
        web_search="WebSearch" not in denied,
        version=version,
        **params,
    )


@_interactive
def interactive_codex_cli(
    *,
    web_search: CodexWebSearch = "live",
    goals: bool = True,
    skills: Sequence[str | Path | Skill] | None = None,
    home_dir: str | None = None,
    config_overrides: dict[str, str] | None = None,
    disallowed_tools: list[Literal["web_search"]] | None = None,
    version: Literal["auto", "sandbox", "stable", "latest"] | str = "auto",
    **params: Unpack[ACPAgentParams],
) -> ACPAgent:
    """Codex CLI, led prompt by prompt; see `ACPAgent`, and `ACPAgentParams` for what else it takes.

    Args:
        web_search: `live`, `cached` or `disabled`.
        goals: Whether it has its tools for goals.
        skills: Skills: folders with a SKILL.md, or `Skill`s.
        home_dir: Its CODEX_HOME in the sandbox.
        config_overrides: More of its configuration, as in its config.toml.
        disallowed_tools: `["web_search"]` is another way to say `web_search="disabled"`.
        version: Of its adapter: `auto` (the sandbox's own, else stable), `sandbox`, `stable`, `latest`, or a number.
        params: See `ACPAgentParams`.

    Raises `ValidationError` for options that cannot work.

    """
    options, searches = options_of(web_search, goals, home_dir, config_overrides, disallowed_tools)
    return TableAgent(
        cli("codex_cli"),
        partial(codex_identity, config=None, options=options),
        skills=skills,
        web_search=searches,
        version=version,
        **params,
    )


@_interactive
def interactive_gemini_cli(
    *,
    skills: Sequence[str | Path | Skill] | None = None,
    version: Literal["auto", "sandbox", "stable", "latest"] | str = "auto",
    debug: bool = False,
    gemini_model: str = "gemini-2.5-pro",
    **params: Unpack[ACPAgentParams],
) -> ACPAgent:
    """Gemini CLI, led prompt by prompt; see `ACPAgent`, and `ACPAgentParams` for what else it takes.

    Args:
        skills: Skills: folders with a SKILL.md, or `Skill`s.
        version: `auto` (the sandbox's own, else stable), `sandbox`, `stable`, `latest`, or a number.
        debug: Has it write what it does into `gemini-debug.log` in its home in the sandbox.
        gemini_model: The model that it believes to talk to.
        params: See `ACPAgentParams`.

    Raises `ValidationError` for options that cannot work.

    """
    shown = model_name(gemini_model, "gemini_model")
    return TableAgent(
        cli("gemini_cli"),
        lambda _served: Identity(model=shown),
        skills=skills,
        web_search=True,
        version=version,
        debug=debug,
        **params,
    )


@_interactive
def interactive_opencode(
    *,
    skills: Sequence[str | Path | Skill] | None = None,
    version: Literal["auto", "sandbox", "stable", "latest"] | str = "auto",
    opencode_model: str = "anthropic/claude-sonnet-4-5",
    **params: Unpack[ACPAgentParams],
) -> ACPAgent:
    """OpenCode, led prompt by prompt; see `ACPAgent`, and `ACPAgentParams` for what else it takes.

    Args:
        skills: Skills: folders with a SKILL.md, or `Skill`s.
        version: `auto` (the sandbox's own, else stable), `sandbox`, `stable`, `latest`, or a number.
        opencode_model: The model that it believes to talk to, as `provider/model`.
        params: See `ACPAgentParams`.

    Raises `ValidationError` for options that cannot work.

    """
    shown = checked_model(opencode_model)
    return TableAgent(cli("opencode"), lambda _served: Identity(model=shown), skills=skills, version=version, **params)
