"""What a policy's gate does to the options of a session: nothing without one, and no more than it says with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import ClaudeAgentOptions

from computeragent.claude.gated import gated
from computeragent.errors import ValidationError
from computeragent.policy import PolicyPrincipal, PolicyToolAuthorizer, RulesPolicyEngine

RULES = "version: 1\nrules: []\n"


def ann(context: object) -> PolicyPrincipal:
    return PolicyPrincipal("ann")


def options(**more: Any) -> ClaudeAgentOptions:
    authorizer = PolicyToolAuthorizer(engine=RulesPolicyEngine(text=RULES), principal_resolver=ann)
    return ClaudeAgentOptions(can_use_tool=authorizer, **more)


def settings_of(given: ClaudeAgentOptions) -> dict[str, Any]:
    guarded = gated(given)
    assert guarded is not None
    assert guarded.settings is not None
    return json.loads(guarded.settings)


async def plain(tool: str, tool_input: dict[str, Any], context: Any) -> Any:
    raise AssertionError


@pytest.mark.parametrize(
    "given", [None, ClaudeAgentOptions(), ClaudeAgentOptions(can_use_tool=plain)], ids=["none", "default", "callback"]
)
def test_without_an_authorizer_the_options_are_the_caller_s_own_object(given: ClaudeAgentOptions | None) -> None:
    assert gated(given) is given


def test_settings_are_found_where_the_cli_finds_them(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_bytes(b'\xef\xbb\xbf{"model": "sonnet"}')
    found = settings_of(options(cwd=tmp_path, settings="mine.json"))
    assert (found["model"], found["disableAllHooks"]) == ("sonnet", True)
    assert settings_of(options(cwd="/nowhere", settings=str(tmp_path / "mine.json"))) == found
    assert settings_of(options(cwd=tmp_path, settings=' {"model": "sonnet"} ')) == found


def test_settings_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="settings cannot be read"):
        gated(options(cwd=tmp_path, settings="gone.json"))
