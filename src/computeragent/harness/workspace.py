"""`LocalWorkspace`: the agent's working directory, through the jail, off the event loop."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from anyio import to_thread

from computeragent.jail import Jail
from computeragent.protocol_types import FileEntry


class LocalWorkspace:
    """A directory of this machine as a `Workspace`. `root` must exist."""

    def __init__(self, root: Path) -> None:
        self._jail = Jail(root)

    @property
    def root(self) -> Path:
        """The directory's real path."""
        return self._jail.root

    async def tree(self, path: str = ".", *, depth: int = 1) -> list[FileEntry]:
        """What is in a directory, sorted; `depth` counts the levels below the direct children."""
        entries = await to_thread.run_sync(partial(self._jail.tree, path, depth=depth))
        return [FileEntry(entry.path, entry.type, entry.size, entry.mtime, entry.mode) for entry in entries]

    async def read(self, path: str) -> bytes:
        """A file's content."""
        return await to_thread.run_sync(self._jail.read_bytes, path)

    async def write(self, path: str, data: bytes) -> int:
        """Write a file whole or not at all, creating its parents; return its size."""
        return await to_thread.run_sync(self._jail.write_bytes, path, data)

    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> int:
        """Replace the first occurrence of `old`, or every one; return how many were replaced."""
        return await to_thread.run_sync(partial(self._jail.edit, path, old, new, replace_all=replace_all))

    async def mkdir(self, path: str, *, parents: bool = False) -> None:
        """Make a directory; with `parents` its parents too, and it may exist already."""
        await to_thread.run_sync(partial(self._jail.mkdir, path, parents=parents))

    async def move(self, source: str, target: str) -> None:
        """Rename, creating the target's parents and replacing a file that is there."""
        await to_thread.run_sync(self._jail.move, source, target)

    async def delete(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file or an empty directory; with `recursive` a directory and all in it."""
        await to_thread.run_sync(partial(self._jail.delete, path, recursive=recursive))
