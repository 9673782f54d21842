"""Every row says the same in its agent's words: arguments, variables, files."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from computeragent.clis import CLIS, Cli, McpServer, Run, cli
from computeragent.clis.formats import to_toml
from computeragent.errors import UnknownCliError

SERVERS = (
    McpServer(name="files", command="/bin/files", args=("--root", "/x y"), env={"TOKEN": "s3cret-env"}),
    McpServer(
        name="web", url="http://127.0.0.1:1/mcp", headers={"Authorization": "Bearer s3cret-header"}, tools=("look",)
    ),
)


def run_of(row: Cli, **more) -> Run:
    defaults = {
        "prompt": "do it",
        "model": row.model,
        "base_url": "http://127.0.0.1:1",
        "api_key": "s3cret-key",
        "home": "/h",
        "cwd": "/w",
    }
    return Run(**{**defaults, **more})


@pytest.fixture(params=list(CLIS))
def row(request: pytest.FixtureRequest) -> Cli:
    return CLIS[request.param]


def test_the_model_is_reached_where_it_is_said(row: Cli):
    run = run_of(row)
    told = json.dumps([dict(row.environment(run)), dict(row.files(run))])
    assert "http://127.0.0.1:1" in told
    assert "s3cret-key" in told
    assert row.environment(run)["HOME"] == "/h"


def test_no_secret_is_on_the_command_line_and_all_files_are_at_home(row: Cli):
    run = run_of(row, mcp=SERVERS, system_prompt="be brief")
    assert "s3cret" not in " ".join(row.command(run))
    assert all(path.startswith("/h/") and ".." not in path for path in row.files(run))
    assert all(
        "s3cret" not in value or name.endswith("KEY") or "TOKEN" in name for name, value in row.environment(run).items()
    )


def test_tool_servers_are_told_to_agents_that_know_them(row: Cli):
    told = " ".join(row.files(run_of(row, mcp=SERVERS)).values())
    for text in ("/bin/files", "/x y", "s3cret-env", "127.0.0.1:1/mcp", "s3cret-header"):
        assert (text in told) == bool(row.mcp)


def test_the_system_prompt_reaches_the_agent(row: Cli):
    run = run_of(row, system_prompt="be brief")
    said = (*row.command(run), row.given(run))
    where = {"flag": row.command(run), "prompt": said, "file": tuple(row.files(run).values())}
    assert any("be brief" in each for each in where[row.system_prompt])


def test_resuming_differs_from_beginning_in_a_flag_or_a_variable(row: Cli):
    first, again = run_of(row), run_of(row, resume=True)
    assert (row.command(first), row.environment(first)) != (row.command(again), row.environment(again))


def test_a_prompt_that_looks_like_a_flag_stays_a_prompt(row: Cli):
    run = run_of(row, prompt="--help")
    command = row.command(run)
    if row.given(run):  # its prompt comes over standard input, and is no argument
        assert "--help" not in command
        return
    at = next(number for number, each in enumerate(command) if each.endswith("--help"))
    assert command[at] != "--help" or "--" in command[:at]


def test_every_row_says_where_its_program_is_from(row: Cli):
    assert row.package.index
    assert row.title
    if row.package.kind == "native":
        assert {"linux-x64", "linux-arm64"} <= set(row.package.platforms)
        assert all("{version}" in spec for spec in row.package.platforms.values())
    assert row.skills_folder(run_of(row)).startswith(("/h/", "/w/")) or not row.skills


def test_claude_sessions_have_names_and_tools_can_be_denied():
    row = cli("claude_code")
    first = row.command(run_of(row, session_id="u-1", deny=("WebSearch",), mcp=SERVERS))
    assert first[first.index("--session-id") + 1] == "u-1"
    assert first[first.index("--disallowed-tools") + 1] == "WebSearch"
    assert first[first.index("--allowed-tools") + 1] == "mcp__files__*,mcp__web__look"
    again = row.command(run_of(row, session_id="u-1", resume=True))
    assert again[again.index("--resume") + 1] == "u-1"
    auto = row.command(run_of(row, options={"permission_mode": "auto"}))
    assert "--dangerously-skip-permissions" not in auto


def test_codex_configuration_is_toml_and_overrides_are_flags():
    row = cli("codex_cli")
    run = run_of(row, mcp=SERVERS, options={"web_search": '"live"', "sandbox_mode": "read-only"})
    config = tomllib.loads(row.files(run)["/h/.codex/config.toml"])
    assert config["mcp_servers"]["files"]["args"] == ["--root", "/x y"]
    assert config["mcp_servers"]["web"]["enabled_tools"] == ["look"]
    assert config["model_providers"]["bridge"]["wire_api"] == "responses"
    command = row.command(run)
    assert 'web_search="live"' in command
    assert command[command.index("--sandbox") + 1] == "read-only"
    assert "--dangerously-bypass-approvals-and-sandbox" not in command


def test_opencode_names_its_provider_from_the_model():
    row = cli("opencode")
    run = replace(run_of(row), model="openai/gpt-5.2", deny=("webfetch",))
    config = json.loads(row.files(run)["/h/.config/opencode/opencode.json"])
    assert config["provider"]["openai"]["options"]["baseURL"] == "http://127.0.0.1:1/v1"
    assert config["tools"] == {"webfetch": False}
    assert config["small_model"] == "openai/gpt-5.2"


def test_an_unknown_agent_is_told_with_what_was_meant():
    with pytest.raises(UnknownCliError) as caught:
        cli("codex")
    assert 'Did you mean "codex_cli"?' in str(caught.value.hint)


SCALARS = st.one_of(st.text(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.lists(st.text(), max_size=3))
TABLES = st.recursive(
    st.dictionaries(st.text(), SCALARS, max_size=4),
    lambda inner: st.dictionaries(st.text(), st.one_of(SCALARS, inner), max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(TABLES)
def test_toml_is_read_back_as_it_was(value: dict[str, object]):
    assert tomllib.loads(to_toml(value)) == value
