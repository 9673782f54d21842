"""`BwrapSubstrate`: engines in a bubblewrap jail, on Linux, without root, a daemon or an image.

The jail sees the system's programs, this interpreter and its packages, and the programs of agents that are in the
cache, read-only; its workspace and its state; and a private /tmp and home. Nothing of the host's environment, home,
processes or, by default, network.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import anyio

from computeragent import credentials
from computeragent.artifacts.cache import root as programs
from computeragent.credentials import PROVIDERS
from computeragent.errors import SubstrateError, ValidationError
from computeragent.protocol_types import SubstrateHandle
from computeragent.settings import home
from computeragent.substrates import seccomp
from computeragent.substrates.cgroups import ControlGroup, Limits, make_whole
from computeragent.substrates.hosting import EngineHost, Plan, start
from computeragent.substrates.mounts import (
    ETC,
    ETC_NETWORK,
    HOME,
    PROC_HIDDEN,
    PROC_READ_ONLY,
    SESSION,
    SYSTEM,
    UID,
    Bind,
    Mount,
    apart,
    devices,
    interpreter_paths,
    mount,
    session_mounts,
)
from computeragent.substrates.pool import PRELOAD, Pool

_PASSED = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM")
_NETWORK_VARIABLES = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
)  # fmt: skip


class BwrapSubstrate:
    """A bubblewrap jail for each session.

    Args:
        bind: Further folders: a path, shown read-only at the same place, or ``{"source", "target", "writable"}``.
        network: ``"none"`` (the default): no network at all; the model is reached through a relay outside, which adds
            the key. ``"host"``: the host's own network, its loopback and internal addresses included; keys stay
            outside all the same.
        memory: Bytes that all processes of a jail may use together; None for no limit.
        pids: Processes and threads of a jail.
        cpus: Cores that a jail may use.
        tmp_size: Bytes of its private /tmp and home, each.
        pool: Jails to keep ready: used as a context manager, or with `warm`, from the start, else from the first use.
            They serve sessions whose source is brought here (git, inline, copies); a folder that is used in place gets
            a jail of its own.
        bwrap: The program; default ``bwrap`` on PATH.

    Limits need control groups that this user may make; where there are none, a warning says so.

    """

    def __init__(
        self,
        *,
        bind: Sequence[Bind] = (),
        network: Literal["none", "host"] = "none",
        memory: int | None = None,
        pids: int | None = 4096,
        cpus: float | None = None,
        tmp_size: int | None = None,
        pool: int = 0,
        bwrap: str | Path | None = None,
    ) -> None:
        if network not in ("none", "host"):
            raise ValidationError(f"network {network!r} is unknown", hint="There are 'none' and 'host'.")
        self._binds = apart([mount(each) for each in bind])
        self._network = network
        self._limits = Limits(memory, pids, cpus)
        self._tmp_size = tmp_size
        self._bwrap = str(bwrap) if bwrap is not None else None
        self._pool = Pool(self._spare, pool)

    async def boot(
        self, *, workspace: Path, state_dir: Path, envs: Mapping[str, str], limits: Mapping[str, Any]
    ) -> SubstrateHandle:
        """See `Substrate.boot`. Raises `SubstrateError` where no jail can be made here."""
        movable = not limits and await asyncio.to_thread(_movable, workspace, state_dir, home("work"))
        if movable and (spare := await self._pool.take()) is not None:
            try:
                await asyncio.to_thread(_move_in, spare.folder, workspace.parent)
            except BaseException:
                await spare.jail.close()
                raise
            return spare.jail.lease(workspace, state_dir, envs)
        jail = await self.jail(session_mounts(workspace, state_dir), limits)
        return jail.lease(workspace, state_dir, envs)

    async def warm(self) -> None:
        """Return when the pool is full. Raises `SubstrateError` where no jail can be made here."""
        await self._pool.warm()

    async def close(self) -> None:
        """End the jails that are kept ready; those in use are their sessions'."""
        await self._pool.close()

    async def __aenter__(self) -> Self:
        await self.warm()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _spare(self) -> SpareJail:
        await asyncio.to_thread(_sweep, home("work"))
        folder = home("work", f"spare-{os.getpid()}-{secrets.token_hex(6)}")
        for name in ("source", "state"):
            (folder / name).mkdir(mode=0o700)
        try:
            jail = await self.jail(session_mounts(folder / "source", folder / "state"), {}, PRELOAD)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        spare = SpareJail(jail, folder)
        try:
            await jail.host.ready()
        except BaseException:
            await spare.discard()
            raise
        return spare

    async def jail(self, mounts: Sequence[Mount], limits: Mapping[str, Any], preload: Sequence[str] = ()) -> Jail:
        """A running jail that shows these folders."""
        program = find_bwrap(self._bwrap)
        group = await make_whole(self._limits.under(limits))
        wrap = wrapping(program, self.arguments(mounts), group)
        try:
            host = await start(Plan([*wrap.prefix, "--"], wrap.env, wrap.descriptors, PROVIDERS, preload))
        except BaseException:
            if wrap.group is not None:
                with anyio.CancelScope(shield=True):
                    await asyncio.to_thread(wrap.group.remove)
            raise
        finally:
            wrap.close()
        return Jail(host, wrap.group)

    def arguments(self, mounts: Sequence[Mount]) -> list[str]:
        """The options of bwrap, without the command; they go through a file, so that no process list shows them."""
        made = ["--unshare-all", "--unshare-user", "--disable-userns", "--uid", str(UID), "--gid", str(UID)]
        made += ["--share-net"] if self._network == "host" else []
        made += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv", "--cap-drop", "ALL"]
        for path in SYSTEM:
            made += ["--symlink", str(Path(path).readlink()), path] if Path(path).is_symlink() else _shown(path)
        for name in (*ETC, *(ETC_NETWORK if self._network == "host" else ())):
            made += _shown(f"/etc/{name}")
        for name, source in _identity(self._network).items():
            made += ["--ro-bind", str(source), f"/etc/{name}"]
        made += ["--proc", "/proc"]
        for name in PROC_READ_ONLY:
            made += _shown(f"/proc/{name}")
        for name in PROC_HIDDEN:
            made += ["--ro-bind", os.devnull, f"/proc/{name}"] if Path("/proc", name).exists() else []
        made += ["--dev", "/dev"]
        for name, source in devices().items():
            made += ["--dev-bind", str(source), f"/dev/{name}"]
        size = [] if self._tmp_size is None else ["--size", str(self._tmp_size)]
        for path in ("/tmp", "/var/tmp", HOME):  # noqa: S108 - the jail's own
            made += [*size, "--tmpfs", path]
        for path in interpreter_paths():
            made += _shown(path)
        made += ["--ro-bind-try", os.path.realpath(programs()), str(programs())]
        for each in [*self._binds, *mounts]:
            made += ["--bind" if each.writable else "--ro-bind", each.source, each.target]
        for name, value in self._environment().items():
            made += ["--setenv", name, value]
        return [*made, "--chdir", SESSION]

    def _environment(self) -> dict[str, str]:
        passed = (*_PASSED, *(_NETWORK_VARIABLES if self._network == "host" else ()))
        return {name: os.environ[name] for name in passed if name in os.environ} | {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": HOME,
            "USER": "agent",
            "LOGNAME": "agent",
            "SHELL": "/bin/bash",
            "TMPDIR": "/tmp",  # noqa: S108 - the jail's own
            "IS_SANDBOX": "1",
            "COMPUTERAGENT_HOME": f"{HOME}/.computeragent",
            "COMPUTERAGENT_ARTIFACTS": str(programs()),
        }


