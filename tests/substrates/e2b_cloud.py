"""A stand-in of E2B: its REST API, and the services in its sandboxes that the SDK talks to, on one address.

The wire is the official SDK's: ``POST /v2/sandboxes`` (or ``/sandboxes``), ``DELETE /sandboxes/{id}``; with
``E2b-Sandbox-Id`` and ``E2b-Sandbox-Port`` a sandbox's ports, of which 49983 is envd: ``/health``, ``/files`` and
``process.Process/Start`` (Connect, streaming JSON). Commands run for real, in bubblewrap. It cannot show how E2B
isolates its machines, nor what its edge does to long requests.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import shutil
import signal
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

ROOT = Path(__file__).parents[2]  # this checkout, which a sandbox is to see wherever it is
_ENVD = "49983"
_HOP_BY_HOP = {"host", "connection", "transfer-encoding", "content-length"}


class Cloud:
    """The service; `app` is its ASGI application, `created` the bodies of what was asked for."""

    def __init__(self, folder: Path, api_key: str) -> None:
        self.api_key = api_key
        self.created: list[dict[str, Any]] = []
        self.seen: list[Request] = []
        self.sandboxes: dict[str, Sandbox] = {}
        self._folder = folder
        methods = ["GET", "POST", "PUT", "DELETE", "PATCH"]
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=methods)])

    async def close(self) -> None:
        """End every sandbox."""
        for each in list(self.sandboxes):
            await self.kill(each)

    async def kill(self, sandbox_id: str) -> bool:
        """End a sandbox, as E2B does when its time is up."""
        found = self.sandboxes.pop(sandbox_id, None)
        if found is None:
            return False
        await found.close()
        return True

    async def _answer(self, request: Request) -> Response:
        self.seen.append(request)
        sandbox_id = request.headers.get("e2b-sandbox-id")
        if sandbox_id is not None:
            sandbox = self.sandboxes.get(sandbox_id)
            if sandbox is None:
                return JSONResponse({"code": 502, "message": "The sandbox was not found"}, 502)
            port = request.headers["e2b-sandbox-port"]
            return await (sandbox.envd(request) if port == _ENVD else sandbox.forward(request, port))
        if request.headers.get("x-api-key") != self.api_key:
            return JSONResponse({"code": 401, "message": "Invalid API key"}, 401)
        path = request.url.path
        if request.method == "POST" and re.fullmatch(r"(/v\d)?/sandboxes", path):
            return await self._create(await request.json())
        if request.method == "DELETE" and path.startswith("/sandboxes/"):
            killed = await self.kill(path.rpartition("/")[2])
            return Response(status_code=204 if killed else 404)
        return JSONResponse({"code": 404, "message": f"no {path}"}, 404)

    async def _create(self, body: dict[str, Any]) -> Response:
        self.created.append(body)
        if body["templateID"] == "missing":
            return JSONResponse({"code": 404, "message": "template 'missing' not found"}, 404)
        sandbox_id = f"i{secrets.token_hex(10)}"
        sandbox = Sandbox(self._folder / sandbox_id, body)
        self.sandboxes[sandbox_id] = sandbox
        told = {"sandboxID": sandbox_id, "templateID": body["templateID"], "clientID": "c", "envdVersion": "0.5.8"}
        told |= {"envdAccessToken": sandbox.access_token, "domain": None, "trafficAccessToken": sandbox.traffic_token}
        return JSONResponse(told, 201)


class Sandbox:
    """One sandbox: a /tmp and a home of its own, and processes."""

    def __init__(self, folder: Path, body: dict[str, Any]) -> None:
        self.folder = folder
        self.access_token, self.traffic_token = secrets.token_hex(16), secrets.token_hex(16)
        self._closed_to_others = (body.get("network") or {}).get("allowPublicTraffic") is False
        self._processes: list[asyncio.subprocess.Process] = []
        self._http = httpx2.AsyncClient(timeout=None)
        for name in ("tmp", "user"):
            (folder / name).mkdir(parents=True)

    async def close(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        await self._http.aclose()
        shutil.rmtree(self.folder)

    async def envd(self, request: Request) -> Response:
        """The daemon in the sandbox."""
        path = request.url.path
        if path == "/health":
            return Response(status_code=204)
        if request.headers.get("x-access-token") != self.access_token:
            return JSONResponse({"code": "unauthenticated", "message": "no access token"}, 401)
        if path == "/files" and request.method == "POST":
            return self._write(request.query_params["path"], request.headers["content-type"], await request.body())
        if path == "/process.Process/Start":
            wanted = json.loads((await request.body())[5:])["process"]
            return StreamingResponse(self._run(wanted), media_type="application/connect+json")
        return JSONResponse({"code": 404, "message": f"no {path}"}, 404)

    async def forward(self, request: Request, port: str) -> Response:
        """A port of the sandbox."""
        if self._closed_to_others and request.headers.get("e2b-traffic-access-token") != self.traffic_token:
            return JSONResponse({"code": 403, "message": "this sandbox takes no public traffic"}, 403)
        headers = [(name, value) for name, value in request.headers.items() if name not in _HOP_BY_HOP]
        url = f"http://127.0.0.1:{port}{request.url.path}?{request.url.query}".rstrip("?")
        asked = self._http.build_request(request.method, url, headers=headers, content=request.stream())
        try:
            answer = await self._http.send(asked, stream=True)
        except httpx2.TransportError:
            return JSONResponse({"code": 502, "message": "The sandbox is running but port is not open"}, 502)
        kept = {name: value for name, value in answer.headers.items() if name not in _HOP_BY_HOP}
        return StreamingResponse(_passed(answer), answer.status_code, kept)

    def _write(self, path: str, kind: str, body: bytes) -> Response:
        if kind.startswith("multipart/"):
            boundary = kind.partition("boundary=")[2].encode()
            body = body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--" + boundary)[0]
        target = self.folder / path.lstrip("/") if path.startswith("/tmp/") else self.folder / "user" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)
        return JSONResponse([{"name": target.name, "type": "file", "path": path}])

    async def _run(self, wanted: dict[str, Any]) -> AsyncIterator[bytes]:
        arguments = [each for each in wanted.get("args", []) if each != "-l"]
        room = [
            "bwrap",
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "--unshare-pid",
            "--die-with-parent",
        ]
        room += ["--tmpfs", "/home", "--bind", str(self.folder / "user"), "/home/user", "--chdir", "/home/user"]
        room += ["--bind", str(self.folder / "tmp"), "/tmp", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]
        room += ["--setenv", "HOME", "/home/user", "--ro-bind", str(ROOT), str(ROOT)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *room, wanted["cmd"], *arguments, stdout=pipe, stderr=pipe, stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self._processes.append(process)
        yield _event({"start": {"pid": process.pid}})
        said: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def read(name: str, stream: asyncio.StreamReader) -> None:
            while data := await stream.read(4096):
                await said.put(_event({"data": {name: base64.b64encode(data).decode()}}))
            await said.put(None)

        assert process.stdout is not None
        assert process.stderr is not None
        readers = [
            asyncio.create_task(read("stdout", process.stdout)),
            asyncio.create_task(read("stderr", process.stderr)),
        ]
        for _ in readers:
            while (event := await said.get()) is not None:
                yield event
        code = await process.wait()
        yield _event({"end": {"exitCode": code, "exited": code >= 0, "status": f"exit status {code}"}})
        yield struct.pack(">BI", 2, 2) + b"{}"


def _event(event: dict[str, Any]) -> bytes:
    data = json.dumps({"event": event}).encode()
    return struct.pack(">BI", 0, len(data)) + data


async def _passed(answer: httpx2.Response) -> AsyncIterator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()
