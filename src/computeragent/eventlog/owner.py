"""Who holds a session: a mark of this log in this process, and whether the holder of a mark still lives."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

_held: set[str] = set()


class Owner:
    """This log's mark: host, boot, process, its start time, and a random part for the log itself."""

    def __init__(self) -> None:
        pid = os.getpid()
        self._mark = f"{socket.gethostname()}|{_boot()}|{pid}|{_started(pid)}|{secrets.token_hex(4)}"
        _held.add(self._mark)

    def __str__(self) -> str:
        return self._mark

    def retire(self) -> None:
        """The log is closed: what it still held is free."""
        _held.discard(self._mark)

    @staticmethod
    def alive(mark: str) -> bool:
        """Whether the holder of a mark may still be writing. Holders on other hosts are taken to live."""
        try:
            host, boot, pid_text, started, _ = mark.split("|")
            pid = int(pid_text)
        except ValueError:
            return False
        if host != socket.gethostname():
            return True
        if boot != _boot():
            return False
        if pid == os.getpid():
            return mark in _held
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return _started(pid) == started


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """The process's start time in clock ticks, so that a recycled pid is not mistaken for its predecessor.

    Empty for a zombie: killed, and only not yet collected by its parent.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
