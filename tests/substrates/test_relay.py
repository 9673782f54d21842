"""What a sandbox can do with the way to its model provider, and what it cannot."""

from __future__ import annotations

import asyncio
import http.server
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from computeragent.credentials import PROVIDERS, Route
from computeragent.substrates.relay import Relay

pytestmark = pytest.mark.anyio
KEY = "sk-canary-51c0ffee"


class Upstream(http.server.BaseHTTPRequestHandler):
    """A provider that answers with what it was asked, or sends elsewhere."""

    seen: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response(307 if self.path.endswith("/elsewhere") else 200)
        if self.path.endswith("/elsewhere"):
            self.send_header("location", "http://127.0.0.1:9/stolen")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def upstream() -> Iterator[str]:
    Upstream.seen = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/base"
        server.shutdown()


@pytest.fixture
async def port(upstream: str) -> AsyncIterator[int]:
    """Where the sandbox would find the relay."""
    listener = socket.create_server(("127.0.0.1", 0))
    relay = Relay(Route(PROVIDERS[0], upstream, ("x-api-key", KEY)), listener)
    relay.start()
    yield listener.getsockname()[1]
    await relay.close()


async def ask(port: int, target: str, *headers: str) -> bytes:
    """The answer to a request that no client library has tidied."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([f"GET {target} HTTP/1.1", "host: x", "connection: close", *headers, "", ""]).encode())
    answer = await reader.read()
    writer.close()
    return answer


async def test_the_key_replaces_whatever_the_sandbox_sends(port: int) -> None:
    async with httpx2.AsyncClient() as client:
        sent = {"x-api-key": "mine", "authorization": "Bearer mine", "x-goog-api-key": "mine", "anthropic-beta": "kept"}
        answer = await client.get(f"http://127.0.0.1:{port}/v1/models?limit=1", headers=sent)
    [(path, headers)] = Upstream.seen
    assert (answer.status_code, path, headers["x-api-key"]) == (200, "/base/v1/models?limit=1", KEY)
    assert "authorization" not in headers
    assert "x-goog-api-key" not in headers
    assert headers["anthropic-beta"] == "kept"


@pytest.mark.parametrize(
    "target",
    ["/../admin", "/v1/../../admin", "/%2e%2e/admin", "/v1/..%2f..%2fadmin", "//evil.test/x", "/v1//x", "/..\\admin"],
)
async def test_no_path_leaves_the_providers_address(target: str, port: int) -> None:
    assert b" 404 " in await ask(port, target)
    assert Upstream.seen == []


@pytest.mark.parametrize("target", ["http://evil.test/v1", "@evil.test/v1", "evil.test:80"])
async def test_no_request_line_names_another_host(target: str, port: int) -> None:
    answer = await ask(port, target)
    assert KEY.encode() not in answer
    assert all(path.startswith("/base/") for path, _ in Upstream.seen)


async def test_a_redirect_is_passed_on_and_not_followed(port: int) -> None:
    answer = await ask(port, "/elsewhere")
    assert b" 307 " in answer
    assert KEY.encode() not in answer
    assert len(Upstream.seen) == 1


async def test_a_flood_of_connections_does_not_use_up_the_hosts_files(port: int) -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    flood = f"""
import socket, time
taken = [socket.socket() for _ in range(900)]
for each in taken:
    each.setblocking(False)
    each.connect_ex(("127.0.0.1", {port}))
time.sleep(30)
"""
    flooding = await asyncio.create_subprocess_exec(sys.executable, "-c", flood)
    try:
        most = 0
        for _ in range(30):
            await asyncio.sleep(0.05)
            most = max(most, len([*Path("/proc/self/fd").iterdir()]) - before)
        assert 100 < most < 400
    finally:
        flooding.kill()
        await flooding.wait()
    async with asyncio.timeout(10):
        while b" 200 " not in await ask(port, "/v1/models"):
            pass
