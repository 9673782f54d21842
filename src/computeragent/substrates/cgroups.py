"""Limits of memory, processes and CPU for a sandbox, by control groups, where this machine lets us make them."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from computeragent.errors import ValidationError
from computeragent.logs import Logger

_ROOT = Path("/sys/fs/cgroup")
_PERIOD = 100_000  # microseconds; the kernel's default
_PATIENCE = 1.0
_JOIN = 'for each in $JOIN; do echo $$ > "$each" || exit 125; done; unset JOIN PWD; exec "$@"'
_log = Logger("substrate")


@dataclass(frozen=True, slots=True)
class Limits:
    """`memory` in bytes, `pids` as a count of processes and threads, `cpus` as a number of cores; None for no limit."""

    memory: int | None = None
    pids: int | None = None
    cpus: float | None = None

    def __post_init__(self) -> None:
        for name in ("memory", "pids", "cpus"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0):
                raise ValidationError(
                    f"limit {name!r} must be a positive number, got {value!r}",
                    hint="memory in bytes, pids as a count, cpus as a number of cores.",
                )

    def under(self, asked: Mapping[str, Any]) -> Limits:
        """These limits, tightened by those of one session. Raises `ValidationError` for what is no limit."""
        unknown = set(asked) - {"memory", "pids", "cpus"}
        if unknown:
            raise ValidationError(f"unknown limits {sorted(unknown)}", hint="There are memory, pids and cpus.")
        theirs = Limits(**asked)
        return Limits(*(_lower(getattr(self, name), getattr(theirs, name)) for name in ("memory", "pids", "cpus")))

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.memory, self.pids, self.cpus))


class ControlGroup:
    """One sandbox's control group; `entries` are the files that a process writes its id into to join."""

    def __init__(self, folders: list[Path], entry: str) -> None:
        self._folders = folders
        self.entries = [folder / entry for folder in folders]

    def joining(self) -> tuple[list[str], dict[str, str]]:
        """What stands before a command so that it joins first, and the environment for that."""
        join = " ".join(str(entry) for entry in self.entries)
        return ["/bin/sh", "-c", _JOIN, "jail"], {"JOIN": join}

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed for want of memory here."""
        for folder in self._folders:
            for name in ("memory.events", "memory.oom_control"):
                if any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in _lines(folder / name)):
                    return True
        return False

    def remove(self) -> None:
        """Take the group away, once what was killed in it is gone: a moment, in which this blocks."""
        end = time.monotonic() + _PATIENCE
        for folder in self._folders:
            while True:
                try:
                    folder.rmdir()
                except OSError as error:
                    if error.errno == errno.EBUSY and time.monotonic() < end:
                        time.sleep(0.005)
                        continue
                    _log.debug("cgroup_left", folder=folder.name, error=str(error))
                break


def available() -> bool:
    """Whether groups can be made here."""
    try:
        made = make(Limits(pids=1000))
    except OSError:
        return False
    if made is not None:
        made.remove()
    return made is not None


def make(limits: Limits) -> ControlGroup | None:
    """A group with these limits; None where there is nothing to limit, or this machine does not let us."""
    if not limits:
        return None
    _sweep()
    name = f"computeragent-{os.getpid()}-{secrets.token_hex(6)}"
    made: list[Path] = []
    try:
        if (_ROOT / "cgroup.controllers").is_file():
            _fill(_ROOT / name, _unified(limits), made)
            return ControlGroup(made, "cgroup.procs")
        for controller, values in _separate(limits).items():
            _fill(_ROOT / controller / name, values, made)
        return ControlGroup(made, "tasks")
    except OSError as error:
        _log.warn("no_limits", error=str(error), hint="Give this user a control group of its own to have limits.")
        for folder in made:
            folder.rmdir()
        return None


async def make_whole(limits: Limits) -> ControlGroup | None:
    """As `make`, beside the event loop; a caller that is cancelled meanwhile leaves no group."""
    making = asyncio.ensure_future(asyncio.to_thread(make, limits))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            if (group := await making) is not None:
                await asyncio.to_thread(group.remove)
        raise


def _sweep() -> None:
    """Take away the groups of processes that were killed. One with something in it stays: the kernel sees to that."""
    for pattern in ("computeragent-*-*", "*/computeragent-*-*"):
        for folder in _ROOT.glob(pattern):
            pid = folder.name.split("-")[1]
            if pid.isdigit() and not Path("/proc", pid).exists():
                with suppress(OSError):
                    folder.rmdir()


def _fill(folder: Path, values: dict[str, str], made: list[Path]) -> None:
    folder.mkdir()
    made.append(folder)
    for file, value in values.items():
        (folder / file).write_text(value, "ascii")


def _unified(limits: Limits) -> dict[str, str]:
    values: dict[str, str] = {}
    if limits.memory is not None:
        values["memory.max"] = str(int(limits.memory))
        values["memory.swap.max"] = "0"
    if limits.pids is not None:
        values["pids.max"] = str(int(limits.pids))
    if limits.cpus is not None:
        values["cpu.max"] = f"{int(limits.cpus * _PERIOD)} {_PERIOD}"
    return values


def _separate(limits: Limits) -> dict[str, dict[str, str]]:
    values: dict[str, dict[str, str]] = {}
    if limits.memory is not None:
        values["memory"] = {"memory.limit_in_bytes": str(int(limits.memory))}
    if limits.pids is not None:
        values["pids"] = {"pids.max": str(int(limits.pids))}
    if limits.cpus is not None:
        values["cpu"] = {"cpu.cfs_quota_us": str(int(limits.cpus * _PERIOD))}
    return values


def _lower(one: Any, other: Any) -> Any:
    return min((value for value in (one, other) if value is not None), default=None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").splitlines()
    except OSError:
        return []
