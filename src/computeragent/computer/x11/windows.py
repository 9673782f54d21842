"""The windows of a display, as its window manager knows them (EWMH)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from computeragent.computer.types import Window, WindowAct
from computeragent.computer.x11 import xlib
from computeragent.computer.x11.connection import Connection
from computeragent.errors import ComputerActionError

_BY_PAGER = 2  # the source of a request: a tool that acts for the user, which window managers obey
_ICONIC = 3
_ADD, _REMOVE = 1, 0
_MAXIMIZED = ("_NET_WM_STATE_MAXIMIZED_VERT", "_NET_WM_STATE_MAXIMIZED_HORZ")


class Windows:
    """Lists windows, and asks the window manager for what shall become of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def all(self) -> list[Window]:
        """The windows, front to back."""
        return await self._connection.run(self._list)

    async def managed(self) -> bool:
        """Whether a window manager is at work."""
        name = "_NET_SUPPORTING_WM_CHECK"
        return await self._connection.run(lambda: bool(self._connection.numbers(self._root, name)))

    async def act(self, window_id: str, act: WindowAct) -> None:
        """Do something with a window."""

        def ask() -> None:
            window = self._find(window_id)
            match act:
                case "activate":
                    self._ask(window, "_NET_ACTIVE_WINDOW", [_BY_PAGER, xlib.X.CurrentTime, 0])
                case "close":
                    self._ask(window, "_NET_CLOSE_WINDOW", [xlib.X.CurrentTime, _BY_PAGER])
                case "minimize":
                    self._ask(window, "WM_CHANGE_STATE", [_ICONIC])
                case "maximize":
                    self._ask(window, "_NET_WM_STATE", [_ADD, *map(self._connection.atom, _MAXIMIZED), _BY_PAGER])
                case "restore":
                    self._ask(window, "_NET_WM_STATE", [_REMOVE, *map(self._connection.atom, _MAXIMIZED), _BY_PAGER])
                    self._ask(window, "_NET_ACTIVE_WINDOW", [_BY_PAGER, xlib.X.CurrentTime, 0])
            self._connection.display.sync()

        await self._connection.run(ask)

    async def place(self, window_id: str, x: int | None, y: int | None, width: int | None, height: int | None) -> None:
        """Move or resize a window: its contents, without the frame."""
        given = [x, y, width, height]
        which = sum(1 << (8 + place) for place, value in enumerate(given) if value is not None)
        static = 10  # gravity: coordinates are those of the contents

        def ask() -> None:
            data = [static | which | _BY_PAGER << 12, *(value or 0 for value in given)]
            self._ask(self._find(window_id), "_NET_MOVERESIZE_WINDOW", data)
            self._connection.display.sync()

        await self._connection.run(ask)

    # ── In the connection's thread ──

    @property
    def _root(self) -> Any:
        return self._connection.root

    def _list(self) -> list[Window]:
        active = self._connection.numbers(self._root, "_NET_ACTIVE_WINDOW")
        found: list[Window] = []
        for number in reversed(self._listed()):
            try:
                found.append(self._described(number, active=number in active))
            except (xlib.error.BadWindow, xlib.error.BadDrawable):
                continue  # closed meanwhile
        return found

    def _listed(self) -> list[int]:
        """Back to front. `_NET_CLIENT_LIST` is the same, a moment later."""
        return self._connection.numbers(self._root, "_NET_CLIENT_LIST_STACKING")

    def _described(self, number: int, *, active: bool) -> Window:
        window = self._connection.display.create_resource_object("window", number)
        shape = window.get_geometry()
        # How far the root's corner is from the window's, so the other way round.
        corner = window.translate_coords(self._root, 0, 0)
        program = window.get_wm_class()
        return Window(
            id=f"0x{number:x}",
            title=self._title(window),
            program=str(program[1]) if program else "",
            x=-int(corner.x),
            y=-int(corner.y),
            width=int(shape.width),
            height=int(shape.height),
            active=active,
        )

    def _title(self, window: Any) -> str:
        found = window.get_full_property(self._connection.atom("_NET_WM_NAME"), self._connection.atom("UTF8_STRING"))
        name: Any = found.value if found is not None else window.get_wm_name()
        return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")

    def _find(self, window_id: str) -> Any:
        try:
            number = int(window_id, 0)
        except ValueError:
            number = 0
        if number not in self._listed():
            raise ComputerActionError(f"there is no window {window_id!r}", hint="Windows come and go: list them.")
        return self._connection.display.create_resource_object("window", number)

    def _ask(self, window: Any, name: str, data: Sequence[int]) -> None:
        message = xlib.event.ClientMessage(
            window=window, client_type=self._connection.atom(name), data=(32, [*data, *[0] * (5 - len(data))])
        )
        mask = xlib.X.SubstructureRedirectMask | xlib.X.SubstructureNotifyMask
        self._root.send_event(message, event_mask=mask)
