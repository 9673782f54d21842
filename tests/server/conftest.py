"""A real server on a real socket, and a client for it."""

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

from computeragent.server import bearer, create_harness_server
from computeragent.wire.sse import SseDecoder
from loopback import listening

TOKEN = "a-token-of-the-tests"


def folders(state: Path, session: str) -> list[Path]:
    """What there is of a session's files on the server, whoever's it is."""
    return list((state / "work").glob(f"{session}*"))


class Server:
    """A running server and what is said to it."""

    def __init__(self, client: httpx2.AsyncClient, url: str, folder: Path) -> None:
        self.client, self.url, self.folder = client, url, folder

    def body(self, *turns: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """A session of the scripted engine on an inline agent."""
        source = {"type": "inline", "manifest": {"name": "tester", "version": "1.0.0"}}
        opened: dict[str, Any] = {
            "engine": "scripted",
            "identity": {"loader": "passthrough", "source": source},
            "options": {"script": list(turns)} if turns else {},
        }
        return opened | fields

    async def open(self, *turns: list[dict[str, Any]], **fields: Any) -> str:
        """Open a session that stays open for messages; its id."""
        answer = await self.client.post("/v1/sessions", json=self.body(*turns, streamingInput=True, **fields))
        assert answer.status_code == 201, answer.text
        return answer.json()["sessionId"]

    async def say(self, session: str, text: str) -> int:
        message = {"message": {"role": "user", "content": text}}
        answer = await self.client.post(f"/v1/sessions/{session}/messages", json=message)
        assert answer.status_code == 200, answer.text
        return answer.json()["turnIndex"]

    async def events(self, session: str, until: Callable[[Any], bool] = lambda _: False, **headers: str) -> list[Any]:
        """The events of a session, with their ids, to the end or to one."""
        return await self.read("GET", f"/v1/sessions/{session}/events", until, headers=headers)

    async def read(
        self, method: str, path: str, until: Callable[[Any], bool] = lambda _: False, **how: Any
    ) -> list[Any]:
        found: list[Any] = []
        decoder = SseDecoder()
        async with self.client.stream(method, path, **how) as response:
            assert response.status_code == 200, await response.aread()
            async for chunk in response.aiter_bytes():
                for frame in decoder.feed(chunk):
                    event = json.loads(frame.data) | {"id": int(frame.id or -1)}
                    assert frame.event == event["kind"]
                    found.append(event)
                    if until(event):
                        return found
        return found


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[Server]:
    app = create_harness_server(**({"auth": bearer([TOKEN])} | settings))
    listener = listening()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    headers = {"authorization": f"Bearer {TOKEN}"}
    try:
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            yield Server(client, url, folder)
    finally:
        server.should_exit = True
        await running
        listener.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        yield running
