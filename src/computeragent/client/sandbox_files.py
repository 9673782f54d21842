"""The working directory of a sandbox, as far as the sandbox server's wire shows it: to be read."""

from __future__ import annotations

from typing import Any

from computeragent.client.server_client import ComputerAgentServerClient
from computeragent.errors import NotRemotableError
from computeragent.protocol_types import FileEntry

_DEEPEST = 8


class SandboxWorkspace:
    """The files of a sandbox; implements `Workspace`. Writing raises `NotRemotableError`."""

    def __init__(self, client: ComputerAgentServerClient, sandbox_id: str) -> None:
        self._client = client
        self._id = sandbox_id

    async def tree(self, path: str = ".", *, depth: int = 1) -> list[FileEntry]:
        """What is in a directory; `depth` counts the levels below its direct children. No deeper than eight levels."""
        steps = [step for step in path.split("/") if step not in {"", "."}]
        levels = min(_DEEPEST, len(steps) + depth + 1)
        entries = await self._client.workdir(self._id, depth=levels)
        prefix = "".join(f"{step}/" for step in steps)
        inside = [_entry(each, prefix) for each in entries if str(each.get("path", "")).startswith(prefix)]
        return [each for each in inside if each.path and each.path.count("/") <= depth]

    async def read(self, path: str) -> bytes:
        """A file's content. Raises `NotFoundError`."""
        return await self._client.artifact(self._id, path)

    async def write(self, path: str, data: bytes) -> int:
        """Not carried by this wire."""
        del path, data
        raise self._read_only()

    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> int:
        """Not carried by this wire."""
        del path, old, new, replace_all
        raise self._read_only()

    async def mkdir(self, path: str, *, parents: bool = False) -> None:
        """Not carried by this wire."""
        del path, parents
        raise self._read_only()

    async def move(self, source: str, target: str) -> None:
        """Not carried by this wire."""
        del source, target
        raise self._read_only()

    async def delete(self, path: str, *, recursive: bool = False) -> None:
        """Not carried by this wire."""
        del path, recursive
        raise self._read_only()

    def _read_only(self) -> NotRemotableError:
        return NotRemotableError(
            "files of a sandbox can only be read from outside", hint="Pass attachments= to bring files in."
        )


def _entry(told: dict[str, Any], prefix: str) -> FileEntry:
    return FileEntry(
        path=str(told.get("path", "")).removeprefix(prefix),
        type=told.get("type", "file"),
        size=int(told.get("size") or 0),
        mtime=int(told.get("mtime") or 0),
        mode=int(told.get("mode") or 0),
    )
