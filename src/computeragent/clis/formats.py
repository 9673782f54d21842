"""How configuration is written: JSON, TOML and what several agents call a tool server alike."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from computeragent.clis.types import McpServer

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_json(value: Mapping[str, Any]) -> str:
    """JSON that a person can read."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def to_toml(value: Mapping[str, Any]) -> str:
    """TOML of strings, numbers, booleans, lists of those, and tables of all that. What is None is left out."""
    return "\n".join(_table(value, ())).strip() + "\n"


def _table(value: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines: list[str] = []
    scalars = {key: item for key, item in value.items() if item is not None and not isinstance(item, Mapping)}
    tables = {key: cast("Mapping[str, Any]", item) for key, item in value.items() if isinstance(item, Mapping)}
    if path and (scalars or not tables):
        lines.append(f"[{'.'.join(_key(part) for part in path)}]")
    lines += [f"{_key(key)} = {_scalar(item)}" for key, item in scalars.items()]
    if scalars or (path and not tables):
        lines.append("")
    for key, item in tables.items():
        lines += _table(item, (*path, key))
    return lines


def _key(text: str) -> str:
    return text if _BARE.fullmatch(text) else _string(text)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_scalar(item) for item in cast('list[Any]', value))}]"
    return _string(str(value))


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped as well.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def mcp_claude(server: McpServer) -> dict[str, Any]:
    """A tool server as Claude Code, Copilot and most others write it."""
    if server.url:
        return {"type": "http", "url": server.url, **_some(headers=dict(server.headers))}
    return {"type": "stdio", **_stdio(server)}


def mcp_gemini(server: McpServer) -> dict[str, Any]:
    """As Gemini CLI and Qwen Code write it: the transport is told by the key."""
    entry = {"httpUrl": server.url, **_some(headers=dict(server.headers))} if server.url else _stdio(server)
    return {**entry, "trust": True, "timeout": 300_000, **_some(includeTools=list(server.tools or ()))}


def mcp_opencode(server: McpServer) -> dict[str, Any]:
    """As OpenCode writes it: `remote`, or `local` with one list for the whole command."""
    if server.url:
        entry: dict[str, Any] = {"type": "remote", "url": server.url, **_some(headers=dict(server.headers))}
    else:
        command = [server.command, *server.args]
        entry = {"type": "local", "command": command, **_some(environment=dict(server.env))}
    return {**entry, "enabled": True}


def mcp_codex(server: McpServer) -> dict[str, Any]:
    """As Codex writes it, in TOML."""
    entry = {"url": server.url, **_some(http_headers=dict(server.headers))} if server.url else _stdio(server)
    enabled = None if server.tools is None else list(server.tools)
    waiting = {"required": server.required, "startup_timeout_sec": 300, "tool_timeout_sec": 86_400}
    return {**entry, **waiting, "enabled_tools": enabled}


def _stdio(server: McpServer) -> dict[str, Any]:
    return {"command": server.command, "args": list(server.args), **_some(env=dict(server.env))}


def _some(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
