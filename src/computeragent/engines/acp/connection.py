"""The client side of the Agent Client Protocol: JSON lines in, JSON lines out, and what the agent may ask of us.

Shared by the engine, whose agent is a process of this machine, and by the interactive agents of Inspect, whose agent
is a process in a sandbox: both give two functions, one that reads bytes and one that writes them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar, cast

from computeragent.errors import EngineError, EngineUnavailableError
from computeragent.logs import Logger
from computeragent.wire.encoding import clean_json

if TYPE_CHECKING:
    from acp import RequestPermissionResponse
    from acp.core import ClientSideConnection
    from acp.schema import InitializeResponse, PermissionOption, ToolCallUpdate

Json = dict[str, Any]
T = TypeVar("T")
Read = Callable[[], Awaitable[bytes]]
Write = Callable[[bytes], Awaitable[None]]
OnUpdate = Callable[[Json], Awaitable[None]]
Permit = Callable[["ToolCallUpdate", "list[PermissionOption]"], Awaitable["RequestPermissionResponse"]]

LONGEST = 64 * 1024 * 1024
"""Bytes of the longest message that is taken; a longer one is skipped."""

_AUTH_REQUIRED = -32000
_LONGEST = 2_000  # characters of what an agent says in an error
_log = Logger("acp")


class LineTransport:
    """Messages of the protocol over a stream of bytes; implements `acp.Transport`.

    `read` returns the next bytes, and none at the end. Lines that are no JSON object are noise of a program and are
    skipped. `session/update` goes to `on_update`, as it is and in order, before anything that comes after it.
    """

    def __init__(self, read: Read, write: Write, on_update: OnUpdate | None = None) -> None:
        self._read = read
        self._write = write
        self._on_update = on_update
        self._buffer = bytearray()
        self._scanned = 0
        self._skipping = False
        self._writing = asyncio.Lock()
        self._unsent: set[asyncio.Future[None]] = set()
        self.skipped = 0

    async def send(self, message: Json) -> None:
        """Write one message, whole, whoever is cancelled. Raises `ConnectionError` when the agent is gone."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        sending = asyncio.ensure_future(self._send(data))
        self._unsent.add(sending)
        sending.add_done_callback(self._sent)
        await asyncio.wait({sending})
        if sending.cancelled():
            raise ConnectionError("the connection was closed before the message was sent")
        sending.result()

    async def _send(self, data: bytes) -> None:
        async with self._writing:
            try:
                await self._write(data)
            except (OSError, RuntimeError) as error:
                raise ConnectionError("the agent takes no more messages") from error

    async def receive(self) -> Json | None:
        """The next message that the SDK has to see; None at the end."""
        while (line := await self._line()) is not None:
            message = _parsed(line)
            if message is None:
                self.skipped += bool(line.strip())
            elif message.get("method") == "session/update" and self._on_update is not None:
                await self._update(message)
            elif "id" in message or message.get("method") == "session/update":
                return message  # of any other news nobody wants to hear, and the SDK would complain
        return None

    async def close(self) -> None:
        """Give up what is not written yet; whoever gave the bytes owns them."""
        for sending in self._unsent:
            sending.cancel()

    def _sent(self, sending: asyncio.Future[None]) -> None:
        self._unsent.discard(sending)
        if not sending.cancelled():
            sending.exception()  # seen, also where nobody waits any more

    async def _update(self, message: Json) -> None:
        params: Any = message.get("params")
        update: Any = cast("Json", params).get("update") if isinstance(params, dict) else None
        if isinstance(update, dict) and self._on_update is not None:
            await self._on_update(cast("Json", update))

    async def _line(self) -> bytes | None:
        while True:
            end = self._buffer.find(b"\n", self._scanned)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                self._scanned = 0
                if not self._skipping:
                    return line
                self._skipping = False
                continue
            self._scanned = len(self._buffer)
            if self._scanned > LONGEST:
                self._skipping = True
                self.skipped += 1
                _log.warn("message_too_long", limit=LONGEST)
            if self._skipping:
                self._buffer.clear()
                self._scanned = 0
            chunk = await self._read()
            if not chunk:
                return None
            self._buffer += chunk


