"""The risk class of a tool call: by the tool, and for a shell by what its line would run."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, cast

from computeragent.policy.risk.grammar import MAX_LENGTH, parse, parse_argv
from computeragent.policy.risk.programs import command_risk, highest
from computeragent.policy.risk.script import Command, Script
from computeragent.wire.events import Risk

_BY_TOOL: dict[str, Risk] = {
    "write": "medium",
    "edit": "medium",
    "multiedit": "medium",
    "notebookedit": "medium",
    "webfetch": "medium",
    "websearch": "medium",
    "delete": "high",
    "rm": "high",
    "read": "low",
    "glob": "low",
    "grep": "low",
    "ls": "low",
    "tree": "low",
    "todowrite": "low",
}
_LOOKS = frozenset({"screenshot", "zoom", "cursor_position", "wait"})  # what the tool `computer` does without acting
SHELLS = frozenset(
    {"bash", "shell", "execute", "run_shell_command", "run_command", "run_terminal_cmd", "monitor", "powershell"}
    | {"exec_command", "execute_command", "local_shell", "run_terminal_command"}
)
"""The tools (in small letters) that hand their ``command`` (or ``cmd``) to a shell; so do those of a server, such as
``mcp__host__bash``, where they have one."""

_FORK_BOMB = re.compile(r"([\w:.]+)\s*\(\)\s*\{[^{}|]*\1\s*\|\s*\1\s*&?[^{}]*\}")
_LOOSE = re.compile(r"[;&|\n(){}`]|\$\(")


def classify(tool_name: str, tool_input: dict[str, Any]) -> Risk:
    """The risk class of a call: by tool, and for shell commands by the programs that they run.

    An estimate, not a boundary: a sandbox and a policy are what hold.
    """
    script = shell_script(tool_name, tool_input)
    if script is None:
        if tool_name == "computer" and str(tool_input.get("action")) in _LOOKS:
            return "low"
        return _BY_TOOL.get(tool_name.lower(), "medium")
    line = shell_line(tool_name, tool_input)
    return _highest(script) if line is None else script_risk(line)


def shell_script(tool_name: str, tool_input: dict[str, Any]) -> Script | None:
    """What a shell tool would run; None for any other tool."""
    name = tool_name.lower()
    command = _command(tool_input)
    if name not in SHELLS or name == "monitor":
        if command is None or name.rpartition("__")[2] not in SHELLS:
            return None
        name = name.rpartition("__")[2]
    if name == "powershell":
        return Script((Command(unclear="it is PowerShell"),))
    if isinstance(command, str):
        return parse(command)
    if isinstance(command, list):
        argv = cast("list[Any]", command)
        if argv and all(isinstance(word, str) for word in argv):
            return parse_argv(cast("list[str]", argv))
    return Script((Command(unclear="there is no command"),))


def shell_line(tool_name: str, tool_input: dict[str, Any]) -> str | None:
    """The text that a shell tool hands to a shell that is read here; None where it is none."""
    command = _command(tool_input)
    return command if isinstance(command, str) and not tool_name.lower().endswith("powershell") else None


def _command(tool_input: dict[str, Any]) -> Any:
    return tool_input["command"] if tool_input.get("command") is not None else tool_input.get("cmd")


def script_risk(text: str) -> Risk:
    """The risk class of a shell line: that of its worst command. What cannot be read is at least ``high``."""
    return script_risks(text)[0]


@lru_cache(maxsize=512)
def script_risks(text: str) -> tuple[Risk, tuple[Risk, ...]]:
    """The risk class of a shell line, and those of its commands."""
    own: tuple[Risk, ...] = tuple([command_risk(command) for command in parse(text).commands])
    return _line_risk(text, highest(*own)), own


def _line_risk(text: str, risk: Risk) -> Risk:
    script = parse(text)
    if _FORK_BOMB.search(text[:1024]):
        return "destructive"
    if script.unclear is None or risk == "destructive":
        return risk
    plain = text[:MAX_LENGTH].replace("${IFS}", " ").replace("$IFS", " ")
    return highest("high", *map(_loosely, _LOOSE.split(plain)[:500]))


def _highest(script: Script) -> Risk:
    return highest(*map(command_risk, script.commands))


def _loosely(piece: str) -> Risk:
    """A piece of a line that could not be read, as if it were a plain command: an estimate errs upwards."""
    words = re.sub(r"[\"'\\]", "", piece).split()[:200]
    while words and (re.fullmatch(r"\w+=.*|\$.*|do|then|else|!|eval", words[0]) is not None):
        words[:1] = words[0].partition("=")[2:] if "=" in words[0] and len(words[0].partition("=")[2]) else []
    return _highest(parse(" ".join(words))) if words else "low"
