"""`BwrapSandbox`: Inspect's ``sandbox="bwrap"``, for any user, without a daemon, an image or root.

The sandbox sees the system's programs, this interpreter and the programs in the cache, read-only, and has a home, a
working directory and temporary folders of its own, in memory.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Self

from inspect_ai.util import SandboxUserUnsupportedError, sandboxenv

from computeragent.substrates.bwrap import BwrapSubstrate, find_bwrap, wrapping
from computeragent.substrates.cgroups import make_whole
from computeragent.substrates.mounts import HOME, UID, Mount
from computeragent.swe.sandboxes.boot import boot
from computeragent.swe.sandboxes.supervised import CWD, INSIDE, SupervisedSandbox
from computeragent.swe.sandboxes.types import SandboxConfig

# By which programs, Inspect's tools among them, know the system; and what Java has there.
_ETC = ("os-release", "lsb-release", "debian_version", "java-*")
_SELF = ("agent", str(UID))


@sandboxenv(name="bwrap")  # pyright: ignore[reportUntypedClassDecorator] - Inspect's
class BwrapSandbox(SupervisedSandbox):
    """A bubblewrap jail for each sample. Its one user is ``agent``."""

    @classmethod
    async def start(cls, config: SandboxConfig) -> Self:
        """A running sandbox. Raises `SubstrateError` where none can be made, `ValidationError` for a bad `bind`."""
        substrate = BwrapSubstrate(bind=config.binds(), network=config.network)
        program, arguments = await asyncio.to_thread(find_bwrap), _arguments(substrate)
        group = await make_whole(config.limits())
        wrap = wrapping(program, arguments, group, interfaces=True)
        command = [*wrap.prefix, "--", sys.executable, "-I", "-S", str(INSIDE / "supervisor.py")]
        try:
            return cls(await boot(command, wrap.env, wrap.descriptors, group), home=HOME)
        finally:
            wrap.close()

    def _check_user(self, user: str | None) -> str | None:
        if user is not None and user not in _SELF:
            raise SandboxUserUnsupportedError(
                f"a bwrap sandbox has one user, 'agent', and cannot run commands as {user!r}; "
                "sandbox='namespace' has all, for who is root"
            )
        return None


def _arguments(substrate: BwrapSubstrate) -> list[str]:
    shown = Mount(os.path.realpath(INSIDE), str(INSIDE), writable=False)
    made = ["--tmpfs", CWD, *substrate.arguments([shown])]  # first: what is shown may be there, or below
    for path in sorted(each for name in _ETC for each in Path("/etc").glob(name)):
        made += ["--ro-bind-try", str(path), str(path)]
    return [*made, "--as-pid-1", "--chdir", CWD]
