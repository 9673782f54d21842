"""`create_replay_server` and `export`: a trajectory as a page to step through, served or in one file."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from computeragent.desk.door import Door
from computeragent.desk.pages import KEPT, render
from computeragent.desk.trajectory import Library, Run
from computeragent.errors import ComputerAgentError, ValidationError
from computeragent.server.auth import LOOPBACK
from computeragent.server.endpoint import failed, http_error, json_response, told

PUBLIC = ("/health", "/static/desk.css")


def create_replay_server(
    folder: Path, *, token: str | None = None, allowed_hosts: Iterable[str] = LOOPBACK
) -> Starlette:
    """The trajectories of a folder as pages.

    Args:
        folder: A trajectory, or a folder of them.
        token: What lets in; without it everybody is: for loopback alone.
        allowed_hosts: Host names that requests may be for; empty for any.

    Raises:
        NotFoundError: There is no such folder.

    """
    replay = Replay(Library(folder))
    return Starlette(
        routes=[
            Route("/", replay.listing),
            Route("/health", replay.health),
            Route("/run/{name}", replay.page),
            Route("/run/{name}/{path:path}", replay.picture),
            Mount("/static", StaticFiles(packages=[("computeragent.desk", "static")])),
        ],
        middleware=[Middleware(Door, token=token, hosts=list(allowed_hosts), public=PUBLIC)],
        exception_handlers={ComputerAgentError: told, HTTPException: http_error, Exception: failed},
    )


def export(folder: Path, target: Path) -> int:
    """Write one trajectory into a file that needs nothing else; returns its size in bytes.

    Raises `NotFoundError` and `ValidationError` where there is not exactly one, or the file cannot be written.
    """
    library = Library(folder)
    run = library.read(library.one())
    images: dict[str, str] = {}
    for path in run.pictures():
        try:
            data = library.picture(run.name, path)
        except ComputerAgentError as error:
            run.faults.append(f"{path}: {error.message}")
            continue
        kind = "png" if path.endswith(".png") else "jpeg"
        images[path] = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    page = _page(run, images=images)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        part.write_bytes(page)
        os.replace(part, target)  # noqa: PTH105 - whole or not at all
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ValidationError(f"{target} cannot be written: {error.strerror}", hint="Choose another place.") from None
    return len(page)


class Replay:
    """The routes of the replay."""

    def __init__(self, library: Library) -> None:
        self._library = library

    async def listing(self, request: Request) -> Response:
        """`GET /`: the trajectories, or the only one."""
        del request
        names = await run_in_threadpool(self._library.names)
        if len(names) == 1:
            return RedirectResponse(f"/run/{quote(names[0], safe='')}", 303)
        runs = await run_in_threadpool(lambda: [self._library.heading(name) for name in names])
        return Response(render("runs.html", runs=runs, quote=_quoted), headers=KEPT, media_type="text/html")

    async def health(self, request: Request) -> Response:
        """`GET /health`."""
        del request
        return json_response({"status": "healthy"})

    async def page(self, request: Request) -> Response:
        """`GET /run/{name}`."""
        name = str(request.path_params["name"])
        run = await run_in_threadpool(self._library.read, name)
        others = len(await run_in_threadpool(self._library.names)) > 1
        body = await run_in_threadpool(_page, run, root=f"/run/{_quoted(name)}/", others=others)
        return Response(body, headers=KEPT, media_type="text/html")

    async def picture(self, request: Request) -> Response:
        """`GET /run/{name}/{turn}/{file}`."""
        name, path = str(request.path_params["name"]), str(request.path_params["path"])
        data = await run_in_threadpool(self._library.picture, name, path)
        kind = "image/png" if path.endswith(".png") else "image/jpeg"
        headers = {"cache-control": "private, max-age=3600", "x-content-type-options": "nosniff"}
        return Response(data, headers=headers, media_type=kind)


def _page(run: Run, *, root: str = "", images: dict[str, str] | None = None, others: bool = False) -> bytes:
    """The page of a run: pictures below `root`, or all of them in it."""
    data: dict[str, Any] = {**msgspec.to_builtins(run), "root": root, "images": images}
    # Inside a script element nothing may look like its end, or like a comment.
    text = msgspec.json.encode(data).decode().replace("<", "\\u003c")
    shown = Markup(text)  # noqa: S704 - escaped above
    return render("replay.html", run=run, data=shown, alone=images is not None, others=others)


def _quoted(name: str) -> str:
    return quote(name, safe="")
