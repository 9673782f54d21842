"""Starts a supervisor, in whatever a sandbox wraps around it, and holds on to its process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio

from computeragent.errors import SubstrateError
from computeragent.substrates.cgroups import ControlGroup
from computeragent.substrates.hosting import BOOT_TIMEOUT, spawned
from computeragent.substrates.process import HostProcess
from computeragent.swe.sandboxes.control import Control

_END_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Booted:
    """A supervisor that answers; closing it ends all in its sandbox."""

    control: Control
    process: HostProcess
    group: ControlGroup | None

    async def close(self) -> None:
        """End it, and wait for that."""
        self.control.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_WITHIN):
                await self.process.ended()  # its own end is the end of all; killed, it would not wait for that
        await self.process.close()
        if self.group is not None:
            await asyncio.to_thread(self.group.remove)


async def boot(
    command: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int], group: ControlGroup | None
) -> Booted:
    """A supervisor, started by `command` with the number of its socket as a last argument.

    Raises `SubstrateError` when it cannot be started; then the group is removed.
    """
    ours, theirs = socket.socketpair()
    try:
        process = await spawned([*command, str(theirs.fileno())], env, [theirs.fileno(), *descriptors])
    except BaseException as error:
        ours.close()
        if group is not None:
            with anyio.CancelScope(shield=True):
                await asyncio.to_thread(group.remove)
        if isinstance(error, OSError):
            raise SubstrateError(f"{command[0]} cannot be started: {error.strerror}") from error
        raise
    finally:
        theirs.close()
    booted = Booted(Control(ours), HostProcess(process), group)
    try:
        await _ready(booted)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await booted.close()
        raise
    return booted


async def _ready(booted: Booted) -> None:
    try:
        async with asyncio.timeout(BOOT_TIMEOUT):
            if await booted.control.ready():
                return
            how = await booted.process.ended()
    except TimeoutError:
        raise SubstrateError(f"the sandbox did not start in {BOOT_TIMEOUT:g} s") from None
    raise SubstrateError(f"the sandbox could not start: {how}", hint="Run `computeragent doctor`.")
