"""What a server said to a request: its status, the pause that it asks for, and the beginning of its answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

_LONGEST = 65_536


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `after` is the pause in seconds that it asks for, `page` says that it is made for people.

    `compressed` says whether the request was.
    """

    status: int
    after: float | None
    text: str
    compressed: bool
    page: bool

    @classmethod
    def read(cls, response: httpx2.Response, until: float, *, compressed: bool, secret: str | None) -> Reply:
        """Read a streamed answer, until a time (monotonic) at most, without the secret that it may repeat."""
        return cls(
            status=response.status_code,
            after=_pause(response.headers.get("retry-after")),
            text=_beginning(response, until).replace(secret or "\0", "***"),
            compressed=compressed,
            page=response.headers.get("content-type", "").startswith("text/html"),
        )


def _beginning(response: httpx2.Response, until: float) -> str:
    """The answer as far as it matters: neither an endless nor a trickling one holds up the thread."""
    said = b""
    for chunk in response.iter_raw():
        said += chunk
        if len(said) > _LONGEST or time.monotonic() > until:
            break  # the connection is closed and not used again
    return said[:_LONGEST].decode("utf-8", "replace")


def _pause(value: str | None) -> float | None:
    """The seconds of a ``Retry-After`` header: a number, or a date."""
    if not value:
        return None
    try:
        seconds = float(value)
        return max(0.0, seconds) if isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
