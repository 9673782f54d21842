"""An engine host's process on this machine: whether it runs, how it ended, what it said last."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from contextlib import suppress

from computeragent.logs import Logger

_STOP = 3.0
_STDERR_LINES = 20
_log = Logger("substrate")


def how_ended(code: int) -> str:
    """An exit code in words; negative for a signal, as `subprocess` has it, or above 128, as shells have it."""
    if code < 0:
        return f"it was killed by {signal.Signals(-code).name}"
    if code == 128 + signal.SIGKILL:
        return "it was killed by SIGKILL"
    return f"it ended with exit code {code}"


class HostProcess:
    """A child process and its group. Its standard error is read, for whoever asks why it ended."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process
        self._said: deque[str] = deque(maxlen=_STDERR_LINES)
        self._reading = asyncio.create_task(self._read_stderr())

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    async def ended(self) -> str:
        """Wait for its end; how it ended, in words."""
        code = await self._process.wait()
        await asyncio.wait({self._reading}, timeout=1.0)
        last = " / ".join(list(self._said)[-3:])
        return f"{how_ended(code)}: {last}" if last else how_ended(code)

    async def close(self) -> None:
        """Kill it and its children."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            try:
                async with asyncio.timeout(_STOP):
                    await self._process.wait()
            except TimeoutError:
                _log.error("sandbox_does_not_end", pid=self.pid)
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:
                continue  # longer than the reader's limit: what is left of it comes next
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()[:500]
            self._said.append(text)
            _log.debug("sandbox_stderr", pid=self.pid, line=text)
