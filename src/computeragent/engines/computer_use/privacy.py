"""What the model must not read: personal data and secrets leave as tokens, and its actions bring them back.

The conversation itself keeps what was said; the one redaction point of telemetry does the work. Pictures pass as they
are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from msgspec.structs import replace

from computeragent.dialects.model import Message, Part, Text, Thinking, ToolCall, ToolResult
from computeragent.telemetry.redaction import MemoryVault, Redactor, credentials_in


class Privacy:
    """The texts of one run, on their way to the model and back. `envs` are credentials that are known by value."""

    def __init__(self, envs: Mapping[str, str]) -> None:
        self._redactor = Redactor("tokenize", vault=MemoryVault(), known_values=credentials_in(dict(envs)))
        self._hidden: dict[int, tuple[Message, Message]] = {}

    def hide(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Messages as the model may read them. What was hidden once is not looked through again."""
        pairs = [(message, self._known(message) or self._message(message)) for message in messages]
        self._hidden = {id(message): (message, hidden) for message, hidden in pairs}
        return tuple(hidden for _, hidden in pairs)

    def hide_text(self, text: str) -> str:
        """One text."""
        return self._redactor.redact_text(text)

    def bring_back(self, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        """What the model says, with values in the place of tokens."""
        return tuple(_mapped(part, self._redactor.restore) for part in parts)

    def _known(self, message: Message) -> Message | None:
        known = self._hidden.get(id(message))
        return known[1] if known is not None and known[0] is message else None

    def _message(self, message: Message) -> Message:
        return replace(message, content=tuple(_mapped(part, self.hide_text) for part in message.content))


def _mapped(part: Part, text: Callable[[str], str]) -> Part:
    match part:
        case Text():
            return replace(part, text=text(part.text))
        case ToolCall():
            return replace(part, input=cast("dict[str, Any]", _values(part.input, text)))
        case ToolResult():
            return replace(part, content=tuple(_mapped(piece, text) for piece in part.content))
        case Thinking(signature=None):  # a signed thought must come back as it was
            return replace(part, text=text(part.text))
        case _:
            return part


def _values(value: Any, text: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {name: _values(item, text) for name, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_values(item, text) for item in cast("list[Any]", value)]
    return value
