"""A person as the model ``human/human``: what is asked waits in a queue, until somebody answers it.

`queue()` is the process's own; whoever shows it to people decides who they are.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from computeragent.dialects.events import ModelEvent
from computeragent.dialects.model import Media, Message, ModelRequest, ModelResponse, Part, Text, ToolCall, ToolResult
from computeragent.dialects.streams import response_events
from computeragent.errors import ModelCallError, NotFoundError, ValidationError
from computeragent.ids import new_id

_LONGEST = 100_000
_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits for a person.

    `text` is what was said last; `screenshot` the last picture, in base64, and `media_type` its type; `tools` are the
    names of what may be called, `asked_at` is in epoch seconds.
    """

    id: str
    text: str
    screenshot: str | None = field(repr=False)
    media_type: str | None
    tools: tuple[str, ...]
    asked_at: float
    request: ModelRequest = field(repr=False)


class HumanQueue:
    """Requests that wait for a person. Answers may come from any thread."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._waiting: dict[str, tuple[Waiting, asyncio.AbstractEventLoop, asyncio.Future[tuple[Part, ...]]]] = {}
        self._lock = threading.Lock()

    def pending(self) -> list[Waiting]:
        """What waits, the oldest first."""
        with self._lock:
            return [waiting for waiting, _, _ in self._waiting.values()]

    def answer(
        self,
        request_id: str,
        *,
        text: str | None = None,
        action: Mapping[str, Any] | None = None,
        actions: Sequence[Mapping[str, Any]] = (),
        calls: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Answer a request: with `text`, with actions on the computer (`computer.actions`), with calls of other tools
        (``{"name", "input"}``), or several of these. The first answer counts.

        Raises `ValidationError` for an answer that says nothing, `NotFoundError` where nothing waits under that id.
        """
        given = [*([action] if action is not None else []), *actions]
        asked = [("computer", dict(each)) for each in given]
        asked += [(str(each.get("name", "")), dict(each.get("input") or {})) for each in calls]
        if not text and not asked:
            raise ValidationError("the answer says nothing", hint="Give a text, an action, or both.")
        if text and len(text) > _LONGEST:
            raise ValidationError(f"the answer is longer than {_LONGEST} characters")
        parts: tuple[Part, ...] = (
            *((Text(text),) if text else ()),
            *(ToolCall(id=new_id("call"), name=name, input=arguments) for name, arguments in asked),
        )
        with self._lock:
            found = self._waiting.pop(request_id, None)
        if found is None:
            raise NotFoundError(f"nothing waits as {request_id[:80]!r}", hint="It was answered, or its run has ended.")
        _, loop, future = found
        loop.call_soon_threadsafe(_set, future, parts)

    async def ask(self, request: ModelRequest) -> tuple[Part, ...]:
        """Wait for a person's answer. Raises `ModelCallError` when too much waits already."""
        waiting = _waiting(request)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Part, ...]] = loop.create_future()
        with self._lock:
            if len(self._waiting) >= self._most:
                raise ModelCallError(f"{self._most} requests wait for a person already", details={"kind": "overloaded"})
            self._waiting[waiting.id] = (waiting, loop, future)
        try:
            return await future
        finally:
            with self._lock:
                self._waiting.pop(waiting.id, None)


class HumanModel:
    """A `Model` whose answers are a person's; `people` is where they are asked (default: the process's `queue`)."""

    def __init__(self, people: HumanQueue | None = None) -> None:
        self._people = people if people is not None else queue()

    @property
    def name(self) -> str:
        """``human``."""
        return "human"

    @property
    def dialect(self) -> str:
        """``neutral``."""
        return "neutral"

    @property
    def provider(self) -> str:
        """``human``."""
        return "human"

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """The person's answer, all at once."""
        parts = await self._people.ask(request)
        stop = "tool_use" if any(isinstance(part, ToolCall) for part in parts) else "end_turn"
        answer = ModelResponse(id=new_id("call"), model=self.name, content=parts, stop_reason=stop, dialect="neutral")
        for event in response_events(answer):
            yield event

    async def aclose(self) -> None:
        """There is nothing to let go."""


@lru_cache(maxsize=1)
def queue() -> HumanQueue:
    """The queue of this process, which ``human/human`` asks."""
    return HumanQueue()


def _set(future: asyncio.Future[tuple[Part, ...]], parts: tuple[Part, ...]) -> None:
    if not future.done():
        future.set_result(parts)


def _waiting(request: ModelRequest) -> Waiting:
    text, picture = "", None
    for message in request.messages:
        for part in _parts(message):
            if isinstance(part, Text):
                text = part.text
            elif isinstance(part, Media) and part.kind == "image":
                picture = part
    return Waiting(
        id=new_id("call"),
        text=text,
        screenshot=None if picture is None else picture.data,
        media_type=None if picture is None else picture.media_type,
        tools=tuple(tool.name for tool in request.tools),
        asked_at=time.time(),
        request=request,
    )


def _parts(message: Message) -> list[Part]:
    """The texts and pictures of a message, those of results included."""
    found: list[Part] = []
    for part in message.content:
        found += part.content if isinstance(part, ToolResult) else (part,)
    return found
