"""A connection to a display, used by one thread, whose failures are `ComputerError`s and never a wait without end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from computeragent.computer.x11 import xlib
from computeragent.computer.x11.worker import Worker
from computeragent.errors import ComputerActionError, ComputerError
from computeragent.logs import Logger

T = TypeVar("T")
_PATIENCE = 10.0
_USER, _EVERYBODY_HERE = 5, 252  # families of hosts: server-interpreted, and all local users
_log = Logger("computer")


class Connection:
    """`run` jobs that use `display` in its thread; `on` an event, call somebody there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.display: Any = None
        self._worker = Worker(f"x11-{name}")
        self._handlers: dict[int, list[Callable[[Any], None]]] = {}
        self._gone = False

    @classmethod
    async def open(cls, name: str) -> Connection:
        """Connect. Raises `ComputerError`."""
        connection = cls(name)
        try:
            await connection.run(connection._connect)
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def root(self) -> Any:
        """The root window."""
        return self.display.screen().root

    async def run(self, job: Callable[[], T], timeout: float = _PATIENCE) -> T:
        """Do a job in the thread. Raises `ComputerError` for a display that is gone or does not answer, and
        `ComputerActionError` for a window that is not there.
        """
        if self._gone:
            raise self._error()
        try:
            return await self._worker.run(job, timeout)
        except TimeoutError:
            self._abort()
            raise ComputerError(f"display {self.name} does not answer", hint="Its X server hangs.") from None
        except xlib.GONE:
            self._gone = True
            raise self._error() from None
        except (xlib.error.BadWindow, xlib.error.BadDrawable):
            raise ComputerActionError("there is no such window") from None
        except xlib.error.XError as error:
            raise ComputerError(f"display {self.name} refuses: {type(error).__name__}") from None

    def on(self, kind: int, handler: Callable[[Any], None]) -> None:
        """Have events of a kind passed to `handler`, in the thread."""
        self._handlers.setdefault(kind, []).append(handler)

    async def keep_to_this_user(self) -> None:
        """Let no other user of this machine connect; a new X server lets them all."""

        def restrict() -> None:
            server = self.display.display
            xlib.ChangeHosts(display=server, mode=xlib.X.HostInsert, family=_USER, host=b"localuser\0#%d" % os.getuid())
            xlib.ChangeHosts(display=server, mode=xlib.X.HostDelete, family=_EVERYBODY_HERE, host=b"")
            self.display.sync()

        await self.run(restrict)

    def close(self) -> None:
        """Disconnect."""
        self._gone = True
        self._abort()
        self._worker.stop(self._hang_up)

    # ── In the connection's thread ──

    def _hang_up(self) -> None:
        """Close the socket, which python-xlib leaves to the garbage collector."""
        if self.display is not None:
            with suppress(OSError):
                self.display.display.socket.close()

    def numbers(self, window: Any, name: str) -> list[int]:
        """A window's property that is a list of numbers; empty for none."""
        found = window.get_full_property(self.atom(name), xlib.X.AnyPropertyType)
        return [int(value) for value in found.value] if found is not None and found.format == 32 else []

    def atom(self, name: str) -> int:
        """The number of a name."""
        return int(self.display.get_atom(name))

    def _connect(self) -> None:
        _check_socket(self.name)
        try:
            self.display = xlib.Display(self.name)
        except Exception as error:
            _let_go(error)
            raise
        self.display.set_error_handler(_note_error)
        self._worker.watch(self.display.fileno(), self._handle_events)

    def _handle_events(self) -> bool:
        try:
            self.display.flush()
            while self.display.pending_events():  # last, as whatever is sent may bring events in, too
                event = self.display.next_event()
                for handler in self._handlers.get(event.type, ()):
                    handler(event)
                self.display.flush()
        except xlib.GONE:
            self._gone = True
        except xlib.error.XError as error:
            _log.debug("x_error", error=type(error).__name__)  # such as a window that has gone meanwhile
        return not self._gone

    def _abort(self) -> None:
        """Wake the thread where it waits for the server."""
        if self.display is not None:
            with suppress(OSError):
                self.display.display.socket.shutdown(socket.SHUT_RDWR)

    def _error(self) -> ComputerError:
        return ComputerError(f"display {self.name} is gone, or was never there")


def _check_socket(name: str) -> None:
    """Raise `OSError` where nobody listens. Xlib would try others, and leave its sockets open."""
    number = name[1:].partition(".")[0]
    if name.startswith(":") and number.isdigit():
        with socket.socket(socket.AF_UNIX) as probe:
            path = f"/tmp/.X11-unix/X{number}"  # noqa: S108 - where X servers have it
            probe.connect(path if os.path.exists(path) else f"\0{path}")  # noqa: PTH110


def _note_error(error: Any, request: Any) -> None:
    del request
    _log.debug("x_error", error=type(error).__name__)


def _let_go(error: Exception) -> None:
    """Close the socket of a connection that was refused, which python-xlib leaves to the garbage collector."""
    trace = error.__traceback__
    while trace is not None:
        for value in list(trace.tb_frame.f_locals.values()):
            left: object = value
            with suppress(TypeError):  # it has no attributes of its own
                left = cast("dict[str, object]", vars(value)).get("socket", value)
            if isinstance(left, socket.socket):
                left.close()
        trace = trace.tb_next
