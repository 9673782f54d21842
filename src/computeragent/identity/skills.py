"""A GAP agent's skills as a Claude plugin, in the session's private folder: the workspace stays as it was."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from computeragent.errors import ComputerAgentError, NotFoundError
from computeragent.jail import MAX_DEPTH, Jail

_MAX_FILE = 8 * 1024 * 1024
_PLUGIN = "plugin"


@dataclass(frozen=True, slots=True)
class Plugin:
    """Where the plugin is (None: there are no skills), and what could not be copied."""

    path: Path | None
    notes: tuple[str, ...]


def build_plugin(jail: Jail, state_dir: Path, *, name: str, version: str, description: str | None) -> Plugin:
    """Copy ``skills/<name>/`` of every skill into a plugin under `state_dir`, replacing an earlier one."""
    try:
        found = [entry for entry in jail.tree("skills", depth=0) if not entry.path.startswith(".")]
    except NotFoundError:
        return Plugin(None, ())
    except ComputerAgentError as error:
        return Plugin(None, (f"skills/ is not read: {error.message}",))
    notes: list[str] = []
    state = Jail(state_dir)
    _clear(state)
    copied = 0
    for entry in found:
        folder = f"skills/{entry.path}"
        try:
            jail.read_bytes(f"{folder}/SKILL.md", limit=_MAX_FILE)
        except ComputerAgentError:
            notes.append(f"{folder} is not a skill: it has no readable SKILL.md")
            continue
        copied += 1
        notes += _copy_skill(jail, folder, state)
    if not copied:
        return Plugin(None, tuple(notes))
    about = {"name": _slug(name), "version": version, "description": description or f"The skills of {name}"}
    state.write_bytes(f"{_PLUGIN}/.claude-plugin/plugin.json", json.dumps(about).encode())
    return Plugin(state.root / _PLUGIN, tuple(notes))


def _copy_skill(jail: Jail, folder: str, state: Jail) -> list[str]:
    notes: list[str] = []
    for entry in jail.tree(folder, depth=MAX_DEPTH):
        if entry.type == "dir":
            continue
        path = f"{folder}/{entry.path}"
        try:
            data = jail.read_bytes(path, limit=_MAX_FILE)
        except ComputerAgentError as error:
            notes.append(f"{path} is not copied: {error.message}")
            continue
        executable = stat.S_ISREG(entry.mode) and bool(entry.mode & 0o100)
        state.write_bytes(f"{_PLUGIN}/{path}", data, mode=0o700 if executable else 0o600)
    return notes


def _clear(state: Jail) -> None:
    try:
        state.delete(_PLUGIN, recursive=True)
    except NotFoundError:
        return


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64] or "agent"
