"""What is left of a sandbox when it, or its host, has ended: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from inspect_ai.util import ExecRemoteStreamingOptions
from tests.swe.sandboxes.conftest import KINDS, PROVIDERS, supervised

from computeragent.processes import started
from computeragent.swe.sandboxes import SandboxConfig

anyio = pytest.mark.anyio


def mounts() -> set[str]:
    """Where something is mounted that could be ours: other tests mount, too."""
    own = ("/tmp/root", os.environ["TMPDIR"], os.environ["COMPUTERAGENT_HOME"])
    points = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    return {each for each in points if each in ("/tmp", "/root", "/home") or each.startswith(own)}


def folders() -> set[str]:
    """All that is in the folders of this test that a host writes to."""
    return {str(path) for name in ("TMPDIR", "COMPUTERAGENT_HOME") for path in Path(os.environ[name]).rglob("*")}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def groups() -> set[Path]:
    return {*Path("/sys/fs/cgroup").glob(f"**/computeragent-{os.getpid()}-*")}


async def busy(name: str):
    """A sandbox with something going on in every way."""
    sandbox = await KINDS[name].start(SandboxConfig(memory=500_000_000))
    await sandbox.exec(["sh", "-c", "setsid sleep 4711 & (setsid setsid sleep 4711 &)"])
    await sandbox.exec_remote(["sh", "-c", "yes & cat"], ExecRemoteStreamingOptions(stdin_open=True))
    await sandbox.write_file("/tmp/large", b"x" * 1_000_000)
    return sandbox


@anyio
@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_sandbox_that_is_closed_leaves_nothing(name: str) -> None:
    await (await busy(name)).close()
    gc.collect()
    before = mounts(), folders(), descriptors(), groups()
    sandbox = await busy(name)
    running = asyncio.ensure_future(sandbox.exec(["sleep", "60"]))
    listener = await sandbox.listener()
    assert "sleep 4711 " in supervised(os.getpid()).values()
    await sandbox.close()
    listener.close()
    await asyncio.wait({running}, timeout=10)
    assert running.done()
    with suppress(Exception):
        running.result()
    await asyncio.sleep(0)
    del sandbox, running
    gc.collect()
    assert not supervised(os.getpid())
    assert (mounts(), folders(), descriptors(), groups()) == before


@anyio
@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing(name: str) -> None:
    await (await KINDS[name].start(SandboxConfig())).close()
    gc.collect()
    before, grouped = descriptors(), groups()
    for moment in range(16):
        starting = asyncio.ensure_future(KINDS[name].start(SandboxConfig()))
        await asyncio.wait({starting}, timeout=moment / 200)
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await (await starting).close()
    gc.collect()
    assert descriptors() <= before
    assert not supervised(os.getpid())
    assert groups() == grouped


async def started_once() -> None:
    for kind in KINDS.values():
        await (await kind.start(SandboxConfig())).close()


def test_a_host_that_is_killed_leaves_nothing() -> None:
    asyncio.run(started_once())  # what is made once, in the cache
    before = mounts(), folders()
    ready, told = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks where threads are
        host = os.fork()
    if host == 0:

        async def run() -> None:
            sandboxes = [await busy(name) for name in PROVIDERS]
            waiting = [asyncio.ensure_future(each.exec(["sleep", "600"])) for each in sandboxes]
            os.write(told, b"x")
            await asyncio.gather(*waiting)

        try:
            os.close(ready)
            asyncio.run(run())
        finally:
            os._exit(1)
    os.close(told)
    assert os.read(ready, 1) == b"x"
    left = {pid: started(pid) for pid in supervised(host)}
    assert len(left) > 10
    os.kill(host, signal.SIGKILL)
    os.waitpid(host, 0)
    end = time.monotonic() + 20
    while any(began and started(pid) == began for pid, began in left.items()):
        assert time.monotonic() < end, supervised(1)
        time.sleep(0.01)
    assert (mounts(), folders()) == before
    os.close(ready)
