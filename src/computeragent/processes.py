"""Processes by a mark in their environment: start them with it, and all that they started can be found and ended.

Also a program by itself, the keeper: it waits until the process that started it is gone, however it went, or says so,
and then ends what bears the mark and removes its folder. Standard library only, so that it starts in a moment.
"""

import os
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

_ROUNDS = 20
_GRACE = 0.5  # seconds; an X server removes its socket
_LOOK = 1.0  # seconds between looks at the parent, for when somebody else holds the other end of our pipe


def machine() -> str:
    """What process ids mean something in: this boot of this machine, and a space of ids. The same text for both."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - it is no path that is read


def started(pid: int) -> str:
    """When a process began, in clock ticks, so that one that has its number later is another. Empty for one that is
    gone, a zombie too: killed, and only not yet collected by its parent.
    """
    fields = _stat(pid)
    return "" if not fields or fields[0] in "ZX" else fields[19]


def marks(name: str) -> dict[int, str]:
    """The processes that have a variable of that name in the environment they were started with, and its value."""
    prefix = f"{name}=".encode()
    found: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            block = entry.read_bytes()
        except OSError:
            continue  # gone already, or not ours to see
        for item in block.split(b"\0") if prefix in block else ():
            if item.startswith(prefix):
                found[int(entry.parent.name)] = item[len(prefix) :].decode("utf-8", "replace")
    return found


def kill_marked(name: str, value: str, *, within: float = 5.0, grace: float = 0.0) -> bool:
    """End every process with that mark and what descends from it; True when none is left after `within` seconds.

    Descendants count by their parents, too: some programs write over their own environment. With `grace` they are
    asked first (SIGTERM) and have so many seconds to tidy up.
    """
    end = time.monotonic() + within
    if grace:
        asked = _marked(name, value)
        for pid in asked:
            _signal(pid, signal.SIGTERM)
        _wait(asked, time.monotonic() + grace)
    for _ in range(_ROUNDS):  # a process may start another while we look
        living = _marked(name, value)
        if not living:
            return True
        for pid in living:
            _signal(pid, signal.SIGKILL)
        if not _wait(living, end):
            return False
    return False


def _marked(name: str, value: str) -> set[int]:
    return _family({pid for pid, mark in marks(name).items() if mark == value})


def _wait(pids: set[int], end: float) -> bool:
    while any(started(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def _family(roots: set[int]) -> set[int]:
    """Living processes and all that descends from them, but never this one."""
    if not roots:
        return set()
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(entry.name)):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    pending = list(roots)
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending += children.get(pid, ())
    return {pid for pid in found if pid != os.getpid() and started(pid)}


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def _signal(pid: int, number: int) -> None:
    with suppress(OSError):  # gone already, or not ours
        os.kill(pid, number)


def keeper_command(name: str, value: str, folder: str) -> list[str]:
    """The keeper's command line. Give it a pipe as standard input, and neither the mark nor our own session.

    What is written to the pipe are further folders to remove, each with a NUL at its end.
    """
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), name, value, folder]  # noqa: PTH100


def _keep(name: str, value: str, folder: str) -> int:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    parent = os.getppid()
    said = b""
    while os.getppid() == parent:
        if select.select([0], [], [], _LOOK)[0]:
            more = os.read(0, 4096)
            said += more
            if not more:
                break
    clean = kill_marked(name, value, grace=_GRACE)
    for each in (folder, *os.fsdecode(said).split("\0")[:-1]):
        shutil.rmtree(each, ignore_errors=True)
    return 0 if clean and not os.path.exists(folder) else 1  # noqa: PTH110


if __name__ == "__main__":
    sys.exit(_keep(*sys.argv[1:4]))
