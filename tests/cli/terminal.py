"""A terminal for tests: a command on a pty of its own, what it shows, and what is typed."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]")


class Terminal:
    """`with Terminal(command, env, cwd) as t`: `t.expect(pattern)`, `t.type(text)`, `t.wait()`. Ctrl-C is `\\x03`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path, width: int = 120) -> None:
        self.seen = ""
        self._raw = b""
        self._read = 0
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        settings = {**env, "TERM": "xterm", "COLUMNS": str(width), "LINES": "40"}
        self.process = subprocess.Popen(
            command,
            env=settings,
            cwd=cwd,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - no thread of a test holds a lock that it needs
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        """Type; a line ends with ``\\n``."""
        os.write(self._master, text.encode())

    def expect(self, pattern: str, timeout: float = 20) -> str:
        """What was shown since the last `expect`, up to a match of `pattern`; fails when it does not come."""
        deadline = time.monotonic() + timeout
        while True:
            found = re.search(pattern, self.seen[self._read :])
            if found:
                shown = self.seen[self._read : self._read + found.end()]
                self._read += found.end()
                return shown
            if not self._pump(deadline - time.monotonic()):
                raise AssertionError(f"{pattern!r} did not come; shown since:\n{self.seen[self._read :]}")

    def wait(self, timeout: float = 20) -> int:
        """The exit status, once the command has ended."""
        deadline = time.monotonic() + timeout
        while self._pump(deadline - time.monotonic()):
            pass
        return self.process.wait(max(deadline - time.monotonic(), 0.1))

    def read(self, timeout: float) -> None:
        """Take in what is shown within this time."""
        self._pump(timeout)

    def _pump(self, timeout: float) -> bool:
        """Read what is there; False at the end, or when the time is up."""
        if timeout <= 0 or not select.select([self._master], [], [], timeout)[0]:
            return False
        data = b""
        with contextlib.suppress(OSError):  # EIO: the other side has hung up
            data = os.read(self._master, 65_536)
        self._raw += data  # decoded as a whole: a read may end in the middle of a character
        self.seen = _ESCAPES.sub("", self._raw.decode("utf-8", "ignore")).replace("\r\n", "\n")
        return bool(data)


def _take_terminal() -> None:
    """Make the pty the controlling terminal, so that Ctrl-C reaches the command as a signal."""
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background has it ignored, and hands that on
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
