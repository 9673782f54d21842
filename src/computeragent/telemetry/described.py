"""What telemetry takes from an engine's options: the ones worth telling, and those that may hold credentials."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, cast

_TOLD = ("model", "permission_mode", "allowed_tools", "disallowed_tools", "max_turns", "max_budget_usd")
_HOLDERS = ("env", "mcp_servers", "extra_args", "settings")


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
    """Copies of the settings that may hold credentials: environments, MCP servers, inline settings."""
    holders: list[Mapping[str, Any]] = [dict(os.environ)]
    for name in _HOLDERS:
        value = options.get(name)
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                value = json.loads(value)
            except ValueError:
                continue
        if isinstance(value, Mapping):
            holders.append(dict(cast("Mapping[str, Any]", value)))
    return holders
