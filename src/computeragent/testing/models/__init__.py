"""The model simulator: a server that speaks the model dialects and answers from a script, for tests without a model."""

from computeragent.models.script.loading import load_script, parse_script
from computeragent.models.script.rules import Break, ComputerUse, ErrorReply, Reply, Rule, Script, ToolUse, Turn
from computeragent.testing.models.recording import RecordedRequest
from computeragent.testing.models.simulator import ModelSimulator, serve

__all__ = [
    "Break",
    "ComputerUse",
    "ErrorReply",
    "ModelSimulator",
    "RecordedRequest",
    "Reply",
    "Rule",
    "Script",
    "ToolUse",
    "Turn",
    "load_script",
    "parse_script",
    "serve",
]
