"""On a machine that has a loopback interface and nothing else: a broker, and two peers that talk. Prints `ok`."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct

from computeragent.p2p import Peer, PeerOptions, open_broker

_SIOCSIFFLAGS, _UP = 0x8914, 1


def raise_loopback() -> None:
    """What `ip link set lo up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP))


async def main() -> None:
    async with (
        open_broker(port=0) as port,
        Peer("desk", PeerOptions(port=port)) as server,
        Peer(options=PeerOptions(port=port)) as client,
    ):
        connection = client.connect("desk")
        await connection.send("x" * 100_000)
        incoming = await anext(server.connections())
        await incoming.send(len(await incoming.receive()))
        assert await connection.receive() == 100_000
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    print("ok")


if __name__ == "__main__":
    raise_loopback()
    asyncio.run(main())
