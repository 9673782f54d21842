"""Our own log: dotted event names with flat fields, on stderr, as JSON lines or in colour-free columns.

`COMPUTERAGENT_LOG` sets the level (debug, info, warn, error, silent; default warn in library use),
`COMPUTERAGENT_LOG_FORMAT` the form (pretty, json; default pretty on a terminal).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from datetime import UTC, datetime
from typing import Any, TextIO

from computeragent.wire.encoding import to_json

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "silent": logging.CRITICAL + 10,
}
_ROOT = "computeragent"
_lock = threading.Lock()


class Logger:
    """A logger of one component. Values of fields are data: never pass a secret."""

    def __init__(self, component: str) -> None:
        self._component = component
        self._log = logging.getLogger(f"{_ROOT}.{component}")

    def debug(self, event: str, **fields: Any) -> None:
        """Detail that explains a run."""
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Something that an operator wants to see once."""
        self._emit(logging.INFO, event, fields)

    def warn(self, event: str, **fields: Any) -> None:
        """Something works, but not as asked."""
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something failed."""
        self._emit(logging.ERROR, event, fields)

    def _emit(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._log.isEnabledFor(level):
            # The fields are in the text, too, for whoever formats our records with the plain `logging` means.
            text = " ".join([event, *(f"{key}={value}" for key, value in fields.items())])
            extra = {"ca_component": self._component, "ca_event": event, "ca_fields": fields}
            self._log.log(level, "%s", text, extra=extra)


class _Formatter(logging.Formatter):
    def __init__(self, pretty: bool) -> None:
        super().__init__()
        self._pretty = pretty

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "ca_fields", {})
        component: str = getattr(record, "ca_component", record.name)
        event: str = getattr(record, "ca_event", record.getMessage())
        level = "warn" if record.levelno == logging.WARNING else record.levelname.lower()
        at = datetime.fromtimestamp(record.created, UTC)
        if self._pretty:
            pairs = "  ".join(f"{key}={value}" for key, value in fields.items())
            clock = at.astimezone().strftime("%H:%M:%S.%f")[:-3]
            return f"[{clock}] {level.upper():5} {component}.{event}  {pairs}".rstrip()
        line = {"t": at.isoformat(), "level": level, "event": event, "component": component}
        return to_json(line | {key: _plain(value) for key, value in fields.items()}).decode()


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def configure_logging(level: str | None = None, *, stream: TextIO | None = None) -> None:
    """Send our log to `stream` (default stderr). `level` wins over `COMPUTERAGENT_LOG`; unset means no handler.

    Applications that configure `logging` themselves need not call this: records of the logger
    ``computeragent`` propagate as usual.
    """
    chosen = level or os.environ.get("COMPUTERAGENT_LOG")
    if not chosen:
        return
    target = stream or sys.stderr
    form = os.environ.get("COMPUTERAGENT_LOG_FORMAT") or ("pretty" if target.isatty() else "json")
    handler = logging.StreamHandler(target)
    handler.setFormatter(_Formatter(pretty=form == "pretty"))
    root = logging.getLogger(_ROOT)
    with _lock:
        for old in [h for h in root.handlers if isinstance(h.formatter, _Formatter)]:
            root.removeHandler(old)
        root.addHandler(handler)
        root.setLevel(_LEVELS.get(chosen.lower(), logging.INFO))
        root.propagate = False


UNTOLD = logging.Logger("computeragent.untold", logging.CRITICAL + 1)  # noqa: LOG001 - nobody can turn it on
"""For clients that would write down what they send, keys included: nothing that goes here is kept."""
