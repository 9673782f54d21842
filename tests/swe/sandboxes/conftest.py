"""Sandboxes for tests: started by name, and gone afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from computeragent.swe.sandboxes import BwrapSandbox, NamespaceSandbox, SandboxConfig
from computeragent.swe.sandboxes.supervised import SupervisedSandbox

KINDS: dict[str, type[SupervisedSandbox]] = {"bwrap": BwrapSandbox, "namespace": NamespaceSandbox}
PROVIDERS = tuple(KINDS)

Start = Callable[..., Awaitable[SupervisedSandbox]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a sandbox by its provider's name, with fields of its configuration."""
    started: list[SupervisedSandbox] = []

    async def one(name: str, **config: object) -> SupervisedSandbox:
        sandbox = await KINDS[name].start(SandboxConfig(**config))
        started.append(sandbox)
        return sandbox

    yield one
    for each in started:
        await each.close()


@pytest.fixture(params=PROVIDERS)
async def sandbox(request: pytest.FixtureRequest, start: Start) -> SupervisedSandbox:
    return await start(request.param)


def supervisors() -> set[int]:
    """The processes of this machine that are a supervisor's."""
    found: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes()
        except OSError:
            continue
        if b"/swe/sandboxes/inside/" in line:
            found.add(int(entry.parent.name))
    return found
