"""A program in a sandbox as the other end of an Agent Client Protocol connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from inspect_ai.tool import MCPServerConfigHTTP
from inspect_ai.util import ExecCompleted, ExecStderr, ExecStdout

from computeragent.clis import McpServer
from computeragent.engines.acp.connection import OnUpdate, choose, connect, refuse
from computeragent.engines.acp.prompts import server_blocks
from computeragent.errors import MissingExtraError, ValidationError
from computeragent.swe.agents.launching import Process

if TYPE_CHECKING:
    from acp import RequestPermissionResponse
    from acp.core import ClientSideConnection
    from acp.schema import HttpMcpServer, PermissionOption, ToolCallUpdate

KEPT = 8_000
"""Characters of stderr that an error may carry, from its end."""

_AHEAD = 256  # pieces of output that wait to be read


@dataclass(kw_only=True)
class ErrorInfo:
    """What is known of the program: the end of its stderr, and its exit status once it has ended by itself.

    `stderr` is up to twice as long as what `describe` tells: a secret that is cut could not be taken out any more.
    """

    stderr: str = ""
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self.exit_code is not None

    def describe(self, redacted: Callable[[str], str] = str) -> str:
        """How it ended and what it said, for an error; `redacted` takes secrets out of a text."""
        if self.exit_code is None:
            how = "it has not ended"
        else:
            how = f"status {self.exit_code}" if self.exit_code >= 0 else f"signal {-self.exit_code}"
        said = redacted(self.stderr).strip()[-KEPT:]
        return f"{how}; it said on stderr:\n{said}" if said else f"{how}; it said nothing on stderr"


@asynccontextmanager
async def acp_connection(
    proc: Process, *, on_update: OnUpdate | None = None
) -> AsyncGenerator[tuple[ClientSideConnection, asyncio.Task[None], ErrorInfo]]:
    """A connection to an agent that was started with its stdin open: `(conn, feeder, proc_info)`.

    Each question of the agent's is answered with yes; files and terminals of the host are refused. `feeder` reads its
    output, and is done when the program has ended. `proc_info` has the end of its stderr and its exit status.
    `on_update` gets each `session/update` as it is, in order. At the end of the block the program is ended with all
    that it started.

    Raises `MissingExtraError` without the `acp` extra.
    """
    try:
        import acp  # noqa: F401 # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        hint = "pip install 'computer-agent-py[acp]'"
        raise MissingExtraError("interactive agents need the [acp] extra", hint=hint) from error
    info = ErrorInfo()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(_AHEAD)
    feeder = asyncio.create_task(_feed(proc, pieces, info), name="acp feeder")

    async def read() -> bytes:
        if feeder.done() and pieces.empty():
            return b""
        getting = asyncio.ensure_future(pieces.get())
        try:
            await asyncio.wait({getting, feeder}, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                return getting.result()
            return b"" if pieces.empty() else pieces.get_nowait()
        finally:
            getting.cancel()

    connection = connect(read, proc.write_stdin, permit=_yes, on_update=on_update or _nobody)
    try:
        yield connection, feeder, info
    finally:
        with anyio.CancelScope(shield=True):
            await _whole(_end(connection, proc, feeder))


async def _end(connection: ClientSideConnection, proc: Process, feeder: asyncio.Task[None]) -> None:
    try:
        await connection.close()
    finally:
        await proc.kill()
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)


async def _whole(work: Coroutine[None, None, None]) -> None:
    """Do it whole. A task that is cancelled once more meanwhile, which no shield holds off, hears of it afterwards."""
    task, late = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            late = error
    task.result()
    if late is not None:
        raise late


async def _feed(proc: Process, pieces: asyncio.Queue[bytes], info: ErrorInfo) -> None:
    async for event in proc:
        if isinstance(event, ExecStdout):
            await pieces.put(event.data.encode())
        elif isinstance(event, ExecStderr):
            info.stderr = (info.stderr + event.data)[-2 * KEPT :]
        elif isinstance(event, ExecCompleted):
            info.exit_code = event.exit_code


async def _yes(tool_call: ToolCallUpdate, options: list[PermissionOption]) -> RequestPermissionResponse:
    # The sandbox is the border; Inspect's own approval policies are asked by the bridge.
    del tool_call
    return choose(options, "allow_always", "allow_once") or refuse(options)


async def _nobody(_update: object) -> None:
    """Nobody wants to hear of it."""


def bridge_mcp_to_acp(configs: Sequence[MCPServerConfigHTTP | McpServer]) -> list[HttpMcpServer]:
    """Tool servers of a bridge, as `new_session` takes them. Raises `ValidationError` for one without an address."""
    servers: list[McpServer] = []
    for config in configs:
        if not config.url:
            raise ValidationError(
                f"the tool server {config.name} has no address", hint="Only HTTP servers are bridged."
            )
        servers.append(McpServer(name=config.name, url=config.url, headers=config.headers or {}))
    return server_blocks(servers, urls=True)
