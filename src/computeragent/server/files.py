"""Handlers of a session's working directory. Every path is jailed by the workspace itself."""

from __future__ import annotations

from starlette.responses import Response

from computeragent.errors import MissingPathError
from computeragent.server.bodies import Edited, Entry, Ok, Tree, Written
from computeragent.server.endpoint import Call
from computeragent.server.sessions import Sessions

DEEPEST = 8


class Files:
    """The routes below ``/v1/sessions/{id}/fs``."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def tree(self, call: Call) -> Tree:
        """What is in a directory; `depth` counts the levels below its direct children."""
        given = call.query.depth
        depth = min(int(given[:9]), DEEPEST) if given.isascii() and given.isdigit() else 1
        found = await self._sessions.workspace(call).tree(call.query.path or ".", depth=depth)
        entries = [Entry(path=e.path, type=e.type, size=e.size, mtime=e.mtime, mode=e.mode) for e in found]
        return Tree(entries=entries)

    async def read(self, call: Call) -> Response:
        """The bytes of a file."""
        data = await self._sessions.workspace(call).read(_path(call))
        return Response(data, media_type="application/octet-stream", headers={"x-content-type-options": "nosniff"})

    async def write(self, call: Call) -> Written:
        """Write a file whole or not at all, making its parents."""
        return Written(size=await self._sessions.workspace(call).write(_path(call), call.raw))

    async def delete(self, call: Call) -> Ok:
        """Remove a file or an empty directory; with ``recursive=true`` a directory and all in it."""
        await self._sessions.workspace(call).delete(_path(call), recursive=call.query.recursive == "true")
        return Ok()

    async def edit(self, call: Call) -> Edited:
        """Replace text in a file."""
        body = call.body
        files = self._sessions.workspace(call)
        count = await files.edit(body.path, body.old_string, body.new_string, replace_all=body.replace_all)
        return Edited(replacements=count)

    async def mkdir(self, call: Call) -> Ok:
        """Make a directory."""
        await self._sessions.workspace(call).mkdir(call.body.path, parents=call.body.recursive)
        return Ok()

    async def move(self, call: Call) -> Ok:
        """Rename."""
        await self._sessions.workspace(call).move(call.body.source, call.body.target)
        return Ok()


def _path(call: Call) -> str:
    path: str = call.query.path
    if not path:
        raise MissingPathError("the query has no path", hint="Add ?path=… to the address.")
    return path
