"""A server's lease: one key that says it lives and where it is reached, renewed every third of its time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from computeragent.errors import EventLogError, EventLogUnavailableError
from computeragent.eventlog import redis_scripts as scripts
from computeragent.eventlog.redis_link import RedisLink
from computeragent.logs import Logger

_log = Logger("eventlog")


class Lease:
    """The lease of one mark. `lapsed` is awaited when it is found to have run out, after it was taken anew."""

    def __init__(
        self, link: RedisLink, prefix: str, mark: str, seconds: float, lapsed: Callable[[], Awaitable[None]]
    ) -> None:
        self.seconds = seconds
        self.address = ""
        self._link = link
        self._prefix = prefix
        self._mark = mark
        self._lapsed = lapsed
        self._keeper: asyncio.Task[None] | None = None

    async def hold(self) -> None:
        """Have the lease from now on."""
        if self._keeper is None or self._keeper.done():
            await self._renew()
            if self._keeper is None or self._keeper.done():
                self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="redis lease")

    async def give_up(self) -> None:
        """Let the lease go at once, if Redis can be told."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        keeper.cancel()
        await asyncio.wait({keeper})
        try:
            await self._link.command("delete", f"{self._prefix}:lease:{self._mark}")
        except EventLogUnavailableError as error:
            _log.warn("lease_runs_out", error=error.message)

    async def _keep(self) -> None:
        lapsed = False
        while True:
            await asyncio.sleep(self.seconds / 3)
            try:
                lapsed = not await self._renew() or lapsed
                if lapsed:
                    _log.warn("lease_lapsed", seconds=self.seconds)
                    await self._lapsed()
                    lapsed = False
            except EventLogError as error:
                _log.warn("lease_not_renewed", error=error.message)

    async def _renew(self) -> bool:
        """Renew it; whether there was one."""
        milliseconds = max(1, int(self.seconds * 1000))
        return bool(await self._link.run(scripts.LEASE, self._prefix, self._mark, self.address, milliseconds))
