"""Who holds a session: a mark of this log in this process, and whether the holder of a mark still lives."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from computeragent.processes import started

_held: set[str] = set()


class Owner:
    """This log's mark: host, boot, process, its start time, and a random part for the log itself."""

    def __init__(self) -> None:
        pid = os.getpid()
        self._mark = f"{socket.gethostname()}|{_boot()}|{pid}|{started(pid)}|{secrets.token_hex(4)}"
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
            host, boot, pid_text, began, _ = mark.split("|")
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
        return started(pid) == began


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
