"""Nothing of a computer outlives the process that opened it: marked processes, a private folder, and a keeper for both.

A `Claim` is one computer's mark and folder. While it is held a keeper (`processes.py`) waits beside us: when the claim
is let go, or our process is killed, the keeper ends every process with the mark and removes the folder. Should the
keeper be killed as well, the next claim that anyone makes here sweeps up after both.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from computeragent.errors import ComputerError
from computeragent.logs import Logger
from computeragent.processes import keeper_command, kill_marked, machine, marks, started

MARK = "COMPUTERAGENT_COMPUTER"
"""The variable whose value tells which computer a process belongs to."""
_PREFIX = "cac-"
_END = 15.0
_log = Logger("computer")


class Claim:
    """A mark for processes and a private folder (mode 0700). Made by `Claim.make`, ended by `release`."""

    def __init__(self, mark: str, folder: Path, keeper: asyncio.subprocess.Process) -> None:
        self.mark = mark
        self.folder = folder
        self._keeper = keeper
        self._end: asyncio.Task[None] | None = None

    @property
    def env(self) -> dict[str, str]:
        """The variable that every process of this computer must be started with."""
        return {MARK: self.mark}

    @classmethod
    async def make(cls) -> Claim:
        """Sweep up after the dead, and claim a new mark. Raises `ComputerError`."""
        await asyncio.to_thread(sweep)
        mark = f"{_here()}.{os.getpid()}.{started(os.getpid())}.{secrets.token_hex(4)}"
        folder = _folder(mark)
        try:
            folder.mkdir(mode=0o700)
            keeper = await asyncio.create_subprocess_exec(
                *keeper_command(MARK, mark, str(folder)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env={},
            )
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise ComputerError(f"no computer can be kept here: {error}") from None
            raise
        return cls(mark, folder, keeper)

    def also(self, folder: Path) -> None:
        """One more folder that goes when the claim does, and when our process is killed."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(os.fsencode(folder) + b"\0")

    async def release(self) -> None:
        """End every process with the mark, and remove the folder. May be called again; cancelled, it still happens, and
        who calls it again waits for it.
        """
        if self._end is None:
            self._end = asyncio.create_task(self._release())
        await asyncio.shield(self._end)

    async def _release(self) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        try:
            async with asyncio.timeout(_END):
                code = await self._keeper.wait()
        except TimeoutError:
            code = -1
            with suppress(ProcessLookupError):
                self._keeper.kill()
            await self._keeper.wait()
        if code != 0:  # it was killed, or found something that would not die
            await asyncio.to_thread(_clean, self.mark, self.folder)


def sweep() -> None:
    """End the processes and remove the folders of computers whose owners, and whose keepers, are dead. Blocks."""
    here = _here()
    for mark in set(marks(MARK).values()):
        if _abandoned(mark, here):
            _log.warn("left_behind", mark=mark)
            _clean(mark, _folder(mark))
    for folder in _folder("").parent.glob(f"{_PREFIX}*"):
        mark = folder.name.removeprefix(_PREFIX)
        if _abandoned(mark, here) and folder.lstat().st_uid == os.geteuid():
            _clean(mark, folder)


def _clean(mark: str, folder: Path) -> None:
    if not kill_marked(MARK, mark):
        _log.error("does_not_end", mark=mark)
    shutil.rmtree(folder, ignore_errors=True)


def _abandoned(mark: str, here: str) -> bool:
    """Whether the process that made a mark is gone. Marks from other machines and containers are none of ours."""
    parts = mark.split(".")
    if len(parts) != 4 or parts[0] != here or not parts[1].isdigit():
        return False
    return started(int(parts[1])) != parts[2]


def _here() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:8]


def _folder(mark: str) -> Path:
    """In the folder for temporary files: programs make sockets in it, whose paths must not be long."""
    return Path(tempfile.gettempdir(), f"{_PREFIX}{mark}")
