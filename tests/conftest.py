"""What every test gets: asyncio, a private state folder, and a clean set of registries."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import os
import re
import signal
import ssl
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpcore2
import pytest
import uvicorn.server

from computeragent.settings import home
from redis_server import RedisServer, running_redis
from slowest import SLOWEST

TESTS = Path(__file__).parent


def pytest_configure() -> None:
    """A job in the background has SIGINT ignored, and would hand that on to what the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    httpcore2.default_ssl_context = _certificates_read_once(httpcore2.default_ssl_context)
    uvicorn.server.asyncio = _OftenAwake()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A long file that is begun last would keep one worker busy while the others have nothing to do."""
    places = {TESTS / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """What the modules of all tests made stays: looking through it for garbage took 0.3 s each time."""
    gc.collect()
    gc.freeze()


class _OftenAwake:
    """What uvicorn takes for asyncio: it looks every 10 ms, not 100, whether it shall stop, which is 0.2 s a server."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay / 10)


def _certificates_read_once(make: Callable[..., ssl.SSLContext]) -> Callable[..., ssl.SSLContext]:
    """Every HTTP client reads the machine's certificates, which takes 30 ms; the tests make thousands of clients."""

    @functools.cache
    def kept(trust_env: bool, _file: str | None, _folder: str | None) -> ssl.SSLContext:
        return make(_trust_env=trust_env)

    def default_ssl_context(*, _trust_env: bool = True) -> ssl.SSLContext:
        return kept(_trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))

    return default_ssl_context


@pytest.fixture(scope="session")
def redis() -> Generator[RedisServer]:
    """A Redis server for all tests that do not harm it; each uses a prefix of its own."""
    with running_redis() as server:
        yield server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


_numbers = itertools.count()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pytest's own, which looks through the folders of all tests before it for a free number: up to 20 ms."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    return tmp_path_factory.mktemp(f"{name}_{next(_numbers)}", numbered=False)


@pytest.fixture(autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a COMPUTERAGENT_HOME of its own."""
    folder = tmp_path_factory.mktemp(f"home_{next(_numbers)}", numbered=False)
    monkeypatch.setenv("COMPUTERAGENT_HOME", str(folder))
    monkeypatch.delenv("COMPUTERAGENT_LOG", raising=False)
    return folder


@pytest.fixture(scope="session")
def programs() -> Path:
    """Where this machine keeps the programs of agents that `computeragent artifacts prefetch` has fetched."""
    return home("cache", "artifacts")


@pytest.fixture
def prefetched(programs: Path, state_folder: Path) -> Path:
    """The test's COMPUTERAGENT_HOME has the machine's programs, and none is fetched anew."""
    (state_folder / "cache").mkdir()
    (state_folder / "cache" / "artifacts").symlink_to(programs)
    return programs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a missing component is a failure, not a reason to skip."""
    report = yield
    if os.environ.get("CI") and report.skipped and "could not import" in str(report.longrepr):
        report.outcome = "failed"
    return report
