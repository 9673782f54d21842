"""The commands of a cua computer-server, done on a computer."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar, cast

import msgspec

from computeragent.computer import actions
from computeragent.computer.types import (
    Computer,
    HasClipboard,
    HasFiles,
    HasNotices,
    HasPages,
    HasShell,
    HasWindows,
    Point,
    Window,
    WindowAct,
)
from computeragent.errors import ComputerActionError, ComputerUnsupportedError

T = TypeVar("T")
Params = Mapping[str, Any]

NOTCH = 120
"""Pixels of a notch of the wheel, in which the protocol scrolls."""
_SYSTEMS = {"linux": "linux", "windows": "windows", "mac": "darwin", "browser": "browser"}
_MOST_WAITED = 600.0


class Commands:
    """What a computer-server can be asked, by name."""

    def __init__(self, computer: Computer) -> None:
        self._computer = computer
        self._table: dict[str, Callable[[Params], Awaitable[dict[str, Any]]]] = {
            "version": self._version,
            "screenshot": self._screenshot,
            "get_screen_size": self._size,
            "get_cursor_position": self._cursor,
            "left_click": lambda params: self._click(params, {}),
            "right_click": lambda params: self._click(params, {"button": "right"}),
            "double_click": lambda params: self._click(params, {"count": 2}),
            "mouse_down": lambda params: self._do("mouse_down", params, "x", "y", "button"),
            "mouse_up": lambda params: self._do("mouse_up", params, "x", "y", "button"),
            "move_cursor": lambda params: self._do("move", params, "x", "y"),
            "drag": self._drag,
            "drag_to": self._drag_to,
            "scroll": lambda params: self._scroll(_number(params, "x"), -_number(params, "y")),
            "scroll_down": lambda params: self._scroll(0, _number(params, "clicks", 1)),
            "scroll_up": lambda params: self._scroll(0, -_number(params, "clicks", 1)),
            "type_text": lambda params: self._do("type", params, "text"),
            "press_key": lambda params: self._perform({"action": "keypress", "keys": [params.get("key")]}),
            "hotkey": lambda params: self._do("keypress", params, "keys"),
            "key_down": lambda params: self._key(self._computer.key_down, params),
            "key_up": lambda params: self._key(self._computer.key_up, params),
            "run_command": self._run,
            "copy_to_clipboard": self._clipboard,
            "set_clipboard": self._set_clipboard,
            "list_dir": self._list,
            "file_exists": lambda params: self._exists(params, is_dir=False),
            "directory_exists": lambda params: self._exists(params, is_dir=True),
            "get_file_size": self._file_size,
            "read_bytes": self._read,
            "read_text": self._read_text,
            "write_bytes": self._write,
            "write_text": self._write_text,
            "delete_file": self._delete,
            "open": self._open,
            "launch": self._launch,
            "get_current_window_id": self._current_window,
            "get_window_name": lambda params: self._window(params, "title", as_="name"),
            "get_window_size": lambda params: self._window(params, "width", "height"),
            "get_window_position": lambda params: self._window(params, "x", "y"),
            "set_window_size": lambda params: self._place(params, "width", "height"),
            "set_window_position": lambda params: self._place(params, "x", "y"),
            **{f"{act}_window": self._window_act(act) for act in ("activate", "close", "minimize", "maximize")},
            # Beyond the protocol: told of in `features`.
            "restore_window": self._window_act("restore"),
            "act": self._perform,
            "settle": self._settle,
            "reset": self._reset,
            "get_current_url": self._url,
            "list_windows": self._windows,
        }

    @property
    def os_type(self) -> str:
        """What runs on the computer, as ``/status`` tells it."""
        return _SYSTEMS[self._computer.environment]

    @property
    def features(self) -> tuple[str, ...]:
        """What there is beyond the protocol."""
        return ("act", "settle", "reset", "get_current_url", *(["list_windows"] if self._has(HasWindows) else []))

    async def run(self, name: str, params: Params) -> dict[str, Any]:
        """Do a command; what it tells, and what the computer noted since the last one (`notices`).

        Raises `ComputerUnsupportedError` for a command that there is not, and what commands raise.
        """
        command = self._table.get(name)
        if command is None:
            raise ComputerUnsupportedError(f"Unknown command: {name[:80]}", hint=f"Commands: {', '.join(self._table)}.")
        answer = await command(params)
        noted = self._computer.take_notices() if isinstance(self._computer, HasNotices) else []
        return {**answer, "notices": noted} if noted else answer

    # ── Screen, pointer, keyboard ──

    async def _version(self, params: Params) -> dict[str, Any]:
        from importlib import metadata

        del params
        return {"protocol": 1, "package": metadata.version("computer-agent-py")}

    async def _screenshot(self, params: Params) -> dict[str, Any]:
        del params
        return {"image_data": (await self._computer.screenshot()).base64}

    async def _size(self, params: Params) -> dict[str, Any]:
        del params
        return {"size": self._computer.dimensions._asdict()}

    async def _cursor(self, params: Params) -> dict[str, Any]:
        del params
        return {"position": (await self._computer.cursor_position())._asdict()}

    async def _perform(self, params: Params) -> dict[str, Any]:
        point = await actions.perform(self._computer, actions.parse_action(dict(params)))
        return {"position": point._asdict()} if point is not None else {}

    async def _do(self, action: str, params: Params, *names: str) -> dict[str, Any]:
        given = {name: params[name] for name in names if params.get(name) is not None}
        return await self._perform({"action": action} | given)

    async def _click(self, params: Params, fixed: dict[str, Any]) -> dict[str, Any]:
        given = {name: params[name] for name in ("x", "y") if params.get(name) is not None}
        return await self._perform({"action": "click"} | given | fixed)

    async def _key(self, act: Callable[[str], Awaitable[None]], params: Params) -> dict[str, Any]:
        await act(_text(params, "key"))
        return {}

    async def _drag(self, params: Params) -> dict[str, Any]:
        return await self._do("drag", params, "path", "button")

    async def _drag_to(self, params: Params) -> dict[str, Any]:
        start = await self._computer.cursor_position()
        path = [start, Point(_number(params, "x"), _number(params, "y"))]
        return await self._do("drag", {**params, "path": path}, "path", "button")

    async def _scroll(self, right: int, down: int) -> dict[str, Any]:
        return await self._perform({"action": "scroll", "dx": right * NOTCH, "dy": down * NOTCH})

    async def _settle(self, params: Params) -> dict[str, Any]:
        await self._computer.settle(_seconds(params, 3.0))
        return {}

    async def _reset(self, params: Params) -> dict[str, Any]:
        del params
        await self._computer.reset()
        return {}

    async def _url(self, params: Params) -> dict[str, Any]:
        del params
        return {"url": await self._computer.current_url()}

    # ── Shell, clipboard, files ──

    async def _run(self, params: Params) -> dict[str, Any]:
        shell = self._with(HasShell, "runs no commands")
        ended = await shell.run_command(_text(params, "command"), timeout=_seconds(params, 60.0))
        return {"stdout": ended.stdout, "stderr": ended.stderr, "return_code": ended.returncode}

    async def _clipboard(self, params: Params) -> dict[str, Any]:
        del params
        return {"content": await self._with(HasClipboard, "has no clipboard").get_clipboard()}

    async def _set_clipboard(self, params: Params) -> dict[str, Any]:
        await self._with(HasClipboard, "has no clipboard").set_clipboard(_text(params, "text"))
        return {}

    @property
    def _files(self) -> HasFiles:
        return self._with(HasFiles, "has no files")

    async def _list(self, params: Params) -> dict[str, Any]:
        entries = await self._files.list_dir(_text(params, "path"))
        return {"files": [entry.name for entry in entries], "entries": [asdict(entry) for entry in entries]}

    async def _exists(self, params: Params, *, is_dir: bool) -> dict[str, Any]:
        path = _text(params, "path")
        try:
            await self._files.list_dir(path)
        except ComputerActionError:
            return {"exists": not is_dir and await self._is_file(path)}
        return {"exists": is_dir}

    async def _is_file(self, path: str) -> bool:
        try:
            await self._files.read_file(path, length=0)
        except ComputerActionError:
            return False
        return True

    async def _file_size(self, params: Params) -> dict[str, Any]:
        folder, _, name = _text(params, "path").rstrip("/").rpartition("/")
        entries = await self._files.list_dir(folder or ("/" if params["path"].startswith("/") else "."))
        found = next((entry for entry in entries if entry.name == name and not entry.is_dir), None)
        if found is None:
            raise ComputerActionError(f"there is no file {name!r}")
        return {"size": found.size}

    async def _read(self, params: Params) -> dict[str, Any]:
        data = await self._files.read_file(
            _text(params, "path"), offset=_number(params, "offset"), length=_maybe(params, "length", int)
        )
        return {"content_b64": base64.b64encode(data).decode("ascii")}

    async def _read_text(self, params: Params) -> dict[str, Any]:
        return {"content": (await self._files.read_file(_text(params, "path"))).decode("utf-8", "replace")}

    async def _write(self, params: Params) -> dict[str, Any]:
        try:
            data = base64.b64decode(_text(params, "content_b64"), validate=True)
        except (binascii.Error, ValueError):
            raise ComputerActionError("`content_b64` is no base64") from None
        await self._files.write_file(_text(params, "path"), data, append=bool(params.get("append")))
        return {}

    async def _write_text(self, params: Params) -> dict[str, Any]:
        data = _text(params, "content").encode("utf-8", "replace")
        await self._files.write_file(_text(params, "path"), data, append=bool(params.get("append")))
        return {}

    async def _delete(self, params: Params) -> dict[str, Any]:
        await self._files.delete_file(_text(params, "path"))
        return {}

    # ── Programs and windows ──

    async def _open(self, params: Params) -> dict[str, Any]:
        target = _text(params, "target")
        if self._has(HasPages):
            await self._with(HasPages, "").goto(target)
        else:
            await self._with(HasWindows, "opens nothing").launch("chromium", [target])
        return {}

    async def _launch(self, params: Params) -> dict[str, Any]:
        arguments = [str(each) for each in cast("Sequence[Any]", _maybe(params, "args", list) or [])]
        await self._with(HasWindows, "launches no programs").launch(_text(params, "app"), arguments)
        return {}

    async def _all_windows(self) -> list[Window]:
        return await self._with(HasWindows, "has no windows").windows()

    async def _windows(self, params: Params) -> dict[str, Any]:
        del params
        return {"windows": [asdict(window) for window in await self._all_windows()]}

    async def _current_window(self, params: Params) -> dict[str, Any]:
        del params
        return {"window_id": next((each.id for each in await self._all_windows() if each.active), None)}

    async def _window(self, params: Params, *names: str, as_: str | None = None) -> dict[str, Any]:
        wanted = str(params.get("window_id"))
        found = next((each for each in await self._all_windows() if each.id == wanted), None)
        if found is None:
            raise ComputerActionError(f"there is no window {wanted[:80]!r}")
        return {as_ or name: getattr(found, name) for name in names}

    async def _place(self, params: Params, *names: str) -> dict[str, Any]:
        windows = self._with(HasWindows, "has no windows")
        await windows.place_window(str(params.get("window_id")), **{name: _number(params, name) for name in names})
        return {}

    def _window_act(self, act: str) -> Callable[[Params], Awaitable[dict[str, Any]]]:
        async def do(params: Params) -> dict[str, Any]:
            windows = self._with(HasWindows, "has no windows")
            await windows.window_act(str(params.get("window_id")), cast("WindowAct", act))
            return {}

        return do

    def _has(self, part: type) -> bool:
        return isinstance(self._computer, part)

    def _with(self, part: type[T], lacks: str) -> T:
        if isinstance(self._computer, part):
            return self._computer
        raise ComputerUnsupportedError(f"a computer of kind {self._computer.kind} {lacks}")


def _maybe(params: Params, name: str, type_: type[T]) -> T | None:
    value = params.get(name)
    if value is None:
        return None
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise ComputerActionError(f"`{name}`: {error}") from None


def _text(params: Params, name: str) -> str:
    value = _maybe(params, name, str)
    if value is None:
        raise ComputerActionError(f"`{name}` is missing")
    return value


def _number(params: Params, name: str, default: int = 0) -> int:
    value = _maybe(params, name, int)
    return default if value is None else value


def _seconds(params: Params, default: float) -> float:
    value = _maybe(params, "timeout", float)
    return default if value is None else min(max(value, 0.0), _MOST_WAITED)
