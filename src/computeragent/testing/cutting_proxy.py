"""A TCP proxy that cuts connections where it is told to, at a byte of the answer's body."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Self

from computeragent.testing.raw_stream import HttpBody, StreamAddress

_READ = 65536
_AT_ONCE = struct.pack("ii", 1, 0)  # linger for no time: the other side gets a reset, not an end


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a connection is cut: after so many bytes of the answer's body, by a reset or by an ordinary close."""

    after: int
    reset: bool = False


class CuttingProxy:
    """Passes connections on to one server. `port` is where it listens on this machine."""

    def __init__(self, address: StreamAddress) -> None:
        self.port = 0
        self.cuts = 0
        self._address = address
        self._plan: dict[int, Cut] = {}
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    def plan(self, writer: asyncio.StreamWriter, cut: Cut) -> None:
        """Cut this connection to the proxy; to be said before anything is sent on it."""
        self._plan[writer.get_extra_info("sockname")[1]] = cut

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_READ, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        place = writer.get_extra_info("peername")[1]
        try:
            up_reader, up_writer = await self._address.connect()
        except OSError:
            writer.transport.abort()
            return
        ways = {
            asyncio.create_task(_pass_on(reader, up_writer)),
            asyncio.create_task(self._down(up_reader, writer, place)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)  # either side has gone, or the answer is no HTTP
            cut = self._plan.pop(place, None)
            for each in (up_writer, writer):
                if cut is not None and cut.reset:
                    _reset(each)
                else:
                    each.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: int) -> None:
        """Pass the answer on, to its end or to the cut."""
        body, passed = HttpBody(), 0
        while data := await reader.read(_READ):
            cut = self._plan.get(place)
            for start, end in body.feed(data) if cut is not None else ():
                if cut is not None and passed + end - start > cut.after:
                    writer.write(data[: start + cut.after - passed])
                    await writer.drain()
                    self.cuts += 1
                    return
                passed += end - start
            writer.write(data)
            await writer.drain()
        self._plan.pop(place, None)  # it came to its end before the cut


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_READ):
        writer.write(data)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    writer.transport.abort()
