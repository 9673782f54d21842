"""Files of working directories as answers. Every path is jailed by the workspace itself."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from computeragent.errors import NotFoundError
from computeragent.protocol_types import Workspace
from computeragent.server.bodies import Entry
from computeragent.server.sandboxes.shapes import Entries

DEEPEST = 8


async def content(files: Workspace, path: str) -> Response:
    """A file's bytes. Raises `NotFoundError`."""
    try:
        data = await files.read(path)
    except NotFoundError as error:
        details: dict[str, Any] = {"path": path[:1000]}
        raise NotFoundError(error.message, hint=error.hint, details=details) from None
    return Response(data, media_type="application/octet-stream", headers={"x-content-type-options": "nosniff"})


async def listing(files: Workspace, *, depth: int) -> Entries:
    """What is there, `depth` levels of it, at most `DEEPEST`."""
    found = await files.tree(".", depth=max(1, min(depth, DEEPEST)) - 1)
    return Entries(entries=[Entry(path=e.path, type=e.type, size=e.size, mtime=e.mtime, mode=e.mode) for e in found])
