"""The system calls that a jailed agent has no use for, as a filter for bubblewrap."""

from __future__ import annotations

import errno
import os
from importlib.util import find_spec
from typing import Any

from computeragent.logs import Logger

# What reaches into other processes, the kernel or the mount table. Mounting and namespaces are denied by the missing
# capabilities already; here they are denied again, together with the calls whose bugs broke out of containers before.
DENIED = (
    "acct", "add_key", "bpf", "clock_adjtime", "clock_settime", "create_module", "delete_module", "fanotify_init",
    "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module", "io_uring_enter", "io_uring_register",
    "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie",
    "mount", "mount_setattr", "move_mount", "move_pages", "nfsservctl", "open_by_handle_at", "open_tree",
    "perf_event_open", "pidfd_getfd", "pivot_root", "process_vm_readv", "process_vm_writev", "ptrace", "query_module",
    "quotactl", "quotactl_fd", "reboot", "request_key", "setns", "settimeofday", "swapoff", "swapon", "syslog",
    "umount", "umount2", "unshare", "uselib", "userfaultfd", "ustat", "vhangup", "vmsplice",
)  # fmt: skip
_INT = 0xFFFFFFFF
_NETLINK = 16
_FAMILIES = (17, 38, 40)  # raw packets, kernel crypto, hypervisor sockets
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_NEW_USER = 0x10000000
_log = Logger("substrate")


def available() -> bool:
    """Whether a filter can be made here: the library is installed, and libseccomp with it."""
    if find_spec("pyseccomp") is None:
        return False
    try:
        import pyseccomp  # noqa: F401  # pyright: ignore[reportMissingTypeStubs, reportUnusedImport]
    except Exception:  # noqa: BLE001 - it raises RuntimeError where libseccomp is missing
        return False
    return True


def filter_descriptor(*, interfaces: bool = False) -> int | None:
    """A descriptor of a file with the filter, at its start; None where none can be made.

    With `interfaces`, programs may ask for their network interfaces, as Node.js does; it throws where it may not.
    """
    if not available():
        _log.warn("no_seccomp", hint="pip install 'computer-agent-py[bwrap]' and the system's libseccomp2.")
        return None
    import pyseccomp  # pyright: ignore[reportMissingTypeStubs]

    library: Any = pyseccomp
    made = library.SyscallFilter(library.ALLOW)
    refused = library.ERRNO(errno.EPERM)
    for name in DENIED:
        _rule(made, refused, name)
    compared, masked = library.Arg, library.MASKED_EQ
    # The kernel takes an int here, whatever is in the upper half of the register.
    for family in _FAMILIES:
        _rule(made, refused, "socket", compared(0, masked, _INT, family))
    if interfaces:  # the routing protocol, 0, alone; without an answer to the others, audited programs go on
        unknown = library.ERRNO(errno.EAFNOSUPPORT)
        _rule(made, unknown, "socket", compared(0, masked, _INT, _NETLINK), compared(2, library.NE, 0))
    else:
        _rule(made, refused, "socket", compared(0, masked, _INT, _NETLINK))
    _rule(made, refused, "clone", compared(0, masked, _NEW_USER, _NEW_USER))
    _rule(made, library.ERRNO(errno.ENOSYS), "clone3")  # its flags cannot be seen; libraries fall back to clone
    for request in (_TIOCSTI, _TIOCLINUX):
        _rule(made, refused, "ioctl", compared(1, masked, _INT, request))
    descriptor = os.memfd_create("seccomp", 0)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        made.export_bpf(file)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _rule(made: Any, action: Any, name: str, *arguments: Any) -> None:
    try:
        made.add_rule(action, name, *arguments)
    except (RuntimeError, ValueError, OSError):
        return  # a call that this machine does not have needs no rule
