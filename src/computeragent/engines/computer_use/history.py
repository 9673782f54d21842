"""The conversation: what the model is told again, which pictures it sees again, and what a later run remembers.

A step is an answer of the model and the results of its calls; it is kept whole, so that no call is ever without one.
The session's store gets the conversation without screenshots: another run's screen is another one.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from computeragent.dialects.model import Media, Message, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from computeragent.errors import ValidationError
from computeragent.protocol_types import EngineContext
from computeragent.wire.encoding import to_json

ENTRY = "ca_model_message"
GONE = Text("[This screenshot is not shown any more.]")
BLANK = Media(
    kind="image",
    media_type="image/png",
    data="iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAGElEQVR42mM8wYAfMDGMKhhVMKpghCoAAMCFAQivNpqkAAAAAElFTkSuQmCC",
)
"""A small grey picture: where a picture is the only answer, it stands for one that is not shown any more."""


@dataclass(slots=True)
class Step:
    """An answer of the model, and what came of its calls, in order. `notes` follow as the user's words.

    A call in `withdrawn` was not done and has no result: it is taken out of the answer, and a note says why.
    """

    answer: tuple[Part, ...]
    results: list[ToolResult] = field(default_factory=list[ToolResult])
    notes: list[str] = field(default_factory=list[str])
    withdrawn: set[str] = field(default_factory=set[str])

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls of the answer."""
        return tuple(part for part in self.answer if isinstance(part, ToolCall))

    @property
    def open_calls(self) -> list[ToolCall]:
        """The calls that have no result yet."""
        answered = {result.call_id for result in self.results} | self.withdrawn
        return [call for call in self.calls if call.id not in answered]

    def messages(self) -> list[Message]:
        """The step as messages."""
        told = [Message("assistant", kept)] if (kept := without(self.answer, self.withdrawn)) else []
        brought = (*self.results, *(Text(note) for note in self.notes))
        return [*told, Message("user", brought)] if brought else told


def without(parts: tuple[Part, ...], call_ids: Iterable[str]) -> tuple[Part, ...]:
    """An answer without some of its calls, and without the thoughts that led to nothing else."""
    gone = set(call_ids)
    if not gone:
        return parts
    kept: list[Part] = []
    for part in parts:
        if isinstance(part, ToolCall) and part.id in gone:
            while kept and isinstance(kept[-1], (Thinking, Opaque)):
                kept.pop()
        else:
            kept.append(part)
    return tuple(kept)


