"""The first process of a sandbox: starts commands, opens files and listeners for the host outside.

Run as ``python -I -S supervisor.py FD``; standard library alone. The host sends frames on the socket FD (see `Wire`).
When its end closes, this process ends, and the kernel ends everything else here.

Each command has a process of this program above it, its warden. Whatever the command leaves behind becomes the warden's
child, so that a command can be ended with all that descends from it. The warden speaks with the host by itself.
"""

from __future__ import annotations

import array
import ctypes
import errno
import json
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:  # it takes longer to import than all else here
    from typing import Any

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_TIOCSCTTY = 0x540E
_OPENAT2, _AT_FDCWD, _NO_MAGIC_LINKS = 437, -100, 2
_KILL_WITHIN = 10.0  # seconds


class Wire:
    """Frames of JSON with file descriptors, on a stream socket: four bytes of length, then the text.

    A frame names under ``fds`` how many descriptors come with it; they travel with its first bytes.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._text = bytearray()
        self._descriptors: list[int] = []

    def close(self) -> None:
        """Close this end."""
        self._sock.close()

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next frame; None when the other side has hung up."""
        while True:
            if len(self._text) >= 4:
                size = int.from_bytes(self._text[:4], "big")
                if len(self._text) >= 4 + size:
                    message = json.loads(self._text[4 : 4 + size])
                    del self._text[: 4 + size]
                    count = message.get("fds", 0)
                    taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
                    return message, taken
            received, descriptors, _, _ = socket.recv_fds(self._sock, 1 << 16, 16, socket.MSG_CMSG_CLOEXEC)
            self._descriptors += descriptors
            if not received:
                return None
            self._text += received

    def send(self, message: dict[str, Any], descriptors: list[int] = []) -> None:  # noqa: B006 - never changed
        """Send a frame."""
        text = json.dumps(message).encode()
        data = len(text).to_bytes(4, "big") + text
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        sent = self._sock.sendmsg([data], rights)
        self._sock.sendall(data[sent:])


def main(control: int) -> None:
    """Serve the host until it hangs up."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # commands run as the same user: keep them out of our memory
    os.set_inheritable(control, False)
    os.umask(0o022)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # a job in the background has some ignored; commands would inherit that
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries orphans
    wire = Wire(socket.socket(fileno=control))
    wire.send({"ready": True})
    while (frame := wire.receive()) is not None:
        message, descriptors = frame
        try:
            _answer(wire, message, descriptors, libc)
        finally:
            for each in descriptors:
                os.close(each)


def _answer(wire: Wire, message: dict[str, Any], descriptors: list[int], libc: ctypes.CDLL) -> None:
    if message["do"] == "spawn":
        _spawn(wire, message, descriptors, libc)
        return
    try:
        if message["do"] == "listen":
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", message["port"]))
                listener.listen(256)
                wire.send({"fds": 1}, [listener.fileno()])
            return
        opened = os.openpty() if message["do"] == "terminal" else (_open(message, libc),)
    except (OSError, ValueError, OverflowError) as error:  # a name with a NUL, or of no encoding; a port that is none
        number = getattr(error, "errno", None) or errno.EINVAL
        wire.send({"errno": number, "text": os.strerror(number)})
        return
    wire.send({"fds": len(opened)}, list(opened))
    for each in opened:
        os.close(each)


def _spawn(wire: Wire, message: dict[str, Any], descriptors: list[int], libc: ctypes.CDLL) -> None:
    try:
        child = os.fork()
    except OSError as error:  # too many processes
        told = {"errno": error.errno, "text": error.strerror, "about": str(message["argv"][0])}
        with socket.socket(fileno=os.dup(descriptors[0])) as host, suppress(OSError):
            host.sendall(json.dumps(told).encode() + b"\n")
        return
    if child:
        return
    try:
        wire.close()
        _Warden(message, descriptors, libc).run()
    finally:
        os._exit(0)


def _open(message: dict[str, Any], libc: ctypes.CDLL) -> int:
    path = os.path.join(str(message["cwd"]), str(message["path"]))
    flags = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # a pipe that nobody writes must not hold us
    if not message["write"]:
        opened = _open_plainly(libc, path, flags | os.O_RDONLY, 0)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        opened = _open_plainly(libc, path, flags | os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    if stat.S_ISDIR(os.fstat(opened).st_mode):
        os.close(opened)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return opened


def _open_plainly(libc: ctypes.CDLL, path: str, flags: int, mode: int) -> int:
    """A descriptor of a file, but by no link of /proc to what a process has open: it would be this one's."""
    how = struct.pack("3Q", flags, mode, _NO_MAGIC_LINKS)
    opened = libc.syscall(_OPENAT2, _AT_FDCWD, _encoded(path), how, ctypes.c_size_t(len(how)))
    if opened >= 0:
        return opened
    number = ctypes.get_errno()
    if number == errno.ENOSYS:  # Linux before 5.6
        return os.open(path, flags, mode)
    raise OSError(number, os.strerror(number), path)


