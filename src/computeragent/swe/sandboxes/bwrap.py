"""`BwrapSandbox`: Inspect's ``sandbox="bwrap"``, for any user, without a daemon, an image or root.

The sandbox sees the system's programs, this interpreter and the programs in the cache, read-only, and has a home, a
working directory and temporary folders of its own, in memory.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

from inspect_ai.util import SandboxEnvironment, SandboxUserUnsupportedError, sandboxenv

from computeragent.artifacts.cache import root as programs
from computeragent.errors import SubstrateError
from computeragent.substrates.bwrap import BwrapSubstrate, find_bwrap, wrapping
from computeragent.substrates.cgroups import ControlGroup, Limits
from computeragent.substrates.cgroups import make as make_group
from computeragent.substrates.hosting import BOOT_TIMEOUT, spawned
from computeragent.substrates.mounts import HOME, UID, Mount
from computeragent.substrates.process import HostProcess
from computeragent.swe.sandboxes.control import Control
from computeragent.swe.sandboxes.supervised import SupervisedSandbox
from computeragent.swe.sandboxes.types import SandboxConfig

CWD = "/workspace"
_SUPERVISOR = str(Path(__file__).parent / "inside" / "supervisor.py")
_SELF = ("agent", str(UID))


@sandboxenv(name="bwrap")  # pyright: ignore[reportUntypedClassDecorator] - Inspect's
class BwrapSandbox(SupervisedSandbox):
    """A bubblewrap jail for each sample. Its one user is ``agent``."""

    def __init__(self, control: Control, process: HostProcess, group: ControlGroup | None) -> None:
        super().__init__(control, home=HOME, cwd=CWD)
        self._process = process
        self._group = group

    @classmethod
    async def start(cls, config: SandboxConfig) -> BwrapSandbox:
        """A running sandbox. Raises `SubstrateError` where none can be made, `ValidationError` for a bad `bind`."""
        substrate = BwrapSubstrate(bind=config.bind, network=config.network)
        program = await asyncio.to_thread(find_bwrap)
        group = await asyncio.to_thread(make_group, Limits(memory=config.memory, pids=config.pids))
        wrap = wrapping(program, _arguments(substrate), group)
        ours, theirs = socket.socketpair()
        try:
            command = [*wrap.prefix, "--", sys.executable, "-I", "-S", _SUPERVISOR, str(theirs.fileno())]
            process = HostProcess(await spawned(command, wrap.env, [theirs.fileno(), *wrap.descriptors]))
        except BaseException as error:
            ours.close()
            if wrap.group is not None:
                wrap.group.remove()
            if isinstance(error, OSError):
                raise SubstrateError(f"bwrap cannot be started: {error.strerror}") from error
            raise
        finally:
            theirs.close()
            wrap.close()
        sandbox = cls(Control(ours), process, wrap.group)
        try:
            await sandbox._ready()
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    async def _ready(self) -> None:
        try:
            async with asyncio.timeout(BOOT_TIMEOUT):
                if await self._control.ready():
                    return
                raise SubstrateError(
                    f"the sandbox could not start: {await self._process.ended()}", hint="Run `computeragent doctor`."
                )
        except TimeoutError:
            raise SubstrateError(f"the sandbox did not start in {BOOT_TIMEOUT:g} s") from None

    @classmethod
    async def sample_init(cls, task_name: str, config: Any, metadata: dict[str, str]) -> dict[str, SandboxEnvironment]:
        """One sandbox for a sample."""
        return {"default": await cls.start(config if isinstance(config, SandboxConfig) else SandboxConfig())}

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> SandboxConfig:
        """A configuration from a log."""
        return SandboxConfig(**config)

    def _check_user(self, user: str | None) -> str | None:
        if user is not None and user not in _SELF:
            raise SandboxUserUnsupportedError(
                f"a bwrap sandbox has one user, 'agent': it cannot run commands as {user!r}; "
                "as root, sandbox='namespace' can"
            )
        return None

    async def close(self) -> None:
        """End it, and all that runs in it."""
        await super().close()
        await self._process.close()
        if self._group is not None:
            await asyncio.to_thread(self._group.remove)


def _arguments(substrate: BwrapSubstrate) -> list[str]:
    shown = Mount(os.path.realpath(programs()), str(programs()), writable=False)
    return [*substrate.arguments([shown]), "--tmpfs", CWD, "--as-pid-1", "--chdir", CWD]
