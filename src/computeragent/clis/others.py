"""Kimi Code, pi and GitHub Copilot CLI."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from computeragent.clis.formats import mcp_claude, to_json, to_toml
from computeragent.clis.types import AcpForm, Cli, Package, Run, npm_bundle

_PROVIDER = "bridge"


def _kimi_arguments(run: Run) -> tuple[str, ...]:
    resume = ("--session", run.session_id) if run.session_id else ("--continue",)
    return ("--output-format", "text", *(resume if run.resume else ()), f"--prompt={run.text}")


def _kimi_home(run: Run) -> str:
    return f"{run.home}/.kimi-code"


def _kimi_environment(run: Run) -> dict[str, str]:
    return {"HOME": run.home, "KIMI_CODE_HOME": _kimi_home(run), "NO_COLOR": "1"}


def _kimi_files(run: Run) -> dict[str, str]:
    config: dict[str, Any] = {
        "default_model": run.model,
        "telemetry": False,
        "providers": {_PROVIDER: {"type": "openai", "base_url": f"{run.base_url}/v1", "api_key": run.api_key}},
        "models": {
            run.model: {
                "provider": _PROVIDER,
                "model": run.model,
                "max_context_size": int(run.options.get("max_context_size", "200000")),
            }
        },
    }
    files = {f"{_kimi_home(run)}/config.toml": to_toml(config)}
    if run.mcp:
        servers = {server.name: mcp_claude(server) for server in run.mcp}
        files[f"{_kimi_home(run)}/mcp.json"] = to_json({"mcpServers": servers})
    return files


KIMI_CODE = Cli(
    name="kimi_code",
    title="Kimi Code",
    program="kimi",
    package=npm_bundle("@moonshot-ai/kimi-code", "kimi"),
    dialect="openai_chat",
    model="kimi-k2",
    shell_tool="Bash",
    arguments=_kimi_arguments,
    environment=_kimi_environment,
    files=_kimi_files,
    skills="{home}/.kimi-code/skills",
    acp=AcpForm(args=("acp",), mode="yolo"),
)


def _pi_arguments(run: Run) -> tuple[str, ...]:
    arguments = ["-p", "--provider", _PROVIDER, "--model", run.model]
    if run.system_prompt:
        arguments += ["--append-system-prompt", run.system_prompt]
    if run.resume:
        arguments.append("--continue")
    # A prompt that looks like a flag or a file would be taken for one.
    return (*arguments, f" {run.prompt}" if run.prompt.startswith(("-", "@")) else run.prompt)


def _pi_environment(run: Run) -> dict[str, str]:
    return {"HOME": run.home, "PI_CODING_AGENT_DIR": f"{run.home}/.pi/agent", "PI_OFFLINE": "1"}


def _pi_files(run: Run) -> dict[str, str]:
    provider: dict[str, Any] = {
        "baseUrl": f"{run.base_url}/v1",
        "apiKey": run.api_key,
        "api": "openai-completions",
        "models": [{"id": run.model}],
    }
    return {f"{run.home}/.pi/agent/models.json": to_json({"providers": {_PROVIDER: provider}})}


PI = Cli(
    name="pi",
    title="pi",
    program="pi",
    package=npm_bundle("@mariozechner/pi-coding-agent", "pi"),
    dialect="openai_chat",
    model="gpt-5.2",
    shell_tool="bash",
    arguments=_pi_arguments,
    environment=_pi_environment,
    files=_pi_files,
    skills="{home}/.pi/agent/skills",
    mcp=frozenset(),
    system_prompt="flag",
)


def _copilot_arguments(run: Run) -> tuple[str, ...]:
    arguments = ["--allow-all-tools", "--no-color", "--no-auto-update"]
    for tool in run.deny:
        arguments += ["--deny-tool", tool]
    if run.resume:
        arguments += ["--resume", run.session_id] if run.session_id else ["--continue"]
    return (*arguments, f"--prompt={run.text}")


def _copilot_environment(run: Run) -> dict[str, str]:
    return {
        "HOME": run.home,
        "COPILOT_PROVIDER_TYPE": "openai",
        "COPILOT_PROVIDER_BASE_URL": f"{run.base_url}/v1",
        "COPILOT_PROVIDER_API_KEY": run.api_key,
        "COPILOT_MODEL": run.model,
        "COPILOT_OFFLINE": "true",
    }


def _copilot_files(run: Run) -> dict[str, str]:
    if not run.mcp:
        return {}
    servers = {server.name: {**mcp_claude(server), "tools": list(server.tools or ("*",))} for server in run.mcp}
    return {f"{run.home}/.copilot/mcp-config.json": to_json({"mcpServers": servers})}


_COPILOT = "@github/copilot"
COPILOT = Cli(
    name="copilot",
    title="GitHub Copilot CLI",
    program="copilot",
    package=Package(
        registry="npm",
        index=_COPILOT,
        kind="native",
        program="copilot",
        platforms=MappingProxyType(
            {
                "linux-x64": f"{_COPILOT}-linux-x64@{{version}}",
                "linux-arm64": f"{_COPILOT}-linux-arm64@{{version}}",
                "linux-x64-musl": f"{_COPILOT}-linuxmusl-x64@{{version}}",
                "linux-arm64-musl": f"{_COPILOT}-linuxmusl-arm64@{{version}}",
            }
        ),
    ),
    dialect="openai_chat",
    model="gpt-5.2",
    shell_tool="bash",
    arguments=_copilot_arguments,
    environment=_copilot_environment,
    files=_copilot_files,
    skills="{home}/.copilot/skills",
    denies_tools=True,
    acp=AcpForm(args=("--acp",)),
)
