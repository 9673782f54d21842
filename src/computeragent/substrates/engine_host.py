"""The program in a sandbox: the harness server, for the one harness outside that started it.

Started as ``python -m computeragent.substrates.engine_host``. It serves on a listening socket that it inherits, or that
it is given by whoever answers on a Unix socket (``--meet``). It opens a loopback port for each model provider and hands
the listeners outside, so that whoever connects to one talks to a relay there.

Where no descriptor can be handed over, as from another machine, it serves on an address (``--serve``) for who knows a
token; see `gate`.
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
    parser.add_argument("--listen", type=int, metavar="FD", help="the listening socket to serve on")
    parser.add_argument("--control", type=int, metavar="FD", help="the socket to the harness outside")
    parser.add_argument("--meet", metavar="PATH", help="the Unix socket where both are given")
    parser.add_argument(
        "--serve", metavar="ADDRESS", help="HOST:PORT or the path of a Unix socket, to serve on instead"
    )
    parser.add_argument("--token", metavar="FILE", help="with --serve: holds the token, and is deleted; - for stdin")
    parser.add_argument("--home", metavar="FOLDER", help="with --serve: where the session's folders come to be")
    parser.add_argument("--reap", action="store_true", help="be the first process: adopt and bury orphans")
    parser.add_argument("--relays", type=int, default=0, metavar="N", help="loopback ports to open and hand outside")
    parser.add_argument("--preload", default="", metavar="MODULES", help="modules to import at once, with commas")
    given = parser.parse_args(argv)
    if given.reap:
        _be_first()
    _protect()
    preload = [name for name in given.preload.split(",") if name]
    if given.serve is not None:
        from computeragent.substrates.gate import serve

        asyncio.run(serve(given.serve, token_file=given.token, home=given.home, providers=given.relays))
        return
    control, listening = _met(given.meet) if given.meet is not None else _inherited(given.listen, given.control)
    listeners = [_loopback() for _ in range(given.relays)]
    _hand_out(control, listeners)
    for listener in listeners:
        listener.close()
    asyncio.run(_serve(listening, control, preload))


def _inherited(listen: int, control: int) -> tuple[socket.socket, socket.socket]:
    return socket.socket(fileno=control), socket.socket(fileno=listen)


def _met(path: str) -> tuple[socket.socket, socket.socket]:
    """Both sockets, from whoever answers at a path. It is open to the first that comes, which is this program."""
    control = socket.socket(socket.AF_UNIX)
    control.connect(path)
    _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
    return control, socket.socket(fileno=descriptors[0])


def _be_first() -> None:
    """Go on in a child; this process waits for all that ends, and ends as that child does."""
    child = os.fork()
    if child == 0:
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: os.kill(child, received))
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


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


async def _serve(listening: socket.socket, control: socket.socket, preload: list[str]) -> None:
    import uvicorn

    from computeragent.harness.host import HostHarness
    from computeragent.server import create_harness_server

    app = create_harness_server(harness=HostHarness(), allowed_hosts=())
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
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
