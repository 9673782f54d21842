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
        ("claude_code", {"disallowed_tools": "WebSearch"}, "disallowed_tools must be a list"),
        ("claude_code", {"env": {"A=B": "x"}}, "is not a variable"),
        ("claude_code", {"env": {"A": 1}}, "is not a variable"),
        ("claude_code", {"cwd": ""}, "cwd must be a text"),
        ("claude_code", {"cwd": "half \ud800"}, "cwd must be a text"),
        ("claude_code", {"version": 2.1}, "2.1 is not a version"),
        ("claude_code", {"retry_refusals": "3"}, "must not be negative, and a number"),
        ("claude_code", {"retry_uncaught_errors": 1.5}, "must not be negative, and a number"),
        ("claude_code", {"env": "A=B"}, "env must be a dict"),
        ("claude_code", {"env": {"HOME": "here"}}, "HOME must be a whole path"),
        ("claude_code", {"system_prompt": 3}, "system_prompt must be a text"),
        ("claude_code", {"system_prompt": "nul \0"}, "system_prompt must be a text"),
        ("claude_code", {"filter": "x"}, "filter must be a function"),
        ("claude_code", {"model_aliases": ["a"]}, "model_aliases must be a dict"),
        ("claude_code", {"model_aliases": {"a": 1}}, "does not name a model"),
        ("claude_code", {"model_config": "--help"}, "no model's name"),
        ("claude_code", {"haiku_model": 3}, "no model's name"),
        ("claude_code", {"skills": 3}, "skills must be a list"),
        ("claude_code", {"attempts": AgentAttempts(attempts=2, incorrect_message="")}, "incorrect_message must be"),
        ("claude_code", {"mcp_servers": MCPServerConfigStdio(name="a", command="x")}, "mcp_servers must be a list"),
        ("claude_code", {"bridged_tools": BridgedToolsSpec(name="a", tools=[])}, "bridged_tools must be a list"),
        ("codex_cli", {"bridged_tools": secret_word()}, "bridged_tools must be a list"),
        ("codex_cli", {"config_overrides": "a=b"}, "config_overrides must be a dict"),
        ("codex_cli", {"home_dir": " "}, "home_dir must be a folder"),
        ("codex_cli", {"model_config": "a b"}, "no model's name"),
        ("opencode", {"session_title": 3}, "session_title must be a text"),
        ("mini_swe_agent", {"centaur": True, "system_prompt": "x"}, "no system_prompt from a terminal"),
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


def test_what_is_no_tool_server_is_not_written_out():
    given = {"name": "x", "env": {"TOKEN": "s3cret-of-mine"}}
    with pytest.raises(ValidationError, match="a dict is no tool server") as caught:
        agent_of("claude_code", mcp_servers=[given])
    assert "s3cret" not in str(caught.value)


def test_what_no_command_can_carry_is_a_sign_that_it_was_there():
    messages = [
        ChatMessageUser(content="a\0b"),
        ChatMessageAssistant(content="\ud800!"),
        ChatMessageUser(content="c\0"),
    ]
    prompt = prompt_of(messages, "s\udfff")
    assert (prompt.text, prompt.system) == ("c\ufffd", "s\ufffd")
    assert "User: a\ufffdb\n\nAssistant: \ufffd!" in prompt.whole()


def test_of_what_was_said_before_only_the_new_is_told():
    messages = [
        ChatMessageUser(content="first"),
        ChatMessageAssistant(content="answer"),
        ChatMessageAssistant(content="a critic's words"),
        ChatMessageUser(content="second"),
    ]
    prompt = prompt_of(messages)
    seen = {message.id for message in messages[:2]}
    assert prompt.whole(seen) == (
        "What was said since:\n\nAssistant: a critic's words\n\nThe message to answer now:\n\nsecond"
    )
    assert prompt.whole({message.id for message in messages}) == "second"


def test_a_conversation_that_is_handed_off_asks_with_the_result_of_the_call():
    messages = [
        ChatMessageUser(content="first"),
        ChatMessageAssistant(content="to you"),
        ChatMessageTool(content="Successfully transferred", function="transfer"),
    ]
    prompt = prompt_of(messages)
    assert prompt.text == "Successfully transferred"
    assert "User: first\n\nAssistant: to you" in prompt.whole()


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
