"""`NamespaceSandbox`: Inspect's ``sandbox="namespace"``: this machine as it is, copied when written to. For root.

Commands run as root, or as any other user, and may write anywhere, install packages for one; what they write is in
memory and goes with the sandbox. Homes, temporary folders and /run are shown empty. Everything else of the machine can
be read: it keeps the machine from harm, and not its files from being read.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from pathlib import Path
from typing import Any, Self

from inspect_ai.util import sandboxenv

from computeragent.artifacts.cache import root as programs
from computeragent.errors import SubstrateError
from computeragent.settings import home as state
from computeragent.substrates import seccomp
from computeragent.substrates.bwrap import memory_file
from computeragent.substrates.cgroups import make_whole
from computeragent.substrates.mounts import PROC_HIDDEN, PROC_READ_ONLY, SYSTEM, apart, interpreter_paths, mount
from computeragent.swe.sandboxes.boot import boot
from computeragent.swe.sandboxes.supervised import CWD, INSIDE, SupervisedSandbox
from computeragent.swe.sandboxes.types import SandboxConfig

_HIDDEN = ("/tmp", "/var/tmp", "/run", "/home", "/root", "/media")  # noqa: S108 - shown empty
_PROC_READ_ONLY = (*PROC_READ_ONLY, "bus", "irq", "sysrq-trigger")
# What installing packages and changing users needs: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
# net_bind_service, sys_chroot, audit_write, setfcap. Not: devices, mounts, modules, raw sockets.
_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31)
_PASSED = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM")


@sandboxenv(name="namespace")  # pyright: ignore[reportUntypedClassDecorator] - Inspect's
class NamespaceSandbox(SupervisedSandbox):
    """A namespace of its own for each sample, with a copy-on-write root."""

    @classmethod
    async def start(cls, config: SandboxConfig) -> Self:
        """A running sandbox. Raises `SubstrateError` where none can be made, `ValidationError` for a bad `bind`."""
        if sys.platform != "linux" or os.geteuid() != 0:
            raise SubstrateError(
                "sandbox='namespace' needs root on Linux; use sandbox='bwrap', which needs none",
                hint="sandbox='bwrap' works for any user.",
            )
        home = pwd.getpwuid(0).pw_dir
        plan = _plan(config, home)
        descriptors: list[int] = []
        try:
            if (filter_ := seccomp.filter_descriptor(interfaces=True)) is not None:
                descriptors.append(filter_)
            descriptors.append(memory_file("plan", json.dumps({**plan, "filter": filter_}).encode()))
            group = await make_whole(config.limits())
            prefix, env = ([], {}) if group is None else group.joining()
            command = [*prefix, sys.executable, "-I", "-S", str(INSIDE / "namespace.py"), str(descriptors[-1])]
            return cls(await boot(command, env | _environment(home), descriptors, group), home=home)
        finally:
            for each in descriptors:
                os.close(each)


def _plan(config: SandboxConfig, home: str) -> dict[str, Any]:
    folder = [] if _below("/usr", [str(Path.cwd())]) or _below(str(Path.cwd()), list(SYSTEM)) else [Path.cwd()]
    given = [os.path.expanduser(path) for path in config.hide]  # noqa: PTH111 - '~' at the start alone
    hidden = sorted({os.path.realpath(path) for path in (*_HIDDEN, home, Path.home(), state(), *folder, *given)})
    hidden = [path for path in hidden if not any(path.startswith(f"{each}/") for each in hidden)]
    covered = [path for path in interpreter_paths() if _below(os.path.realpath(path), hidden) or _below(path, hidden)]
    binds = apart([mount(each) for each in config.binds()])
    programs().chmod(0o755)  # for other users inside; the folders above keep those of the machine out
    return {
        "network": config.network,
        "hidden": hidden,
        "shown": [
            *((path, path, False) for path in (*covered, str(programs()))),
            *((each.source, each.target, each.writable) for each in binds),
        ],
        "read_only": _PROC_READ_ONLY,
        "masked": PROC_HIDDEN,
        "keep": _CAPABILITIES,
        "home": home,
        "cwd": CWD,
    }


def _below(path: str, folders: list[str]) -> bool:
    return any(path == each or path.startswith(f"{each.rstrip('/')}/") for each in folders)


def _environment(home: str) -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED if name in os.environ} | {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": home,
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/bash",
        "TMPDIR": "/tmp",  # noqa: S108 - the namespace's own
        "IS_SANDBOX": "1",
    }
