"""`CustomComputer`: functions of your own as a computer. Only `screenshot` is required."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Self, cast, get_args

from computeragent.computer import keys as names
from computeragent.computer.images import screenshot_of, until_still
from computeragent.computer.types import Button, Environment, Point, Screenshot, Size
from computeragent.errors import (
    ComputerActionError,
    ComputerAgentError,
    ComputerError,
    ComputerUnsupportedError,
    ValidationError,
)

FUNCTIONS: dict[str, str] = {
    "screenshot": "() -> base64 text, or bytes, of a PNG or JPEG",
    "environment": '"linux", "windows", "mac" or "browser", or a function that returns it; default "linux"',
    "dimensions": "(width, height), or a function that returns them; default: the screenshot's",
    "click": '(x, y, button="left")',
    "double_click": "(x, y)",
    "scroll": "(x, y, scroll_x, scroll_y), in pixels",
    "type": "(text)",
    "wait": "(ms=1000)",
    "move": "(x, y)",
    "keypress": "(keys), a list",
    "drag": '(path), a list of {"x", "y"}',
    "left_mouse_down": "(x=None, y=None)",
    "left_mouse_up": "(x=None, y=None)",
    "key_down": "(key)",
    "key_up": "(key)",
    "get_cursor_position": "() -> (x, y)",
    "get_current_url": "() -> text",
    "goto": "(url)",
    "back": "()",
    "reset": "()",
    "close": "()",
}
"""The functions that a dict may have, and how they are called."""
_ALSO = {"get_environment": "environment", "get_dimensions": "dimensions", "current_url": "get_current_url"}
_ENVIRONMENTS = get_args(Environment)


def are_functions(value: object) -> bool:
    """Whether a value is a mapping of functions rather than plain data."""
    return isinstance(value, Mapping) and any(callable(each) for each in cast("Mapping[str, Any]", value).values())


class CustomComputer:
    """Functions as a computer. They may be async; others run one after another on a thread of their own.

    What is not among them cannot be done: an action that needs it raises `ComputerUnsupportedError`.
    Made with `await CustomComputer.make(functions)`, which calls `screenshot` unless `dimensions` is given.
    """

    kind = "custom"

    def __init__(self, functions: Mapping[str, Any]) -> None:
        self._functions = {_ALSO.get(name, name): function for name, function in functions.items()}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="custom-computer")
        self._size = Size(0, 0)
        self._environment: Environment = "linux"
        self._pointer: Point | None = None
        self._is_closed = False

    @classmethod
    async def make(cls, functions: Mapping[str, Any]) -> Self:
        """A computer of these functions (`FUNCTIONS`). Raises `ValidationError` when they are none."""
        unknown = sorted(set(functions) - set(FUNCTIONS) - set(_ALSO))
        if unknown:
            raise ValidationError(f"a computer has no {unknown[0]!r}", hint=f"It has {', '.join(FUNCTIONS)}.")
        if not callable(functions.get("screenshot")):
            raise ValidationError("a computer of functions needs `screenshot`", hint=FUNCTIONS["screenshot"])
        computer = cls(functions)
        try:
            await computer._learn()
        except BaseException:
            computer._thread.shutdown(wait=False)
            raise
        return computer

    @property
    def environment(self) -> Environment:
        """What a model is told that it is working with."""
        return self._environment

    @property
    def dimensions(self) -> Size:
        """The size of the screen."""
        return self._size

    async def screenshot(self) -> Screenshot:
        """What `screenshot` returns. Raises `ComputerError` when it is of another size than the screen."""
        taken = screenshot_of(await self._call("screenshot"))
        if self._size not in {Size(0, 0), taken.size}:
            raise ComputerError(
                f"the screenshot is {taken.size.width}x{taken.size.height}, "
                f"the screen {self._size.width}x{self._size.height}",
                hint="Points are pixels of the screenshot: return `dimensions` that fit.",
            )
        return taken

    async def settle(self, timeout: float = 3.0) -> None:
        """Wait until two screenshots in a row are the same."""
        await until_still(self, timeout)

    async def click(self, x: int, y: int, button: Button = "left", *, count: int = 1, keys: Sequence[str] = ()) -> None:
        """Click; twice with `double_click`, where there is one."""
        self._pointer = Point(x, y)
        async with self._held(keys):
            if count == 2 and button == "left" and "double_click" in self._functions:
                await self._call("double_click", x, y)
                return
            for _ in range(count):
                # Many have no parameter for the button: without one, only the left one can be meant.
                await self._call("click", x, y, *(() if button == "left" else (button,)))

    async def move(self, x: int, y: int, *, keys: Sequence[str] = ()) -> None:
        """Move the pointer."""
        self._pointer = Point(x, y)
        async with self._held(keys):
            await self._call("move", x, y)

    async def mouse_down(self, button: Button = "left", *, x: int | None = None, y: int | None = None) -> None:
        """Press the left button and hold it."""
        await self._hold_button("left_mouse_down", button, x, y)

    async def mouse_up(self, button: Button = "left", *, x: int | None = None, y: int | None = None) -> None:
        """Let the left button go."""
        await self._hold_button("left_mouse_up", button, x, y)

    async def drag(self, path: Sequence[Point], *, button: Button = "left", keys: Sequence[str] = ()) -> None:
        """Drag with the left button."""
        if button != "left":
            raise self._lacks("drag with another button than the left")
        async with self._held(keys):
            await self._call("drag", [{"x": x, "y": y} for x, y in path])
        self._pointer = Point(*path[-1])

    async def scroll(self, x: int, y: int, dx: int, dy: int, *, keys: Sequence[str] = ()) -> None:
        """Turn the wheel, in pixels."""
        self._pointer = Point(x, y)
        async with self._held(keys):
            await self._call("scroll", x, y, dx, dy)

    async def type(self, text: str) -> None:
        """Type text."""
        await self._call("type", text)

    async def keypress(self, keys: Sequence[str], *, repeat: int = 1) -> None:
        """Press keys together; they have the names of `keys.py`."""
        spelled = list(names.keys(keys))
        for _ in range(repeat):
            await self._call("keypress", spelled)

    async def key_down(self, key: str) -> None:
        """Press a key and hold it."""
        await self._call("key_down", names.key(key))

    async def key_up(self, key: str) -> None:
        """Let a key go."""
        await self._call("key_up", names.key(key))

    async def cursor_position(self) -> Point:
        """What `get_cursor_position` returns, else where the pointer was sent last."""
        if "get_cursor_position" in self._functions:
            return Point(*_pair(await self._call("get_cursor_position"), "get_cursor_position"))
        if self._pointer is None:
            raise self._lacks("get_cursor_position")
        return self._pointer

    async def current_url(self) -> str | None:
        """What `get_current_url` returns; None without one."""
        if "get_current_url" not in self._functions:
            return None
        url = await self._call("get_current_url")
        return None if url is None else str(url)

    async def goto(self, url: str) -> None:
        """Open an address."""
        await self._call("goto", url)

    async def back(self) -> None:
        """Go back in the history."""
        await self._call("back")

    async def reset(self) -> None:
        """Call `reset`. Raises `ComputerUnsupportedError` without one."""
        await self._call("reset")
        self._pointer = None

    async def close(self) -> None:
        """Call `close`, where there is one."""
        if self._is_closed:
            return
        try:
            if "close" in self._functions:
                await self._call("close")
        finally:
            self._is_closed = True
            self._thread.shutdown(wait=False)

    async def _learn(self) -> None:
        kind = await self._value("environment") or "linux"
        if kind not in _ENVIRONMENTS:
            raise ValidationError(f"there is no environment {kind!r}", hint=f"It is one of {', '.join(_ENVIRONMENTS)}.")
        self._environment = kind
        stated = await self._value("dimensions")
        if stated is None:
            self._size = (await self.screenshot()).size
        else:
            self._size = Size(*_pair(stated, "dimensions"))

    async def _value(self, name: str) -> Any:
        found = self._functions.get(name)
        return await self._call(name) if callable(found) else found

    async def _hold_button(self, name: str, button: Button, x: int | None, y: int | None) -> None:
        if button != "left":
            raise self._lacks(f"{name} of the {button} button")
        point = () if x is None or y is None else (x, y)
        await self._call(name, *point)
        self._pointer = Point(*point) if point else self._pointer

    @asynccontextmanager
    async def _held(self, keys: Sequence[str]) -> AsyncGenerator[None]:
        held: list[str] = []
        try:
            for key in names.keys(keys):
                await self._call("key_down", key)
                held.append(key)
            yield
        finally:
            for key in reversed(held):
                await self._call("key_up", key)

    async def _call(self, name: str, *arguments: Any) -> Any:
        function: Callable[..., Any] | None = self._functions.get(name)
        if function is None:
            raise self._lacks(name)
        if self._is_closed:
            raise ComputerError("the computer was closed")
        _check_takes(name, function, arguments)
        try:
            if inspect.iscoroutinefunction(function):
                return await function(*arguments)
            answer = await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*arguments))
            return await answer if inspect.isawaitable(answer) else answer
        except ComputerAgentError:
            raise
        except Exception as error:
            failed = ComputerError if name == "screenshot" else ComputerActionError
            raise failed(f"`{name}` of the computer failed: {type(error).__name__}: {error}"[:500]) from error

    def _lacks(self, name: str) -> ComputerUnsupportedError:
        have = ", ".join(each for each in FUNCTIONS if each in self._functions)
        return ComputerUnsupportedError(f"this computer has no `{name}`", hint=f"It has {have}.")


def _check_takes(name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """A function that lacks a parameter, such as the button of a click, cannot do what would be passed in it."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise ComputerUnsupportedError(
            f"`{name}` of this computer cannot be called with {arguments!r}: {error}"[:300],
            hint=f"It is called as {FUNCTIONS[name]}.",
        ) from None
    except ValueError:
        return  # it shows no signature


def _pair(value: Any, name: str) -> tuple[int, int]:
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        value = [fields[each] for each in ("x", "y", "width", "height") if each in fields]
    try:
        first, second = value
        return int(first), int(second)
    except (TypeError, ValueError):
        raise ComputerActionError(f"`{name}` gave no pair of numbers", hint=FUNCTIONS[name]) from None
