"""The client's side of PeerJS signalling: a WebSocket to the broker that carries offers, answers and candidates."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import secrets
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import quote

import msgspec

from computeragent.errors import PeerError, PeerIdTakenError, ValidationError
from computeragent.logs import UNTOLD, Logger
from computeragent.p2p.ice import load
from computeragent.p2p.options import LOOPBACK, PeerOptions
from computeragent.wire.encoding import from_json, to_json

HEARTBEAT = 5.0  # seconds; a broker drops who is silent for 90
VERSION = "1.5.5"  # of PeerJS, whose protocol this is
MAX_MESSAGE = 256 * 1024
_BACKOFF = (0.2, 10.0)
_ID = re.compile(r"[A-Za-z0-9]+(?:[ _-][A-Za-z0-9]+)*")
_log = Logger("p2p")


def new_peer_id() -> str:
    """An id that nobody guesses."""
    return secrets.token_hex(16)


def check_peer_id(value: str) -> str:
    """Return a peer's id, or raise `ValidationError`."""
    if isinstance(value, str) and len(value) <= 128 and _ID.fullmatch(value):
        return value
    raise ValidationError(
        f"peer id {str(value)[:140]!r} is not valid",
        hint="Use up to 128 letters and digits; single spaces, '_' or '-' between them.",
    )


class Signalling:
    """A place at the broker under an id, kept for as long as this is open: a lost one is taken again."""

    def __init__(self, peer_id: str, options: PeerOptions, on_message: Callable[[dict[str, Any]], None]) -> None:
        self._id = peer_id
        self._options = options
        self._on_message = on_message
        self._token = secrets.token_hex(8)  # the same one each time: the broker knows us by it when we come back
        self._connected = asyncio.Event()
        self._socket: Any = None
        self._running: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the broker hears us now."""
        return self._connected.is_set()

    async def start(self) -> None:
        """Take the place. Raises `PeerIdTakenError`, or `PeerError` when there is no broker or it refuses."""
        self._socket = await self._open()
        self._connected.set()
        self._running = asyncio.create_task(self._run())

    async def send(self, kind: str, dst: str, payload: Any = None) -> None:
        """Tell another peer; waits for a broker that is gone just now. Raises `PeerError` when it stays so."""
        message = {"type": kind, "dst": dst} | ({} if payload is None else {"payload": payload})
        text = to_json(message).decode()
        try:
            async with asyncio.timeout(self._options.open_timeout):
                while True:
                    await self._connected.wait()
                    with contextlib.suppress(load("websockets").ConnectionClosed):
                        await self._socket.send(text)
                        return
                    await asyncio.sleep(0.05)  # until its reader has noticed
        except TimeoutError:
            raise PeerError("the connection to the broker is lost") from None

    async def close(self) -> None:
        """Give the place up."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        self._connected.clear()
        if self._socket is not None:
            await self._socket.close()

    def _url(self) -> str:
        given = self._options
        host = f"[{given.host}]" if ":" in given.host and not given.host.startswith("[") else given.host
        query = f"key={quote(given.key, safe='')}&id={quote(self._id, safe='')}&token={self._token}&version={VERSION}"
        return f"{'wss' if given.secure else 'ws'}://{host}:{given.port}{given.folder}peerjs?{query}"

    async def _open(self) -> Any:
        """A socket whose first frame said OPEN."""
        websockets = load("websockets")
        given = self._options
        at = f"the broker at {given.host}:{given.port}"
        local: dict[str, Any] = {"proxy": None} if given.host in LOOPBACK else {}
        try:
            async with asyncio.timeout(given.open_timeout):
                socket = await websockets.connect(
                    self._url(), max_size=MAX_MESSAGE, max_queue=64, user_agent_header=None, logger=UNTOLD, **local
                )
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            raise PeerError(
                f"{at} cannot be reached: {str(error) or type(error).__name__}",
                hint="Is it running? PeerOptions has its host, port, path and key.",
            ) from error
        try:
            async with asyncio.timeout(given.open_timeout):
                first = _message(await socket.recv())
        except (TimeoutError, websockets.WebSocketException) as error:
            await socket.close()
            raise PeerError(f"{at} did not open: {str(error) or 'no answer'}") from error
        match first.get("type"):
            case "OPEN":
                return socket
            case "ID-TAKEN":
                await socket.close()
                raise PeerIdTakenError(f"the peer id {self._id!r} is taken", hint="Choose another, or leave it out.")
            case _:
                await socket.close()
                raise PeerError(f"{at} refused: {_text(first)}", hint="Is the key right?")

    async def _run(self) -> None:
        while True:
            beating = asyncio.create_task(self._beat())
            try:
                await self._read()
            finally:
                beating.cancel()
                self._connected.clear()
            _log.info("broker.lost", host=self._options.host)
            await self._again()

    async def _read(self) -> None:
        with contextlib.suppress(load("websockets").ConnectionClosed):
            while True:
                message = _message(await self._socket.recv())
                if not message:
                    _log.warn("broker.malformed_message")
                    continue
                try:
                    self._on_message(message)
                except Exception as error:  # noqa: BLE001 - one bad message does not end the others
                    _log.error("broker.message_failed", error=type(error).__name__)

    async def _again(self) -> None:
        wait, longest = _BACKOFF
        while True:
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
            try:
                self._socket = await self._open()
            except PeerError as error:
                _log.debug("broker.away", error=error.message)
                wait = min(wait * 2, longest)
                continue
            self._connected.set()
            return

    async def _beat(self) -> None:
        with contextlib.suppress(load("websockets").ConnectionClosed):
            while True:
                await asyncio.sleep(HEARTBEAT)
                await self._socket.send('{"type":"HEARTBEAT"}')


def _message(frame: Any) -> dict[str, Any]:
    """A message of the broker; an empty one for what is none."""
    try:
        value = from_json(frame)
    except (msgspec.DecodeError, UnicodeError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _text(message: dict[str, Any]) -> str:
    payload = message.get("payload")
    said = cast("dict[str, Any]", payload).get("msg") if isinstance(payload, dict) else None
    return str(said or message.get("type") or "an answer that makes no sense")[:200]
