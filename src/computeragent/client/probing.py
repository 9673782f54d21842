"""Which kind of server is at an address: asked once, without a token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from computeragent.client.connection import Connection
from computeragent.errors import ComputerAgentError, HarnessProtocolError
from computeragent.protocol_types import Harness, Session, SessionRequest

Kind = Literal["protocol", "server"]


async def kind_of(url: str) -> Kind:
    """``server`` for a sandbox server (its health has ``runtimes``), ``protocol`` for a harness server (``engines``).

    Raises `HarnessProtocolError` when it is neither, or cannot be reached.
    """
    wire = Connection(url, timeout=10.0)
    try:
        problem: ComputerAgentError | None = None
        for path in ("/health", "/v1/health"):
            try:
                told = await wire.json("GET", path)
            except ComputerAgentError as error:
                problem = error
                if "cannot be reached" in error.message:
                    raise
                continue
            if "runtimes" in told:
                return "server"
            if "engines" in told:
                return "protocol"
        said = f": {problem.message}" if problem is not None else ""
        raise HarnessProtocolError(
            f"{wire.base_url} is neither a harness server nor a sandbox server{said}",
            hint="Check harness_url; harness_kind='protocol' or 'server' says which it is without asking.",
        )
    finally:
        await wire.aclose()


class ProbedHarness:
    """A harness at an address whose kind is found out at the first session; implements `Harness`."""

    def __init__(self, url: str, make: Callable[[Kind], Harness]) -> None:
        self._url = url
        self._make = make
        self._harness: Harness | None = None
        self._asking = asyncio.Lock()

    async def open(self, request: SessionRequest) -> Session:
        """Open a session on whatever is there."""
        async with self._asking:
            if self._harness is None:
                self._harness = self._make(await kind_of(self._url))
        return await self._harness.open(request)

    async def close(self) -> None:
        """Close what was opened."""
        if self._harness is not None:
            await self._harness.close()
