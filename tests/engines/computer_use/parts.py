"""Parts of these tests: a drawn computer that does what it is told, and models that say what a test wants."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from computeragent import ComputerAgent
from computeragent.computer.types import Button, Environment, Point, Screenshot, Size
from computeragent.dialects.events import ModelEvent
from computeragent.dialects.model import ModelRequest, ModelResponse, Part, Text, ToolCall, Usage
from computeragent.dialects.streams import response_events
from computeragent.engines.computer_use import ComputerUseEngine
from computeragent.errors import ComputerError

Said = Part | Sequence[Part] | str
Answer = Said | Callable[[ModelRequest], Any]


class DrawnComputer:
    """A computer in memory: its screen shows what was done to it, and `done` tells. `broken` makes it fail."""

    kind = "custom"
    environment: Environment = "linux"

    def __init__(self, width: int = 800, height: int = 600) -> None:
        self.dimensions = Size(width, height)
        self.done: list[tuple[Any, ...]] = []
        self.pointer = Point(0, 0)
        self.broken = False
        self.closed = False
        self.hang: asyncio.Event | None = None
        self.hanging = asyncio.Event()

    def _do(self, *what: Any) -> None:
        if self.broken:
            raise ComputerError("the display is gone", hint="Start it again.")
        self.done.append(what)

    async def screenshot(self) -> Screenshot:
        self._do("screenshot")
        image = Image.new("RGB", self.dimensions, "white")
        draw = ImageDraw.Draw(image)
        draw.rectangle((self.pointer.x - 5, self.pointer.y - 5, self.pointer.x + 5, self.pointer.y + 5), fill="red")
        data = io.BytesIO()
        image.save(data, "PNG")
        return Screenshot(data.getvalue(), self.dimensions)

    async def settle(self, timeout: float = 3.0) -> None:
        pass

    async def click(self, x: int, y: int, button: Button = "left", *, count: int = 1, keys: Sequence[str] = ()) -> None:
        if self.hang is not None:
            self.hanging.set()
            await self.hang.wait()
        self.pointer = Point(x, y)
        self._do("click", x, y, button, count, tuple(keys))

    async def move(self, x: int, y: int, *, keys: Sequence[str] = ()) -> None:
        self.pointer = Point(x, y)
        self._do("move", x, y)

    async def mouse_down(self, button: Button = "left", *, x: int | None = None, y: int | None = None) -> None:
        self._do("down", button, x, y)

    async def mouse_up(self, button: Button = "left", *, x: int | None = None, y: int | None = None) -> None:
        self._do("up", button, x, y)

    async def drag(self, path: Sequence[Point], *, button: Button = "left", keys: Sequence[str] = ()) -> None:
        self._do("drag", tuple(path), button)

    async def scroll(self, x: int, y: int, dx: int, dy: int, *, keys: Sequence[str] = ()) -> None:
        self._do("scroll", x, y, dx, dy)

    async def type(self, text: str) -> None:
        self._do("type", text)

    async def keypress(self, keys: Sequence[str], *, repeat: int = 1) -> None:
        self._do("keys", tuple(keys), repeat)

    async def key_down(self, key: str) -> None:
        self._do("key_down", key)

    async def key_up(self, key: str) -> None:
        self._do("key_up", key)

    async def cursor_position(self) -> Point:
        self._do("where")
        return self.pointer

    async def current_url(self) -> str | None:
        return None

    async def reset(self) -> None:
        self.done.append(("reset",))

    async def close(self) -> None:
        self.closed = True

    @property
    def acts(self) -> list[tuple[Any, ...]]:
        """What was done, looking aside."""
        return [what for what in self.done if what[0] not in {"screenshot", "where"}]


class SaysModel:
    """A model that says one thing after another, and remembers what it was asked."""

    def __init__(self, *answers: Answer, dialect: str = "neutral", usage: Usage | None = None) -> None:
        self.answers = list(answers)
        self.asked: list[ModelRequest] = []
        self.dialect = dialect
        self.name = "says"
        self.usage = usage or Usage(input_tokens=100, output_tokens=10)
        self.closed = False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        self.asked.append(request)
        answer: Any = self.answers.pop(0) if self.answers else "Done."
        if callable(answer):
            answer = answer(request)
            if asyncio.iscoroutine(answer):
                answer = await answer
        parts = (
            (Text(answer),)
            if isinstance(answer, str)
            else tuple(answer)
            if isinstance(answer, list | tuple)
            else (answer,)
        )
        number = len(self.asked)
        stop = "tool_use" if any(isinstance(part, ToolCall) for part in parts) else "end_turn"
        for event in response_events(
            ModelResponse(
                id=f"msg_{number}",
                model="says",
                content=parts,
                stop_reason=stop,
                usage=self.usage,
                dialect=self.dialect,
            )
        ):
            yield event

    async def aclose(self) -> None:
        self.closed = True


def act(call_id: str, **arguments: Any) -> ToolCall:
    """A call of the tool `computer`."""
    return ToolCall(id=call_id, name="computer", input=arguments)


def agent(
    folder: Path, model: Any, computer: Any, *, options: dict[str, Any] | None = None, **rest: Any
) -> ComputerAgent:
    """An agent on a computer of this test."""
    given = {"computer": computer, "model": "scripted/test", **(options or {})}
    return ComputerAgent(source=folder, engine=ComputerUseEngine(model=model), options=given, **rest)


def blocks(result: Any, kind: str) -> list[Any]:
    """The blocks of a kind in a turn's messages."""
    found: list[Any] = []
    for message in result.messages:
        inner = message.get("message") or {}
        content = inner.get("content") if isinstance(inner, dict) else None
        found += [block for block in content or [] if isinstance(block, dict) and block.get("type") == kind]
    return found


def answered(request: ModelRequest) -> list[Any]:
    """The tool results that a request brings, in order."""
    return [result for message in request.messages for result in message.tool_results]


def ended(result: Any) -> dict[str, Any]:
    """The message that ended a turn."""
    return next(message for message in reversed(result.messages) if message.get("type") == "result")
