"""What an agent is told: its prompt and its system prompt, from the messages of an Inspect conversation."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, ChatMessageTool, ChatMessageUser

from computeragent.errors import ValidationError

_NO_TEXT = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """`text` is what is asked now, `system` is added to the agent's own system prompt.

    `before` is the conversation up to the assistant's last message, with that. What no command, file or wire can carry
    (NUL, half of a surrogate pair) is U+FFFD.
    """

    text: str
    system: str = ""
    before: tuple[ChatMessage, ...] = ()

    def whole(self, seen: Collection[str] = ()) -> str:
        """What is asked, and what was said before it, but for the messages (by id) that the agent has seen."""
        new = [_written(each) for each in self.before if each.id not in seen and _said(each)]
        if not new:
            return self.text
        said = "\n\n".join(("What was said since:" if seen else "The conversation so far:", *new))
        return _clean(f"{said}\n\nThe message to answer now:\n\n{self.text}")


def prompt_of(messages: Sequence[ChatMessage], system_prompt: str | None = None) -> Prompt:
    """The user's messages after the assistant's last one, joined by blank lines.

    With none, what its tool calls gave: an agent that the conversation was handed off to gets it so. System messages
    come first in `system`, `system_prompt` after them. Raises `ValidationError` when there is nothing to ask (no user's
    message, or nothing after the assistant's last one), and for what is not text.
    """
    last = max((at for at, message in enumerate(messages) if isinstance(message, ChatMessageAssistant)), default=-1)
    since = messages[last + 1 :]
    asked = [_text(message) for message in since if isinstance(message, ChatMessageUser)]
    if not any(part.strip() for part in asked):
        asked = [message.text for message in since if isinstance(message, ChatMessageTool)]
    text = "\n\n".join(part for part in asked if part.strip())
    if not text:
        raise ValidationError(
            "the conversation ends with the assistant's message" if last >= 0 else "the conversation asks for nothing",
            hint="Give the sample a user's message; between two agents, add one that says what to do next.",
        )
    system = [message.text for message in messages if isinstance(message, ChatMessageSystem)]
    return Prompt(
        text=_clean(text),
        system=_clean("\n\n".join(part for part in (*system, system_prompt or "") if part.strip())),
        before=tuple(messages[: last + 1]),
    )


def _clean(text: str) -> str:
    return _NO_TEXT.sub("\ufffd", text)


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
