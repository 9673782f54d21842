"""The Claude CLI as a process: which program, which environment, and that nothing of it outlives its session."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import sys
from pathlib import Path

from computeragent.engines import claude_launch
from computeragent.engines.claude_gate import UNGATED
from computeragent.engines.environment import of_host, redacted
from computeragent.errors import EngineUnavailableError
from computeragent.logs import Logger
from computeragent.processes import kill_marked
from computeragent.protocol_types import EngineContext
from computeragent.settings import home

RUN_MARK = "COMPUTERAGENT_RUN"

_CLAUDE = ("CLAUDE_CONFIG_DIR", "IS_SANDBOX")
# Amazon Bedrock through the host's own identity (IRSA): settings and file names, never static keys.
_BEDROCK = (
    "CLAUDE_CODE_USE_BEDROCK",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_BEDROCK_MODEL_ID",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
)
# Only where the caller's own process runs the engine; elsewhere provider keys come from `envs` alone.
_LIBRARY_MODE = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN")

# Ours, and the caller's `envs` win: one request per model turn and nothing but the model's host contacted;
# sub-agents run inside the turn that started them, so that a turn's result is the turn's end.
_DEFAULTS = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1"}

_PROVIDERS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
)
_log = Logger("engine.claude")


class ClaudeProcess:
    """One run's CLI process: its environment, its launcher, and its end."""

    def __init__(self, ctx: EngineContext, cli_path: str | Path | None = None) -> None:
        self._mark = secrets.token_hex(8)
        self._cli = find_cli(cli_path)
        self.stated = (UNGATED if ctx.strict else {}) | stated_environment(ctx)  # the launcher keeps no others
        self.stderr: list[str] = []

    @property
    def env(self) -> dict[str, str]:
        """What to hand to the SDK as `env`: the stated environment and the launcher's instructions."""
        inherited = {name for name in os.environ if name.startswith(claude_launch.SET_BY_SDK)} - set(self.stated)
        # The SDK overwrites these two whatever the host has.
        inherited -= {"CLAUDE_CODE_ENTRYPOINT", "CLAUDE_AGENT_SDK_VERSION", "PWD"}
        # On resume the SDK points the CLI to a folder that holds the transcript from the store.
        keep = [*self.stated, RUN_MARK, "CLAUDE_CONFIG_DIR", *(f"-{name}" for name in inherited)]
        launch = {claude_launch.KEEP: " ".join(keep), claude_launch.CLI: self._cli}
        return self.stated | launch | {RUN_MARK: self._mark}

    @property
    def launcher(self) -> Path:
        """The program that the SDK starts instead of the CLI."""
        script = home("cache") / "claude-launch"
        command = [sys.executable, "-I", "-S", str(Path(claude_launch.__file__))]
        text = f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'
        if not script.is_file() or script.read_text("utf-8") != text:
            fresh = script.with_suffix(f".{self._mark}")
            fresh.write_text(text, "utf-8")
            fresh.chmod(0o700)
            fresh.replace(script)
        return script

    def note_stderr(self, line: str) -> None:
        """Log a line that the CLI complained with, and keep the last ones."""
        line = self.redacted(line)
        _log.debug("stderr", line=line)
        self.stderr.append(line)
        del self.stderr[:-20]

    def complaint(self) -> str:
        """What the CLI said last on stderr."""
        return " / ".join(self.stderr[-3:])

    def redacted(self, text: str) -> str:
        """A text without the values of secrets that the CLI was given."""
        return redacted(text, self.stated)

    def kill(self) -> None:
        """End every process of this run that still lives, the CLI and whatever its tools started."""
        kill_marked(RUN_MARK, self._mark)


def find_cli(given: str | Path | None = None) -> str:
    """The CLI to run: the one given, else the one in the `claude-agent-sdk` wheel, else ``claude`` on PATH.

    Raises `EngineUnavailableError`.
    """
    if given is not None:
        path = shutil.which(str(given))
        if path is None:
            raise EngineUnavailableError(
                f"the Claude CLI {str(given)!r} is not an executable file", hint="Mend or drop options['cli_path']."
            )
        return path
    import claude_agent_sdk

    bundled = Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"
    found = str(bundled) if bundled.is_file() else shutil.which("claude")
    if found is None:
        raise EngineUnavailableError(
            "the Claude CLI was not found",
            hint="Install claude-agent-sdk from a wheel that carries it, or install the CLI so that PATH has `claude`.",
        )
    return found


def stated_environment(ctx: EngineContext) -> dict[str, str]:
    """Every variable that the CLI gets, by name; the caller's `envs` win over the host's."""
    host = of_host(*_CLAUDE, *_BEDROCK, *(_LIBRARY_MODE if ctx.library_mode else ()))
    stated = _DEFAULTS | host | dict(ctx.envs)
    if not ctx.trusted and "CLAUDE_CONFIG_DIR" not in ctx.envs:
        stated["CLAUDE_CONFIG_DIR"] = str(ctx.state_dir / "claude")
    if model_id := stated.get("AWS_BEDROCK_MODEL_ID"):
        stated.setdefault("ANTHROPIC_MODEL", model_id)
    _check_credentials(stated, ctx)
    return stated


def _check_credentials(stated: dict[str, str], ctx: EngineContext) -> None:
    """Fail at once where the CLI would only say "Not logged in": no key, no provider, no login on this machine."""
    if sys.platform == "darwin" or any(stated.get(name) for name in _PROVIDERS):
        return
    config = Path(stated.get("CLAUDE_CONFIG_DIR") or Path(stated.get("HOME", "~")).expanduser() / ".claude")
    if (config / ".credentials.json").is_file() or _has_key_helper(config / "settings.json"):
        return
    where = "Set ANTHROPIC_API_KEY, or pass it in envs=" if ctx.library_mode else "Pass ANTHROPIC_API_KEY in envs"
    raise EngineUnavailableError(
        "no credentials for Claude: neither a provider key nor a login was found",
        hint=f"{where}; to try things out without a key, run `computeragent demo`.",
    )


def _has_key_helper(settings: Path) -> bool:
    try:
        return "apiKeyHelper" in settings.read_text("utf-8")
    except OSError:
        return False
