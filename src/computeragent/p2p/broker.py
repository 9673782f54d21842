"""A broker of our own, for peers and JavaScript clients: it introduces them to each other, and sees nothing they say.

It speaks the protocol of the PeerJS server. `create_broker` is the application, `open_broker` serves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import importlib
import socket
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from computeragent.errors import MissingExtraError, PeerError, ValidationError
from computeragent.logs import Logger
from computeragent.p2p.options import LOOPBACK
from computeragent.p2p.signalling import check_peer_id, new_peer_id
from computeragent.wire.encoding import from_json, to_json

PORT = 9000
MAX_MESSAGE = 64 * 1024  # bytes of an offer, an answer or a candidate
MAX_PENDING = 1024  # messages to peers that are not there yet
_MAX_QUEUE = 256  # messages that a peer has not taken yet
_RELAYED = frozenset({"OFFER", "ANSWER", "CANDIDATE", "LEAVE", "EXPIRE"})
_EXPIRING = frozenset({"OFFER", "ANSWER", "CANDIDATE"})
_log = Logger("p2p.broker")


@dataclass(frozen=True)
class BrokerOptions:
    """Settings of a broker; the first two as PeerJS has them. Times are in seconds.

    Web pages are let in from this machine, and from `allowed_origins` such as ``https://example.com`` (``*``: from
    everywhere); any other page that somebody here looks at would be a stranger inside. `allowed_hosts` are the names
    that it is reached under, beside those of this machine (``*``: any).
    """

    path: str = "/"
    key: str = "peerjs"
    allowed_origins: Sequence[str] = ()
    allowed_hosts: Sequence[str] = ()
    max_peers: int = 256
    expire_after: float = 5.0
    silent_after: float = 90.0


def create_broker(options: BrokerOptions | None = None) -> Any:
    """The broker as a Starlette application. Raises `MissingExtraError` without the ``[server]`` extra."""
    try:
        from starlette.applications import Starlette
        from starlette.routing import Route, WebSocketRoute
    except ImportError as error:
        raise _missing(error) from error
    given = options or BrokerOptions()
    inner = given.path.strip("/")
    folder = f"/{inner}/" if inner else "/"
    broker = Broker(given)
    return Starlette(
        routes=[
            Route(f"{folder}{given.key}/id", broker.new_id),
            Route(f"{folder}{given.key}/peers", broker.list_peers),
            Route(folder, broker.about),
            WebSocketRoute(f"{folder}peerjs", broker.meet),
        ]
    )


@asynccontextmanager
async def open_broker(
    host: str = "127.0.0.1", port: int = PORT, options: BrokerOptions | None = None
) -> AsyncGenerator[int]:
    """Serve a broker while the block runs; its port, which is any free one for 0.

    Raises `PeerError` when the address is taken, `MissingExtraError` without the ``[p2p]`` and ``[server]`` extras.
    """
    app = create_broker(options)
    try:
        uvicorn = importlib.import_module("uvicorn")
        importlib.import_module("websockets")
    except ImportError as error:
        raise _missing(error) from error
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise PeerError(
            f"the broker cannot listen on {host}:{port}: {error.strerror or error}", hint="Is another one running?"
        ) from error
    config = uvicorn.Config(
        app, log_level="warning", lifespan="off", ws="websockets-sansio", ws_max_size=MAX_MESSAGE, access_log=False
    )
    server = uvicorn.Server(config)
    server.capture_signals = _leave_signals  # they are the program's
    config.timeout_graceful_shutdown = 1
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        if not server.started:
            raise PeerError(f"the broker did not start on {host}:{port}")
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait({serving})
        listener.close()


@contextmanager
def _leave_signals() -> Generator[None]:
    yield


def _missing(error: ImportError) -> MissingExtraError:
    return MissingExtraError(
        f"the broker needs the [p2p] and [server] extras: {error}", hint="pip install 'computer-agent-py[p2p,server]'"
    )


class _Member:
    """A peer at the broker: who it is, and what it has yet to be told."""

    def __init__(self, peer_id: str, token: str) -> None:
        self.id = peer_id
        self.token = token
        self.queue: asyncio.Queue[str | None] = asyncio.Queue(_MAX_QUEUE)
        self.is_leaving = False

    def tell(self, message: dict[str, Any]) -> None:
        """Queue a message; who does not take them leaves."""
        if self.queue.full():
            self.leave()
        elif not self.is_leaving:
            self.queue.put_nowait(to_json(message).decode())

    def leave(self) -> None:
        """End its connection, soon."""
        self.is_leaving = True
        while self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class Broker:
    """Who is there, and the messages from one to another."""

    def __init__(self, options: BrokerOptions) -> None:
        self._options = options
        self._members: dict[str, _Member] = {}
        self._pending: dict[str, list[dict[str, Any]]] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    async def about(self, request: Any) -> Any:
        """What this is, as the PeerJS server says it."""
        about = {"name": "PeerJS Server", "description": "A server side element to broker connections between peers."}
        return self._response(request, to_json({**about, "website": "https://peerjs.com/"}), "application/json")

    async def new_id(self, request: Any) -> Any:
        """A random id, as text."""
        return self._response(request, new_peer_id().encode(), "text/html; charset=utf-8")

    async def list_peers(self, request: Any) -> Any:
        """Who is there is told to nobody."""
        return self._response(request, b"Unauthorized", "text/plain", 401)

    def _response(self, request: Any, body: bytes, media: str, status: int = 200) -> Any:
        from starlette.responses import Response

        if not self._is_welcome(request):
            return Response("Forbidden", 403)
        origin = request.headers.get("origin")
        headers = {} if origin is None else {"access-control-allow-origin": origin, "vary": "origin"}
        return Response(body, status, headers, media)

    def _is_welcome(self, request: Any) -> bool:
        """Whether a request names us as it should, and no page of a stranger makes it."""
        hosts, origins = self._options.allowed_hosts, self._options.allowed_origins
        try:
            host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
            origin = request.headers.get("origin")
            page = urlsplit(origin or "").hostname or ""
        except ValueError:
            return False
        if "*" not in hosts and host not in LOOPBACK and host not in hosts:
            return False
        return origin is None or "*" in origins or origin in origins or page in LOOPBACK

    async def meet(self, websocket: Any) -> None:
        """A peer, from its arrival to its end."""
        query = websocket.query_params
        if not self._is_welcome(websocket):
            await websocket.close(1008)
            return
        await websocket.accept()
        refusal = self._refusal(query)
        if refusal is not None:
            await websocket.send_text(to_json(refusal).decode())
            await websocket.close()
            return
        member = _Member(query["id"], query["token"])
        before = self._members.pop(member.id, None)
        if before is not None:  # the same peer, whose connection broke
            before.leave()
        self._members[member.id] = member
        member.tell({"type": "OPEN"})
        for message in self._pending.pop(member.id, []):
            member.tell(message)
        writing = asyncio.create_task(self._write(websocket, member))
        reading = asyncio.create_task(self._read(websocket, member))
        try:
            await asyncio.wait({writing, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._members.get(member.id) is member:
                del self._members[member.id]
            for task in (writing, reading):
                task.cancel()
            await asyncio.wait({writing, reading})
            with contextlib.suppress(Exception):  # it may be closed, from either side
                await websocket.close()

    def _refusal(self, query: Any) -> dict[str, Any] | None:
        """Why a peer is not let in, in the protocol's words."""

        def error(text: str, kind: str = "ERROR") -> dict[str, Any]:
            return {"type": kind, "payload": {"msg": text}}

        peer_id, token = query.get("id", ""), query.get("token", "")
        if not peer_id or not token or len(token) > 200:
            return error("No id, token, or key supplied to websocket server")
        if not hmac.compare_digest(query.get("key", "").encode("utf-8", "replace"), self._options.key.encode()):
            return error("Invalid key provided")
        try:
            check_peer_id(peer_id)
        except ValidationError:
            return error("Invalid id")
        present = self._members.get(peer_id)
        if present is None and len(self._members) >= self._options.max_peers:
            return error("Server has reached its concurrent user limit")
        if present is not None and not hmac.compare_digest(present.token.encode(), token.encode("utf-8", "replace")):
            return error("ID is taken", "ID-TAKEN")
        return None

    async def _write(self, websocket: Any, member: _Member) -> None:
        with contextlib.suppress(Exception):  # it is gone: the reader says so
            while (text := await member.queue.get()) is not None:
                await websocket.send_text(text)

    async def _read(self, websocket: Any, member: _Member) -> None:
        heard = time.monotonic()
        while True:
            try:
                left = self._options.silent_after - (time.monotonic() - heard)
                event = await asyncio.wait_for(websocket.receive(), max(left, 0))
            except TimeoutError:
                _log.info("broker.silent_peer")
                return
            if event["type"] != "websocket.receive":
                return
            heard = time.monotonic()
            message = _message(event.get("text") or event.get("bytes") or b"")
            if message is not None:
                self._take(member, message)

    def _take(self, member: _Member, message: dict[str, Any]) -> None:
        """Do what a peer asks for; what nobody can ask for is left out."""
        kind, dst = message.get("type"), message.get("dst")
        if kind == "LEAVE" and not dst:
            member.leave()
        elif isinstance(kind, str) and kind in _RELAYED and isinstance(dst, str) and 0 < len(dst) <= 128:
            self._relay({"type": kind, "src": member.id, "dst": dst, "payload": message.get("payload")})

    def _relay(self, message: dict[str, Any]) -> None:
        member = self._members.get(message["dst"])
        if member is not None:
            member.tell(message)
        elif message["type"] in _EXPIRING:
            if sum(map(len, self._pending.values())) >= MAX_PENDING:
                self._expire(message)
                return
            self._pending.setdefault(message["dst"], []).append(message)
            timer: asyncio.TimerHandle | None = None

            def end() -> None:
                self._timers.discard(cast("asyncio.TimerHandle", timer))
                self._end_wait(message)

            timer = asyncio.get_running_loop().call_later(self._options.expire_after, end)
            self._timers.add(timer)

    def _end_wait(self, message: dict[str, Any]) -> None:
        waiting = self._pending.get(message["dst"], [])
        if not any(each is message for each in waiting):
            return
        # It is said once of all that this sender told that peer, as the PeerJS server does.
        waiting[:] = [each for each in waiting if each["src"] != message["src"]]
        if not waiting:
            del self._pending[message["dst"]]
        self._expire(message)

    def _expire(self, message: dict[str, Any]) -> None:
        sender = self._members.get(message["src"])
        if sender is not None:
            sender.tell({"type": "EXPIRE", "src": message["dst"], "dst": message["src"]})


def _message(frame: str | bytes) -> dict[str, Any] | None:
    if len(frame) > MAX_MESSAGE:
        return None
    try:
        value = from_json(frame)
    except (msgspec.DecodeError, UnicodeError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None
