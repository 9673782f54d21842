"""`RemoteComputer`: a computer elsewhere, driven through a cua computer-server or a server of ours."""

from __future__ import annotations

import base64
import binascii
import math
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, cast, get_args

from computeragent.computer import actions
from computeragent.computer.images import screenshot_of, until_still
from computeragent.computer.remote.commands import commands_of, key_command
from computeragent.computer.remote.wire import CommandWire, NoSocketError, SocketWire, Wire, base_of, check_key, checked
from computeragent.computer.types import (
    Button,
    CommandResult,
    DirectoryEntry,
    Environment,
    Point,
    Screenshot,
    Size,
    Window,
    WindowAct,
)
from computeragent.errors import ComputerActionError, ComputerAgentError, ComputerError, ComputerUnsupportedError

PART = 4 * 1024 * 1024
"""Bytes of a file that travel in one command: computer-servers take messages of up to 10 MB."""
_SYSTEMS: dict[str, Environment] = {"linux": "linux", "windows": "windows", "macos": "mac", "darwin": "mac"}
_ACTS = get_args(WindowAct)
_PER_CHARACTER = 0.05
_MOST_NOTICES = 20
_TIMED_OUT = 124


class RemoteComputer:
    """A computer behind a computer-server. Reached with `await RemoteComputer.connect(url)`.

    With a server of ours (`computeragent.server.computers`) every action is exact. The protocol itself scrolls by
    notches, and pastes what is not ASCII, over the clipboard. A connection that breaks is made again.
    """

    kind = "remote"

    def __init__(self, wire: Wire, features: frozenset[str], environment: Environment, timeout: float) -> None:
        self._wire = wire
        self._features = features
        self._environment: Environment = environment
        self._timeout = timeout
        self._size = Size(0, 0)
        self._scale = (1.0, 1.0)
        self._is_closed = False
        self._notices: list[str] = []
        self._held: list[tuple[str, dict[str, Any]]] = []
        """The commands that let go what is held."""

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        api_key: str | None = None,
        name: str | None = None,
        os_type: str = "linux",
        timeout: float = 30.0,
        socket: bool = True,
    ) -> Self:
        """Reach a computer.

        Args:
            url: Where its server is, such as ``http://10.0.0.5:8000``.
            api_key: Its key.
            name: The name of its container, where it asks for one.
            os_type: What runs there, where the server does not say.
            timeout: Seconds that an answer may take.
            socket: Whether to use its WebSocket; else each command is a request.

        Raises `ComputerError` when nobody answers, or the key is refused.

        """
        base = base_of(url)
        check_key(api_key, name)
        wire: Wire
        http = wire = CommandWire(base, api_key, name)
        try:
            status = await http.status(timeout)
            wire = await _socket(base, api_key, name, timeout) if socket else http
            if wire is not http:
                await http.aclose()
            features, system = status.get("features"), status.get("os_type")
            environment = _SYSTEMS.get(
                str(system), "browser" if system == "browser" else _SYSTEMS.get(os_type, "linux")
            )
            known = frozenset(map(str, cast("list[Any]", features))) if isinstance(features, list) else frozenset[str]()
            computer = cls(wire, known, environment, timeout)
            await computer._measure()
        except NoSocketError:
            computer = await cls.connect(
                url, api_key=api_key, name=name, os_type=os_type, timeout=timeout, socket=False
            )
            await http.aclose()
        except BaseException:
            await wire.aclose()
            await http.aclose()
            raise
        return computer

    @property
    def environment(self) -> Environment:
        """What runs there."""
        return self._environment

    @property
    def dimensions(self) -> Size:
        """The size of its screenshots. Points are scaled to its screen, if that is another."""
        return self._size

    async def screenshot(self) -> Screenshot:
        """What its screen shows now. Raises `ComputerError` when the screen has changed its size."""
        taken = await self._shot()
        if taken.size != self._size:
            raise ComputerError("the screen there has changed its size", hint="Connect again.")
        return taken

    async def settle(self, timeout: float = 3.0) -> None:
        """Wait until the screen stands still: as the server sees it, else until two screenshots are the same."""
        if "settle" in self._features:
            await self._ask("settle", {"timeout": timeout}, again=True, longer=timeout)
        else:
            await until_still(self, timeout)

    # ── Pointer and keyboard ──

    async def click(self, x: int, y: int, button: Button = "left", *, count: int = 1, keys: Sequence[str] = ()) -> None:
        """Click."""
        await self._act(actions.Click(x=x, y=y, button=button, count=count, keys=tuple(keys)))

    async def move(self, x: int, y: int, *, keys: Sequence[str] = ()) -> None:
        """Move the pointer."""
        await self._act(actions.Move(x=x, y=y, keys=tuple(keys)))

    async def mouse_down(self, button: Button = "left", *, x: int | None = None, y: int | None = None) -> None:
        """Press a button and hold it."""
        await self._act(actions.MouseDown(x=x, y=y, button=button))
        self._held.append(("mouse_up", {"button": button}))

    async def mouse_up(self, button: Button = "left", *, x: int | None = None, y: int | None = None) -> None:
        """Let a button go."""
        await self._act(actions.MouseUp(x=x, y=y, button=button))
        self._held = [each for each in self._held if each != ("mouse_up", {"button": button})]

    async def drag(self, path: Sequence[Point], *, button: Button = "left", keys: Sequence[str] = ()) -> None:
        """Press at the first point, let go at the last."""
        await self._act(actions.Drag(path=tuple(Point(*each) for each in path), button=button, keys=tuple(keys)))

    async def scroll(self, x: int, y: int, dx: int, dy: int, *, keys: Sequence[str] = ()) -> None:
        """Turn the wheel."""
        await self._act(actions.Scroll(x=x, y=y, dx=dx, dy=dy, keys=tuple(keys)))

    async def type(self, text: str) -> None:
        """Type text."""
        await self._act(actions.Type(text=text), longer=len(text) * _PER_CHARACTER)

    async def keypress(self, keys: Sequence[str], *, repeat: int = 1) -> None:
        """Press keys together."""
        await self._act(actions.Keypress(keys=tuple(keys), repeat=repeat), longer=repeat * _PER_CHARACTER)

    async def key_down(self, key: str) -> None:
        """Press a key and hold it."""
        command, params = key_command("key_down", key, self._environment)
        await self._ask(command, params)
        self._held.append(("key_up", params))

    async def key_up(self, key: str) -> None:
        """Let a key go."""
        command, params = key_command("key_up", key, self._environment)
        await self._ask(command, params)
        self._held = [each for each in self._held if each != (command, params)]

    async def cursor_position(self) -> Point:
        """Where the pointer is."""
        answer = await self._ask("get_cursor_position", again=True)
        x, y = _numbers(answer.get("position"), "x", "y")
        return Point(round(x / self._scale[0]), round(y / self._scale[1]))

    async def current_url(self) -> str | None:
        """The address, where the server tells it."""
        if "get_current_url" not in self._features:
            return None
        url = (await self._ask("get_current_url", again=True)).get("url")
        return None if url is None else str(url)

    async def goto(self, url: str) -> None:
        """Open an address there."""
        await self._ask("open", {"target": url})

    async def back(self) -> None:
        """Go back in the browser's history."""
        if "act" in self._features:
            await self._act(actions.Back())
        else:
            await self.keypress(["super", "["] if self._environment == "mac" else ["alt", "left"])

    # ── Shell, clipboard, files ──

    async def run_command(self, command: str, *, timeout: float = 60.0) -> CommandResult:
        """Run a shell command to its end. Raises `ComputerActionError` at the time limit."""
        is_ours = "act" in self._features
        if not is_ours and self._environment == "linux":
            seconds = max(1, math.ceil(timeout))
            command = f"timeout --kill-after=1 {seconds} sh -c {shlex.quote(command)}"
        answer = await self._ask("run_command", {"command": command, "timeout": timeout}, longer=timeout)
        code = answer.get("return_code", answer.get("returncode"))
        if not isinstance(code, int):
            raise ComputerError("the computer-server does not say how the command ended")
        if code == _TIMED_OUT and not is_ours:
            raise ComputerActionError(f"the command did not end within {timeout:g} seconds")
        return CommandResult(str(answer.get("stdout") or ""), str(answer.get("stderr") or ""), code)

    async def get_clipboard(self) -> str:
        """What is in the clipboard."""
        return str((await self._ask("copy_to_clipboard", again=True)).get("content") or "")

    async def set_clipboard(self, text: str) -> None:
        """Put text into it."""
        await self._ask("set_clipboard", {"text": text})

    async def list_dir(self, path: str) -> list[DirectoryEntry]:
        """What is in a directory. Where the server tells names alone, each is asked for."""
        answer = await self._ask("list_dir", {"path": path}, again=True)
        told = answer.get("entries")
        if isinstance(told, list):
            rows = [_mapping(row) for row in cast("list[Any]", told)]
            return [
                DirectoryEntry(str(row.get("name")), bool(row.get("is_dir")), int(row.get("size") or 0)) for row in rows
            ]
        names = answer.get("files")
        if not isinstance(names, list):
            raise ComputerError("the computer-server told no files")
        return [await self._entry(path, str(name)) for name in cast("list[Any]", names)]

    async def read_file(self, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """A file's bytes, in parts."""
        parts: list[bytes] = []
        left = length
        while left is None or left > 0:
            size = PART if left is None else min(PART, left)
            params = {"path": path, "offset": offset, "length": size}
            part = _unpacked((await self._ask("read_bytes", params, again=True)).get("content_b64"))[:size]
            parts.append(part)
            offset += len(part)
            left = None if left is None else left - len(part)
            if len(part) < size:
                break
        return b"".join(parts)

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        """Write a file, in parts."""
        for at in range(0, max(1, len(data)), PART):
            content = base64.b64encode(data[at : at + PART]).decode("ascii")
            await self._ask("write_bytes", {"path": path, "content_b64": content, "append": append or at > 0})

    async def delete_file(self, path: str) -> None:
        """Delete a file."""
        await self._ask("delete_file", {"path": path})

    # ── Windows ──

    async def windows(self) -> list[Window]:
        """The windows; with a server that is not ours, the active one."""
        if "list_windows" in self._features:
            rows = (await self._ask("list_windows", again=True)).get("windows")
            return [_window(_mapping(row)) for row in cast("list[Any]", rows or [])]
        found = (await self._ask("get_current_window_id", again=True)).get("window_id")
        if found is None:
            return []
        one = {"window_id": found}
        title = (await self._ask("get_window_name", one, again=True)).get("name")
        size = await self._ask("get_window_size", one, again=True)
        place = await self._ask("get_window_position", one, again=True)
        return [_window({"id": found, "title": title, "active": True} | size | place)]

    async def window_act(self, window_id: str, act: WindowAct) -> None:
        """Do something with a window."""
        if act not in _ACTS:
            raise ComputerActionError(f"nothing {act!r} can be done with a window", hint=f"One of {', '.join(_ACTS)}.")
        await self._ask(f"{act}_window", {"window_id": window_id})

    async def place_window(
        self,
        window_id: str,
        *,
        x: int | None = None,
        y: int | None = None,
        width: int | None = None,
        height: int | None = None,
    ) -> None:
        """Move or resize a window; what is left out stays."""
        one = {"window_id": window_id}
        if x is not None or y is not None:
            if x is None or y is None:
                now = await self._ask("get_window_position", one, again=True)
                x, y = (now.get("x") if x is None else x), (now.get("y") if y is None else y)
            await self._ask("set_window_position", one | {"x": x, "y": y})
        if width is not None or height is not None:
            if width is None or height is None:
                now = await self._ask("get_window_size", one, again=True)
                width, height = (
                    (now.get("width") if width is None else width),
                    (now.get("height") if height is None else height),
                )
            await self._ask("set_window_size", one | {"width": width, "height": height})

    async def launch(self, program: str, arguments: Sequence[str] = ()) -> None:
        """Start a program there, and go on."""
        await self._ask("launch", {"app": program, "args": list(arguments)})

    # ── Its life ──

    async def reset(self) -> None:
        """Make it as good as new, where its server can. Raises `ComputerUnsupportedError` elsewhere."""
        if "reset" not in self._features:
            raise ComputerUnsupportedError("a remote computer is not reset from here")
        await self._ask("reset", longer=self._timeout)

    async def close(self) -> None:
        """Leave it, with nothing held down; it goes on without us."""
        held, self._held = self._held, []
        try:
            for command, params in reversed(held):
                with suppress(ComputerAgentError):
                    await self._ask(command, params)
        finally:
            self._is_closed = True
            await self._wire.aclose()

    def take_notices(self) -> list[str]:
        """What the server told that no screenshot shows, since it was last asked."""
        taken, self._notices = self._notices, []
        return taken

    # ── How it is asked ──

    async def _act(self, action: actions.Action, *, longer: float = 0.0) -> None:
        scaled = self._scaled(action)
        if "act" in self._features:
            await self._ask("act", actions.to_dict(scaled), longer=longer)
            return
        held: list[dict[str, Any]] = []
        try:
            for command, params in commands_of(scaled, self._environment):
                await self._ask(command, params, longer=longer)
                if command == "key_down":
                    held.append(params)
                elif command == "key_up":
                    held.remove(params)
        finally:
            for params in reversed(held):  # an action that failed half-way leaves no key down
                with suppress(ComputerAgentError):
                    await self._ask("key_up", params)

    async def _ask(
        self, command: str, params: Mapping[str, Any] | None = None, *, again: bool = False, longer: float = 0.0
    ) -> dict[str, Any]:
        if self._is_closed:
            raise ComputerError("the computer was closed")
        answer = await self._wire.ask(command, params or {}, timeout=self._timeout + longer, again=again)
        noted = answer.get("notices")
        if isinstance(noted, list):
            self._notices = [*self._notices, *(str(each)[:500] for each in cast("list[Any]", noted))][-_MOST_NOTICES:]
        return checked(answer, command)

    async def _shot(self) -> Screenshot:
        return screenshot_of((await self._ask("screenshot", again=True)).get("image_data"))

    async def _measure(self) -> None:
        """Points are pixels of the screenshot, whatever the screen's own are (they differ where pixels are dense)."""
        try:
            answer = await self._ask("get_screen_size", again=True)
            self._size = (await self._shot()).size
        except ComputerActionError as error:  # it is no model's fault
            raise ComputerError(f"the computer-server shows no screen: {error.message}") from None
        width, height = _numbers(answer.get("size"), "width", "height")
        if width <= 0 or height <= 0:
            raise ComputerError("the computer-server told no size of its screen")
        self._scale = (width / self._size.width, height / self._size.height)

    def _scaled(self, action: actions.Action) -> actions.Action:
        if self._scale == (1.0, 1.0):
            return action
        plain = actions.to_dict(action)
        if "path" in plain:
            plain["path"] = [self._point(x, y) for x, y in plain["path"]]
        if plain.get("x") is not None and plain.get("y") is not None:
            plain["x"], plain["y"] = self._point(plain["x"], plain["y"])
        return actions.parse_action(plain)

    def _point(self, x: int, y: int) -> Point:
        return Point(round(x * self._scale[0]), round(y * self._scale[1]))

    async def _entry(self, folder: str, name: str) -> DirectoryEntry:
        path = f"{folder.rstrip('/')}/{name}"
        if (await self._ask("directory_exists", {"path": path}, again=True)).get("exists") is True:
            return DirectoryEntry(name, is_dir=True, size=0)
        size = (await self._ask("get_file_size", {"path": path}, again=True)).get("size")
        return DirectoryEntry(name, is_dir=False, size=size if isinstance(size, int) else 0)


async def _socket(base: str, api_key: str | None, name: str | None, timeout: float) -> Wire:
    wire = SocketWire(base, api_key, name)
    await wire.connect(timeout)
    return wire


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ComputerError("the computer-server answered in another shape than the protocol's")
    return cast("dict[str, Any]", value)


def _numbers(value: object, first: str, second: str) -> tuple[float, float]:
    found = _mapping(value)
    numbers = found.get(first), found.get(second)
    if not all(isinstance(each, (int, float)) and math.isfinite(each) for each in numbers):
        raise ComputerError("the computer-server answered in another shape than the protocol's")
    return cast("tuple[float, float]", numbers)


def _unpacked(content: object) -> bytes:
    try:
        return base64.b64decode(cast("str", content), validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ComputerError("the computer-server told a file in another shape than the protocol's") from None


def _window(row: Mapping[str, Any]) -> Window:
    place = [value if isinstance(value := row.get(each), int) else 0 for each in ("x", "y", "width", "height")]
    return Window(
        str(row.get("id")), str(row.get("title") or ""), str(row.get("program") or ""), *place,
        active=bool(row.get("active")),
    )  # fmt: skip
