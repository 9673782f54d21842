"""On a machine that has a loopback interface and nothing else: a broker, and two peers that talk. Prints `ok`.

`alone.py CHROMIUM PEERJS` lets a page be one of them, with the two settings of Chromium that it takes there.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
from typing import Any

from computeragent.p2p import Peer, PeerOptions, open_broker

_SIOCSIFFLAGS, _UP = 0x8914, 1


def raise_loopback() -> None:
    """What `ip link set lo up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP))


async def meet_a_page(chromium: str, peerjs: str) -> None:
    from playwright.async_api import async_playwright
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    from loopback import loopback

    async def page(_: Any) -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>peer</title>")

    flags = ["--allow-loopback-in-peer-connection", "--disable-features=WebRtcHideLocalIpsWithMdns"]
    async with (
        open_broker(port=0) as port,
        Peer("desk", PeerOptions(port=port)) as server,
        loopback(Starlette(routes=[Route("/", page)])) as url,
        async_playwright() as driver,
    ):
        browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", *flags])
        page_ = await browser.new_page()
        await page_.goto(url)
        await page_.add_script_tag(path=peerjs)
        await page_.evaluate(
            """port => {
              window.got = new Promise(ok => {
                const peer = new peerjs.Peer({host: "localhost", port, path: "/", config: {iceServers: []}});
                peer.on("open", () => {
                  const link = peer.connect("desk");
                  link.on("open", () => link.send("x".repeat(100000)));
                  link.on("data", ok);
                });
              });
            }""",
            port,
        )
        incoming = await anext(server.connections())
        await incoming.send(len(await incoming.receive()))
        assert await page_.evaluate("got") == 100_000
        await browser.close()


async def meet() -> None:
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


if __name__ == "__main__":
    raise_loopback()
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    asyncio.run(meet_a_page(*sys.argv[1:]) if len(sys.argv) > 1 else meet())
    print("ok")
