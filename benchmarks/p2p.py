"""Peers over WebRTC beside bare aiortc: opening a connection, a round trip, a megabyte. Each pair is in two processes.

Rounds of both alternate; what is printed are medians, and ratios of medians. `--quick` takes fewer rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from computeragent.errors import PeerError
from computeragent.p2p import Connection, Peer, PeerOptions, open_broker

MEGABYTE = 1_000_000
PIECE = 16_000


async def serve_ours(port: int) -> None:
    """Send back what a message asks for."""

    async def answer(connection: Connection) -> None:
        try:
            async for message in connection:
                await connection.send(b"x" * message)
        except PeerError:
            pass

    async with Peer("desk", PeerOptions(port=port)) as peer:
        peer.on("connection", answer)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def serve_bare() -> None:
    """The same on one bare connection after the other, whose offers come on stdin."""
    loop = asyncio.get_running_loop()
    kept: list[RTCPeerConnection] = []
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        kept.append(connection)

        @connection.on("datachannel")
        def answer(channel: RTCDataChannel) -> None:
            def reply(message: str) -> None:
                size = int(message)
                for at in range(0, size, PIECE):
                    channel.send(b"x" * min(PIECE, size - at))

            channel.on("message", reply)

        await connection.setRemoteDescription(RTCSessionDescription(**json.loads(line)))
        await connection.setLocalDescription(await connection.createAnswer())
        local = connection.localDescription
        print(json.dumps({"sdp": local.sdp, "type": local.type}), flush=True)


@asynccontextmanager
async def far(*arguments: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    program = [sys.executable, str(Path(__file__).resolve()), *arguments]
    process = await asyncio.create_subprocess_exec(*program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def ours(client: Peer) -> tuple[float, float, float]:
    started = time.perf_counter()
    connection = await client.connect("desk").opened()
    opened = time.perf_counter() - started

    async def ask(size: int) -> None:
        await connection.send(size)
        await connection.receive()

    figures = opened, *await measure(ask)
    await connection.close()
    return figures


async def bare(process: asyncio.subprocess.Process) -> tuple[float, float, float]:
    started = time.perf_counter()
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    channel = connection.createDataChannel("x")
    is_open, arrived, got = asyncio.Event(), asyncio.Event(), 0
    wanted = 0

    def take(message: bytes) -> None:
        nonlocal got
        got += len(message)
        if got >= wanted:
            arrived.set()

    channel.on("open", is_open.set)
    channel.on("message", take)
    await connection.setLocalDescription(await connection.createOffer())
    local = connection.localDescription
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"sdp": local.sdp, "type": local.type}).encode() + b"\n")
    answer = json.loads(await process.stdout.readline())
    await connection.setRemoteDescription(RTCSessionDescription(**answer))
    await is_open.wait()
    opened = time.perf_counter() - started

    async def ask(size: int) -> None:
        nonlocal got, wanted
        got, wanted = 0, size
        arrived.clear()
        channel.send(str(size))
        await arrived.wait()

    figures = opened, *await measure(ask)
    await connection.close()
    return figures


async def measure(ask: Callable[[int], Awaitable[None]]) -> tuple[float, float]:
    """Seconds of a round trip, and of a megabyte."""
    trips: list[float] = []
    for _ in range(100):
        started = time.perf_counter()
        await ask(1)
        trips.append(time.perf_counter() - started)
    started = time.perf_counter()
    await ask(MEGABYTE)
    return statistics.median(trips), time.perf_counter() - started


async def main(rounds: int) -> None:
    async with open_broker(port=0) as port, far("ours", str(port)) as our_far, far("bare") as bare_far:
        assert our_far.stdout is not None
        await our_far.stdout.readline()
        async with Peer(options=PeerOptions(port=port)) as client:
            figures = [(await ours(client), await bare(bare_far)) for _ in range(rounds)]
    print(f"{'ms':16}{'peer':>8}{'aiortc':>8}{'ratio':>7}")
    for row, name in enumerate(("open", "round trip", "1 MB reply")):
        here, there = (statistics.median(each[side][row] for each in figures) * 1000 for side in (0, 1))
        print(f"{name:16}{here:8.1f}{there:8.1f}{here / there:7.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        asyncio.run(serve_ours(int(sys.argv[2])))
    elif sys.argv[1:2] == ["bare"]:
        asyncio.run(serve_bare())
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--quick", action="store_true")
        asyncio.run(main(3 if parser.parse_args().quick else 15))
