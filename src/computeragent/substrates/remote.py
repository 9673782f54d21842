"""An engine host on another machine, from outside: it is given the session's folders, and the keys stay here.

All connections go there from here. The host is told this boot's token by the substrate that starts it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2

from computeragent import credentials
from computeragent.client import HarnessClient, RemoteHarness
from computeragent.client.connection import Connection
from computeragent.credentials import PROVIDERS, Route
from computeragent.errors import ComputerAgentError, HarnessProtocolError, SubstrateError
from computeragent.harness.workspace import LocalWorkspace
from computeragent.logs import Logger
from computeragent.protocol_types import FileEntry, SubstrateHandle
from computeragent.substrates.carry import FOLDERS, bring_home, packed
from computeragent.substrates.errands import HEAD
from computeragent.substrates.hosting import BOOT_TIMEOUT, Body
from computeragent.substrates.relay import Forward
from computeragent.wire.encoding import from_json

_PAUSE = 0.1
_CARRYING = 600.0  # seconds that a folder may take on its way
_LEAVING = 5.0
_log = Logger("substrate")


def new_token() -> str:
    """The token of one boot."""
    return secrets.token_urlsafe(32)


class RemoteHost:
    """A host that serves at `base_url`, in `body`. `transport` is the way there, where it is a special one.

    `patience` is how many seconds a lost connection may take to come back.
    """

    def __init__(
        self,
        body: Body,
        *,
        base_url: str,
        token: str,
        transport: httpx2.AsyncHTTPTransport | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float = 10.0,
    ) -> None:
        self._body = body
        self._http = httpx2.AsyncClient(transport=transport, timeout=60.0, headers=dict(headers or {}))
        self._client = HarnessClient(base_url=base_url, token=token, client=self._http, patience=patience)
        self.harness = RemoteHarness(self._client)
        self.wire = Connection(base_url, token=token, client=self._http)
        self._home = ""
        self._ports: list[int] = []
        self._running: list[asyncio.Task[None]] = []
        self._sent: dict[str, frozenset[str]] = {}
        self._closed = False

    async def place(self, workspace: Path, state_dir: Path, envs: Mapping[str, str]) -> SubstrateHandle:
        """Bring a session's folders there; what the harness needs of it. Raises `SubstrateError`."""
        await self._ready()
        folders = dict(zip(FOLDERS, (workspace, state_dir), strict=True))
        for name, folder in folders.items():
            await self._send(name, folder)
        self._running.append(asyncio.create_task(self._give_up(), name="give up"))
        seen, routes = credentials.held_outside(envs)
        files = CarriedWorkspace(self.wire, workspace)

        async def close() -> None:
            if self._closed:
                return
            self._closed = True
            try:
                async with files.handing_over:
                    for name, folder in folders.items():
                        await self._fetch(name, folder)
                    files.is_here = True
            finally:
                await self._end()

        return SubstrateHandle(
            workspace_path=workspace,
            close=close,
            harness=self.harness,
            envs=seen | self._relay(routes),
            inside={folder: f"{self._home}/{name}" for name, folder in folders.items()},
            ended=self._body.ended,
            files=files,
        )

    async def discard(self) -> None:
        """End a host that was given nothing."""
        self._closed = True
        await self._end()

    async def _end(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        with suppress(ComputerAgentError, TimeoutError):
            async with asyncio.timeout(_LEAVING if self._body.alive else _LEAVING / 10):
                await self.harness.close()
        await self._body.close()
        await self._http.aclose()

    async def _give_up(self) -> None:
        await self._body.ended()
        self._client.give_up()

    async def _ready(self) -> None:
        """Wait until it answers. Raises `SubstrateError` where it ends, or does not answer in time."""
        dying = asyncio.ensure_future(self._body.ended())
        loop = asyncio.get_running_loop()
        until, said = loop.time() + BOOT_TIMEOUT, "nothing"
        try:
            while True:
                try:
                    response = await self._http.get(f"{self.wire.base_url}/about", headers=self.wire.headers())
                    if response.status_code == 200:
                        about = from_json(response.content)
                        self._home, self._ports = str(about["home"]), [int(port) for port in about["ports"]]
                        return
                    said = f"HTTP {response.status_code}"
                except httpx2.TransportError as error:
                    said = type(error).__name__
                if dying.done():
                    raise SubstrateError(f"the engine host could not start: {dying.result()}")
                if loop.time() > until:
                    raise SubstrateError(f"the engine host did not answer in {BOOT_TIMEOUT:g} s: {said}")
                await asyncio.wait({dying}, timeout=_PAUSE)
        finally:
            dying.cancel()

    async def _send(self, name: str, folder: Path) -> None:
        archive, self._sent[name] = await asyncio.to_thread(packed, folder)
        try:
            timeout = httpx2.Timeout(30.0, read=_CARRYING, write=_CARRYING)
            content = await asyncio.to_thread(archive.read_bytes)
            await self.wire.request("PUT", f"/carry/{name}", content=content, timeout=timeout)
        except HarnessProtocolError as error:
            raise SubstrateError(f"the session's folder cannot be brought there: {error.message}") from error
        finally:
            await asyncio.to_thread(archive.unlink)

    async def _fetch(self, name: str, folder: Path) -> None:
        """Bring a folder back. What a host that has died had is lost; that it died, the run's end says."""
        if not self._body.alive:
            return
        archive = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.carried")
        try:
            timeout = httpx2.Timeout(30.0, read=_CARRYING)
            response = await self.wire.request("GET", f"/carry/{name}", timeout=timeout)
            await asyncio.to_thread(archive.write_bytes, response.content)
            await asyncio.to_thread(bring_home, archive, folder, self._sent[name])
        except ComputerAgentError as error:
            _log.error("folder_not_brought_back", folder=name, error=error.message)
        finally:
            await asyncio.to_thread(archive.unlink, missing_ok=True)

    # ── Errands: what the engines there ask of models ──

    def _relay(self, routes: Sequence[Route]) -> dict[str, str]:
        forwards = {PROVIDERS.index(route.provider): Forward(route) for route in routes}
        self._running.append(asyncio.create_task(self._run_errands(forwards), name="errands"))
        return {
            route.provider.base_url_variable: f"http://127.0.0.1:{self._ports[PROVIDERS.index(route.provider)]}"
            for route in routes
        }

    async def _run_errands(self, forwards: dict[int, Forward]) -> None:
        under_way: set[asyncio.Task[None]] = set()
        after = 0
        try:
            while True:
                try:
                    response = await self.wire.request("GET", "/errands", params={"after": str(after)})
                except ComputerAgentError as error:
                    _log.debug("errands_unreachable", error=error.message)
                    await asyncio.sleep(1.0)
                    continue
                if response.status_code == 204:
                    continue
                errand = from_json(response.content)
                after = int(errand["id"])
                task = asyncio.create_task(self._run(errand, forwards.get(errand["provider"])))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            await asyncio.gather(*(forward.close() for forward in forwards.values()))

    async def _run(self, errand: dict[str, Any], forward: Forward | None) -> None:
        """Have one request answered, and carry the answer in as it comes."""
        answer = _Answer()
        done = asyncio.Event()
        body = base64.b64decode(errand["body"])
        sent = False

        async def receive() -> Any:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await done.wait()
            return {"type": "http.disconnect"}

        scope: Any = {
            "type": "http",
            "method": errand["method"],
            "path": errand["path"],
            "raw_path": errand["rawPath"].encode("latin-1"),
            "query_string": errand["query"].encode("latin-1"),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in errand["headers"]],
        }
        asking = asyncio.ensure_future(forward(scope, receive, answer.send) if forward else _nobody(answer))
        try:
            head = await answer.head(asking)
            response = await self._http.post(
                f"{self.wire.base_url}/errands/{errand['id']}",
                headers=self.wire.headers({HEAD: head}),
                content=answer.parts(asking),
                timeout=httpx2.Timeout(30.0, read=None, write=None),
            )
            if response.status_code != 200:
                _log.debug("errand_not_wanted", status=response.status_code)
        except (httpx2.HTTPError, _NoAnswerError) as error:
            _log.debug("errand_failed", error=type(error).__name__)
        finally:
            done.set()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


