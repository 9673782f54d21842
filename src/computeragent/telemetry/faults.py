"""What goes wrong in telemetry, as our log may say it: what was raised may quote what an event says."""

from __future__ import annotations

import asyncio
import os
from functools import lru_cache

from computeragent.telemetry.redaction import Redactor, credentials_in

ANYTHING = (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt)
"""What other people's middleware and sinks may raise."""

_LONGEST = 500


def said(error: BaseException) -> str:
    """The error's `repr`, redacted and not long."""
    try:
        text = repr(error)
        return _redactor().redact_text(text[: 2 * _LONGEST])[:_LONGEST]
    except Exception:  # noqa: BLE001 - a foreign __repr__ may raise anything
        return type(error).__name__


@lru_cache(maxsize=1)
def _redactor() -> Redactor:
    return Redactor(known_values=credentials_in(dict(os.environ)))
