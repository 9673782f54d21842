"""A person's shell in a running sandbox: ``python -I -S attach.py NAME KEY``, with the standard library alone.

The sandbox's host listens on an abstract Unix socket, and hands over one end of a terminal that it has opened inside.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
import termios
import tty

_CHUNK = 1 << 16


def main(name: str, key: str) -> int:
    """Talk with a shell until it ends; its exit code."""
    with socket.socket(socket.AF_UNIX) as host:
        try:
            host.connect(f"\0{name}")
            host.sendall(f"{key}\n".encode())
            said, descriptors, _, _ = socket.recv_fds(host, 1024, 1)
        except OSError:
            said, descriptors = b"", []
        if not descriptors:
            sys.stderr.write(said.decode() or "the sandbox is not running any more\n")
            return 1
        return _relay(host, descriptors[0])


def _relay(host: socket.socket, terminal: int) -> int:
    ours = os.isatty(0)
    before = termios.tcgetattr(0) if ours else None
    if ours:
        _resize(terminal)
        signal.signal(signal.SIGWINCH, lambda _number, _frame: _resize(terminal))
        tty.setraw(0, termios.TCSADRAIN)  # what is typed already counts
    try:
        sources = [0, terminal, host.fileno()]
        while True:
            readable, _, _ = select.select(sources, [], [])
            if terminal in readable:
                if not _pass_on(terminal, 1):
                    sources.remove(terminal)
            elif host.fileno() in readable:
                return int(host.recv(16) or b"1")
            elif 0 in readable and not _pass_on(0, terminal):
                os.write(terminal, b"\x04")
                sources.remove(0)
    finally:
        if before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def _pass_on(source: int, target: int) -> bool:
    """Pass on what there is; False at the end, which is an error where a terminal's other side has been left."""
    try:
        data = os.read(source, _CHUNK)
        while data:
            data = data[os.write(target, data) :]
            if not data:
                return True
    except OSError:
        return False
    return False


def _resize(terminal: int) -> None:
    size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
