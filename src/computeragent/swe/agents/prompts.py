"""What an agent is told: its prompt and its system prompt, from the messages of an Inspect conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, ChatMessageTool, ChatMessageUser

from computeragent.errors import ValidationError


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """`text` is what is asked now, `system` is added to the agent's own system prompt.

    `earlier` is the conversation before an assistant's last message, written out; empty when there was none.
    """

    text: str
    system: str = ""
    earlier: str = ""

    def whole(self) -> str:
        """What is asked, and the conversation before it: for an agent that has no session to go on with."""
        if not self.earlier:
            return self.text
        return f"The conversation so far:\n\n{self.earlier}\n\nThe message to answer now:\n\n{self.text}"


def prompt_of(messages: Sequence[ChatMessage], system_prompt: str | None = None) -> Prompt:
    """The user's messages after the assistant's last one, joined by blank lines.

    System messages come first in `system`, `system_prompt` after them. Raises `ValidationError` when there is nothing
    to ask (no user's message, or none after the assistant's last one), and for what is not text.
    """
    last = max((at for at, message in enumerate(messages) if isinstance(message, ChatMessageAssistant)), default=-1)
    asked = [_text(message) for message in messages[last + 1 :] if isinstance(message, ChatMessageUser)]
    text = "\n\n".join(part for part in asked if part.strip())
    if not text:
        raise ValidationError(
            "the conversation ends with the assistant's message" if last >= 0 else "the conversation asks for nothing",
            hint="Give the sample a user's message; between two agents, add one that says what to do next.",
        )
    system = [message.text for message in messages if isinstance(message, ChatMessageSystem)]
    return Prompt(
        text=text,
        system="\n\n".join(part for part in (*system, system_prompt or "") if part.strip()),
        earlier="\n\n".join(_written(message) for message in messages[: last + 1] if _said(message)),
    )


def _text(message: ChatMessageUser) -> str:
    if not isinstance(message.content, str):
        other = sorted({part.type for part in message.content} - {"text", "reasoning"})
        if other:
            raise ValidationError(
                f"the user's message has something else than text: {', '.join(other)}",
                hint="A command line takes text alone: put it into the sample's `files`, and say where it is.",
            )
    return message.text


def _said(message: ChatMessage) -> bool:
    return not isinstance(message, ChatMessageSystem) and bool(message.text.strip())


def _written(message: ChatMessage) -> str:
    who = {"user": "User", "assistant": "Assistant", "tool": "Tool"}[message.role]
    if isinstance(message, ChatMessageTool) and message.function:
        who = f"Tool {message.function}"
    return f"{who}: {message.text}"
