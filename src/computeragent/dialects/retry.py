"""What HTTP itself says about a failed model call, alike in every dialect."""

from __future__ import annotations

from collections.abc import Mapping

from computeragent.dialects.model import ErrorKind

_KINDS: dict[int, ErrorKind] = {
    401: "authentication",
    402: "billing",
    403: "permission",
    404: "not_found",
    408: "timeout",
    413: "too_large",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}


def kind_of_status(status: int) -> ErrorKind:
    """The kind of error that an HTTP status stands for."""
    return _KINDS.get(status) or ("server" if status >= 500 else "invalid_request")


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after`; None where absent or a date."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return float(headers[name]) * scale
        except (KeyError, ValueError):
            continue
    return None