def _parsed(line: bytes) -> Json | None:
    try:
        message: Any = json.loads(clean_json(line))
    except (ValueError, RecursionError):
        return None
    return _sound(cast("Json", message)) if isinstance(message, dict) else None


def _sound(message: Json) -> Json | None:
    """A message in the shape that the SDK takes for granted; None for what is none. Without it, it would go deaf."""
    method, number, error = message.get("method"), message.get("id"), message.get("error")
    if "method" in message:
        return message if isinstance(method, str) and isinstance(number, (int, str, type(None))) else None
    if not isinstance(number, (int, str)):
        return None
    if error is None:
        return message
    said = cast("Json", error) if isinstance(error, dict) else {"message": str(error)}
    return {"id": number, "error": {**said, "message": str(said.get("message", "Error"))}}


class AcpClient:
    """What an agent may ask of us: permission for a call, by `permit`, and nothing else. A fault refuses.

    Files and terminals are the agent's own; it is told that we have none.
    """

    def __init__(self, permit: Permit) -> None:
        self._permit = permit

    async def request_permission(
        self, session_id: str, tool_call: ToolCallUpdate, options: list[PermissionOption], **_: Any
    ) -> RequestPermissionResponse:
        """Ask `permit`; where it raises, refuse."""
        del session_id
        try:
            return await self._permit(tool_call, options)
        except Exception as error:  # noqa: BLE001 - any fault denies
            _log.error("permission_failed", error=type(error).__name__)
            return refuse(options)

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        """Nobody wanted to hear of it."""

    async def write_text_file(self, session_id: str, path: str, content: str, **_: Any) -> Any:
        """Refused: files are the agent's own."""
        raise _unsupported("fs/write_text_file")

    async def read_text_file(
        self, session_id: str, path: str, line: int | None = None, limit: int | None = None, **_: Any
    ) -> Any:
        """Refused: files are the agent's own."""
        raise _unsupported("fs/read_text_file")

    async def create_terminal(
        self,
        session_id: str,
        command: str,
        args: list[str] | None = None,
        env: list[Any] | None = None,
        cwd: str | None = None,
        output_byte_limit: int | None = None,
        **_: Any,
    ) -> Any:
        """Refused: terminals are the agent's own."""
        raise _unsupported("terminal/create")

    async def terminal_output(self, session_id: str, terminal_id: str, **_: Any) -> Any:
        """Refused: terminals are the agent's own."""
        raise _unsupported("terminal/output")

    async def release_terminal(self, session_id: str, terminal_id: str, **_: Any) -> Any:
        """Refused: terminals are the agent's own."""
        raise _unsupported("terminal/release")

    async def wait_for_terminal_exit(self, session_id: str, terminal_id: str, **_: Any) -> Any:
        """Refused: terminals are the agent's own."""
        raise _unsupported("terminal/wait_for_exit")

    async def kill_terminal(self, session_id: str, terminal_id: str, **_: Any) -> Any:
        """Refused: terminals are the agent's own."""
        raise _unsupported("terminal/kill")

    async def create_elicitation(self, message: str, mode: Any, **_: Any) -> Any:
        """Refused: nobody is there to fill in a form."""
        raise _unsupported("elicitation/create")

    async def complete_elicitation(self, elicitation_id: str, **_: Any) -> None:
        """Nothing was begun."""

    async def ext_method(self, method: str, params: Json) -> Json:
        """Refused: no extension is known."""
        raise _unsupported(method)

    async def ext_notification(self, method: str, params: Json) -> None:
        """Left alone."""

    def on_connect(self, conn: Any) -> None:
        """Nothing to do."""


