"""`GapIdentityLoader`: agents defined by agent.yaml, SOUL.md, RULES.md, AGENTS.md, skills/ and knowledge/."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from anyio import to_thread

from computeragent.errors import ComputerAgentError, IdentityError
from computeragent.identity.agent_yaml import AgentYaml
from computeragent.identity.passthrough import inline_options
from computeragent.identity.prompt import identity_block, knowledge, read_text, sections, stitched
from computeragent.identity.skills import build_plugin
from computeragent.jail import Jail
from computeragent.protocol_types import AgentManifest, IdentitySource

CLAUDE = "claude-agent-sdk"
_MODES = ("default", "acceptEdits", "plan", "dontAsk", "auto", "bypassPermissions")
_HUMAN = ("none", "destructive", "always")
_PROVIDER = re.compile(r"(?:anthropic|bedrock|vertex|foundry)[:/]")
_NOT_HONOURED = (
    ("model", "fallback"),
    ("runtime", "timeout"),
    ("compliance", "supervision", "kill_switch"),
    ("compliance", "supervision", "escalation_triggers"),
    ("compliance", "supervision", "escalation_recipients"),
    ("tools",),
    ("mcp_servers",),
    ("hooks",),
    ("agents",),
)
_FOLDERS = {"tools": "tools", "hooks": "hooks", "agents": "sub-agents", "workflows": "workflows"}


class GapIdentityLoader:
    """Reads an agent.yaml agent. Raises `IdentityError` where the file is missing or wrong, with the line."""

    async def load(
        self, *, source: IdentitySource, target_engine: str, workspace_path: Path, state_dir: Path, trusted: bool
    ) -> AgentManifest:
        """Read the agent in `workspace_path` for an engine; skills go into `state_dir`."""
        return await to_thread.run_sync(_load, source, target_engine, workspace_path, state_dir, trusted)


def _load(source: IdentitySource, engine: str, workspace: Path, state_dir: Path, trusted: bool) -> AgentManifest:
    jail = Jail(workspace)
    text = read_text(jail, "agent.yaml")
    if text is None:
        raise IdentityError(
            "agent.yaml not found in the agent's directory",
            hint="Add one with name and version, choose the agent's folder with subdir, or leave the loader out.",
        )
    agent = AgentYaml(text)
    agent.require_mapping()
    name = agent.required_text("name", "my-agent")
    version = agent.required_text("version", "0.1.0")
    description = agent.text("description")
    options = _options(agent, for_claude=engine == CLAUDE)
    known = knowledge(jail)
    notes = [*_unhonoured(agent, jail), *known.notes]
    texts = sections(jail, claude_md=not trusted and engine == CLAUDE)
    prompt = stitched([identity_block(name, version, description), *texts, known.section])
    if engine == CLAUDE:
        options["system_prompt"] = {"type": "preset", "preset": "claude_code", "append": prompt}
        plugin = build_plugin(jail, state_dir, name=name, version=version, description=description)
        if plugin.path is not None:
            options["plugins"] = [{"type": "local", "path": str(plugin.path)}]
        notes += plugin.notes
    else:
        options["system_prompt"] = prompt
        notes += [f"skills/ is not used by the engine {engine}"] if _names(jail, "skills") else []
    supervision = agent.choice("compliance", "supervision", "human_in_the_loop", among=_HUMAN)
    return AgentManifest(
        name=name,
        version=version,
        options=options | inline_options(source),
        harden=_hardening(supervision, for_claude=engine == CLAUDE),
        notes=tuple(notes),
    )


def _options(agent: AgentYaml, *, for_claude: bool) -> dict[str, Any]:
    """The engine options that agent.yaml sets. Everything is checked, also what this engine does not take."""
    model = agent.text("model", "preferred")
    general = {
        "model": _PROVIDER.sub("", model, count=1) if model and for_claude and _PROVIDER.match(model) else model,
        "max_turns": agent.positive_integer("runtime", "max_turns", example=20),
    }
    claude = {
        "max_budget_usd": agent.number("runtime", "budget_usd", example=1.5),
        "permission_mode": agent.choice("runtime", "permission_mode", among=_MODES),
        "allowed_tools": agent.texts("runtime", "allowed_tools"),
        "temperature": agent.number("model", "constraints", "temperature", example=0.2),
    }
    agent.positive_integer("runtime", "timeout", example=600)
    agent.flag("compliance", "supervision", "kill_switch")
    chosen = general | claude if for_claude else general
    return {key: value for key, value in chosen.items() if value is not None}


def _hardening(supervision: str | None, *, for_claude: bool) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What `human_in_the_loop` forbids callers to loosen: modes in which the engine would not ask."""
    if supervision not in {"destructive", "always"}:
        return _unchanged
    loose = {"bypassPermissions"} | ({"acceptEdits", "dontAsk", "auto"} if supervision == "always" else set[str]())

    def harden(options: dict[str, Any]) -> dict[str, Any]:
        hardened = dict(options)
        # An unset mode is set: the engine's settings files could choose a loose one.
        if hardened.get("permission_mode", "bypassPermissions" if for_claude else "default") in loose:
            hardened["permission_mode"] = "default"
        extra = hardened.get("extra_args")
        if isinstance(extra, Mapping):
            flags = {"dangerously-skip-permissions", "allow-dangerously-skip-permissions", "permission-mode"}
            kept = cast("Mapping[str, Any]", extra)
            hardened["extra_args"] = {key: value for key, value in kept.items() if key.lstrip("-") not in flags}
        return hardened

    return harden


def _unchanged(options: dict[str, Any]) -> dict[str, Any]:
    return options


def _unhonoured(agent: AgentYaml, jail: Jail) -> list[str]:
    """What the agent asks for and does not get here."""
    asked = [".".join(path) for path in _NOT_HONOURED if agent.get(*path)]
    constraints = agent.get("model", "constraints")
    if isinstance(constraints, Mapping):
        asked += [f"model.constraints.{key}" for key in cast("Mapping[str, Any]", constraints) if key != "temperature"]
    notes = [f"agent.yaml: {key} is not honoured" for key in asked]
    notes += [f"{folder}/ is not used: {what} of agents are not supported" for folder, what in _present(jail)]
    declared = agent.get("skills")
    if isinstance(declared, list):
        there = _names(jail, "skills")
        missing = [str(name) for name in cast("list[Any]", declared) if isinstance(name, str) and name not in there]
        notes += [f"agent.yaml: skill {name} is not in skills/" for name in missing]
    return notes


def _present(jail: Jail) -> list[tuple[str, str]]:
    return [(folder, what) for folder, what in _FOLDERS.items() if _names(jail, folder)]


def _names(jail: Jail, folder: str) -> list[str]:
    try:
        return [entry.path for entry in jail.tree(folder, depth=0) if not entry.path.startswith(".")]
    except ComputerAgentError:
        return []
