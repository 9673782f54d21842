"""OpenCode."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from computeragent.clis.formats import mcp_opencode, to_json
from computeragent.clis.types import AcpForm, AcpTerms, Cli, Exits, Package, Run


def _arguments(run: Run) -> tuple[str, ...]:
    # A title given is one that no second model is asked for.
    arguments = ["run", "--model", run.model, "--format", "json", "--dangerously-skip-permissions"]
    if run.resume:
        arguments += ["--session", run.session_id] if run.session_id else ["--continue"]
    else:
        arguments += ["--title", run.options.get("session_title", "run")]
    if run.debug:
        arguments += ["--print-logs", "--log-level", "DEBUG"]
    return tuple(arguments)


def _given(run: Run) -> str:
    # Not as an argument: what has blanks in it would come out in quotation marks.
    return run.text


def _interactive(run: Run) -> tuple[str, ...]:
    return ("--model", run.model)


def _config(run: Run) -> str:
    return f"{run.home}/.config/opencode/opencode.json"


def _environment(run: Run) -> dict[str, str]:
    return {
        "HOME": run.home,
        "XDG_CONFIG_HOME": f"{run.home}/.config",
        "XDG_DATA_HOME": f"{run.home}/.local/share",
        "XDG_STATE_HOME": f"{run.home}/.local/state",
        "XDG_CACHE_HOME": f"{run.home}/.cache",
        "OPENCODE_CONFIG": _config(run),
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "ANTHROPIC_BASE_URL": f"{run.base_url}/v1",
        "ANTHROPIC_API_KEY": run.api_key,
        "OPENAI_BASE_URL": f"{run.base_url}/v1",
        "OPENAI_API_KEY": run.api_key,
    }


def _files(run: Run) -> dict[str, str]:
    provider = run.model.partition("/")[0]
    config: dict[str, Any] = {
        "autoupdate": False,
        "share": "disabled",
        "small_model": run.model,
        "provider": {provider: {"options": {"baseURL": f"{run.base_url}/v1", "apiKey": run.api_key}}},
        "permission": {"skill": "allow"},
        "mcp": {server.name: mcp_opencode(server) for server in run.mcp},
    }
    if run.deny:
        config["tools"] = dict.fromkeys(run.deny, False)
    return {_config(run): to_json(config)}


def _acp_environment(run: Run) -> dict[str, str]:
    return {"OPENCODE_CONFIG_CONTENT": to_json({"model": run.model})}


OPENCODE = Cli(
    name="opencode",
    title="OpenCode",
    program="opencode",
    package=Package(
        registry="npm",
        index="opencode-ai",
        kind="native",
        program="bin/opencode",
        platforms=MappingProxyType(
            {
                "linux-x64": "opencode-linux-x64-baseline@{version}",  # runs on processors without AVX2, too
                "linux-arm64": "opencode-linux-arm64@{version}",
                "linux-x64-musl": "opencode-linux-x64-baseline-musl@{version}",
                "linux-arm64-musl": "opencode-linux-arm64-musl@{version}",
            }
        ),
    ),
    dialect="anthropic",
    model="anthropic/claude-sonnet-4-5",
    shell_tool="bash",
    arguments=_arguments,
    environment=_environment,
    files=_files,
    skills="{home}/.config/opencode/skills",
    given=_given,
    interactive=_interactive,
    denies_tools=True,
    acp=AcpForm(
        args=("acp",),
        environment=_acp_environment,
        system_prompt_file=".config/opencode/AGENTS.md",
        asks=AcpTerms(environment=MappingProxyType({"OPENCODE_PERMISSION": '{"*": "ask"}'})),
        closed=AcpTerms(environment=MappingProxyType({"OPENCODE_DISABLE_PROJECT_CONFIG": "1"})),
    ),
    needs=("rg",),
    exits=Exits(notes=("Without rg on PATH it tries to download one.",)),
)
