"""How much harm a tool call can do, and what a shell line would run."""

from __future__ import annotations

from computeragent.policy.risk.classes import SHELLS, classify, script_risk, script_risks, shell_line, shell_script
from computeragent.policy.risk.grammar import parse, parse_argv
from computeragent.policy.risk.programs import ORDER, command_risk, highest
from computeragent.policy.risk.script import Command, Redirect, Script, Word

__all__ = [
    "ORDER",
    "SHELLS",
    "Command",
    "Redirect",
    "Script",
    "Word",
    "classify",
    "command_risk",
    "highest",
    "parse",
    "parse_argv",
    "script_risk",
    "script_risks",
    "shell_line",
    "shell_script",
]
