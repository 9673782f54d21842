"""Runs `computeragent` in processes that have its modules loaded: the import takes 0.6 s, and the tests do it often.

`python loaded.py serve SOCKET` serves. `python -I -S loaded.py ask SOCKET ARGUMENT …` has a command run there as if it
ran it itself, with its own streams, folder and environment, and ends as it ends. The command dies with who asked.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys

PRELOADED = (
    "computeragent.agent", "computeragent.cli.fork", "computeragent.cli.listening", "computeragent.cli.main",
    "computeragent.client", "computeragent.harness", "computeragent.policy", "computeragent.server",
    "computeragent.stores.sqlite", "computeragent.telemetry.config", "computeragent.telemetry.sinks", "rich.console",
    "rich.table", "sqlite3",
)  # fmt: skip


def ask(place: str, arguments: list[str]) -> int:
    """Have a command run; how it ended, as a process does."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(place)
        asked = {"arguments": arguments, "env": dict(os.environ), "cwd": os.getcwd()}  # noqa: PTH109 - pathlib is 10 ms
        socket.send_fds(server, [json.dumps(asked).encode() + b"\n"], [0, 1, 2])
        told = server.recv(16)
    status = int(told or b"1")
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def serve(place: str) -> list[str]:
    """Answer until standard input ends. Returns in each process that is to run a command: with its arguments."""
    import gc
    import importlib
    import threading

    for name in PRELOADED:
        importlib.import_module(name)
    assert threading.active_count() == 1
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{place}.new")
    listener.listen(64)
    os.rename(f"{place}.new", place)  # noqa: PTH104 - as above
    while True:
        ready, _, _ = select.select([0, listener], [], [])
        if 0 in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _command(connection)
        connection.close()


def _command(connection: socket.socket) -> list[str]:
    """Watch over a process that runs what was asked for; returns in it alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while not data.endswith(b"\n"):
        data += connection.recv(1 << 16)
    child = os.fork()
    if child:
        for stream in streams:
            os.close(stream)
        ended = os.pidfd_open(child)
        ready, _, _ = select.select([ended, connection], [], [])
        if ended not in ready:
            os.kill(child, signal.SIGKILL)
        connection.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    asked = json.loads(data)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        errors = "backslashreplace" if name == "stderr" else "surrogateescape"
        stream = open(number, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115 - for good
        stream.reconfigure(line_buffering=name == "stderr" or stream.isatty())  # type: ignore[union-attr]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    return asked["arguments"]


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        sys.exit(ask(sys.argv[2], sys.argv[3:]))
    given = serve(sys.argv[2])
    import computeragent.__main__ as command

    sys.argv = [command.__file__, *given]
    sys.exit(command.main())
