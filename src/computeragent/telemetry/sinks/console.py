"""`ConsoleSink`: events for people, one line each, on standard error."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, TextIO

from computeragent.telemetry.event import TelemetryEvent
from computeragent.wire.encoding import to_json

Json = dict[str, Any]

_LONGEST_REPR = 4_000
_COLOURS = {"session": "36", "turn": "36", "tool": "33", "assistant": "32", "policy": "35", "usage": "34", "user": "32"}
# What moves the cursor, changes what was printed, ends a line, turns its direction, or cannot be encoded.
_CONTROLS = [
    *range(9),
    *range(11, 32),
    *range(127, 160),
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
]
_UNPRINTABLE = {**dict.fromkeys([*_CONTROLS, *range(0xD800, 0xE000)], "\N{REPLACEMENT CHARACTER}"), 9: " ", 10: " "}


class ConsoleSink:
    """Prints each event as one line: time, session, kind, and what matters of it.

    `stream` is standard error unless given. Lines are cut to the terminal's width, or to 160 characters; `verbose`
    prints them whole. Colour only on a terminal and without ``NO_COLOR``. A reader that is gone is no error.
    """

    def __init__(self, stream: TextIO | None = None, *, verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._gone = False

    async def emit(self, event: TelemetryEvent) -> None:
        """Print one event."""
        if self._gone:
            return
        stream = self._stream or sys.stderr
        if stream is None or getattr(stream, "closed", False):  # pyright: ignore[reportUnnecessaryComparison] - a daemon has no stderr
            self._gone = True
            return
        line = self._line(event, stream) + "\n"
        try:
            try:
                stream.write(line)
            except UnicodeEncodeError:
                stream.write(line.encode("ascii", "backslashreplace").decode("ascii"))
            stream.flush()
        except BrokenPipeError:
            self._gone = True

    async def flush(self, timeout: float = 5.0) -> None:
        """Nothing to do: every line is flushed."""
        del timeout

    async def aclose(self) -> None:
        """Nothing to do: the stream is not ours."""

    def _line(self, event: TelemetryEvent, stream: TextIO) -> str:
        clock = event.timestamp.astimezone().strftime("%H:%M:%S.%f")[:-3]
        told = _told(event).translate(_UNPRINTABLE)
        tty = stream.isatty()
        head = f"{clock} {event.session_id[-6:].translate(_UNPRINTABLE)} "
        kind = f"{event.kind.translate(_UNPRINTABLE):18} "
        if not self._verbose:
            room = (shutil.get_terminal_size((160, 24)).columns if tty else 160) - len(head) - len(kind)
            told = told if len(told) <= room else told[: max(0, room - 1)] + "…"
        if tty and not os.environ.get("NO_COLOR"):
            failed = event.payload.get("is_error") or event.payload.get("decision") == "deny"
            colour = "31" if failed else _COLOURS.get(event.kind.partition("_")[0], "0")
            return f"\033[2m{head}\033[0m\033[{colour}m{kind}\033[0m{told}"
        return (head + kind + told).rstrip()


def _told(event: TelemetryEvent) -> str:
    try:
        return _TOLD.get(event.kind, _anything)(event.payload)
    except (TypeError, ValueError, AttributeError):  # middleware of yours may have put anything there
        return _short(event.payload)


def _of(*names: str) -> Callable[[Json], str]:
    def tell(payload: Json) -> str:
        return "  ".join(_short(payload[name]) for name in names if payload.get(name) not in (None, ""))

    return tell


def _tool(payload: Json) -> str:
    return f"{payload.get('tool_name')}  {_short(payload.get('tool_input'))}"


def _tool_result(payload: Json) -> str:
    return f"{'failed: ' if payload.get('is_error') else ''}{_short(payload.get('content'))}"


def _assistant(payload: Json) -> str:
    return str(payload.get("text") or ("(thinks)" if payload.get("thinking") else "(calls tools)"))


def _usage(payload: Json) -> str:
    usage: Json = payload.get("usage") or {}
    cost = payload.get("cost_usd")
    price = "cost unknown" if cost is None else f"${cost:.4f}"
    return (
        f"{price}  {usage.get('input_tokens', 0)} in, {usage.get('output_tokens', 0)} out  {payload.get('subtype', '')}"
    )


def _ended(payload: Json) -> str:
    return f"{payload.get('subtype')}  {payload.get('error_message') or ''}".rstrip()


def _anything(payload: Json) -> str:
    return _short(payload)


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return to_json(value).decode()
    except (TypeError, ValueError, RecursionError):
        return repr(value)[:_LONGEST_REPR]


_TOLD: dict[str, Callable[[Json], str]] = {
    "session_started": _of("model", "prompt"),
    "turn_started": _of("prompt"),
    "user_message": _of("text"),
    "assistant_message": _assistant,
    "system_message": _of("subtype"),
    "tool_use": _tool,
    "tool_result": _tool_result,
    "usage_snapshot": _usage,
    "session_ended": _ended,
    "policy_decision": _of("decision", "tool_name", "reason"),
    "response_first_token": _of("time_to_first_token_ms"),
}
