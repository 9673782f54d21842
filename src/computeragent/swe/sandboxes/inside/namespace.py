"""Makes a namespace whose root is a copy-on-write view of the machine's, and becomes its supervisor. For root.

Run as ``python -I -S namespace.py PLAN CONTROL``: a descriptor of a file with the plan (JSON, see `main`), and the
supervisor's socket. Standard library alone. All that is written goes to memory, and is gone with the last process.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import stat
import struct
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from computeragent.swe.sandboxes.inside import supervisor
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import supervisor

    sys.path.pop(0)

_NEW_MOUNTS, _NEW_NAME, _NEW_IPC, _NEW_PROCESSES, _NEW_NETWORK = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_PDEATHSIG, _SECCOMP, _BOUNDING_DROP = 1, 22, 24
_SECCOMP_FILTER = 2
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1
_DISKS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "overlay", "bcachefs"})
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LARGEST_FILE = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def main(plan_descriptor: int, control: int) -> int:
    """Make it, and serve.

    The plan: ``network`` ("none" or "host"), ``hidden`` (folders to show empty), ``shown`` (source, target, writable),
    ``read_only`` and ``masked`` (names in /proc), ``keep`` (numbers of capabilities), ``filter`` (a descriptor of the
    filter of system calls, or null), ``home`` and ``cwd``.
    """
    with open(plan_descriptor, encoding="utf-8") as file:
        plan = json.load(file)
    kinds = _NEW_MOUNTS | _NEW_NAME | _NEW_IPC | _NEW_PROCESSES
    _call("unshare", kinds | (_NEW_NETWORK if plan["network"] == "none" else 0))
    child = os.fork()
    if child:
        os.close(control)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code
    _libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _move_in(plan)
    if plan["network"] == "none":
        _loopback_up()
    _give_up(plan["keep"], plan["filter"])
    os.chdir(plan["cwd"])
    supervisor.main(control)
    return 0


def _move_in(plan: dict[str, Any]) -> None:
    os.umask(0o022)
    _mount(None, "/", None, _REC | _PRIVATE)
    shown = [(_held(source), target, writable) for source, target, writable in plan["shown"]]
    disks = _disks(plan["hidden"])
    base = "/tmp"  # noqa: S108 - hidden by what is mounted on it
    _mount("tmpfs", base, "tmpfs", _NO_DEVICES | _NO_SUID, "mode=0755")
    root = f"{base}/root"
    _overlay(base, "root", "/", root)
    for number, (descriptor, point) in enumerate(disks):
        _show_disk(base, f"disk{number}", descriptor, point, root + point)
    for path in plan["hidden"]:
        if os.path.isfile(root + path):
            _replace(root + path, b"")
        elif os.path.isdir(root + path):
            sticky = path in ("/tmp", "/var/tmp")  # noqa: S108 - the namespace's own
            _mount("tmpfs", root + path, "tmpfs", _NO_DEVICES | _NO_SUID, f"mode={1777 if sticky else 755}")
    os.makedirs(root + plan["cwd"], mode=0o755, exist_ok=True)
    os.makedirs(root + plan["home"], exist_ok=True)  # open: programs that all users run may be shown below it
    _make_devices(root + "/dev")
    _make_proc(root + "/proc", plan["read_only"], plan["masked"], root + "/dev/null")
    if plan["network"] == "none":
        _replace(root + "/etc/hosts", b"127.0.0.1 localhost sandbox\n::1 localhost\n")
        _replace(root + "/etc/resolv.conf", b"")
    _call("sethostname", b"sandbox", 7)
    os.chdir(root)
    _call("pivot_root", b".", b".")
    for descriptor, target, writable in shown:  # here, where a link on the way leads to no file of the machine
        _show(descriptor, target, writable=writable)
    _call("umount2", b".", _DETACH)
    os.chdir("/")
    for descriptor in {*(each[0] for each in shown), *(each[0] for each in disks)}:
        os.close(descriptor)  # the machine's own folders, which could be written through these


def _held(path: str) -> int:
    """A descriptor of a path, to be found again when something is mounted over it."""
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _disks(hidden: list[str]) -> list[tuple[int, str]]:
    """Further disks that are mounted, and where: an overlay of the root shows nothing of them."""
    covered = ("/dev", "/proc", "/sys", *hidden)
    found: dict[str, int] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split()
            point = _unescaped(fields[4])
            if fields[fields.index("-") + 1] not in _DISKS or point == "/" or point in found:
                continue
            if not any(point == each or point.startswith(f"{each}/") for each in covered):
                with suppress(OSError):  # something else is mounted over it
                    found[point] = _held(point)
    return [(found[point], point) for point in sorted(found)]


def _unescaped(point: str) -> str:
    for code, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        point = point.replace(f"\\{code}", character)
    return point


def _show_disk(base: str, name: str, descriptor: int, point: str, target: str) -> None:
    source = f"/proc/self/fd/{descriptor}"
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):  # as containers have their /etc/hosts
        with open(source, "rb") as file:
            _replace(target, file.read(_LARGEST_FILE))
        return
    os.makedirs(target, exist_ok=True)
    try:
        _overlay(base, name, source, target)
    except OSError:
        _show(descriptor, target, writable=False)


def _overlay(base: str, name: str, lower: str, target: str) -> None:
    for part in ("upper", "work"):
        os.makedirs(f"{base}/{name}.{part}", mode=0o755)
    os.makedirs(target, exist_ok=True)
    options = f"lowerdir={lower},upperdir={base}/{name}.upper,workdir={base}/{name}.work"
    _mount("overlay", target, "overlay", _NO_DEVICES, options)


def _show(descriptor: int, target: str, *, writable: bool) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _replace(target, b"")
    _mount(f"/proc/self/fd/{descriptor}", target, None, _BIND)
    _mount(None, target, None, _BIND | _REMOUNT | _NO_DEVICES | _NO_SUID | (0 if writable else _READ_ONLY))


def _make_devices(folder: str) -> None:
    _mount("tmpfs", folder, "tmpfs", _NO_SUID | _NO_EXEC, "mode=0755")
    for name, (major, minor) in _DEVICES.items():
        os.mknod(f"{folder}/{name}", stat.S_IFCHR, os.makedev(major, minor))
        os.chmod(f"{folder}/{name}", 0o666)  # noqa: S103 - as everywhere
    for name in ("pts", "shm"):
        os.mkdir(f"{folder}/{name}")
    _mount("devpts", f"{folder}/pts", "devpts", _NO_SUID | _NO_EXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
    _mount("tmpfs", f"{folder}/shm", "tmpfs", _NO_SUID | _NO_DEVICES, "mode=1777")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd"}
    links |= {name: f"/proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))}
    for name, target in links.items():
        os.symlink(target, f"{folder}/{name}")


def _make_proc(folder: str, read_only: list[str], masked: list[str], nothing: str) -> None:
    _mount("proc", folder, "proc", _NO_SUID | _NO_DEVICES | _NO_EXEC)
    for name in read_only:
        path = f"{folder}/{name}"
        if os.path.exists(path):
            _mount(path, path, None, _BIND)
            _mount(None, path, None, _BIND | _REMOUNT | _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_EXEC)
    for name in masked:
        if os.path.exists(f"{folder}/{name}"):
            _mount(nothing, f"{folder}/{name}", None, _BIND)


def _replace(path: str, content: bytes) -> None:
    if os.path.lexists(path):
        os.unlink(path)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o644)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = bytearray(struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(any_socket, _GET_FLAGS, request)
        flags = struct.unpack_from("16sh", request)[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh22x", b"lo", flags | _UP))


def _give_up(keep: list[int], filter_descriptor: int | None) -> None:
    """Drop what root could break out with, for good."""
    number = 0
    while _libc.prctl(_BOUNDING_DROP if number not in keep else 23, number, 0, 0, 0) >= 0:
        number += 1
    if filter_descriptor is not None:
        with open(filter_descriptor, "rb") as file:
            program = file.read()
        code = ctypes.create_string_buffer(program, len(program))
        header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
        _call("prctl", _SECCOMP, _SECCOMP_FILTER, header, 0, 0)
    kept = sum(1 << each for each in keep)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    _call("capset", struct.pack("Ii", 0x20080522, 0), struct.pack("6I", low, low, 0, high, high, 0))


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [each if each is None else os.fsencode(each) for each in (source, target, kind, options)]
    _call("mount", encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3], about=target)


def _call(name: str, *arguments: object, about: str = "") -> None:
    if getattr(_libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", about)


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
    except OSError as error:
        sys.exit(f"the namespace cannot be made: {error}")