def _encoded(path: str) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("a path with a NUL")
    return encoded


class _Warden:
    """Above one command. Its socket `host` carries lines of JSON out, and single bytes in: ``k`` ends the command."""

    def __init__(self, message: dict[str, Any], descriptors: list[int], libc: ctypes.CDLL) -> None:
        self._message = message
        self._host = socket.socket(fileno=descriptors[0])
        self._streams = descriptors[1:]
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, _noticed)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def run(self) -> None:
        main = self._start()
        if main is None:
            return
        listening = [self._host]
        while self._bury(main):
            readable, _, _ = select.select([*listening, self._woken], [], [])
            if self._woken in readable:
                os.read(self._woken, 4096)
            if self._host in readable:
                said = self._host.recv(64)
                if b"k" in said:
                    self._kill(main)
                    self._tell({"killed": True})
                    return
                if not said:
                    listening = []  # nobody cares any more; what the command left goes on

    def _start(self) -> int | None:
        message, streams = self._message, list(self._streams)
        stdin = streams.pop(0) if message["stdin"] else subprocess.DEVNULL
        try:
            identity, env = _identity(message["user"], message["env"])
        except KeyError:
            self._tell({"unknown_user": message["user"]})
            return None
        try:
            process = subprocess.Popen(
                message["argv"],
                cwd=message["cwd"],
                env=env,
                stdin=stdin,
                stdout=streams[0],
                stderr=streams[1],
                start_new_session=True,
                preexec_fn=_control_terminal if message.get("terminal") else None,  # noqa: PLW1509 - no threads here
                **identity,
            )
        except (OSError, ValueError, TypeError) as error:  # of JSON that is no text, too
            number = getattr(error, "errno", None) or errno.EINVAL
            about = str(getattr(error, "filename", None) or message["argv"][0])
            self._tell({"errno": number, "text": os.strerror(number), "about": about})
            return None
        finally:
            for each in self._streams:
                os.close(each)
        process.returncode = 0  # we wait for it, not the object
        self._tell({"pid": process.pid})
        return process.pid

    def _bury(self, main: int) -> bool:
        """Wait for what has ended; whether there are children left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == main:
                code = os.waitstatus_to_exitcode(status)
                self._tell({"exit": code if code >= 0 else 128 - code})

    def _kill(self, main: int) -> None:
        """End all that descends from here. What loses its parent becomes our child, so none is missed."""
        end = time.monotonic() + _KILL_WITHIN
        while self._bury(main) and time.monotonic() < end:
            for pid in _descendants(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            select.select([self._woken], [], [], 0.005)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._host.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return  # nobody listens any more


def _control_terminal() -> None:
    import fcntl

    fcntl.ioctl(0, _TIOCSCTTY, 0)


def _noticed(number: int, frame: object) -> None:
    """What a signal does that shall only wake `select`."""


def _identity(user: str | None, env: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Whom a command runs as, and its environment. Raises `KeyError` for a user that does not exist."""
    ours = dict(os.environ)
    if user is None:
        return {}, ours | env
    import pwd

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        if not user.isdecimal():
            raise
        try:
            entry = pwd.getpwuid(int(user))
        except KeyError:
            number = int(user)
            return {"user": number, "group": number, "extra_groups": []}, ours | {"HOME": "/"} | env
    if entry.pw_uid == os.getuid():
        return {}, ours | env
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    own = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell}
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}, ours | own | env


def _descendants(root: int) -> list[int]:
    """The living processes below one."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            if state not in b"ZX":
                children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    pending = [root]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]))
