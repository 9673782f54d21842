"""What a sandbox is shown of this machine: its session's folders, the system, the interpreter, further folders."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from computeragent.errors import ValidationError
from computeragent.logs import Logger
from computeragent.settings import home
from computeragent.substrates.ownership import STRANGER

SESSION = "/session"
"""Where the jail has its session's folders: ``source``, the working directory, and ``state``."""
HOME = "/home/agent"
UID = 1000

SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin")
# Certificates without the folders beside them that hold private keys.
ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "localtime", "mime.types", "pki/ca-trust", "pki/tls/certs", "services", "ssl/certs", "ssl/openssl.cnf", "timezone",
)  # fmt: skip
# An agent of root's is root to the files of /proc, whatever its capabilities: the kernel's settings could lead it out.
PROC_READ_ONLY = ("acpi", "asound", "driver", "fs", "mtrr", "pressure", "scsi", "sys", "tty")
PROC_HIDDEN = (
    "kcore", "keys", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats", "pagetypeinfo", "sched_debug",
    "slabinfo", "timer_list", "vmallocinfo",
)  # fmt: skip
ETC_NETWORK = ("resolv.conf", "hosts", "nsswitch.conf", "gai.conf")

_DEVICES = {"full": (1, 7), "null": (1, 3), "random": (1, 8), "tty": (5, 0), "urandom": (1, 9), "zero": (1, 5)}

Bind = str | Path | Mapping[str, Any]

_log = Logger("substrate")


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of this machine, and where a jail shows it."""

    source: str
    target: str
    writable: bool


@lru_cache(maxsize=1)
def interpreter_paths() -> tuple[str, ...]:
    """What the interpreter needs beyond the system's folders: its prefixes and its packages, none within another.

    Asked of an isolated interpreter, as the one in the jail will be: this process's own path may hold the folder of a
    script, which may be the user's home.
    """
    code = "import sys; print(sys.prefix, sys.base_prefix, *sys.path, sep='\\n')"
    listed = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    found = {os.path.realpath(path) for path in listed.stdout.splitlines() if path and Path(path).exists()}
    found |= {path for path in listed.stdout.splitlines() if path and Path(path).exists()}
    outer = [path for path in sorted(found) if not path.startswith(tuple(f"{each}/" for each in (*SYSTEM,)))]
    kept: list[str] = []
    for path in outer:
        if path not in SYSTEM and not any(path.startswith(f"{each}/") for each in kept):
            kept.append(path)
    return tuple(kept)


def devices() -> dict[str, Path]:
    """For root: nodes of the usual devices that are a stranger's, made once. Of this machine's own, root's agents
    would be the owners, who may close them to everybody. Empty where they are not needed, or cannot be made.
    """
    if os.geteuid() != 0:
        return {}
    folder = home("cache", "jail", "dev")
    made = {name: folder / name for name in _DEVICES}
    try:
        for name, path in made.items():
            _require_device(path, os.makedev(*_DEVICES[name]))
        os.close(os.open(made["null"], os.O_RDWR))
    except OSError as error:  # no right to make devices, or a disk where they do not work
        _log.warn("no_own_devices", error=str(error), hint="Run as a user other than root.")
        return {}
    return made


def _require_device(path: Path, number: int) -> None:
    with suppress(FileNotFoundError):
        found = path.lstat()
        if (found.st_rdev, found.st_uid, found.st_mode) == (number, STRANGER, stat.S_IFCHR | 0o666):
            return
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    os.mknod(fresh, stat.S_IFCHR | 0o600, number)
    try:
        fresh.chmod(0o666)
        os.chown(fresh, STRANGER, STRANGER)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def session_mounts(workspace: Path, state_dir: Path) -> list[Mount]:
    """A session's own folders, where its engine expects them."""
    return [
        Mount(os.path.realpath(workspace), f"{SESSION}/source", writable=True),
        Mount(os.path.realpath(state_dir), f"{SESSION}/state", writable=True),
    ]


def apart(mounts: Sequence[Mount]) -> Sequence[Mount]:
    """Mounts of which none is below one that can be written.

    Before 0.12.0, bubblewrap follows a link on the way to a target onto the host (CVE-2026-87766). An agent can plant
    links in folders that it can write and that outlive its jail, so nothing is ever mounted below one.
    """
    writable = [SESSION, *(each.target for each in mounts if each.writable)]
    for each in mounts:
        for above in writable:
            if each.target == SESSION or each.target.startswith(f"{above.rstrip('/')}/"):
                raise ValidationError(
                    f"bind target {each.target} is below {above}, which the agent can write",
                    hint="Show it elsewhere, such as below /data.",
                )
    return mounts


def mount(bind: Bind) -> Mount:
    """What `bind=` asks for. Raises `ValidationError` for what is no folder."""
    if isinstance(bind, (str, Path)):
        path = Path(bind).expanduser().absolute()
        made = Mount(os.path.realpath(path), str(path), writable=False)
    else:
        unknown = set(bind) - {"source", "target", "writable"}
        source = bind.get("source")
        if unknown or not isinstance(source, (str, Path)):
            raise ValidationError(
                f"bind={dict(bind)!r} is no folder to show",
                hint='Give a path, or {"source": "/data", "target": "/data", "writable": False}.',
            )
        path = Path(source).expanduser().absolute()
        target = str(bind.get("target") or path)
        if not target.startswith("/") or os.path.normpath(target) != target:
            raise ValidationError(f"bind target {target!r} is no absolute path", hint="Such as /data.")
        made = Mount(os.path.realpath(path), target, writable=bool(bind.get("writable", False)))
    if not path.exists():
        raise ValidationError(f"bind source {path} does not exist", hint="Make it, or leave it out.")
    return made
