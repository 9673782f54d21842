"""The program in a sandbox: the harness server, for the one harness outside that started it.

Started as ``python -m computeragent.substrates.engine_host``. It serves on a listening socket that it inherits. Where
the sandbox has no network, it opens a loopback port for each model provider and hands the listeners outside, so that
whoever connects to one talks to a relay there.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence

_PR_SET_DUMPABLE = 4
_PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until told to end, or until the harness outside is gone."""
    parser = argparse.ArgumentParser(prog="engine-host", description="Run engines for a harness outside.")
    parser.add_argument("--listen", type=int, required=True, metavar="FD", help="the listening socket to serve on")
    parser.add_argument("--control", type=int, required=True, metavar="FD", help="the socket to the harness outside")
    parser.add_argument("--relays", type=int, default=0, metavar="N", help="loopback ports to open and hand outside")
    parser.add_argument("--preload", default="", metavar="MODULES", help="modules to import at once, with commas")
    given = parser.parse_args(argv)
    _protect()
    control = socket.socket(fileno=given.control)
    listeners = [_loopback() for _ in range(given.relays)]
    _hand_out(control, listeners)
    for listener in listeners:
        listener.close()
    asyncio.run(_serve(given.listen, control, [name for name in given.preload.split(",") if name]))


def _protect() -> None:
    """Keep the engine's tools, which run as the same user, out of this process's memory and file descriptors."""
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _loopback() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


def _hand_out(control: socket.socket, listeners: list[socket.socket]) -> None:
    """Tell the outside where the listeners are, and give them to it."""
    told = json.dumps({"pid": os.getpid(), "ports": [each.getsockname()[1] for each in listeners]}).encode() + b"\n"
    descriptors = array.array("i", [each.fileno() for each in listeners])
    control.sendmsg([told], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if listeners else [])


async def _serve(listen: int, control: socket.socket, preload: list[str]) -> None:
    import uvicorn

    from computeragent.harness.host import HostHarness
    from computeragent.server import create_harness_server

    app = create_harness_server(harness=HostHarness(), allowed_hosts=())
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[socket.socket(fileno=listen)]))
    for name in preload:
        importlib.import_module(name)
    control.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(control, b"ready\n")
    abandoned = asyncio.ensure_future(loop.sock_recv(control, 1))  # ends when the outside hangs up
    await asyncio.wait({serving, abandoned}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    main()