def connect(read: Read, write: Write, *, permit: Permit, on_update: OnUpdate | None = None) -> ClientSideConnection:
    """A connection to an agent whose bytes these are. Close it with `close()`; the bytes stay the caller's."""
    from acp import connect_to_agent

    # Forms and the like are unstable, and refused; the SDK would warn of each at run time.
    return connect_to_agent(AcpClient(permit), LineTransport(read, write, on_update), use_unstable_protocol=True)


async def initialize(connection: ClientSideConnection) -> InitializeResponse:
    """The first exchange. Raises `EngineUnavailableError` for an agent of another version of the protocol."""
    from acp import PROTOCOL_VERSION
    from acp.schema import ClientCapabilities, FileSystemCapabilities, Implementation

    nothing = FileSystemCapabilities(read_text_file=False, write_text_file=False)
    answer = await connection.initialize(
        PROTOCOL_VERSION,
        client_capabilities=ClientCapabilities(fs=nothing, terminal=False),
        client_info=Implementation(name="computeragent", version=metadata.version("computer-agent-py")),
    )
    if answer.protocol_version != PROTOCOL_VERSION:
        raise EngineUnavailableError(
            f"the agent speaks version {answer.protocol_version} of the Agent Client Protocol, not {PROTOCOL_VERSION}",
            hint="Use a release of the agent that speaks this version.",
        )
    return answer


def refuse(options: list[PermissionOption]) -> RequestPermissionResponse:
    """Choose what rejects this one call; where nothing does, take the question back, which runs nothing."""
    return choose(options, "reject_once", "reject_always") or withdrawn()


def withdrawn() -> RequestPermissionResponse:
    """The answer to a question whose turn was cancelled."""
    from acp import RequestPermissionResponse
    from acp.schema import DeniedOutcome

    return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))


async def answered(request: Awaitable[T], limit: float, *ends: asyncio.Future[Any]) -> T:
    """The answer to a request, while none of `ends` has come and for `limit` seconds; then it is taken back.

    Raises `TimeoutError` after `limit` seconds, `ConnectionError` when an end comes first, and what the request raises.
    """
    asking = asyncio.ensure_future(request)
    try:
        await asyncio.wait({asking, *ends}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            return asking.result()
        if any(end.done() for end in ends):
            raise ConnectionError("the agent is gone, or not wanted any more")
        raise TimeoutError(f"no answer within {limit:g} s")
    finally:
        asking.cancel()


def choose(options: list[PermissionOption], *kinds: str) -> RequestPermissionResponse | None:
    """Choose the first option of the first of these kinds; None where there is none."""
    from acp import RequestPermissionResponse
    from acp.schema import AllowedOutcome

    for kind in kinds:
        for option in options:
            if option.kind == kind:
                return RequestPermissionResponse(outcome=AllowedOutcome(outcome="selected", option_id=option.option_id))
    return None


def told(error: Exception, redacted: Callable[[str], str]) -> str:
    """What a failed request says, in one line of at most 2,000 characters, without secrets: one that the bound cuts
    could not be taken out any more.
    """
    data: Any = getattr(error, "data", None)
    detail: Any = (
        cast("Json", data).get("details") or cast("Json", data).get("message") if isinstance(data, dict) else data
    )
    message = str(error) or type(error).__name__
    if isinstance(detail, str) and detail and detail != message:
        message = f"{message}: {detail}"
    line = " ".join(redacted(message).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def failure(what: str, error: Exception, redacted: Callable[[str], str]) -> EngineError:
    """A request that the agent refused, as our error; `redacted` takes secrets out of a text."""
    if getattr(error, "code", None) == _AUTH_REQUIRED:
        return EngineUnavailableError(
            f"{what}: the agent wants to be logged in ({told(error, redacted)})",
            hint="Give the provider's key in envs, or log the agent in by hand and name its command.",
        )
    return EngineError(
        f"{what}: {told(error, redacted)}", hint="Look at what the agent says on stderr (COMPUTERAGENT_LOG=debug)."
    )


def _unsupported(method: str) -> Exception:
    from acp import RequestError

    return RequestError.method_not_found(method)