@dataclass(frozen=True, slots=True)
class Wrapping:
    """What stands before a command to run it in a jail, with what it inherits. Close it when that has started."""

    prefix: list[str]
    env: dict[str, str]
    descriptors: list[int]
    group: ControlGroup | None

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def wrapping(
    program: str, arguments: Sequence[str], group: ControlGroup | None, *, interfaces: bool = False
) -> Wrapping:
    """The program with these options, which go through a file, with its filter of system calls, and in a group.

    A group is removed when that fails.
    """
    descriptors: list[int] = []
    try:
        descriptors.append(memory_file("arguments", b"".join(os.fsencode(each) + b"\0" for each in arguments)))
        prefix = [program, "--args", str(descriptors[0])]
        if (filter_ := seccomp.filter_descriptor(interfaces=interfaces)) is not None:
            descriptors.append(filter_)
            prefix += ["--seccomp", str(filter_)]
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        if group is not None:
            group.remove()
        raise
    if group is None:
        return Wrapping(prefix, {}, descriptors, None)
    joining, env = group.joining()
    return Wrapping([*joining, *prefix], env, descriptors, group)


@dataclass(frozen=True, slots=True)
class SpareJail:
    """A jail without a session. It shows the folders in `folder`, which become its session's."""

    jail: Jail
    folder: Path

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.jail.host.alive

    async def discard(self) -> None:
        """End it."""
        await self.jail.close()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


