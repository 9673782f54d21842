"""Every place where a session can run, each as a `Harness`: what is promised of one is promised of all."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from computeragent.client import HarnessClient, RemoteHarness
from computeragent.eventlog import MemoryEventLog, RedisEventLog
from computeragent.harness import LocalHarness
from computeragent.protocol_types import Harness
from computeragent.server import bearer, create_harness_server
from computeragent.substrates import LocalSubstrate
from computeragent.substrates.bwrap import BwrapSubstrate
from loopback import loopback
from redis_server import running_redis

TOKEN = "a-token-of-the-tests"
Placement = Callable[[Path], AbstractAsyncContextManager[Harness]]


class InTurn(httpx2.AsyncBaseTransport):
    """Every request goes to the next one of several servers."""

    def __init__(self, urls: list[str]) -> None:
        self._turn = itertools.cycle([httpx2.URL(url) for url in urls])
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        place = next(self._turn)
        request.url = request.url.copy_with(host=place.host, port=place.port)
        request.headers["host"] = f"{place.host}:{place.port}"
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def local(substrate: Any = None) -> AsyncIterator[Harness]:
    """A harness in this process; the engine where the substrate says."""
    async with AsyncExitStack() as stack:
        if isinstance(substrate, AbstractAsyncContextManager):
            await stack.enter_async_context(substrate)
        harness = LocalHarness(substrate=substrate)
        stack.push_async_callback(harness.close)
        yield harness


@asynccontextmanager
async def remote(app: Any) -> AsyncIterator[Harness]:
    """The client of one server."""
    async with loopback(app) as url:
        harness = RemoteHarness(HarnessClient(base_url=url, token=TOKEN))
        yield harness
        await harness.close()


@asynccontextmanager
async def replicas(folder: Path) -> AsyncIterator[Harness]:
    """A client that asks two servers in turn: no request may mind which of them it comes to."""
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(running_redis())
        urls: list[str] = []
        for name in ("a", "b"):
            harness = LocalHarness(log=RedisEventLog(redis.url, prefix="wire"), library_mode=False, work=folder / name)
            app, advertise = _advertised(harness)
            url = await stack.enter_async_context(loopback(app))
            advertise(url)
            urls.append(url)
        client = httpx2.AsyncClient(transport=InTurn(urls), timeout=30)
        stack.push_async_callback(client.aclose)
        remote = RemoteHarness(HarnessClient(base_url="http://127.0.0.1:1", token=TOKEN, client=client))
        yield remote
        await remote.close()


def _advertised(harness: LocalHarness) -> tuple[Any, Callable[[str], None]]:
    """A server, and how to tell it where it is, which is known once it listens."""
    app = create_harness_server(harness=harness, auth=bearer([TOKEN]), advertise="http://127.0.0.1:1")
    log: Any = harness.log
    return app, log.reached_at


PLACEMENTS: dict[str, Placement] = {
    "in process": lambda _: local(),
    "child process": lambda _: local(LocalSubstrate(process=True, pool=1)),
    "bwrap": lambda _: local(BwrapSubstrate(pool=1)),
    "http": lambda _: remote(create_harness_server(auth=bearer([TOKEN]), log=MemoryEventLog())),
    "http, bwrap": lambda _: remote(create_harness_server(auth=bearer([TOKEN]), substrate=BwrapSubstrate(pool=1))),
    "two servers": replicas,
}


def require_bwrap() -> None:
    """Skip where there is no bubblewrap; in CI that is a failure."""
    if shutil.which("bwrap") is None:
        if os.environ.get("CI"):
            pytest.fail("bubblewrap is missing")
        pytest.skip("bubblewrap is not installed")
