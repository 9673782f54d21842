"""Claude Code."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from computeragent.clis.formats import mcp_claude, to_json
from computeragent.clis.types import AcpForm, AcpTerms, Cli, Exits, Package, Run, npm_bundle


def _arguments(run: Run) -> tuple[str, ...]:
    session: tuple[str, ...] = ()
    if run.resume:
        session = ("--resume", run.session_id) if run.session_id else ("--continue",)
    elif run.session_id:
        session = ("--session-id", run.session_id)
    arguments = [*session, "--print", "--output-format", "stream-json", "--verbose", *_settings(run)]
    return tuple(arguments) if run.long else (*arguments, "--", run.prompt)


def _given(run: Run) -> str:
    return run.prompt if run.long else ""


def _settings(run: Run) -> tuple[str, ...]:
    arguments = ["--model", run.model]
    mode = run.options.get("permission_mode")
    arguments += ["--permission-mode", mode] if mode else ["--dangerously-skip-permissions"]
    if run.mcp:
        arguments += ["--strict-mcp-config", "--mcp-config", _mcp_file(run)]
    allow = [*run.allow, *(name for server in run.mcp for name in _tools(server.name, server.tools))]
    if allow:
        arguments += ["--allowed-tools", ",".join(allow)]
    if run.deny:
        arguments += ["--disallowed-tools", ",".join(run.deny)]
    if run.system_prompt:
        how = "--system-prompt" if run.options.get("system_prompt") == "replace" else "--append-system-prompt"
        arguments += [how, run.system_prompt]
    if run.debug:
        arguments.append("--debug")
    return tuple(arguments)


def _tools(server: str, tools: tuple[str, ...] | None) -> list[str]:
    return [f"mcp__{server}__*"] if tools is None else [f"mcp__{server}__{tool}" for tool in tools]


def _environment(run: Run) -> dict[str, str]:
    of = run.options
    return {
        "HOME": run.home,
        "ANTHROPIC_BASE_URL": run.base_url,
        "ANTHROPIC_AUTH_TOKEN": run.api_key,
        "ANTHROPIC_MODEL": run.model,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": of.get("opus_model", run.model),
        "ANTHROPIC_DEFAULT_SONNET_MODEL": of.get("sonnet_model", run.model),
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": of.get("haiku_model", run.model),
        "ANTHROPIC_SMALL_FAST_MODEL": of.get("haiku_model", run.model),
        "CLAUDE_CODE_SUBAGENT_MODEL": of.get("subagent_model", run.model),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS": "1",
        "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
        "DISABLE_AUTOUPDATER": "1",
        "ENABLE_TOOL_SEARCH": "0",
        "IS_SANDBOX": "1",  # without it root may not skip permissions
        "MCP_CONNECTION_NONBLOCKING": "false",
        "MCP_TIMEOUT": "300000",
        "MCP_TOOL_TIMEOUT": "86400000",
    }


def _files(run: Run) -> dict[str, str]:
    # Tools and prompts of a person who has not logged in: the first-run questions are answered.
    trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    state = {"hasCompletedOnboarding": True, "bypassPermissionsModeAccepted": True, "projects": {run.cwd: trusted}}
    files = {f"{run.home}/.claude.json": to_json(state)} if not run.resume else {}
    if run.mcp:
        servers: dict[str, Any] = {server.name: mcp_claude(server) for server in run.mcp}
        files[_mcp_file(run)] = to_json({"mcpServers": servers})
    return files


def _mcp_file(run: Run) -> str:
    # Not on the command line: a server's headers and variables may be secrets.
    return f"{run.home}/.claude/run-mcp.json"


def _acp_environment(_run: Run) -> dict[str, str]:
    return {"CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION": "false"}  # which is a request to the model after each turn


def _deny(tools: tuple[str, ...]) -> dict[str, Any]:
    return {"claudeCode": {"options": {"disallowedTools": list(tools)}}}


def _system_prompt(text: str) -> dict[str, Any]:
    return {"systemPrompt": {"append": text}}


# A hook that answers "ask" sends the call, as it will run, to whoever drives the agent, in every mode.
_ANSWER = '{"hookSpecificOutput":{"hookEventName":"PreToolUse","permissionDecision":"ask"}}'
_ASK = {"PreToolUse": [{"matcher": "*", "hooks": [{"type": "command", "command": f"echo '{_ANSWER}'"}]}]}
_PREFIX = "@anthropic-ai/claude-code"
CLAUDE_CODE = Cli(
    name="claude_code",
    title="Claude Code",
    program="claude",
    package=Package(
        registry="npm",
        index=_PREFIX,
        kind="native",
        program="claude",
        platforms=MappingProxyType(
            {
                "linux-x64": f"{_PREFIX}-linux-x64@{{version}}",
                "linux-arm64": f"{_PREFIX}-linux-arm64@{{version}}",
                "linux-x64-musl": f"{_PREFIX}-linux-x64-musl@{{version}}",
                "linux-arm64-musl": f"{_PREFIX}-linux-arm64-musl@{{version}}",
            }
        ),
    ),
    dialect="anthropic",
    model="claude-sonnet-4-5",
    shell_tool="Bash",
    arguments=_arguments,
    environment=_environment,
    files=_files,
    given=_given,
    skills="{cwd}/.claude/skills",
    interactive=_settings,
    system_prompt="flag",
    denies_tools=True,
    resumes="id",
    acp=AcpForm(
        adapter=npm_bundle("@agentclientprotocol/claude-agent-acp", "claude-agent-acp"),
        mode="bypassPermissions",
        environment=_acp_environment,
        asks=AcpTerms(
            environment=MappingProxyType({"CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1"}),
            meta=MappingProxyType(
                {"claudeCode": {"options": {"settings": {"hooks": _ASK, "disableSkillShellExecution": True}}}}
            ),
        ),
        closed=AcpTerms(meta=MappingProxyType({"claudeCode": {"options": {"settingSources": ["user"]}}})),
        system_prompt=_system_prompt,
        deny=_deny,
    ),
    exits=Exits(
        crash_when_silent=True,
        chatter=r"\[claude-code:\w+\] \{.*\}",  # such as that it does not know the model's name
        refuses_root="IS_SANDBOX=1 lets root skip permissions",
        notes=("With an endpoint that does not answer it tries for about three minutes: set a limit.",),
    ),
)
