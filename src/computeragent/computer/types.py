"""What a computer is: pixels, a pointer, a keyboard, in one space of coordinates.

Every `x` and `y` is a pixel of the computer's own screenshot, origin top left; `dimensions` is the size of that space.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

Environment = Literal["linux", "windows", "mac", "browser"]
Button = Literal["left", "right", "middle", "back", "forward"]
ImageFormat = Literal["png", "jpeg"]


class Point(NamedTuple):
    """A pixel of the screenshot."""

    x: int
    y: int


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Screenshot:
    """What the screen showed: an encoded image and its size, which is the space that every x and y is in."""

    data: bytes = field(repr=False)
    size: Size
    format: ImageFormat = "png"

    @property
    def media_type(self) -> str:
        """The MIME type."""
        return f"image/{self.format}"

    @property
    def base64(self) -> str:
        """The image in base64."""
        return base64.b64encode(self.data).decode("ascii")

    @property
    def data_url(self) -> str:
        """The image as a ``data:`` URL."""
        return f"data:{self.media_type};base64,{self.base64}"


@runtime_checkable
class Computer(Protocol):
    """A screen with a pointer and a keyboard.

    A computer is used by one caller at a time (`pool.py` sees to that) and is asyncio throughout. Methods raise
    `ComputerError` when the computer is gone or cannot do a thing (`ComputerUnsupportedError`), and
    `ComputerActionError` for what the caller got wrong (a point outside the screen, an unknown key), which a model is
    told and may mend. Keys have the names of `keys.py`.
    """

    @property
    def kind(self) -> str:
        """``x11``, ``browser``, ``remote`` or ``custom``."""
        ...

    @property
    def environment(self) -> Environment:
        """What a model is told that it is working with."""
        ...

    @property
    def dimensions(self) -> Size:
        """The size of the screen, and so of every screenshot."""
        ...

    async def screenshot(self) -> Screenshot:
        """What the screen shows now."""
        ...

    async def settle(self, timeout: float = 3.0) -> None:
        """Wait until the screen has answered the last action: it stands still, or `timeout` seconds are over."""
        ...

    async def click(self, x: int, y: int, button: Button = "left", *, count: int = 1, keys: Sequence[str] = ()) -> None:
        """Click once, twice or three times, while `keys` are held."""
        ...

    async def move(self, x: int, y: int, *, keys: Sequence[str] = ()) -> None:
        """Move the pointer."""
        ...

    async def mouse_down(self, button: Button = "left", *, x: int | None = None, y: int | None = None) -> None:
        """Press a button and hold it, at a point or where the pointer is."""
        ...

    async def mouse_up(self, button: Button = "left", *, x: int | None = None, y: int | None = None) -> None:
        """Let a button go."""
        ...

    async def drag(self, path: Sequence[Point], *, button: Button = "left", keys: Sequence[str] = ()) -> None:
        """Press at the first point, move along the others, let go at the last. At least two points."""
        ...

    async def scroll(self, x: int, y: int, dx: int, dy: int, *, keys: Sequence[str] = ()) -> None:
        """Turn the wheel at a point by this many pixels; positive is to the right and down. 120 pixels are a notch."""
        ...

    async def type(self, text: str) -> None:
        """Type text exactly, whatever its script; a newline is Enter, a tab is Tab."""
        ...

    async def keypress(self, keys: Sequence[str], *, repeat: int = 1) -> None:
        """Press keys together, such as ``["ctrl", "c"]``, and let them go."""
        ...

    async def key_down(self, key: str) -> None:
        """Press a key and hold it."""
        ...

    async def key_up(self, key: str) -> None:
        """Let a key go."""
        ...

    async def cursor_position(self) -> Point:
        """Where the pointer is."""
        ...

    async def current_url(self) -> str | None:
        """The address that the browser shows, or None where there is none to know."""
        ...

    async def reset(self) -> None:
        """Make it as good as new for the next caller: nothing of the last one is left. Raises when it cannot."""
        ...

    async def close(self) -> None:
        """Let it go, with every process that belongs to it. May be called again."""
        ...


# ── What some computers have beyond a screen ──


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a shell command did."""

    stdout: str
    stderr: str
    returncode: int


@runtime_checkable
class HasShell(Protocol):
    """Runs commands."""

    async def run_command(self, command: str, *, timeout: float = 60.0) -> CommandResult:
        """Run a shell command to its end. Raises `ComputerActionError` at the time limit, with nothing left running."""
        ...


@runtime_checkable
class HasClipboard(Protocol):
    """Has a clipboard for text."""

    async def get_clipboard(self) -> str:
        """What is in it."""
        ...

    async def set_clipboard(self, text: str) -> None:
        """Put text into it."""
        ...


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """A name in a directory; `size` in bytes, 0 for a directory."""

    name: str
    is_dir: bool
    size: int


@runtime_checkable
class HasFiles(Protocol):
    """Has files that can be read and written. Paths are the computer's own, absolute or relative to its home."""

    async def list_dir(self, path: str) -> list[DirectoryEntry]:
        """What is in a directory."""
        ...

    async def read_file(self, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """A file's bytes."""
        ...

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        """Write a file; its directory is made."""
        ...

    async def delete_file(self, path: str) -> None:
        """Delete a file."""
        ...


@dataclass(frozen=True, slots=True)
class Window:
    """A window: an id of the computer's own, its title, its program, its place on the screen."""

    id: str
    title: str
    program: str
    x: int
    y: int
    width: int
    height: int
    active: bool = False


WindowAct = Literal["activate", "close", "minimize", "maximize", "restore"]


@runtime_checkable
class HasWindows(Protocol):
    """Has windows, and programs that can be launched."""

    async def windows(self) -> list[Window]:
        """The windows, front to back."""
        ...

    async def window_act(self, window_id: str, act: WindowAct) -> None:
        """Do something with a window."""
        ...

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
        ...

    async def launch(self, program: str, arguments: Sequence[str] = ()) -> None:
        """Start a program and go on."""
        ...


@runtime_checkable
class HasPages(Protocol):
    """Goes to addresses."""

    async def goto(self, url: str) -> None:
        """Open an address."""
        ...

    async def back(self) -> None:
        """Go back in the history."""
        ...


@runtime_checkable
class HasNotices(Protocol):
    """Notes what happens that no screenshot shows: a dialog that was answered, a tab that opened."""

    def take_notices(self) -> list[str]:
        """What was noted since it was last asked; a model should be told."""
        ...


@runtime_checkable
class Killable(Protocol):
    """Has processes here that can be ended without an event loop."""

    def kill(self) -> None:
        """End them at once, from any thread; `close` does it in peace."""
        ...


@dataclass(frozen=True, slots=True)
class Glimpse:
    """A picture for people who watch: a JPEG, with the pointer where that can be, and what tells it from another."""

    jpeg: bytes = field(repr=False)
    digest: bytes


@runtime_checkable
class HasGlimpses(Protocol):
    """Shows its screen at little cost, many times a second."""

    async def glimpse(self, known: bytes = b"", *, quality: int = 80) -> Glimpse | None:
        """What the screen shows now; None while it is what the digest `known` was of."""
        ...
