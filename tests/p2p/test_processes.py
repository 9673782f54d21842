"""Peers in different processes: one that is killed, one that hangs, and a machine without a network."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from computeragent.errors import PeerError
from computeragent.p2p import Connection, Peer

from .conftest import At

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent


@asynccontextmanager
async def far_peer(port: int, peer_id: str) -> AsyncGenerator[Process]:
    program = [sys.executable, str(HERE / "far_peer.py"), str(port), peer_id]
    process = await asyncio.create_subprocess_exec(*program, stdout=PIPE)
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def welcomed(client: Peer, peer_id: str) -> Connection:
    connection = client.connect(peer_id)
    assert '"welcome"' in await connection.receive()
    return connection


async def test_requests_and_replies_of_a_megabyte_between_processes(at: At) -> None:
    async with far_peer(at.port, "desk"), Peer(options=at()) as client:
        connection = await welcomed(client, "desk")
        await connection.send({"input": "é" * 1_000_000, "size": 1_000_000, "request_id": 1})
        reply = await connection.receive()
        assert (reply["length"], len(reply["text"]), reply["request_id"]) == (1_000_000, 1_000_000, 1)


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_peer_that_dies_or_hangs_is_noticed(at: At, fate: signal.Signals) -> None:
    """ICE by itself needs half a minute; the limit of this test is shorter."""
    options = at(heartbeat=0.2, dead_after=1.5)
    async with far_peer(at.port, "desk") as process, Peer(options=options) as client:
        connection = await welcomed(client, "desk")
        process.send_signal(fate)
        with pytest.raises(PeerError, match=r"silent for 1\.5 s"):
            await asyncio.wait_for(connection.receive(), 15)
        assert connection.closed
        with pytest.raises(PeerError, match="silent"):
            await connection.send({"input": "hello"})


async def test_a_peer_that_says_nothing_is_not_taken_for_dead(at: At) -> None:
    async with far_peer(at.port, "desk"), Peer(options=at(heartbeat=0.1, dead_after=0.7)) as client:
        connection = await welcomed(client, "desk")
        await asyncio.sleep(2)
        await connection.send({"input": "hello"})
        assert (await connection.receive())["length"] == 5


async def test_a_peer_that_ends_in_order_is_noticed_at_once(at: At) -> None:
    async with far_peer(at.port, "desk") as process, Peer(options=at()) as client:
        connection = await welcomed(client, "desk")
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(connection.wait_closed(), 30)
        assert connection.error is None


async def run_alone(*arguments: str) -> tuple[str, str]:
    """What `alone.py` prints and complains of, in a network of its own."""
    unshare = shutil.which("unshare")
    if unshare is None:
        if os.environ.get("CI"):
            pytest.fail("unshare is missing")
        pytest.skip("unshare is missing")
    program = [unshare, "--net", "--map-root-user", sys.executable, str(HERE / "alone.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    process = await asyncio.create_subprocess_exec(*program, stdout=PIPE, stderr=PIPE, env=environment)
    try:
        told, error = await asyncio.wait_for(process.communicate(), 50)
    finally:
        if process.returncode is None:
            process.kill()
    return told.decode(), error.decode()


async def test_peers_meet_on_a_machine_with_nothing_but_loopback() -> None:
    assert await run_alone() == ("ok\n", "")
