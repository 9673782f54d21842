"""Codex CLI."""

from __future__ import annotations

import json
import posixpath
import tomllib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from computeragent.clis.formats import mcp_codex, to_toml
from computeragent.clis.types import AcpForm, Cli, Exits, Package, Run, SandboxPlatform, npm_bundle

_PROVIDER = "bridge"
_TAKEN = frozenset({"sandbox_mode", "home"})  # options that are flags or variables


def _arguments(run: Run) -> tuple[str, ...]:
    arguments = ["exec", "--color", "never", "--skip-git-repo-check", "--model", run.model]
    sandbox = run.options.get("sandbox_mode")
    if sandbox is None:
        arguments.append("--dangerously-bypass-approvals-and-sandbox")
    else:
        arguments += ["--sandbox", sandbox]
    arguments += _overrides(run)
    if run.resume:
        arguments += ["resume", run.session_id or "--last"]
    return (*arguments, "--", "-" if run.long else run.prompt)


def _given(run: Run) -> str:
    return run.prompt if run.long else ""


def _overrides(run: Run) -> list[str]:
    return [word for key, value in run.options.items() if key not in _TAKEN for word in ("-c", f"{key}={value}")]


def _interactive(run: Run) -> tuple[str, ...]:
    # As settings, not as flags: these hold for its subcommands, too.
    free = [
        "-c",
        "approval_policy=never",
        "-c",
        f"sandbox_mode={run.options.get('sandbox_mode', 'danger-full-access')}",
    ]
    return ("-c", f"model={run.model}", *free, *_overrides(run))


def _skills(run: Run) -> str:
    return f"{_home(run)}/skills"


def _acp_environment(run: Run) -> dict[str, str]:
    config: dict[str, Any] = {"model": run.model}
    for key, value in run.options.items():
        if key not in _TAKEN:
            _lay_over(config, _as_toml(key, value))
    return {"CODEX_CONFIG": json.dumps(config), "NO_BROWSER": "1"}


def _as_toml(key: str, value: str) -> dict[str, Any]:
    """What `-c key=value` means: TOML where it is that, else a text."""
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        return tomllib.loads(f"{key} = {json.dumps(value)}")


def _lay_over(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _lay_over(below[key], cast("dict[str, Any]", value))
        else:
            below[key] = value


def _home(run: Run) -> str:
    return posixpath.join(run.cwd, run.options.get("home", f"{run.home}/.codex"))


def _environment(run: Run) -> dict[str, str]:
    return {
        "HOME": run.home,
        "CODEX_HOME": _home(run),
        "OPENAI_API_KEY": run.api_key,
        "OPENAI_BASE_URL": f"{run.base_url}/v1",
        "RUST_LOG": "debug" if run.debug else "error",
    }


def _files(run: Run) -> dict[str, str]:
    config: dict[str, Any] = {
        "model_provider": _PROVIDER,
        "check_for_update_on_startup": False,
        "analytics": {"enabled": False},
        "model_providers": {
            _PROVIDER: {
                "name": _PROVIDER,
                "base_url": f"{run.base_url}/v1",
                "env_key": "OPENAI_API_KEY",
                "wire_api": "responses",
                "stream_idle_timeout_ms": 3_600_000,
            }
        },
        "mcp_servers": {server.name: mcp_codex(server) for server in run.mcp},
    }
    if not run.mcp:
        del config["mcp_servers"]
    files = {f"{_home(run)}/config.toml": to_toml(config)}
    if run.system_prompt:
        files[f"{_home(run)}/AGENTS.md"] = run.system_prompt + "\n"
    return files


_TRIPLES: Mapping[SandboxPlatform, str] = MappingProxyType(
    {
        "linux-x64": "x86_64-unknown-linux-musl",
        "linux-arm64": "aarch64-unknown-linux-musl",
        "linux-x64-musl": "x86_64-unknown-linux-musl",
        "linux-arm64-musl": "aarch64-unknown-linux-musl",
    }
)
_PLATFORMS: Mapping[SandboxPlatform, str] = MappingProxyType(
    {
        "linux-x64": "@openai/codex@{version}-linux-x64",
        "linux-arm64": "@openai/codex@{version}-linux-arm64",
        "linux-x64-musl": "@openai/codex@{version}-linux-x64",
        "linux-arm64-musl": "@openai/codex@{version}-linux-arm64",
    }
)
CODEX_CLI = Cli(
    name="codex_cli",
    title="Codex CLI",
    program="codex",
    package=Package(
        registry="npm",
        index="@openai/codex",
        kind="native",
        program="vendor/{triple}/bin/codex",
        platforms=_PLATFORMS,
        triples=_TRIPLES,
    ),
    dialect="openai_responses",
    model="gpt-5.2-codex",
    shell_tool="exec_command",
    shell_argument="cmd",
    arguments=_arguments,
    environment=_environment,
    files=_files,
    given=_given,
    skills=_skills,
    interactive=_interactive,
    requires_servers=True,
    system_prompt="file",
    acp=AcpForm(
        adapter=npm_bundle("@agentclientprotocol/codex-acp", "codex-acp"),
        mode="agent-full-access",
        asking_mode="read-only",  # it begins with one in which a model judges
        environment=_acp_environment,
    ),
    exits=Exits(
        notes=(
            "Restricted sandbox modes need CODEX_HOME outside of /tmp and TMPDIR.",
            "Its adapter for the Agent Client Protocol leaves its child alive: end the process group.",
        )
    ),
)
