"""`DockerSubstrate`: engines in containers of a Docker engine on this machine.

Without an image a container shows this machine's own system, read-only, as a jail of bubblewrap does. With one it has
the image's system, and this interpreter and its packages are shown in it, or those that the image holds are used.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from computeragent import credentials
from computeragent.credentials import PROVIDERS
from computeragent.errors import SubstrateError, ValidationError
from computeragent.protocol_types import SubstrateHandle
from computeragent.substrates.cgroups import Limits
from computeragent.substrates.container import Container, Engine, empty_image
from computeragent.substrates.hosting import BOOT_TIMEOUT, EngineHost
from computeragent.substrates.mounts import (
    ETC,
    HOME,
    SESSION,
    SYSTEM,
    Bind,
    Mount,
    apart,
    interpreter_paths,
    mount,
    session_mounts,
)
from computeragent.substrates.ownership import Tenant

_DOOR = "/run/computeragent"
_PASSED = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM")


class DockerSubstrate:
    """A container for each session.

    Args:
        image: The image, such as ``"debian:bookworm-slim"``; it must be there, nothing is pulled. This interpreter and
            its packages are shown in it, read-only, so it needs no Python, but the system libraries that this one
            uses. Default: an empty image that shows this machine's system (Linux alone).
        python: An interpreter in the image that has this package and the engine, such as ``"python3"``; then nothing
            of this machine's is shown.
        network: ``"none"`` (the default): no network at all. ``"bridge"``, or any network of the Docker engine. The
            model is reached through a relay outside, which adds the key, whichever it is.
        memory: Bytes that all processes of a container may use together; None for no limit.
        pids: Processes and threads of a container.
        cpus: Cores that a container may use.
        tmp_size: Bytes of its private /tmp and home, each.
        bind: Further folders: a path, shown read-only at the same place, or ``{"source", "target", "writable"}``.
        runtime: The container runtime, such as ``"crun"``; it must hand open sockets over, which gVisor's does not.
        docker_host: The Docker engine, such as ``"unix:///run/docker.sock"``; default ``DOCKER_HOST``, else the usual
            place. It has to be on this machine.

    """

    def __init__(
        self,
        *,
        image: str | None = None,
        python: str | None = None,
        network: str = "none",
        memory: int | None = None,
        pids: int | None = 4096,
        cpus: float | None = None,
        tmp_size: int | None = None,
        bind: Sequence[Bind] = (),
        runtime: str | None = None,
        docker_host: str | None = None,
    ) -> None:
        if python is not None and image is None:
            raise ValidationError("python= names an interpreter of an image", hint="Give image= with it.")
        if network == "host" or network.startswith("container:"):
            raise ValidationError(
                f"network {network!r} is not a container's own",
                hint="There are 'none', 'bridge' and the networks that `docker network ls` lists.",
            )
        self._image, self._python, self._network = image, python, network
        self._limits = Limits(memory, pids, cpus)
        self._tmp_size = tmp_size
        self._binds = apart([mount(each) for each in bind])
        self._runtime = runtime
        self._docker_host = docker_host

    async def boot(
        self, *, workspace: Path, state_dir: Path, envs: Mapping[str, str], limits: Mapping[str, Any]
    ) -> SubstrateHandle:
        """See `Substrate.boot`. Raises `SubstrateError` where no container can be started."""
        bounded = self._limits.under(limits)
        engine = await asyncio.to_thread(Engine.connect, self._docker_host)
        try:
            await asyncio.to_thread(engine.sweep)
            tenant = await asyncio.to_thread(Tenant.of, workspace, (workspace, state_dir))
            await asyncio.to_thread(tenant.move_in)
        except BaseException:
            await asyncio.to_thread(engine.close)
            raise
        try:
            host = await self._start(engine, tenant, session_mounts(workspace, state_dir), bounded)
        except BaseException:
            await asyncio.to_thread(engine.close)
            await asyncio.to_thread(tenant.move_out)
            raise

        async def close() -> None:
            await host.close()
            await asyncio.to_thread(tenant.move_out)

        seen, routes = credentials.held_outside(envs)
        return SubstrateHandle(
            workspace_path=workspace,
            close=close,
            harness=host.harness,
            envs=seen | host.relay(routes),
            inside={workspace: f"{SESSION}/source", state_dir: f"{SESSION}/state"},
            ended=host.ended,
        )

    async def _start(self, engine: Engine, tenant: Tenant, mounts: Sequence[Mount], limits: Limits) -> EngineHost:
        """A running container with an engine host in it, which has come for its socket."""
        folder = Path(tempfile.mkdtemp(prefix="ca-docker-"))
        listener, door = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        container: Container | None = None
        try:
            (folder / "door").mkdir(mode=0o755)
            for made, path in ((listener, folder / "host"), (door, folder / "door" / "control")):
                made.bind(str(path))
                made.listen(128)
            (folder / "door" / "control").chmod(0o666)  # the folder above is closed to other users of this machine
            image = self._image or await asyncio.to_thread(empty_image, engine)
            options = self._options(folder, tenant, mounts, limits)
            loop = asyncio.get_running_loop()
            run = partial(engine.run, image, self._command(), options, folder=folder, loop=loop)
            starting = asyncio.ensure_future(asyncio.to_thread(run))
            try:
                container = started = await asyncio.shield(starting)
            except asyncio.CancelledError:
                container = await starting  # it starts all the same, and has to go
                raise
            control = await _answer(door, listener, started)
        except BaseException:
            if container is not None:
                await container.close()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise
        finally:
            listener.close()
            door.close()
        host = EngineHost(started, folder, control, PROVIDERS)
        try:
            await host.introduced()
        except BaseException:
            await host.close()
            raise
        (folder / "door" / "control").unlink()
        return host

    def _command(self) -> list[str]:
        program = [self._python or sys.executable, "-I", "-m", "computeragent.substrates.engine_host"]
        return [*program, "--reap", "--meet", f"{_DOOR}/control", "--relays", str(len(PROVIDERS))]

    def _options(self, folder: Path, tenant: Tenant, mounts: Sequence[Mount], limits: Limits) -> dict[str, Any]:
        """What the container is, as the Docker SDK names it."""
        size = "" if self._tmp_size is None else f",size={self._tmp_size}"
        options: dict[str, Any] = {
            "user": f"{tenant.uid}:{tenant.gid}",
            "network_mode": self._network,
            "hostname": "sandbox",
            "working_dir": SESSION,
            "environment": self._environment(),
            "volumes": _volumes([*self._shown(folder, tenant), *self._binds, *mounts]),
            "tmpfs": {
                "/tmp": f"rw,exec,nosuid,nodev,mode=1777{size}",  # noqa: S108 - the container's own
                "/var/tmp": f"rw,exec,nosuid,nodev,mode=1777{size}",  # noqa: S108 - the container's own
                HOME: f"rw,exec,nosuid,nodev,mode=0700,uid={tenant.uid},gid={tenant.gid}{size}",
            },
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
        }
        if limits.memory is not None:
            options |= {"mem_limit": int(limits.memory), "memswap_limit": int(limits.memory)}
        if limits.pids is not None:
            options["pids_limit"] = int(limits.pids)
        if limits.cpus is not None:
            options["nano_cpus"] = int(limits.cpus * 1e9)
        if self._runtime is not None:
            options["runtime"] = self._runtime
        return options

    def _shown(self, folder: Path, tenant: Tenant) -> list[Mount]:
        """What the container sees besides its session's folders: the door, who it is, the interpreter, the system."""
        texts = {
            "passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{tenant.uid}:{tenant.gid}:agent:{HOME}:/bin/sh\n",
            "group": f"root:x:0:\nagent:x:{tenant.gid}:\n",
        }
        for name, text in texts.items():
            (folder / name).write_text(text, "utf-8")
            (folder / name).chmod(0o644)
        shown = [Mount(str(folder / "door"), _DOOR, writable=False)]
        shown += [Mount(str(folder / name), f"/etc/{name}", writable=False) for name in texts]
        if self._python is None:
            _require_own_folders(self._image)
            shown += [Mount(path, path, writable=False) for path in interpreter_paths()]
        if self._image is None:
            own = [path for path in SYSTEM if Path(path).is_dir() and not Path(path).is_symlink()]
            own += [f"/etc/{name}" for name in ETC if Path(f"/etc/{name}").exists()]
            shown += [Mount(os.path.realpath(path), path, writable=False) for path in own]
        return shown

    def _environment(self) -> dict[str, str]:
        made = {name: os.environ[name] for name in _PASSED if name in os.environ} | {
            "HOME": HOME,
            "USER": "agent",
            "LOGNAME": "agent",
            "TMPDIR": "/tmp",  # noqa: S108 - the container's own
            "IS_SANDBOX": "1",
            "COMPUTERAGENT_HOME": f"{HOME}/.computeragent",
        }
        return made if self._image else {**made, "PATH": "/usr/local/bin:/usr/bin:/bin", "SHELL": "/bin/bash"}