class _NoAnswerError(Exception):
    """The provider's answer stopped."""


class _Answer:
    """What `Forward` sends, as the head and the parts of a request's body."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Any] = asyncio.Queue(16)

    async def send(self, message: Any) -> None:
        await self._messages.put(message)

    async def head(self, asking: asyncio.Future[None]) -> str:
        start = await self._next(asking)
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in start["headers"]]
        told = json.dumps({"status": start["status"], "headers": headers})
        return base64.b64encode(told.encode()).decode("ascii")

    async def parts(self, asking: asyncio.Future[None]) -> AsyncGenerator[bytes]:
        while True:
            message = await self._next(asking)
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    async def _next(self, asking: asyncio.Future[None]) -> Any:
        getting = asyncio.ensure_future(self._messages.get())
        try:
            await asyncio.wait({getting, asking}, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                return getting.result()
            if not self._messages.empty():
                return self._messages.get_nowait()
            raise _NoAnswerError
        finally:
            getting.cancel()


async def _nobody(answer: _Answer) -> None:
    body = b'{"type":"error","error":{"type":"api_error","message":"no key or address of this provider was given"}}'
    headers = [(b"content-type", b"application/json")]
    await answer.send({"type": "http.response.start", "status": 404, "headers": headers})
    await answer.send({"type": "http.response.body", "body": body})


class CarriedWorkspace:
    """A session's files: there while the host runs, here when it has brought them back; implements `Workspace`."""

    def __init__(self, wire: Connection, here: Path) -> None:
        self._wire = wire
        self._here = LocalWorkspace(here)
        self.handing_over = asyncio.Lock()
        self.is_here = False

    async def tree(self, path: str = ".", *, depth: int = 1) -> list[FileEntry]:
        """See `Workspace.tree`."""
        found = await self._do("tree", path=path, depth=depth)
        return [each if isinstance(each, FileEntry) else FileEntry(**each) for each in found]

    async def read(self, path: str) -> bytes:
        """See `Workspace.read`."""
        return await self._do("read", path=path)

    async def write(self, path: str, data: bytes) -> int:
        """See `Workspace.write`."""
        return await self._do("write", path=path, data=data)

    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> int:
        """See `Workspace.edit`."""
        return await self._do("edit", path=path, old=old, new=new, replace_all=replace_all)

    async def mkdir(self, path: str, *, parents: bool = False) -> None:
        """See `Workspace.mkdir`."""
        await self._do("mkdir", path=path, parents=parents)

    async def move(self, source: str, target: str) -> None:
        """See `Workspace.move`."""
        await self._do("move", source=source, target=target)

    async def delete(self, path: str, *, recursive: bool = False) -> None:
        """See `Workspace.delete`."""
        await self._do("delete", path=path, recursive=recursive)

    async def _do(self, what: str, **given: Any) -> Any:
        async with self.handing_over:
            if self.is_here:
                return await getattr(self._here, what)(**given)
            body = {key: base64.b64encode(value).decode() if key == "data" else value for key, value in given.items()}
            headers = {"content-type": "application/json"}
            content = json.dumps(body).encode("utf-8", "surrogatepass")
            response = await self._wire.request("POST", f"/files/{what}", content=content, headers=headers)
            return response.content if what == "read" else from_json(response.content)["result"]
