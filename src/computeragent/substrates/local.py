"""The substrate that is no sandbox: engines run in this process, or in a child of it, on the workspace itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from computeragent.errors import ValidationError
from computeragent.protocol_types import SubstrateHandle
from computeragent.substrates.pool import PRELOAD, Pool

if TYPE_CHECKING:
    from computeragent.substrates.hosting import EngineHost


class LocalSubstrate:
    """Runs engines right here. No security boundary: an agent's tools have the rights of this process.

    Args:
        process: Run each session's engine in a child process: a crash, or a hog, is the session's own.
        pool: Child processes to keep ready.

    """

    def __init__(self, *, process: bool = False, pool: int = 0) -> None:
        if pool and not process:
            raise ValidationError("pool= is for child processes", hint="Give process=True with it, or leave it out.")
        self._process = process
        self._pool = Pool(self._spare, pool)

    async def boot(
        self, *, workspace: Path, state_dir: Path, envs: Mapping[str, str], limits: Mapping[str, Any]
    ) -> SubstrateHandle:
        """See `Substrate.boot`. Limits are for sandboxes."""
        del state_dir, limits
        if not self._process:
            return SubstrateHandle(workspace_path=workspace, close=_nothing)
        spare = await self._pool.take()
        host = spare.host if spare is not None else await _start(())
        return SubstrateHandle(
            workspace_path=workspace, close=host.close, harness=host.harness, envs=dict(envs), ended=host.ended
        )

    async def warm(self) -> None:
        """Return when the pool is full."""
        await self._pool.warm()

    async def close(self) -> None:
        """End the child processes that are kept ready."""
        await self._pool.close()

    async def __aenter__(self) -> Self:
        await self.warm()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _spare(self) -> _SpareProcess:
        host = await _start(PRELOAD)
        try:
            await host.ready()
        except BaseException:
            await host.close()
            raise
        return _SpareProcess(host)


def local_process() -> LocalSubstrate:
    """The substrate that is registered as ``local-process``."""
    return LocalSubstrate(process=True)


@dataclass(frozen=True, slots=True)
class _SpareProcess:
    host: EngineHost

    @property
    def alive(self) -> bool:
        return self.host.alive

    async def discard(self) -> None:
        await self.host.close()


async def _start(preload: tuple[str, ...]) -> EngineHost:
    from computeragent.substrates.hosting import Plan, start  # what it needs, engines in this process do not

    return await start(Plan(env=os.environ, preload=preload))


async def _nothing() -> None:
    return
