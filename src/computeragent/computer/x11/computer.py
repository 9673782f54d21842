"""The desktop: one display's screen, pointer, keyboard, clipboard, windows, files and shell, as a `Computer`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from computeragent.computer import chromium
from computeragent.computer.files import LocalFiles
from computeragent.computer.programs import Programs, base_environment
from computeragent.computer.types import (
    Button,
    CommandResult,
    DirectoryEntry,
    Environment,
    Glimpse,
    Point,
    Screenshot,
    Size,
    Window,
    WindowAct,
)
from computeragent.computer.x11.answers import Answers
from computeragent.computer.x11.connection import Connection
from computeragent.computer.x11.display import ManagedDisplay
from computeragent.computer.x11.keyboard import Keyboard
from computeragent.computer.x11.pointer import Pointer
from computeragent.computer.x11.screen import Screen
from computeragent.computer.x11.selections import CLIPBOARD, PRIMARY, Selections
from computeragent.computer.x11.typing import Typist
from computeragent.computer.x11.windows import Windows
from computeragent.errors import ComputerActionError, ComputerError, ComputerUnsupportedError

_MANAGER_START = 5.0
_OF_A_SESSION = ("XAUTHORITY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")


class X11Computer:
    """A desktop on an X server. Made by `start` (a display of its own) or `attach` (one that is there)."""

    def __init__(self, width: int, height: int, extra: Mapping[str, str]) -> None:
        """For `start` and `attach`; a computer that is made in another way shows nothing."""
        self._wanted = Size(width, height)
        self._extra = dict(extra)
        self._managed: ManagedDisplay | None = None
        self._closed = False

    @classmethod
    async def start(cls, width: int = 1280, height: int = 800, *, env: Mapping[str, str] | None = None) -> X11Computer:
        """Start a display (Xvfb) with a window manager (openbox), an empty home and nothing else, in about 0.3 s.

        Sizes in pixels. Programs on it get PATH, the user's name, the language and `env`; nothing else of this
        process's environment. Raises `ComputerError`.
        """
        computer = cls(width, height, env or {})
        await computer._start()
        return computer

    @classmethod
    async def attach(
        cls, display: str, *, home: str | os.PathLike[str] | None = None, env: Mapping[str, str] | None = None
    ) -> X11Computer:
        """Use a display that is there, such as ``:0``. Relative paths begin at `home` (default: the user's).

        It is never reset, and closing it leaves it as it is. Raises `ComputerError`.
        """
        computer = cls(0, 0, env or {})
        folder = Path(home) if home is not None else Path.home()
        session = {name: os.environ[name] for name in _OF_A_SESSION if name in os.environ}
        variables = base_environment(folder, {**session, **(env or {}), "DISPLAY": display})
        await computer._connect(display, folder, Programs(variables, folder))
        return computer

    @property
    def kind(self) -> str:
        """``x11``."""
        return "x11"

    @property
    def environment(self) -> Environment:
        """``linux``."""
        return "linux"

    @property
    def dimensions(self) -> Size:
        """The size of the screen."""
        return self._screen.size

    @property
    def display(self) -> str:
        """The display's name, such as ``:5``. A reset may change it."""
        return self._connection.name

    @property
    def home(self) -> Path:
        """The folder that relative paths begin at, and HOME of the programs."""
        return self._home

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ── Looking ──

    async def screenshot(self) -> Screenshot:
        """What the screen shows now, as PNG, without the pointer."""
        return await self._screen.screenshot()

    async def glimpse(self, known: bytes = b"", *, quality: int = 80) -> Glimpse | None:
        """What the screen shows now, as JPEG, with the pointer; None while it is what `known` was of."""
        return await self._screen.glimpse(known, quality)

    async def settle(self, timeout: float = 3.0) -> None:
        """Wait until programs have read what was sent and the screen stands still, or `timeout` seconds are over."""
        end = time.monotonic() + timeout
        await self._answers.wait(timeout)
        await self._screen.settle(max(0.0, end - time.monotonic()))

    async def cursor_position(self) -> Point:
        """Where the pointer is."""
        return await self._pointer.position()

    async def current_url(self) -> str | None:
        """None: a desktop has no address."""
        return None

    # ── Pointing ──

    async def click(self, x: int, y: int, button: Button = "left", *, count: int = 1, keys: Sequence[str] = ()) -> None:
        """Click once, twice or three times, while `keys` are held."""
        async with self._holding(keys):
            await self._pointer.click(self._inside(x, y), button, count)

    async def move(self, x: int, y: int, *, keys: Sequence[str] = ()) -> None:
        """Move the pointer."""
        async with self._holding(keys):
            await self._pointer.move(self._inside(x, y))

    async def mouse_down(self, button: Button = "left", *, x: int | None = None, y: int | None = None) -> None:
        """Press a button and hold it, at a point or where the pointer is."""
        if x is not None and y is not None:
            await self._pointer.move(self._inside(x, y))
        await self._pointer.down(button)

    async def mouse_up(self, button: Button = "left", *, x: int | None = None, y: int | None = None) -> None:
        """Let a button go."""
        if x is not None and y is not None:
            await self._pointer.move(self._inside(x, y))
        await self._pointer.up(button)

    async def drag(self, path: Sequence[Point], *, button: Button = "left", keys: Sequence[str] = ()) -> None:
        """Press at the first point, move along the others in small steps, let go at the last."""
        if len(path) < 2:
            raise ComputerActionError("a drag has at least two points")
        points = [self._inside(x, y) for x, y in path]
        async with self._holding(keys):
            await self._pointer.drag(points, button)

    async def scroll(self, x: int, y: int, dx: int, dy: int, *, keys: Sequence[str] = ()) -> None:
        """Turn the wheel at a point: 120 pixels are a notch, and what is not 0 is at least one."""
        async with self._holding(keys):
            await self._pointer.scroll(self._inside(x, y), dx, dy)

    # ── Typing ──

    async def type(self, text: str) -> None:
        """Type text exactly, whatever its script; a newline is Enter, a tab is Tab.

        Texts of more than 400 characters are pasted line by line; the clipboard has its text again afterwards.
        """
        await self._typist.type(text)

    async def keypress(self, keys: Sequence[str], *, repeat: int = 1) -> None:
        """Press keys together, such as ``["ctrl", "c"]``, and let them go."""
        await self._keyboard.press(keys, repeat)

    async def key_down(self, key: str) -> None:
        """Press a key and hold it."""
        await self._keyboard.down([key])

    async def key_up(self, key: str) -> None:
        """Let a key go."""
        await self._keyboard.up([key])

    # ── Clipboard, windows, programs, files ──

    async def get_clipboard(self) -> str:
        """The text in the clipboard; empty for none."""
        return await self._selections.get(CLIPBOARD)

    async def set_clipboard(self, text: str) -> None:
        """Put text into the clipboard, where it is until another program puts something there or this is closed."""
        await self._selections.set(text, CLIPBOARD)

    async def windows(self) -> list[Window]:
        """The windows, front to back."""
        return await self._windows.all()

    async def window_act(self, window_id: str, act: WindowAct) -> None:
        """Do something with a window."""
        await self._windows.act(window_id, act)

    async def place_window(
        self,
        window_id: str,
        *,
        x: int | None = None,
        y: int | None = None,
        width: int | None = None,
        height: int | None = None,
    ) -> None:
        """Move or resize a window."""
        await self._windows.place(window_id, x, y, width, height)

    async def launch(self, program: str, arguments: Sequence[str] = ()) -> None:
        """Start a program and go on. Chromium gets the flags that it needs here; those that you state win."""
        if Path(program).name in chromium.NAMES:
            arguments = chromium.with_flags(arguments, self._home / ".config" / "chromium", *self.dimensions)
        await self._programs.launch(program, arguments)

    async def run_command(self, command: str, *, timeout: float = 60.0) -> CommandResult:
        """Run a shell command to its end, in `home`."""
        return await self._programs.run_command(command, timeout=timeout)

    async def list_dir(self, path: str) -> list[DirectoryEntry]:
        """What is in a directory."""
        return await self._files.list_dir(path)

    async def read_file(self, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """A file's bytes."""
        return await self._files.read_file(path, offset=offset, length=length)

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        """Write a file; its directory is made."""
        await self._files.write_file(path, data, append=append)

    async def delete_file(self, path: str) -> None:
        """Delete a file."""
        await self._files.delete_file(path)

    # ── Beginning and end ──

    async def reset(self) -> None:
        """A new display, and an empty home, in place of the old ones: nothing of the last caller can be left.

        Raises `ComputerUnsupportedError` for a display that is not ours.
        """
        if self._managed is None:
            raise ComputerUnsupportedError(f"display {self.display} is not ours to reset", hint="Close it instead.")
        if self._closed:
            raise ComputerError("this computer is closed")
        await self._disconnect()
        await self._managed.stop()
        await self._start()

    async def close(self) -> None:
        """Let it go. Of a display of its own nothing is left, programs and files included; another stays as it is."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._managed is None:
                await self._let_go()
        finally:
            await self._disconnect()
            if self._managed is not None:
                await asyncio.shield(self._managed.stop())

    async def _start(self) -> None:
        self._managed = managed = await ManagedDisplay.start(*self._wanted, self._extra)
        try:
            await self._connect(managed.name, managed.home, managed.programs)
            try:
                await self._connection.keep_to_this_user()
                async with asyncio.timeout(_MANAGER_START):
                    while not await self._windows.managed():  # noqa: ASYNC110 - there is no event for what is not there yet
                        await asyncio.sleep(0.002)
            except BaseException:
                await self._disconnect()
                raise
        except BaseException as error:
            await asyncio.shield(managed.stop())
            if isinstance(error, TimeoutError):
                raise ComputerError("openbox did not start") from None
            raise

    async def _connect(self, display: str, home: Path, programs: Programs) -> None:
        self._home, self._programs, self._files = home, programs, LocalFiles(home)
        self._connection = await Connection.open(display)
        try:
            self._screen = await Screen.open(display)
        except BaseException:
            self._connection.close()
            raise
        try:
            self._keyboard = Keyboard(self._connection)
            self._pointer = Pointer(self._connection)
            self._windows = Windows(self._connection)
            self._selections = Selections(self._connection)
            self._answers = Answers(self._connection)
            await self._selections.open()
            await self._answers.open()
        except BaseException:
            await self._disconnect()
            raise
        self._typist = Typist(self._keyboard, self._selections)

    async def _disconnect(self) -> None:
        self._connection.close()
        self._screen.close()

    async def _let_go(self) -> None:
        """Leave a display that others use as it was."""
        try:
            await self._keyboard.release_all()
            await self._pointer.release_all()
            await self._keyboard.forget()
            await self._selections.set("", PRIMARY)
        except ComputerError:
            return  # it is gone

    @asynccontextmanager
    async def _holding(self, keys: Sequence[str]) -> AsyncGenerator[None]:
        if not keys:
            yield
            return
        await self._keyboard.down(keys)
        try:
            yield
        finally:
            await asyncio.shield(self._keyboard.up(keys))

    def _inside(self, x: int, y: int) -> Point:
        width, height = self.dimensions
        if not (0 <= x < width and 0 <= y < height):
            raise ComputerActionError(
                f"({x}, {y}) is outside the screen",
                hint=f"The screen is {width}x{height}, from (0, 0) at the top left.",
            )
        return Point(x, y)
