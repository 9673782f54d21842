"""HTTP over a Unix socket, on asyncio's own streams.

anyio's Unix streams leave a reader on the loop for a moment after a read was cancelled, and complain to the loop when
data comes in that moment; interrupted turns would do that often.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpcore2
import httpx2


class UnixTransport(httpx2.AsyncHTTPTransport):
    """The transport of a client whose requests all go to one Unix socket, whatever their URL says."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._pool = httpcore2.AsyncConnectionPool(uds=path, network_backend=_Backend(), max_connections=64)


class _Backend(httpcore2.AsyncNetworkBackend):
    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        del socket_options
        async with _told_as(httpcore2.ConnectTimeout, httpcore2.ConnectError), asyncio.timeout(timeout):
            return _Stream(*await asyncio.open_unix_connection(path))

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        del port, timeout, local_address, socket_options
        raise httpcore2.ConnectError(f"{host} is not reached by a Unix socket")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpcore2.AsyncNetworkStream):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        async with _told_as(httpcore2.ReadTimeout, httpcore2.ReadError), asyncio.timeout(timeout):
            return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        async with _told_as(httpcore2.WriteTimeout, httpcore2.WriteError), asyncio.timeout(timeout):
            self._writer.write(buffer)
            await self._writer.drain()

    async def aclose(self) -> None:
        self._writer.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        del ssl_context, server_hostname, timeout
        raise httpcore2.ConnectError("there is no TLS on a Unix socket")

    def get_extra_info(self, info: str) -> Any:
        return self._reader.at_eof() if info == "is_readable" else None


@asynccontextmanager
async def _told_as(timeout: type[Exception], failure: type[Exception]) -> AsyncGenerator[None]:
    """Errors of the socket as those of the HTTP library."""
    try:
        yield
    except TimeoutError as error:
        raise timeout(str(error)) from error
    except OSError as error:
        raise failure(str(error)) from error