async def _answer(door: socket.socket, listener: socket.socket, container: Container) -> socket.socket:
    """The connection of the host in the container, which gets the socket to serve on. Nobody else can come: the
    container runs nothing else yet, and the door is closed after the first.
    """
    door.setblocking(False)
    coming = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(door))
    dying = asyncio.ensure_future(container.ended())
    try:
        await asyncio.wait({coming, dying}, timeout=BOOT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if coming.done():
            control, _ = coming.result()
            socket.send_fds(control, [b"."], [listener.fileno()])
            return control
        why = dying.result() if dying.done() else f"nothing came from it in {BOOT_TIMEOUT:g} s"
        raise SubstrateError(
            f"the container could not start: {why}",
            hint="An image needs the system libraries of this interpreter, or python= that has this package.",
        )
    finally:
        for task in (coming, dying):
            task.cancel()
        await asyncio.gather(coming, dying, return_exceptions=True)


def _require_own_folders(image: str | None) -> None:
    if sys.platform != "linux":
        raise SubstrateError(
            "a container cannot run this machine's interpreter",
            hint="Give image= and python= of an image that has this package.",
        )
    if image is not None and os.path.realpath(sys.base_prefix).startswith("/usr"):
        raise SubstrateError(
            f"the interpreter in {sys.base_prefix} cannot be shown in an image that has a /usr of its own",
            hint="Give python= of an image that has this package, or leave image= out.",
        )


def _volumes(mounts: Sequence[Mount]) -> list[str]:
    for each in mounts:
        if ":" in each.source + each.target:
            raise SubstrateError(f"Docker mounts no folder with a colon in its name: {each.source}")
    return [f"{each.source}:{each.target}:{'rw' if each.writable else 'ro'}" for each in mounts]
