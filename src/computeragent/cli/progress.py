"""What a person sees while an agent starts: one line on stderr that changes, or a few plain ones into a pipe."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

from computeragent.approval import printable

_SOON = 0.4
"""Seconds after which a terminal shows that something is going on."""
_PLAIN = 2.0
"""The same for what is no terminal: most starts are over by then, and say nothing."""
_TICK = 0.2


class Progress:
    """Tells of a wait on `stream`. `tell` takes steps, such as a clone's; a note is printed at once, and stays."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._what = "starting"
        self._step = ""
        self._began: float | None = None
        self._drawn = False
        self._printed: set[str] = set()

    def begin(self, what: str) -> None:
        """Say what is waited for."""
        self._what = what

    def tell(self, line: str) -> None:
        """Hear of a step, or of a note, which begins with ``note:``."""
        if line.startswith("note:"):
            self._wipe()
            print(printable(line), file=self._stream, flush=True)
        else:
            self._step = printable(line)

    @contextmanager
    def waiting(self) -> Generator[None]:
        """While active, and until `done`, the wait is told. Needs a running event loop."""
        self._began, self._step = time.monotonic(), ""
        self._printed.clear()
        ticking = asyncio.get_running_loop().create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            self.done()

    def done(self) -> None:
        """The wait is over."""
        self._began = None
        self._wipe()

    async def _tick(self) -> None:
        while self._began is not None:
            waited = time.monotonic() - self._began
            if self._live and waited >= _SOON:
                self._draw(f"{self._step or self._what} · {waited:.0f} s")
            elif not self._live and waited >= _PLAIN:
                self._print_once(self._step or f"{self._what} …")
            await asyncio.sleep(_TICK)

    def _draw(self, text: str) -> None:
        width = os.get_terminal_size(self._stream.fileno()).columns or 80
        self._stream.write(f"\r\x1b[K{text[: max(width - 1, 10)]}")
        self._stream.flush()
        self._drawn = True

    def _wipe(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False

    def _print_once(self, line: str) -> None:
        if line not in self._printed:
            self._printed.add(line)
            print(line, file=self._stream, flush=True)
