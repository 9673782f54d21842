"""From a session's options to `ClaudeAgentOptions`: every field checked by name, and what is ours to set."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from computeragent.errors import NotRemotableError, UnknownOptionError, ValidationError
from computeragent.logs import Logger

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions

DEFAULT_MODEL = "claude-haiku-4-5-20251001"
"""The model where neither the caller nor agent.yaml names one."""

# One CLI message may carry a whole file; the SDK's own limit of 1 MiB ends such sessions.
_MAX_MESSAGE = 64 * 1024 * 1024

_RESERVED = {
    "can_use_tool": "Pass on_tool_call= (or policy=) to ComputerAgent instead.",
    "permission_prompt_tool_name": "Pass on_tool_call= (or policy=) to ComputerAgent instead.",
    "session_store": "Pass session_store= to ComputerAgent instead.",
    "resume": "Pass session_id= to ComputerAgent instead.",
    "session_id": "Pass session_id= to ComputerAgent instead.",
    "continue_conversation": "Pass session_id= to ComputerAgent instead.",
    "cwd": "The working directory is the agent's workspace; choose it with source=.",
    "env": "Pass envs= to ComputerAgent instead.",
    "stderr": "The CLI's stderr goes to the log and into error messages.",
}

_log = Logger("engine.claude")


def check_options(options: Mapping[str, Any], *, library_mode: bool) -> dict[str, Any]:
    """The caller's options as keyword arguments of `ClaudeAgentOptions`, defaults of ours filled in.

    Raises `UnknownOptionError` for a name that the SDK does not have or the harness sets itself, and
    `NotRemotableError` for live objects where only data can travel.
    """
    from claude_agent_sdk import ClaudeAgentOptions

    known = {field.name for field in dataclasses.fields(ClaudeAgentOptions)}
    chosen: dict[str, Any] = {}
    for name, value in options.items():
        if name == "temperature":
            _log.warn("temperature_ignored", reason="Claude Code has no such setting")
            continue
        if name in _RESERVED:
            raise UnknownOptionError(f"option {name!r} is set by the harness", hint=_RESERVED[name])
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f'Did you mean "{close[0]}"?' if close else "Use the names of ClaudeAgentOptions."
            raise UnknownOptionError(f"engine claude-agent-sdk has no option {name!r}", hint=hint)
        if not library_mode and _is_live(value):
            raise NotRemotableError(
                f"option {name!r} holds a Python object, which cannot travel",
                hint="Pass it in library mode, or give the MCP server as a command or URL.",
            )
        chosen[name] = value
    chosen.setdefault("model", DEFAULT_MODEL)
    chosen.setdefault("system_prompt", {"type": "preset", "preset": "claude_code"})
    chosen.setdefault("include_partial_messages", True)
    chosen.setdefault("max_buffer_size", _MAX_MESSAGE)
    return chosen


def confine(chosen: dict[str, Any], *, trusted: bool) -> dict[str, Any]:
    """For source that the caller does not own: no settings files, hooks or MCP servers of its own take effect."""
    if trusted:
        return chosen
    confined: dict[str, Any] = {"setting_sources": [], "strict_mcp_config": True}
    return confined | chosen


def build(chosen: dict[str, Any]) -> ClaudeAgentOptions:
    """The options object. Raises `ValidationError` where the SDK refuses a value."""
    from claude_agent_sdk import ClaudeAgentOptions

    try:
        return ClaudeAgentOptions(**chosen)
    except (TypeError, ValueError) as error:
        raise ValidationError(f"the Claude SDK refuses these options: {error}", hint="Mend options=.") from error


def _is_live(value: Any) -> bool:
    """Whether a value holds something that is not data: a callable, a server, a driver."""
    if isinstance(value, Mapping):
        return any(_is_live(item) for item in cast("Mapping[str, Any]", value).values())
    if isinstance(value, (list, tuple)):
        return any(_is_live(item) for item in cast("list[Any]", value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(_is_live(getattr(value, field.name)) for field in dataclasses.fields(value))
    return not (value is None or isinstance(value, (str, int, float, bool, bytes)))
