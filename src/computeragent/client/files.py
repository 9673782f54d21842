"""A remote session's working directory."""

from __future__ import annotations

from typing import Any

from computeragent.client.harness_client import HarnessClient
from computeragent.protocol_types import FileEntry
from computeragent.wire.encoding import from_json, to_json


class RemoteWorkspace:
    """The files of a session on a server; implements `Workspace`. The server confines every path."""

    def __init__(self, client: HarnessClient, session_id: str) -> None:
        self._client = client
        self._place = f"/v1/sessions/{session_id}/fs"

    async def tree(self, path: str = ".", *, depth: int = 1) -> list[FileEntry]:
        """What is in a directory; `depth` counts the levels below its direct children."""
        params = {"path": path, "depth": str(depth)}
        response = await self._client.request("GET", f"{self._place}/tree", params=params)
        return [FileEntry(**entry) for entry in from_json(response.content)["entries"]]

    async def read(self, path: str) -> bytes:
        """A file's content. Raises `NotFoundError`."""
        return (await self._client.request("GET", f"{self._place}/file", params={"path": path})).content

    async def write(self, path: str, data: bytes) -> int:
        """Write a file whole or not at all; its size."""
        response = await self._client.request("PUT", f"{self._place}/file", params={"path": path}, content=data)
        return int(from_json(response.content)["size"])

    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> int:
        """Replace text; how many places were."""
        body = {"path": path, "oldString": old, "newString": new, "replaceAll": replace_all}
        return int((await self._post("edit", body))["replacements"])

    async def mkdir(self, path: str, *, parents: bool = False) -> None:
        """Make a directory."""
        await self._post("mkdir", {"path": path, "recursive": parents})

    async def move(self, source: str, target: str) -> None:
        """Rename."""
        await self._post("move", {"from": source, "to": target})

    async def delete(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file or an empty directory; with `recursive` a directory and all in it."""
        params = {"path": path, "recursive": "true"} if recursive else {"path": path}
        await self._client.request("DELETE", f"{self._place}/file", params=params)

    async def _post(self, what: str, body: dict[str, Any]) -> Any:
        headers = {"content-type": "application/json"}
        response = await self._client.request("POST", f"{self._place}/{what}", content=to_json(body), headers=headers)
        return from_json(response.content)
