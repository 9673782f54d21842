"""The script format: what a model says, and when, without a model. The simulator and `scripted/` models play it."""

from computeragent.models.script.loading import load_script, parse_script
from computeragent.models.script.playing import Performance, Player
from computeragent.models.script.rules import Break, ComputerUse, ErrorReply, Reply, Rule, Script, ToolUse, Turn

__all__ = [
    "Break",
    "ComputerUse",
    "ErrorReply",
    "Performance",
    "Player",
    "Reply",
    "Rule",
    "Script",
    "ToolUse",
    "Turn",
    "load_script",
    "parse_script",
]
