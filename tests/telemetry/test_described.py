"""Credentials that an engine's options hold are known by value, wherever the options put them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import AgentDefinition

from computeragent.telemetry.described import credential_holders
from computeragent.telemetry.redaction import credentials_in

SECRET = "zq7-Kd9s8f7a6sd5f4-corp"
SERVERS = {"docs": {"url": "https://docs.example/mcp", "headers": {"Authorization": f"Bearer {SECRET}"}}}


def known(options: dict[str, Any]) -> set[str]:
    return {value for holder in credential_holders(options) for value in credentials_in(holder)}


@pytest.mark.parametrize(
    "options",
    [
        {"env": {"CORP_TOKEN": SECRET}},
        {"mcp_servers": SERVERS},
        {"mcp_servers": json.dumps({"mcpServers": SERVERS})},
        {"mcp_servers": {"docs": {"command": "docs", "env": {"CORP_TOKEN": SECRET}}}},
        {"mcp_servers": {"docs": {"command": "docs", "args": ["--api-key", SECRET]}}},
        {"mcp_servers": {"docs": {"command": "docs", "args": ["serve", f"--api-key={SECRET}"]}}},
        {"settings": json.dumps({"env": {"CORP_TOKEN": SECRET, "URL": "https://docs.example"}})},
        {"extra_args": {"mcp-config": json.dumps({"mcpServers": SERVERS})}},
        {"extra_args": {"api-key": SECRET}},
        {"agents": {"a": AgentDefinition(description="", prompt="", mcpServers=["b", SERVERS])}},
    ],
)
def test_credentials_are_found_in_every_option(options: dict[str, Any]) -> None:
    assert SECRET in known(options)


@pytest.mark.parametrize("name", ["mcp_servers", "settings"])
def test_credentials_are_found_in_files_that_options_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "given.json").write_text(json.dumps({"mcpServers": SERVERS, "env": {"CORP_TOKEN": SECRET}}))
    assert SECRET in known({name: str(tmp_path / "given.json")})
    assert SECRET in known({name: tmp_path / "given.json"})
    assert SECRET in known({name: "given.json", "cwd": str(tmp_path)})


@pytest.mark.parametrize(
    "odd", ["{" * 100_000, '{"a":' * 100_000, "/nowhere", "\0", 5, b"x", ["x"], "x" * 5000, {1: 2}]
)
def test_options_of_any_shape_break_nothing(odd: Any) -> None:
    for name in ("env", "mcp_servers", "extra_args", "settings", "agents", "cwd"):
        credential_holders({name: odd, "settings": odd})
