"""Whether programs have read all that was sent to them: each answers a ping (`_NET_WM_PING`) in its turn.

Keys and clicks reach a program in order, but under load a second late; until then its windows stand still.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from computeragent.computer.x11 import xlib
from computeragent.computer.x11.connection import Connection

_PING, _PROTOCOLS = "_NET_WM_PING", "WM_PROTOCOLS"
_PATIENCE = 2.0
"""Seconds that a program may take; one that took longer is not waited for again until it has answered."""
_LOOK = 0.1  # seconds between looks for windows that were closed meanwhile, and so never answer


class Answers:
    """Pings windows, and waits for what comes back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._number = 0
        self._pending: set[int] = set()
        self._silent: set[int] = set()
        self._answered: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Begin to hear answers, which go to the root window."""

        def select() -> None:
            self._connection.root.change_attributes(event_mask=xlib.X.SubstructureNotifyMask)

        self._connection.on(xlib.X.ClientMessage, self._heard)
        await self._connection.run(select)

    async def wait(self, timeout: float) -> None:
        """Return when every program has read what was sent until now, or after `timeout` seconds, at most two."""
        self._loop, self._answered = asyncio.get_running_loop(), asyncio.Event()
        end = self._loop.time() + min(timeout, _PATIENCE)
        await self._connection.run(self._ask)
        while self._pending and (left := end - self._loop.time()) > 0:
            try:
                async with asyncio.timeout(min(left, _LOOK)):
                    await self._answered.wait()
            except TimeoutError:
                await self._connection.run(self._forget_closed)
        if timeout >= _PATIENCE:
            await self._connection.run(lambda: self._silent.update(self._pending))

    # ── In the connection's thread ──

    def _ask(self) -> None:
        self._number += 1
        self._pending = set()
        ping, protocols = map(self._connection.atom, (_PING, _PROTOCOLS))
        for window in self._listed() - self._silent:
            target = self._connection.display.create_resource_object("window", window)
            try:
                understood = self._connection.numbers(target, _PROTOCOLS)
            except xlib.error.BadWindow:
                continue  # closed meanwhile
            if ping in understood:
                self._pending.add(window)
                data = (32, [ping, self._number, window, 0, 0])
                target.send_event(xlib.event.ClientMessage(window=target, client_type=protocols, data=data))
        self._connection.display.flush()

    def _heard(self, event: Any) -> None:
        ping, protocols = map(self._connection.atom, (_PING, _PROTOCOLS))
        form, data = event.data
        if event.client_type != protocols or form != 32 or data[0] != ping:
            return
        self._silent.discard(data[2])
        if data[1] == self._number:
            self._pending.discard(data[2])
            self._tell()

    def _forget_closed(self) -> None:
        listed = self._listed()
        self._pending &= listed
        self._silent &= listed
        self._tell()

    def _tell(self) -> None:
        if not self._pending and self._loop is not None and self._answered is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._answered.set)

    def _listed(self) -> set[int]:
        return set(self._connection.numbers(self._connection.root, "_NET_CLIENT_LIST_STACKING"))
