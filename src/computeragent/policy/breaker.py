"""A circuit breaker: a server that is away is left alone for a while, and its callers are not kept waiting."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed until `failures` calls in a row have failed; then open for `shortest` seconds, and for twice as long after
    each attempt that fails, up to `longest`.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        shortest: float = 1.0,
        longest: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failures = failures
        self._shortest = shortest
        self._longest = longest
        self._clock = clock
        self._failed = 0
        self._pause = shortest
        self._opened_at = float("-inf")
        self._open_until = float("-inf")

    def start(self, lease: float) -> tuple[float, float]:
        """Ask to make a call: how many seconds it must wait (0: go ahead), and when it began.

        After a pause one caller may try, alone for `lease` seconds or until it tells how it went.
        """
        now = self._clock()
        if self._failed < self.failures:
            return 0.0, now
        if now < self._open_until:
            return self._open_until - now, now
        self._open_until = now + lease
        return 0.0, now

    def succeeded(self) -> None:
        """The server is there."""
        self._failed = 0
        self._pause = self._shortest

    def failed(self, began: float) -> None:
        """The server is away. Calls that began before it was known to be tell nothing new."""
        if began < self._opened_at:
            return
        self._failed += 1
        if self._failed >= self.failures:
            self._opened_at = self._clock()
            self._open_until = self._opened_at + self._pause
            self._pause = min(2 * self._pause, self._longest)
