"""What cannot work is refused when the agent is made, with what to do instead."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from inspect_ai.agent import AgentAttempts, BridgedToolsSpec
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentImage,
    ContentText,
)
from inspect_ai.tool import MCPServerConfigHTTP, MCPServerConfigStdio, Skill

from computeragent import swe
from computeragent.clis import CLIS
from computeragent.errors import ValidationError
from computeragent.swe.agents.claude_code import identity_of
from computeragent.swe.agents.options import mcp_servers_of
from computeragent.swe.agents.prompts import prompt_of

from .scenes import CLIS as AGENTS
from .scenes import agent_of, secret_word

COMMON = [
    "name",
    "description",
    "system_prompt",
    "skills",
    "mcp_servers",
    "bridged_tools",
    "centaur",
    "attempts",
    "model",
    "model_aliases",
    "filter",
    "retry_refusals",
    "cwd",
    "env",
    "user",
    "sandbox",
    "version",
    "debug",
]
OWN = {
    "claude_code": {
        "disallowed_tools": None,
        "model_config": None,
        "opus_model": None,
        "sonnet_model": None,
        "haiku_model": None,
        "subagent_model": None,
        "auto_mode": False,
        "retry_refusals": 3,
        "retry_uncaught_errors": 3,
        "version": "auto",
    },
    "codex_cli": {
        "model_config": None,
        "web_search": "live",
        "goals": True,
        "home_dir": None,
        "config_overrides": None,
        "disallowed_tools": None,
        "retry_refusals": None,
    },
    "gemini_cli": {"gemini_model": "gemini-2.5-pro", "retry_refusals": None},
    "opencode": {"opencode_model": "anthropic/claude-sonnet-4-5", "retry_refusals": None},
    "mini_swe_agent": {"compaction": None, "version": "stable"},
}
NAMES = {
    "claude_code": "Claude Code",
    "codex_cli": "Codex CLI",
    "gemini_cli": "Gemini CLI",
    "opencode": "OpenCode",
    "mini_swe_agent": "mini-swe-agent",
}


@pytest.mark.parametrize("name", AGENTS)
def test_parameters_and_defaults_are_the_ones_that_users_know(name: str):
    parameters = inspect.signature(getattr(swe, name)).parameters
    missing = {"skills", "mcp_servers", "bridged_tools"} if name == "mini_swe_agent" else set()
    assert set(COMMON) - missing <= set(parameters)
    for key, value in OWN[name].items():
        assert parameters[key].default == value, key
    assert parameters["name"].default == NAMES[name]
    assert parameters["attempts"].default == 1
    assert parameters["centaur"].default is False
    assert "\nand iterating" in parameters["description"].default or name in {"opencode", "mini_swe_agent"}


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("claude_code", {"version": "newest"}, "'newest' is not a version"),
        ("claude_code", {"version": "1.0;rm -rf"}, "is not a version"),
        ("claude_code", {"attempts": 0}, "at least 1"),
        ("claude_code", {"attempts": AgentAttempts(attempts=0)}, "at least 1"),
        ("claude_code", {"attempts": True}, "a number or AgentAttempts"),
        ("claude_code", {"attempts": "3"}, "a number or AgentAttempts"),
        ("claude_code", {"retry_refusals": -1}, "must not be negative"),
        ("claude_code", {"retry_uncaught_errors": -1}, "must not be negative"),
        ("claude_code", {"centaur": "yes"}, "bool or CentaurOptions"),
        ("claude_code", {"disallowed_tools": "WebSearch"}, "list of names"),
        ("claude_code", {"env": {"A=B": "x"}}, "is not a variable"),
        ("claude_code", {"env": {"A": 1}}, "is not a variable"),
        ("claude_code", {"cwd": ""}, "cwd must be a text"),
        ("claude_code", {"model": 3}, "model must be a text"),
        ("claude_code", {"auto_mode": True, "permission_mode": "plan"}, "say two things"),
        ("claude_code", {"permission_mode": "yolo"}, "no permission mode"),
        ("claude_code", {"replace_system_prompt": True}, "needs a system_prompt"),
        ("claude_code", {"bridged_tools": [BridgedToolsSpec(name="a b", tools=[])]}, "cannot name bridged tools"),
        ("claude_code", {"bridged_tools": [3]}, "is no tool"),
        ("claude_code", {"mcp_servers": [MCPServerConfigStdio(name="a.b", command="x")]}, "cannot name a tool server"),
        ("claude_code", {"mcp_servers": [{"name": "x"}]}, "is no tool server"),
        ("codex_cli", {"web_search": "sometimes"}, "is no mode"),
        ("codex_cli", {"disallowed_tools": ["shell"]}, "cannot do without shell"),
        ("codex_cli", {"config_overrides": {"a=b": "c"}}, "is not a key"),
        ("codex_cli", {"config_overrides": {"model_provider": "x"}}, "is not a key"),
        ("codex_cli", {"config_overrides": {"tools.view_image": False}}, "is not a key"),
        ("gemini_cli", {"gemini_model": "--yolo"}, "no model's name"),
        ("gemini_cli", {"gemini_model": " "}, "no model's name"),
        ("opencode", {"opencode_model": "claude"}, "not provider/model"),
        ("opencode", {"opencode_model": "google/gemini"}, "not provider/model"),
        ("mini_swe_agent", {"version": ""}, "is not a version"),
    ],
)
def test_what_cannot_work_is_refused_with_a_hint(name: str, options: dict, says: str):
    with pytest.raises(ValidationError, match=says) as caught:
        agent_of(name, **options)
    assert caught.value.hint


def test_a_superseded_transport_is_refused():
    server = MCPServerConfigHTTP(name="old", type="sse", url="http://127.0.0.1:1")
    with pytest.raises(ValidationError, match="sse"):
        agent_of("codex_cli", mcp_servers=[server])


def test_two_servers_of_one_name_are_refused():
    servers = [MCPServerConfigStdio(name="host", command="x")]
    with pytest.raises(ValidationError, match="host twice"):
        agent_of("gemini_cli", mcp_servers=servers, bridged_tools=[BridgedToolsSpec(name="host", tools=[])])


def test_plain_tools_are_one_server_called_tools():
    with pytest.raises(ValidationError, match="tools twice"):
        agent_of("claude_code", bridged_tools=[secret_word(), BridgedToolsSpec(name="tools", tools=[])])


def test_skills_are_read_when_the_agent_is_made(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for given in ([tmp_path / "none"], [str(tmp_path / "empty")]):
        with pytest.raises(ValidationError, match="skill cannot be read"):
            agent_of("opencode", skills=given)
    with pytest.raises(ValidationError, match="must be a list"):
        agent_of("opencode", skills=str(tmp_path))
    skill = Skill(name="knots", description="d", instructions="i")
    with pytest.raises(ValidationError, match="knots twice"):
        agent_of("opencode", skills=[skill, skill])


def test_a_server_that_has_a_folder_starts_there():
    server = MCPServerConfigStdio(name="x", command="serve", args=["--a b"], cwd="/data", env={"K": "v"}, tools=["one"])
    (made,) = mcp_servers_of([server], CLIS["claude_code"])
    assert made.command == "/bin/sh"
    assert made.args == ("-c", 'cd "$0" && exec "$@"', "/data", "serve", "--a b")
    assert (made.env, made.tools) == ({"K": "v"}, ("one",))


def test_each_role_of_claude_has_a_name_of_its_own_when_its_model_differs():
    roles = {"opus_model": "anthropic/claude-x", "haiku_model": "openai/gpt", "subagent_model": "azure/gpt"}
    identity = identity_of("claude-x", config=None, roles=roles, options={"a": "b"})
    assert identity.model == "claude-x"
    assert identity.options == {
        "a": "b",
        "opus_model": "claude-x-opus",
        "haiku_model": "gpt",
        "subagent_model": "gpt-subagent",
    }
    assert identity.aliases == {
        "claude-x-opus": "anthropic/claude-x",
        "gpt": "openai/gpt",
        "gpt-subagent": "azure/gpt",
    }
    assert identity_of("served", config="shown", roles={}, options={}).model == "shown"


def test_a_picture_is_not_lost_without_a_word():
    picture = ContentImage(image="data:image/png;base64,AA==")
    with pytest.raises(ValidationError, match="something else than text: image") as caught:
        prompt_of([ChatMessageUser(content=[ContentText(text="what is this?"), picture])])
    assert "files" in str(caught.value.hint)


def test_the_prompt_is_what_the_user_said_since_the_assistant_spoke():
    messages = [
        ChatMessageSystem(content="one"),
        ChatMessageUser(content="first"),
        ChatMessageAssistant(content="answer"),
        ChatMessageTool(content="result", function="look"),
        ChatMessageUser(content="second"),
        ChatMessageSystem(content="two"),
        ChatMessageUser(content="third"),
    ]
    prompt = prompt_of(messages, "mine")
    assert prompt.text == "second\n\nthird"
    assert prompt.system == "one\n\ntwo\n\nmine"
    assert "User: first\n\nAssistant: answer" in prompt.whole()
    assert prompt.whole().endswith("second\n\nthird")
    assert prompt_of(messages[:2]).whole() == "first"
    with pytest.raises(ValidationError, match="ends with the assistant's message"):
        prompt_of(messages[:3])
    with pytest.raises(ValidationError, match="asks for nothing"):
        prompt_of(messages[:1])
