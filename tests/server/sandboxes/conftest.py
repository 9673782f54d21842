"""A real sandbox server on a real socket, clients of it, and short look-ups."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from computeragent.server import bearer
from computeragent.server.sandboxes import SandboxLimits, create_sandbox_server
from computeragent.wire.sse import SseDecoder
from loopback import listening

ALICE, BOB = "the-token-of-alice", "the-token-of-bob"
WRITE = {"tool": "Write", "input": {"file_path": "notes.txt", "content": "hello"}}
ASK = {"tool": "Bash", "input": {"command": "ls"}, "result": "a.txt"}
BYPASS = {"permissionMode": "bypassPermissions"}


def agent(*turns: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A request for the scripted engine on an inline agent; its tools run without asking."""
    source = {"type": "inline", "manifest": {"name": "tester", "version": "1.0.0"}}
    options = {**BYPASS, **({"script": list(turns)} if turns else {}), **fields.pop("options", {})}
    return {"source": source, "harness": "scripted", "options": options} | fields


class Server:
    """A running server and what is said to it."""

    def __init__(self, client: httpx2.AsyncClient, url: str) -> None:
        self.client, self.url = client, url

    def other(self, token: str) -> Server:
        """The same server, for another caller."""
        return Server(
            httpx2.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {token}"}, timeout=30), self.url
        )

    async def get(self, path: str, status: int = 200, **how: Any) -> Any:
        return await self._said("GET", path, status, **how)

    async def post(self, path: str, body: Any = None, status: int = 200, **how: Any) -> Any:
        return await self._said("POST", path, status, json=body, **how)

    async def delete(self, path: str, status: int = 200, **how: Any) -> Any:
        return await self._said("DELETE", path, status, **how)

    async def _said(self, method: str, path: str, status: int, **how: Any) -> Any:
        answer = await self.client.request(method, path, **how)
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer.json() if "json" in answer.headers["content-type"] else answer.content

    async def stream(
        self,
        path: str,
        body: Any = None,
        until: Callable[[Any], bool] = lambda _: False,
        **how: Any,
    ) -> list[Any]:
        """The events of a stream, with the ids that they have, to the end or to one."""
        found: list[Any] = []
        decoder = SseDecoder()
        method = "GET" if body is None else "POST"
        if body is not None:
            how["json"] = body
        async with self.client.stream(method, path, **how) as response:
            assert response.status_code == 200, (response.status_code, await response.aread())
            async for chunk in response.aiter_bytes():
                for frame in decoder.feed(chunk):
                    event = json.loads(frame.data)
                    assert frame.event == event["kind"]
                    if frame.event not in {"ca_done", "ca_error"}:
                        event["id"] = int(frame.id or -1)
                    found.append(event)
                    if until(event):
                        return found
        return found

    async def open(self, *turns: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        return await self.post("/sandboxes", agent(*turns, **fields), 201)

    async def chat(self, sandbox: str, message: str = "go", **fields: Any) -> list[Any]:
        return await self.stream(f"/sandboxes/{sandbox}/chat", {"message": message} | fields)

    async def error(self, method: str, path: str, status: int, **how: Any) -> dict[str, Any]:
        return (await self._said(method, path, status, **how))["error"]


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Server]:
    """A server in this process; `limits` may be a dict."""
    limits = settings.pop("limits", {})
    chosen: dict[str, Any] = {"auth": bearer([ALICE, BOB]), "limits": SandboxLimits(**limits)}
    app = create_sandbox_server(**(chosen | settings))
    listener = listening()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        async with httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {ALICE}"}, timeout=30) as client:
            yield Server(client, url)
    finally:
        server.should_exit = True
        await running
        listener.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


@pytest.fixture
async def bob(server: Server) -> AsyncIterator[Server]:
    """Somebody else on the same server."""
    other = server.other(BOB)
    yield other
    await other.client.aclose()


async def eventually(check: Callable[[], Any]) -> Any:
    """What an awaited check says once it says something."""
    while not (found := await check()):
        await asyncio.sleep(0.02)
    return found


def kinds(events: list[Any]) -> list[str]:
    return [event["kind"] for event in events]


def folders(state: Path) -> list[str]:
    """The working directories that are on disk."""
    return sorted(path.name for path in state.glob("sandboxes/*/work/*/*"))