class Jail:
    """A running jail with an engine host in it."""

    def __init__(self, host: EngineHost, group: ControlGroup | None) -> None:
        self.host = host
        self._group = group

    def lease(self, workspace: Path, state_dir: Path, envs: Mapping[str, str]) -> SubstrateHandle:
        """The jail for one session, whose provider keys stay outside."""
        seen, routes = credentials.held_outside(envs)
        return SubstrateHandle(
            workspace_path=workspace,
            close=self.close,
            harness=self.host.harness,
            envs=seen | self.host.relay(routes),
            inside={workspace: f"{SESSION}/source", state_dir: f"{SESSION}/state"},
            ended=self._ended,
        )

    async def _ended(self) -> str:
        how = await self.host.ended()
        if self._group is not None and self._group.out_of_memory():
            return f"it used up its memory ({how})"
        return how

    async def close(self) -> None:
        """End everything in the jail."""
        await self.host.close()
        if self._group is not None:
            await asyncio.to_thread(self._group.remove)


def _sweep(work: Path) -> None:
    """Remove the folders of spares whose process was killed."""
    for folder in work.glob("spare-*-*"):
        pid = folder.name.split("-")[1]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _movable(workspace: Path, state_dir: Path, spares: Path) -> bool:
    """Whether a session's folders are its own, beside each other and on the disk of ours, so that they can move."""
    return (
        (workspace.name, state_dir) == ("source", workspace.parent / "state")
        and not workspace.is_symlink()
        and workspace.stat().st_dev == spares.stat().st_dev
    )


def _move_in(spare: Path, own: Path) -> None:
    """Make a spare's folders the session's: the contents move in, and they take the names. Mounts follow folders."""
    for name in ("source", "state"):
        old, new = own / name, spare / name
        for each in old.iterdir():
            _move(each, new / each.name)
        new.chmod(old.stat().st_mode)
        new.rename(old)  # onto the folder that is empty now
    spare.rmdir()


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except PermissionError:  # a read-only directory, as package caches make theirs: a move changes its '..'
        mode = source.lstat().st_mode
        if not stat.S_ISDIR(mode):
            raise
        source.chmod(0o700)
        source.rename(target)
        target.chmod(stat.S_IMODE(mode))


def find_bwrap(given: str | None = None) -> str:
    """The program. Raises `SubstrateError` where there is none."""
    if sys.platform != "linux":
        raise SubstrateError("bubblewrap runs on Linux only", hint="Use runtime='docker', or runtime='local'.")
    found = shutil.which(given or "bwrap")
    if found is None:
        raise SubstrateError(
            f"{given or 'bwrap'} was not found", hint="Install bubblewrap, e.g. apt install bubblewrap."
        )
    return found


def _shown(path: str) -> list[str]:
    return ["--ro-bind-try", path, path]


def _identity(network: str) -> dict[str, Path]:
    """Files of /etc that say who is here, made once."""
    texts = {
        "passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{UID}:{UID}:agent:{HOME}:/bin/bash\n",
        "group": f"root:x:0:\nagent:x:{UID}:\n",
    }
    if network == "none":
        texts |= {
            "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
            "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        }
    folder = home("cache", "jail")
    for name, text in texts.items():
        file = folder / name
        if not file.is_file() or file.read_text("utf-8") != text:
            fresh = folder / f"{name}.{os.getpid()}.{secrets.token_hex(4)}"
            fresh.write_text(text, "utf-8")
            fresh.chmod(0o644)
            fresh.replace(file)
    return {name: folder / name for name in texts}


def memory_file(name: str, content: bytes) -> int:
    """A descriptor of a file that is nowhere on disk, at its start."""
    descriptor = os.memfd_create(name, 0)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
