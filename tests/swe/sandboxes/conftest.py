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


def supervised(host: int) -> dict[int, str]:
    """The processes below a host that are sandboxes' or in them, and their command lines."""
    lines: dict[int, str] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if fields[0] not in "ZX":
            parents[int(entry.name)], lines[int(entry.name)] = int(fields[1]), line

    def ancestors(pid: int) -> list[int]:
        return [pid, *ancestors(parents[pid])] if pid in parents else []

    chains = {pid: ancestors(pid) for pid in lines}
    return {
        pid: lines[pid]
        for pid, chain in chains.items()
        if host in chain and any("/swe/sandboxes/inside/" in lines[each] for each in chain[: chain.index(host)])
    }
