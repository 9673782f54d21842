#!/usr/bin/env python3
"""A stand-in for the ``tart`` command: its machines are an sshd of this machine in namespaces of its own.

Commands and output are those that tart documents. It cannot show what a Mac does; ssh, forwarding and what runs over
them are real. ``TART_HOME`` has a folder for each machine, and the sshd's settings.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

HOME = Path(os.environ["TART_HOME"])
ROOT = Path(__file__).parents[2]  # this checkout, which a machine is to see wherever it is


def main(verb: str, *arguments: str) -> int:
    names = [each for each in arguments if not each.startswith("-")]
    if verb == "list":
        print(*sorted(each.name for each in HOME.glob("vms/*")), sep="\n")
        return 0
    machine = HOME / "vms" / names[-1]
    if verb == "clone":
        if not (HOME / "vms" / names[0]).is_dir():
            print(f'the specified VM "{names[0]}" does not exist', file=sys.stderr)
            return 2
        (machine / "tmp").mkdir(parents=True)
        (machine / "address").write_text(f"127.0.{os.getpid() % 250 + 1}.{len(list(HOME.glob('vms/*'))) + 1}")
        return 0
    if not machine.is_dir():
        print(f'the specified VM "{names[-1]}" does not exist', file=sys.stderr)
        return 2
    address = (machine / "address").read_text() if (machine / "address").exists() else ""
    if verb == "run":
        (machine / "pid").write_text(str(os.getpid()))
        sshd = ["/usr/sbin/sshd", "-D", "-f", "/mnt/sshd_config", "-o", f"ListenAddress={address}"]
        room = ["bwrap", "--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc", "--unshare-pid"]
        room += ["--bind", str(machine / "tmp"), "/tmp", "--ro-bind", str(HOME), "/mnt", "--cap-add", "ALL"]
        room += ["--ro-bind", str(ROOT), str(ROOT)]
        os.execvp("bwrap", [*room, "--die-with-parent", *sshd])
    if verb == "ip":
        until = time.monotonic() + float(names[0])
        port = int((HOME / "port").read_text())
        while time.monotonic() < until:
            try:
                socket.create_connection((address, port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                print(address)
                return 0
        print("no IP address found", file=sys.stderr)
        return 1
    if verb == "stop":
        try:
            os.kill(int((machine / "pid").read_text()), signal.SIGKILL)
        except (OSError, ValueError):
            print(f'VM "{names[-1]}" is not running', file=sys.stderr)
            return 2
    if verb == "delete":
        shutil.rmtree(machine)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
