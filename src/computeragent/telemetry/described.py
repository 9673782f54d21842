"""What telemetry takes from an engine's options: the ones worth telling, and those that may hold credentials."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

_TOLD = ("model", "permission_mode", "allowed_tools", "disallowed_tools", "max_turns", "max_budget_usd")
_HOLDERS = ("env", "mcp_servers", "extra_args", "settings")
_LARGEST_FILE = 1024 * 1024
_DEEPEST = 16
_ATTEMPTS = 3


def described(options: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``session_started`` that options say: names as upstream's, absent where they say nothing."""
    payload: dict[str, Any] = {}
    for name in _TOLD:
        value = options.get(name)
        if value is not None:
            payload[name] = list(cast("list[Any]", value)) if isinstance(value, (list, tuple)) else value
    system = options.get("system_prompt")
    if isinstance(system, Mapping):
        system = cast("Mapping[str, Any]", system).get("append")
    if isinstance(system, str) and system:
        payload["system_prompt"] = system
    if isinstance(options.get("cwd"), (str, os.PathLike)):
        payload["cwd"] = os.fspath(options["cwd"])
    folders = options.get("add_dirs")
    if folders and isinstance(folders, (list, tuple)):
        payload["add_dirs"] = [str(folder) for folder in cast("list[Any]", folders)]
    return payload


def credential_holders(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Copies of the settings that may hold credentials: environments, MCP servers, settings, in files as well."""
    holders: list[Mapping[str, Any]] = [_environment()]
    folder = options.get("cwd")
    for name in _HOLDERS:
        value = _unpacked(options.get(name), folder)
        if isinstance(value, Mapping):
            given = dict(cast("Mapping[str, Any]", value))
            holders.append(given)
            holders += _of_commands(given)
            if name == "extra_args":
                unpacked = (_unpacked(item, folder) for item in given.values())
                holders += [cast("Mapping[str, Any]", item) for item in unpacked if isinstance(item, Mapping)]
    agents = options.get("agents")
    if isinstance(agents, Mapping):
        for agent in cast("Mapping[str, Any]", agents).values():
            servers = getattr(agent, "mcpServers", None)
            if servers:
                holders.append({"mcpServers": servers})
    return holders


def _environment() -> dict[str, str]:
    for _ in range(_ATTEMPTS):
        with suppress(RuntimeError):  # another thread has just changed it
            return dict(os.environ)
    return {}


def _unpacked(value: Any, folder: Any) -> Any:
    """What an option says that may be given as an object, as JSON or as the name of a file of JSON."""
    if not isinstance(value, (str, os.PathLike)):
        return value
    text = os.fspath(cast("str", value))
    try:
        if not text.lstrip().startswith("{"):
            file = Path(folder or ".", text)
            if not file.is_file() or file.stat().st_size > _LARGEST_FILE:
                return None
            text = file.read_text()
        return json.loads(text)
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _of_commands(value: Any, depth: int = 0) -> list[Mapping[str, Any]]:
    """What the command lines of MCP servers give by name, such as ``--api-key``."""
    if depth > _DEEPEST or not isinstance(value, Mapping):
        return []
    found: list[Mapping[str, Any]] = []
    for key, item in cast("Mapping[Any, Any]", value).items():
        if key == "args" and isinstance(item, (list, tuple)):
            words = [str(word) for word in cast("list[Any]", item)]
            for word, after in zip(words, [*words[1:], ""], strict=True):
                name, given, said = word.partition("=")
                if name.startswith("-"):
                    found.append({name.lstrip("-"): said if given else after})
        else:
            found += _of_commands(item, depth + 1)
    return found
