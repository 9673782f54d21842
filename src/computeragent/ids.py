"""Ids: opaque, prefixed, ordered by time. One table of prefixes."""

from __future__ import annotations

import os
import re
import time

from computeragent.errors import InvalidSessionIdError

PREFIXES = {
    "session": "sess_",
    "run": "run_",
    "sandbox": "sbx_",
    "snapshot": "snap_",
    "event": "evt_",
    "key": "key_",
    "agent": "agt_",
    "call": "call_",
    "task": "task_",
    "response": "resp_",
}

_SESSION_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def new_id(kind: str) -> str:
    """A fresh id of a kind in `PREFIXES`: the prefix and a UUIDv7 (RFC 9562) in hex, so ids sort by time."""
    millis = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = (millis & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (random >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | random & 0x3FFF_FFFF_FFFF_FFFF
    return f"{PREFIXES[kind]}{value:032x}"


def check_session_id(value: str) -> str:
    """Return a session id given by a caller, or raise `InvalidSessionIdError`."""
    if isinstance(value, str) and _SESSION_ID.fullmatch(value):
        return value
    raise InvalidSessionIdError(
        f"session id {str(value)[:140]!r} is not valid",
        hint="Use 1 to 128 letters, digits, '.', '_' or '-', not starting with '.' or '-'.",
    )
