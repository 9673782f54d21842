"""python-xlib, which has no types; so its modules are `Any` here, and nobody else imports it."""

from __future__ import annotations

import importlib
from typing import Any

from computeragent.errors import ComputerError

try:
    _display: Any = importlib.import_module("Xlib.display")
    X: Any = importlib.import_module("Xlib.X")
    Xatom: Any = importlib.import_module("Xlib.Xatom")
    error: Any = importlib.import_module("Xlib.error")
    event: Any = importlib.import_module("Xlib.protocol.event")
    xtest: Any = importlib.import_module("Xlib.ext.xtest")
    _rq: Any = importlib.import_module("Xlib.protocol.rq")
except ImportError:
    raise ComputerError(
        "a desktop needs python-xlib, mss and Pillow", hint='pip install "computer-agent-py[computer]"'
    ) from None

Display: Any = _display.Display
GONE: tuple[type[Exception], ...] = (error.ConnectionClosedError, error.DisplayError, OSError)
"""What its calls raise when the server is not there, or not any more."""


class ChangeHosts(_rq.Request):
    """Who may connect. Xlib's own does not know the family of local users."""

    _request = _rq.Struct(
        _rq.Opcode(109),
        _rq.Card8("mode"),
        _rq.RequestLength(),
        _rq.Card8("family"),
        _rq.Pad(1),
        _rq.LengthOf("host", 2),
        _rq.List("host", _rq.Card8Obj),
    )
