"""An engine host on another machine: it serves on an address, for who knows the token of this boot and nobody else.

Besides the harness protocol it takes the session's folders in and gives them back (``/carry``), does single things to
files (``/files``), and has the engines' requests to models answered outside (``/errands``).
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from computeragent.errors import ComputerAgentError, NotFoundError, UnauthorizedError
from computeragent.harness.host import HostHarness
from computeragent.harness.workspace import LocalWorkspace
from computeragent.server import create_harness_server
from computeragent.server.errors import respond
from computeragent.server.sandboxes.archive import pack, unpack
from computeragent.substrates.carry import CAPS, FOLDERS
from computeragent.substrates.errands import HEAD, Errands
from computeragent.wire.encoding import to_json

_DOINGS = frozenset({"tree", "read", "write", "edit", "mkdir", "move", "delete"})


async def serve(address: str, *, token_file: str, home: str, providers: int) -> None:
    """Serve until told to end; with a token from standard input, until that is closed.

    When it is ready it says ``{"home", "ports", "address"}`` in a line on standard output.
    """
    token = _token(token_file)
    folder = _made(home)
    listening = _listening(address)
    errands = Errands(providers)
    app = Guard(_application(folder, errands), token)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    tasks: set[asyncio.Future[Any]] = {
        asyncio.ensure_future(server.serve(sockets=[listening])),
        asyncio.ensure_future(errands.serve()),
    }
    if token_file == "-":  # noqa: S105 - standard input
        tasks.add(asyncio.ensure_future(asyncio.to_thread(sys.stdin.buffer.read)))
    place = listening.getsockname()
    sys.stdout.write(json.dumps({"address": place, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    os._exit(0)  # nothing here outlives the connection to the outside


class Guard:
    """Lets in who states the token, compared in constant time."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "lifespan":
            stated = [value for name, value in scope["headers"] if name == b"authorization"]
            if scope["type"] != "http" or len(stated) != 1 or not hmac.compare_digest(stated[0], self._expected):
                refusal = UnauthorizedError("this engine host is another's", hint="It has a token for each boot.")
                await respond(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _application(folder: Path, errands: Errands) -> Starlette:
    harness = create_harness_server(harness=HostHarness(), allowed_hosts=())
    folders = _Folders(folder)

    async def about(_: Request) -> Response:
        return JSONResponse({"home": str(folder), "ports": errands.ports})

    async def next_errand(request: Request) -> Response:
        found = await errands.next(int(request.query_params.get("after", "0")))
        return Response(status_code=204) if found is None else JSONResponse(found)

    async def answer_errand(request: Request) -> Response:
        done = await errands.answer(int(request.path_params["number"]), request.headers[HEAD], request.stream())
        # Where nobody wants the rest of an answer, the connection that it comes on is closed.
        return Response() if done else Response(status_code=410, headers={"connection": "close"})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with harness.router.lifespan_context(harness):
            yield

    return Starlette(
        routes=[
            Route("/about", about),
            Route("/carry/{name}", folders.take, methods=["PUT"]),
            Route("/carry/{name}", folders.give, methods=["GET"]),
            Route("/files/{what}", folders.do, methods=["POST"]),
            Route("/errands", next_errand),
            Route("/errands/{number:int}", answer_errand, methods=["POST"]),
            Mount("/", harness),
        ],
        lifespan=lifespan,
        exception_handlers={ComputerAgentError: _told},
    )


class _Folders:
    """The session's folders, brought and fetched whole, or touched file by file."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._files = LocalWorkspace(home / "source")

    async def take(self, request: Request) -> Response:
        """Have a folder as the archive in the body says."""
        archive = await asyncio.to_thread(self._new_file)
        try:
            with await asyncio.to_thread(archive.open, "wb") as file:
                async for part in request.stream():
                    file.write(part)
            await asyncio.to_thread(unpack, archive, self._home / _folder(request), CAPS)
        finally:
            await asyncio.to_thread(archive.unlink, missing_ok=True)
        return JSONResponse({"ok": True})

    async def give(self, request: Request) -> Response:
        """A folder as an archive."""
        archive = await asyncio.to_thread(self._new_file)
        try:
            await asyncio.to_thread(pack, self._home / _folder(request), archive, CAPS)
        except BaseException:
            await asyncio.to_thread(archive.unlink, missing_ok=True)
            raise
        return FileResponse(archive, background=BackgroundTask(archive.unlink, missing_ok=True))

    async def do(self, request: Request) -> Response:
        """One of the methods of `Workspace`."""
        what = request.path_params["what"]
        if what not in _DOINGS:
            raise NotFoundError(f"there is no {what!r} of files")
        given = await request.json()
        if "data" in given:
            given["data"] = base64.b64decode(given["data"])
        result: Any = await getattr(self._files, what)(**given)
        if what == "read":
            return Response(result, media_type="application/octet-stream")
        return Response(to_json({"result": result}), media_type="application/json")

    def _new_file(self) -> Path:
        descriptor, name = tempfile.mkstemp(dir=self._home, suffix=".carried")
        os.close(descriptor)
        return Path(name)


def _made(home: str) -> Path:
    folder = Path(home).expanduser()
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder.resolve()


def _told(_: Request, error: Exception) -> Response:
    assert isinstance(error, ComputerAgentError)
    return respond(error)


def _folder(request: Request) -> str:
    name = str(request.path_params["name"])
    if name not in FOLDERS:
        raise NotFoundError(f"there is no folder {name!r}")
    return name


def _token(file: str) -> str:
    """The token, from standard input or a file that is deleted."""
    if file == "-":
        token = sys.stdin.buffer.readline().decode("ascii").strip()
    else:
        token = Path(file).read_text("ascii").strip()
        Path(file).unlink()
    if len(token) < 32:
        raise SystemExit("engine-host: the token is missing or short")
    return token


def _listening(address: str) -> socket.socket:
    if address.startswith("/"):
        listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            listener.bind(address)
        finally:
            os.umask(before)
    else:
        host, _, port = address.rpartition(":")
        listener = socket.create_server((host, int(port)))
    listener.listen(128)
    return listener
