"""The table of what the Claude CLI gets of its host's environment."""

from __future__ import annotations

from computeragent.engines import claude_process as process
from computeragent.engines import environment

TARGET = "docs/reference/claude-environment.md"

HEAD = """\
# The environment of the Claude CLI

The CLI gets exactly these variables of its host, and what the caller passes in `envs`, which wins. Nothing else of the
host's environment reaches it or the tools that it runs. `GITHUB_TOKEN` and `GIT_TOKEN` in `envs` go to git alone.

| Why | Variables |
|---|---|
"""


def generate() -> str:
    rows = [
        ("to work at all", [*environment.BASICS, *(f"{prefix}*" for prefix in environment.PREFIXES)]),
        ("Claude Code's own", process._CLAUDE),
        ("Amazon Bedrock through the host's identity", process._BEDROCK),
        ("proxies", environment.NETWORK),
        ("certificates", environment.CERTIFICATES),
        ("the provider, in library mode only", process._LIBRARY_MODE),
        ("set by us unless the caller does", [f"{name}={value}" for name, value in process._DEFAULTS.items()]),
        ("set by the SDK", process.claude_launch.SET_BY_SDK),
    ]
    return HEAD + "".join(f"| {why} | {', '.join(f'`{name}`' for name in names)} |\n" for why, names in rows)
