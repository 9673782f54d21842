"""How each model's wire speaks of a computer. A new way of speaking is a file here and a row in `NAMES`."""

from __future__ import annotations

import re

from computeragent.engines.computer_use.formats.anthropic import AnthropicComputer, AnthropicToolset
from computeragent.engines.computer_use.formats.composed import Composed
from computeragent.engines.computer_use.formats.function import FunctionTool
from computeragent.engines.computer_use.formats.openai import OpenAIComputer, OpenAIPreview
from computeragent.engines.computer_use.formats.types import ComputerCall, SafetyCheck, Sight, ToolFormat
from computeragent.errors import ValidationError

__all__ = [
    "NAMES",
    "Composed",
    "ComputerCall",
    "SafetyCheck",
    "Sight",
    "ToolFormat",
    "choose",
    "named",
]

NAMES = (
    "computer_20241022",
    "computer_20250124",
    "computer_20251124",
    "computer_toolset_20260801",
    "computer_use_preview",
    "computer",
    "function",
)
"""What `tool_format` takes: Anthropic's versions and toolset, OpenAI's preview and its successor, a plain function."""

_ANTHROPIC = (
    (re.compile(r"claude-3-5-|claude-3-opus|claude-3-sonnet|claude-3-haiku"), "computer_20241022"),
    (
        re.compile(r"claude-3-7-|claude-(?:opus|sonnet)-4(?:-[01])?(?:-\d{8})?$|claude-(?:sonnet|haiku)-4-5|claude-4"),
        "computer_20250124",
    ),
)
_DATED = re.compile(r"computer_20\d{6}")


def named(name: str) -> ToolFormat:
    """The format of a name of `NAMES`. Raises `ValidationError`."""
    if name not in NAMES:
        raise ValidationError(f"there is no tool format {name!r}", hint=f"Use one of: {', '.join(NAMES)}.")
    if _DATED.fullmatch(name):
        return AnthropicComputer(name)
    if name == "computer_toolset_20260801":
        return AnthropicToolset()
    if name == "function":
        return FunctionTool()
    return OpenAIPreview() if name == "computer_use_preview" else OpenAIComputer()


def choose(model: str, dialect: str) -> ToolFormat:
    """The format that a model is known to understand, by its name and wire; a function where nothing is known."""
    bare = model.rpartition("/")[2].lower()
    if dialect == "anthropic":
        found = next((name for pattern, name in _ANTHROPIC if pattern.search(bare)), "computer_20251124")
        return named(found)
    if dialect == "openai_responses":
        if "computer-use-preview" in bare:
            return OpenAIPreview()
        if _has_computer(bare):
            return OpenAIComputer()
    return FunctionTool()


def _has_computer(bare: str) -> bool:
    """Whether it is GPT-5.4 or newer."""
    found = re.match(r"gpt-(\d+)(?:\.(\d+))?", bare)
    return found is not None and (int(found[1]), int(found[2] or 0)) >= (5, 4)
