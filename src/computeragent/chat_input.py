"""What `chat` takes, and the user messages that it stands for."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from typing import Any

import msgspec

from computeragent.errors import ValidationError
from computeragent.wire.requests import UserInput

ChatInput = str | UserInput | Mapping[str, Any] | Sequence[Any] | AsyncIterable[Any]
"""What `chat` takes: text; a message (`{"role": "user", "content": …}`); a list of messages, joined into one
turn; or an async iterable of messages, each a turn of its own as it comes."""


def normalise(message: ChatInput) -> tuple[list[UserInput], AsyncIterable[Any] | None]:
    """The messages of an input, or the iterable that will bring them. Raises `ValidationError`."""
    if isinstance(message, AsyncIterable):
        return [], message
    if isinstance(message, Sequence) and not isinstance(message, (str, bytes, bytearray)):
        items = list(message)
        if not items:
            raise ValidationError("an empty list of messages", hint="Send at least one message.")
        return [as_message(item) for item in items], None
    return [as_message(message)], None


def as_message(value: Any) -> UserInput:
    """One user message from text, a dict or a `UserInput`. Raises `ValidationError`."""
    if isinstance(value, UserInput):
        return value
    if isinstance(value, str):
        return UserInput(content=value)
    try:
        return msgspec.convert(value, UserInput)
    except msgspec.ValidationError as error:
        raise ValidationError(
            f"not a user message: {error}",
            hint='Send text, or {"role": "user", "content": "…"} with text or a list of content blocks.',
        ) from error