class History:
    """One session's conversation. `images` is how many screenshots are shown again, None for all."""

    def __init__(self, ctx: EngineContext, *, dialect: str, images: int | None) -> None:
        self._store = ctx.session_store
        self._key: Any = {"project_key": ctx.project_key, "session_id": ctx.session_id}
        self._dialect = dialect
        self._images = images
        self._messages: list[Message] = []

    async def recall(self, before: Sequence[Any] = ()) -> None:
        """Take up the conversation where the store has left it; where it has none, from `before`: messages of the
        neutral model, in the spelling of Responses. Raises `ValidationError` for what is no message.
        """
        entries = [] if self._store is None else await self._store.load(self._key) or []
        for entry in (cast("dict[str, Any]", each) for each in entries):
            if entry.get("type") == ENTRY:
                self._take_up(_message(entry.get("message")), same=entry.get("dialect") == self._dialect)
        if before and not self._messages:
            for message in before:
                self._take_up(_message(message), same=self._dialect == "openai_responses")
            await self._remember(self._messages)

    async def hear(self, parts: tuple[Part, ...]) -> None:
        """The user says something. Results of calls among it are taken as news of what was done."""
        self._take_up(Message("user", parts), same=False)
        self._close_calls()
        await self._remember(self._messages[-1:])

    async def keep(self, step: Step) -> None:
        """A step is done."""
        messages = step.messages()
        self._messages += messages
        await self._remember(messages)

    def told(self) -> tuple[Message, ...]:
        """The conversation as the model is told it now."""
        left = self._images
        told: list[Message] = []
        for message in reversed(self._messages):
            parts: list[Part] = []
            for part in reversed(message.content):
                if not isinstance(part, ToolResult) or not _has_picture(part) or left is None:
                    parts.append(part)
                elif left > 0:
                    left -= 1
                    parts.append(part)
                else:
                    parts.append(_unpictured(part))
            parts.reverse()
            same = all(one is other for one, other in zip(parts, message.content, strict=True))
            told.append(message if same else replace(message, content=tuple(parts)))
        return tuple(reversed(told))

    async def _remember(self, messages: Iterable[Message]) -> None:
        entries: list[Any] = [
            {
                "type": ENTRY,
                "uuid": str(uuid.uuid4()),
                "dialect": self._dialect,
                "message": msgspec.to_builtins(_unseen(message)),
            }
            for message in messages
        ]
        if self._store is not None and entries:
            await self._store.append(self._key, entries)

    def _take_up(self, message: Message, *, same: bool) -> None:
        """Add a message from elsewhere. What another wire said in its own way becomes text."""
        lost: set[str] = set()
        parts: list[Part] = []
        for part in message.content:
            if not isinstance(part, ToolResult):
                if (kept := part if same else _plain(part)) is not None:
                    parts.append(kept)
            elif same:
                parts.append(part)
            else:
                lost.add(part.call_id)
                parts.append(Text(_was_done(_call(self._messages, part.call_id), part.text)))
                parts += [piece for piece in part.content if isinstance(piece, Media)]
        self._forget_calls(lost)
        if parts:
            self._messages.append(Message(message.role, tuple(parts), message.extra if same else {}))

    def _close_calls(self) -> None:
        """Forget calls that nothing came of: the process was killed, or whoever sent the conversation left them out."""
        called = {call.id for message in self._messages for call in message.tool_calls}
        self._forget_calls(called - {result.call_id for message in self._messages for result in message.tool_results})

    def _forget_calls(self, call_ids: set[str]) -> None:
        if not call_ids:
            return
        kept = [
            replace(message, content=without(message.content, call_ids)) if message.role == "assistant" else message
            for message in self._messages
        ]
        self._messages = [message for message in kept if message.content]


def _message(value: object) -> Message:
    try:
        return msgspec.convert(value, Message)
    except msgspec.ValidationError as error:
        raise ValidationError(f"the conversation cannot be taken up: {error}") from None


def _plain(part: Part) -> Part | None:
    """A part without what only its own wire understands; None where nothing is left."""
    match part:
        case Thinking() | Opaque():
            return None
        case ToolCall():
            return replace(part, extra={}, signature=None)
        case Text() | Media() | ToolResult():
            return replace(part, extra={})


def _call(messages: Iterable[Message], call_id: str) -> ToolCall | None:
    return next((call for message in messages for call in message.tool_calls if call.id == call_id), None)


def _was_done(call: ToolCall | None, answer: str = "") -> str:
    what = "an action" if call is None else to_json({"name": call.name, **call.input}).decode()[:2_000]
    said = f" It was answered: {answer}" if answer else ""
    return f"[Done before: {what}.{said}]"


def _is_screen(result: ToolResult) -> bool:
    """Whether it answers a computer call of Responses, for which only a picture is an answer."""
    return result.extra.get("type") == "computer_call_output"


def _has_picture(result: ToolResult) -> bool:
    return any(isinstance(part, Media) and part != BLANK for part in result.content)


def _unpictured(result: ToolResult) -> ToolResult:
    kept = tuple(part for part in result.content if not isinstance(part, Media))
    return replace(result, content=(*kept, BLANK if _is_screen(result) else GONE))


def _unseen(message: Message) -> Message:
    """A message without its screenshots; what the user has sent is kept."""
    if not any(_has_picture(result) for result in message.tool_results):
        return message
    parts = tuple(
        _unpictured(part) if isinstance(part, ToolResult) and _has_picture(part) else part for part in message.content
    )
    return replace(message, content=parts)
