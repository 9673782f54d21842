"""Gemini CLI, and Qwen Code, which descends from it."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from computeragent.clis.formats import mcp_gemini, to_json
from computeragent.clis.types import AcpForm, AcpTerms, Cli, Exits, Run, npm_bundle


def _gemini_arguments(run: Run) -> tuple[str, ...]:
    arguments = ["--output-format", "text", *_interactive(run)]
    if run.resume:
        arguments += ["--resume", run.session_id or "latest"]
    return tuple(arguments) if run.long else (*arguments, f"--prompt={run.text}")


def _given(run: Run) -> str:
    return run.text if run.long else ""


def _interactive(run: Run) -> tuple[str, ...]:
    arguments = ["--model", run.model, "--yolo"]
    if run.mcp:
        arguments += ["--allowed-mcp-server-names", ",".join(server.name for server in run.mcp)]
    return (*arguments, "--debug") if run.debug else tuple(arguments)


def _gemini_environment(run: Run) -> dict[str, str]:
    return {
        "HOME": run.home,
        "GOOGLE_GEMINI_BASE_URL": run.base_url,
        "GEMINI_API_KEY": run.api_key,
        "GEMINI_CLI_TRUST_WORKSPACE": "true",  # else tool servers are silently left out
        "GEMINI_TELEMETRY_ENABLED": "false",
        "NO_COLOR": "1",
    }


def _settings(run: Run, auth: str, **privacy: Any) -> dict[str, Any]:
    tools: dict[str, Any] = {"exclude": list(run.deny)} if run.deny else {}
    return {
        "general": {"disableAutoUpdate": True, "disableUpdateNag": True, "enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False, **privacy},
        "security": {"auth": {"selectedType": auth}},
        **({"tools": tools} if tools else {}),
        "mcpServers": {server.name: mcp_gemini(server) for server in run.mcp},
    }


def _gemini_files(run: Run) -> dict[str, str]:
    return {f"{run.home}/.gemini/settings.json": to_json(_settings(run, "gemini-api-key"))}


def _acp_environment(run: Run) -> dict[str, str]:
    # What it says on the way it writes into a file: on stdout it would be taken for the protocol.
    return {
        "GEMINI_MODEL": run.model,
        **({"GEMINI_DEBUG_LOG_FILE": f"{run.home}/gemini-debug.log"} if run.debug else {}),
    }


_ASK = '[[rule]]\ntoolName = "*"\ndecision = "ask_user"\npriority = 999\n'
GEMINI_CLI = Cli(
    name="gemini_cli",
    title="Gemini CLI",
    program="gemini",
    package=npm_bundle("@google/gemini-cli", "gemini"),
    dialect="gemini",
    model="gemini-2.5-pro",
    shell_tool="run_shell_command",
    arguments=_gemini_arguments,
    environment=_gemini_environment,
    files=_gemini_files,
    given=_given,
    skills="{home}/.gemini/skills",
    interactive=_interactive,
    denies_tools=True,
    acp=AcpForm(
        args=("--experimental-acp",),
        mode="yolo",
        environment=_acp_environment,
        system_prompt_file=".gemini/GEMINI.md",
        debug_args=("--debug",),
        asks=AcpTerms(files=MappingProxyType({".gemini/policies/ask.toml": _ASK})),
        closed=AcpTerms(environment=MappingProxyType({"GEMINI_CLI_TRUST_WORKSPACE": "false"})),
    ),
    exits=Exits(notes=("It refuses `$(…)` and backticks in shell commands, whatever the mode.",)),
)


def _qwen_arguments(run: Run) -> tuple[str, ...]:
    arguments = ["--yolo", "--auth-type", "openai", "--model", run.model]
    if run.resume:
        arguments += ["--resume", run.session_id] if run.session_id else ["--continue"]
    if run.system_prompt:
        arguments += [f"--append-system-prompt={run.system_prompt}"]
    return (*arguments, f"--prompt={run.prompt}")


def _qwen_environment(run: Run) -> dict[str, str]:
    return {
        "HOME": run.home,
        "OPENAI_API_KEY": run.api_key,
        "OPENAI_BASE_URL": f"{run.base_url}/v1",
        "OPENAI_MODEL": run.model,
        "NO_COLOR": "1",
    }


def _qwen_files(run: Run) -> dict[str, str]:
    return {f"{run.home}/.qwen/settings.json": to_json(_settings(run, "openai"))}


QWEN_CODE = Cli(
    name="qwen_code",
    title="Qwen Code",
    program="qwen",
    package=npm_bundle("@qwen-code/qwen-code", "qwen"),
    dialect="openai_chat",
    model="qwen3-coder-plus",
    shell_tool="run_shell_command",
    arguments=_qwen_arguments,
    environment=_qwen_environment,
    files=_qwen_files,
    skills="{home}/.qwen/skills",
    system_prompt="flag",
    denies_tools=True,
    acp=AcpForm(args=("--acp",), mode="yolo"),
)
