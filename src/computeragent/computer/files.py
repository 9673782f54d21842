"""Files of a computer that is this machine. It is no jail: its programs may go wherever its user may."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from computeragent.computer.types import DirectoryEntry
from computeragent.errors import ComputerActionError
from computeragent.jail import MAX_READ

T = TypeVar("T")


class LocalFiles:
    """`HasFiles` on this machine; relative paths, and ``~``, begin at `home`."""

    def __init__(self, home: Path) -> None:
        self._home = home

    async def list_dir(self, path: str) -> list[DirectoryEntry]:
        """What is in a directory, by name."""

        def scan() -> list[DirectoryEntry]:
            found: list[DirectoryEntry] = []
            for each in self._at(path).iterdir():
                about = each.lstat()
                is_dir = stat.S_ISDIR(about.st_mode)
                found.append(DirectoryEntry(each.name, is_dir, 0 if is_dir else about.st_size))
            return sorted(found, key=lambda entry: entry.name)

        return await _said(path, scan)

    async def read_file(self, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """A file's bytes, at most 256 MiB at a time."""

        def read() -> bytes:
            # A pipe must not keep us waiting.
            with open(self._at(path), "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                about = os.fstat(file.fileno())
                if not stat.S_ISREG(about.st_mode):
                    raise ComputerActionError(f"{path} is no file")
                wanted = max(0, about.st_size - offset) if length is None else length
                if offset < 0 or wanted < 0 or wanted > MAX_READ:
                    raise ComputerActionError(
                        f"{path} has {about.st_size} bytes, and not {wanted} from {offset} at once",
                        hint=f"Read at most {MAX_READ} bytes at a time, with offset and length.",
                    )
                file.seek(offset)
                return file.read(wanted)

        return await _said(path, read)

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        """Write a file; its directory is made."""

        def write() -> None:
            target = self._at(path)
            if target.exists() and not target.is_file():
                raise ComputerActionError(f"{path} is no file")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("ab" if append else "wb") as file:
                file.write(data)

        await _said(path, write)

    async def delete_file(self, path: str) -> None:
        """Delete a file."""
        await _said(path, lambda: self._at(path).unlink())

    def _at(self, path: str) -> Path:
        if "\0" in path:
            raise ComputerActionError("a path has no NUL characters")
        return self._home / (path.removeprefix("~").lstrip("/") if path == "~" or path.startswith("~/") else path)


async def _said(path: str, work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise ComputerActionError(f"{path}: {error.strerror or error}") from None
