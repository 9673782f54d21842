"""A finished turn, and what went wrong in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from computeragent.errors import EngineError, EngineUnavailableError, TurnFailedError
from computeragent.wire.events import CaSessionEnded
from computeragent.wire.usage import UsageRollup


@dataclass(frozen=True, slots=True)
class ChatResult:
    """A finished turn: the engine's messages, how it ended, what it used, and how long it took."""

    session_id: str
    messages: tuple[Any, ...]
    ended: CaSessionEnded
    usage: UsageRollup
    duration_ms: float

    @property
    def text(self) -> str:
        """The final answer: the result message's text, else the last text that the assistant said."""
        for message in reversed(self.messages):
            if isinstance(message, dict):
                found = answer_of(cast("dict[str, Any]", message))
                if found:
                    return found
        return ""


def answer_of(message: dict[str, Any]) -> str:
    """What a message of an engine says to the user: the result's text, or the assistant's; empty for others."""
    if message.get("type") == "result" and isinstance(message.get("result"), str):
        return message["result"]
    if message.get("type") != "assistant":
        return ""
    inner = message.get("message")
    content: object = cast("dict[str, Any]", inner).get("content") if isinstance(inner, dict) else inner
    if isinstance(content, str):
        return content
    blocks = cast("list[Any]", content) if isinstance(content, list) else []
    texts = [cast("dict[str, Any]", block) for block in blocks if isinstance(block, dict)]
    return "".join(str(block.get("text", "")) for block in texts if block.get("type") == "text")


def failure_of(message: dict[str, Any]) -> str | None:
    """What went wrong in a turn, by its terminating message."""
    if message.get("type") != "result" or not message.get("is_error"):
        return None
    errors: object = message.get("errors")
    said = message.get("result") or ("; ".join(map(str, cast("list[Any]", errors))) if isinstance(errors, list) else "")
    return str(said or message.get("subtype") or "the turn failed")


def error_of(result: ChatResult) -> EngineError:
    """The failure of a turn as an error with the code of the fault itself."""
    ended = result.ended
    run_ended = ended.error_code != TurnFailedError.code
    kind = EngineError if run_ended else TurnFailedError
    if ended.error_code == EngineUnavailableError.code:
        kind = EngineUnavailableError
    hint = ended.error_hint or (None if run_ended else "The session goes on: send the message again, or another one.")
    error = kind(ended.error_message or "the run failed", hint=hint)
    error.code = ended.error_code or kind.code
    error.result = result
    return error
