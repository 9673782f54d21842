"""The clipboard of a display: we are an owner of text like any program, so we know when somebody took it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from computeragent.computer.x11 import xlib
from computeragent.computer.x11.connection import Connection
from computeragent.errors import ComputerError

CLIPBOARD, PRIMARY = "CLIPBOARD", "PRIMARY"
_TEXTS = ("UTF8_STRING", "text/plain;charset=utf-8", "text/plain", "TEXT", "STRING")
_ANSWER = 3.0
_AT_ONCE = 128 * 1024  # bytes in one property; larger texts go in parts, as a request has a limit


class Selections:
    """What is in the selections `CLIPBOARD` and `PRIMARY`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._window: Any = None
        self._atoms: dict[str, int] = {}
        self._owned: dict[int, bytes] = {}
        self._parts: dict[tuple[int, int], tuple[Any, int, bytes]] = {}  # what is being handed out in parts
        self._awaited: _Answer | None = None
        self.asked: Callable[[bool], object] = _ignore
        """Called in the connection's thread when a program asks for what we own; with True, when it takes the text."""

    async def open(self) -> None:
        """Make the window that owns and asks."""
        await self._connection.run(self._open)
        for kind, handler in (
            (xlib.X.SelectionRequest, self._requested),
            (xlib.X.SelectionClear, self._cleared),
            (xlib.X.SelectionNotify, self._notified),
            (xlib.X.PropertyNotify, self._property),
        ):
            self._connection.on(kind, handler)

    async def set(self, text: str, *selections: str) -> None:
        """Own selections, with this text."""
        data = text.encode()

        def own() -> None:
            for name in selections:
                self._owned[self._atoms[name]] = data
                self._window.set_selection_owner(self._atoms[name], xlib.X.CurrentTime)
            self._connection.display.sync()

        await self._connection.run(own)

    async def get(self, selection: str) -> str:
        """The text of a selection, empty for none. Raises `ComputerError` when its owner does not answer."""
        atom = self._atoms[selection]
        answer = _Answer()

        def ask() -> bytes | None:
            if atom in self._owned:
                return self._owned[atom]
            if self._connection.display.get_selection_owner(atom) == xlib.X.NONE:
                return b""
            self._awaited = answer
            target, place = self._atoms["UTF8_STRING"], self._atoms["COMPUTERAGENT"]
            self._window.convert_selection(atom, target, place, xlib.X.CurrentTime)
            self._connection.display.flush()
            return None

        data = await self._connection.run(ask)
        if data is None:
            try:
                async with asyncio.timeout(_ANSWER):
                    data = await answer.wait()
            except TimeoutError:
                raise ComputerError("the program that owns the clipboard does not answer") from None
        return data.decode("utf-8", "replace")

    # ── In the connection's thread ──

    def _open(self) -> None:
        display = self._connection.display
        for name in (CLIPBOARD, PRIMARY, "TARGETS", "TIMESTAMP", "INCR", "COMPUTERAGENT", *_TEXTS):
            self._atoms[name] = display.intern_atom(name)
        screen = display.screen()
        mask = xlib.X.PropertyChangeMask
        self._window = screen.root.create_window(0, 0, 1, 1, 0, screen.root_depth, event_mask=mask)
        display.sync()

    def _requested(self, event: Any) -> None:
        place = event.property or event.target  # clients of old name no property
        data = self._owned.get(event.selection)
        text = data is not None and event.target in [self._atoms[name] for name in _TEXTS]
        if data is not None and event.target == self._atoms["TARGETS"]:
            targets = [self._atoms[name] for name in ("TARGETS", *_TEXTS)]
            event.requestor.change_property(place, xlib.Xatom.ATOM, 32, targets)
        elif text and data is not None:
            self._hand_out(event.requestor, place, event.target, data)
        else:
            place = xlib.X.NONE
        answer = xlib.event.SelectionNotify(
            time=event.time,
            requestor=event.requestor,
            selection=event.selection,
            target=event.target,
            property=place,
        )
        event.requestor.send_event(answer)
        self._connection.display.flush()
        self.asked(text)

    def _hand_out(self, requestor: Any, place: int, kind: int, data: bytes) -> None:
        if kind == self._atoms["TEXT"]:
            kind = self._atoms["UTF8_STRING"]
        elif kind == self._atoms["STRING"]:
            data = data.decode().encode("latin-1", "replace")
        if len(data) <= _AT_ONCE:
            requestor.change_property(place, kind, 8, data)
            return
        requestor.change_attributes(event_mask=xlib.X.PropertyChangeMask)
        requestor.change_property(place, self._atoms["INCR"], 32, [len(data)])
        self._parts[requestor.id, place] = (requestor, kind, data)

    def _property(self, event: Any) -> None:
        if event.state == xlib.X.PropertyDelete:
            self._hand_out_more(event.window.id, event.atom)
        elif event.window.id == self._window.id and self._awaited is not None and self._awaited.parts is not None:
            part = self._read()
            self._awaited.parts += part
            if not part:
                self._answered(bytes(self._awaited.parts))

    def _hand_out_more(self, window: int, place: int) -> None:
        if (under_way := self._parts.pop((window, place), None)) is None:
            return
        requestor, kind, data = under_way
        requestor.change_property(place, kind, 8, data[:_AT_ONCE])  # an empty one is the end
        if data:
            self._parts[window, place] = (requestor, kind, data[_AT_ONCE:])

    def _cleared(self, event: Any) -> None:
        # It may tell of an earlier time, before we took it again.
        owner = self._connection.display.get_selection_owner(event.atom)
        if owner == xlib.X.NONE or owner.id != self._window.id:
            self._owned.pop(event.atom, None)

    def _notified(self, event: Any) -> None:
        if self._awaited is None or event.requestor.id != self._window.id:
            return
        if event.property == xlib.X.NONE:
            self._answered(b"")
            return
        found = self._window.get_property(self._atoms["COMPUTERAGENT"], xlib.X.AnyPropertyType, 0, 1)
        if found is not None and found.property_type == self._atoms["INCR"]:
            self._awaited.parts = bytearray()
            self._window.delete_property(self._atoms["COMPUTERAGENT"])
        else:
            self._answered(self._read())

    def _read(self) -> bytes:
        found = self._window.get_full_property(self._atoms["COMPUTERAGENT"], xlib.X.AnyPropertyType)
        self._window.delete_property(self._atoms["COMPUTERAGENT"])
        value = found.value if found is not None else b""
        return value if isinstance(value, bytes) else bytes(value)

    def _answered(self, data: bytes) -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.set(data)


def _ignore(text: bool) -> None:
    del text


class _Answer:
    """A text on its way from the thread to whoever waits for it."""

    def __init__(self) -> None:
        self.parts: bytearray | None = None
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[bytes] = self._loop.create_future()

    def set(self, data: bytes) -> None:
        self._loop.call_soon_threadsafe(lambda: None if self._future.done() else self._future.set_result(data))

    async def wait(self) -> bytes:
        return await self._future
