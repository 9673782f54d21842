"""How much harm a tool call can do: a first estimate for people who decide and for defaults."""

from __future__ import annotations

import re
from typing import Any

from computeragent.wire.events import Risk

_BY_TOOL: dict[str, Risk] = {
    "bash": "high",
    "shell": "high",
    "execute": "high",
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

_DESTRUCTIVE = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\brm\s+(?:-\S+\s+)*-\S*[rR]\S*\s+(?:-\S+\s+)*(?:--\s+)?[\"']?(?:/|~|\*|\$HOME)(?:[\s\"'/*]|$)",
        r"\bsudo\s+rm\s+-\S*r",
        r"\bdrop\s+(?:table|database|schema)\b",
        r"\bmkfs(?:\.\w+)?\b",
        r"\bdd\b[^|;&]*\bof=/dev/",
        r"(?:^|[;&|]\s*|\bsudo\s+)(?:shutdown|reboot|halt|poweroff)\b",
        r">\s*/dev/(?:sd|nvme|vd|hd|disk)",
        r":\(\)\s*\{\s*:\|:&\s*\};:",
        r"\bgit\s+push\s+(?:\S+\s+)*(?:--force\b|-f\b)",
    )
]


def classify(tool_name: str, tool_input: dict[str, Any]) -> Risk:
    """The risk class of a call: by tool, and for shell commands by what the command says.

    An estimate from text, not a boundary: a sandbox and a policy are what hold.
    """
    name = tool_name.lower()
    risk = _BY_TOOL.get(name, "medium")
    if risk == "high":
        command = tool_input.get("command")
        if isinstance(command, str) and any(pattern.search(command) for pattern in _DESTRUCTIVE):
            return "destructive"
    return risk
