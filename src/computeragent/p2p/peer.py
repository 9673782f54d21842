"""A PeerJS peer: an id at a broker under which others find it, and connections to them over WebRTC."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any, Self, cast

from computeragent.errors import PeerError, PeerUnavailableError, UnsupportedRuntimeError, ValidationError
from computeragent.logs import Logger
from computeragent.p2p.connection import Connection
from computeragent.p2p.events import Events
from computeragent.p2p.ice import load
from computeragent.p2p.options import PeerOptions
from computeragent.p2p.serialization import NAMES
from computeragent.p2p.signalling import Signalling, check_peer_id, new_peer_id

_MAX_EARLY = (64, 16)  # connections whose candidates came before their offer, and candidates of each
_log = Logger("p2p")


class Peer:
    """Finds other peers through a PeerJS broker and lets them find it; speaks with the JavaScript client, too.

    Use it as an async context manager, or with `start` and `close`. `id` is random when left out. Connections that
    others open come from `connections()`, or to ``on("connection", callback)``. Runs under asyncio, and needs the
    ``[p2p]`` extra.
    """

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - as PeerJS calls it
        options: PeerOptions | None = None,
        *,
        peer_options: PeerOptions | None = None,
    ) -> None:
        if options is not None and peer_options is not None:
            raise ValidationError("options and peer_options are the same thing", hint="Give one of them.")
        self.id = new_peer_id() if id is None else check_peer_id(id)
        self.options = options or peer_options or PeerOptions()
        self._events = Events("open", "connection", "close")
        self._signalling = Signalling(self.id, self.options, self._on_message)
        self._connections: dict[tuple[str, str], Connection] = {}
        self._early: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._incoming: asyncio.Queue[Connection | None] = asyncio.Queue()
        self._replies: set[asyncio.Task[None]] = set()
        self._state = "new"

    @property
    def open(self) -> bool:
        """Whether the broker knows this peer now; connections that were made live on without it."""
        return self._state == "started" and self._signalling.is_connected

    async def start(self) -> Self:
        """Take the id at the broker.

        Raises `PeerIdTakenError`, `PeerError` without a broker, `MissingExtraError` without the extra, and
        `UnsupportedRuntimeError` under trio.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise UnsupportedRuntimeError("a Peer runs under asyncio only") from None
        if self._state != "new":
            raise PeerError("a peer is started once", hint="Make another Peer.")
        for name in ("aiortc", "websockets"):
            load(name)
        await self._signalling.start()
        self._state = "started"
        self._events.emit("open", self.id)
        return self

    async def close(self) -> None:
        """End every connection and give up the id. Does nothing the second time."""
        if self._state == "closed":
            return
        self._state = "closed"
        self._incoming.put_nowait(None)
        await asyncio.gather(*(each.close() for each in list(self._connections.values())), return_exceptions=True)
        for task in list(self._replies):
            task.cancel()
        await self._signalling.close()
        self._events.emit("close")

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def on(self, event: str, callback: Callable[..., Any]) -> None:
        """Call `callback`, plain or async, at ``open`` (id), ``connection`` (a `Connection`), ``close``."""
        self._events.on(event, callback)

    def connect(
        self,
        id: str,  # noqa: A002 - as PeerJS calls it
        *,
        serialization: str = "binary",
        reliable: bool = True,
        metadata: Any = None,
        label: str | None = None,
    ) -> Connection:
        """A connection to the peer of an id. It is being made: `opened()` waits for it, and so does `send`.

        `reliable` keeps the order of messages; unlike in JavaScript it is the default. `metadata` is JSON that the
        other side sees with the offer, such as ``{"secret": …}``. Raises `ValidationError` for an id or a serialization
        that is not valid, `PeerError` when this peer is not started.
        """
        if self._state != "started":
            raise PeerError("this peer is not started, or closed", hint="await peer.start()")
        connection_id = f"dc_{secrets.token_hex(8)}"
        connection = self._connection(
            check_peer_id(id), connection_id, name=serialization, label=label, reliable=reliable, metadata=metadata
        )
        connection.start()
        return connection

    async def connections(self) -> AsyncIterator[Connection]:
        """Connections that others open, each once it is open, until this peer is closed."""
        while (connection := await self._incoming.get()) is not None:
            yield connection
        self._incoming.put_nowait(None)

    def _connection(self, peer: str, connection_id: str, *, name: str, label: str | None, **given: Any) -> Connection:
        async def tell(kind: str, payload: dict[str, Any]) -> None:
            await self._signalling.send(kind, peer, payload)

        connection = Connection(
            peer, connection_id, self.options, tell, name=name, label=label or connection_id, **given
        )
        self._connections[peer, connection_id] = connection
        connection.on("close", lambda: self._connections.pop((peer, connection_id), None))
        return connection

    def _on_message(self, message: dict[str, Any]) -> None:
        kind, peer, payload = message.get("type"), message.get("src"), message.get("payload")
        if kind == "ERROR":
            _log.warn("broker.error")
        if not isinstance(peer, str) or not isinstance(kind, str):
            return
        if kind in {"EXPIRE", "LEAVE"}:
            self._on_gone(peer, was_there=kind == "LEAVE")
            return
        if kind not in {"OFFER", "ANSWER", "CANDIDATE"} or not isinstance(payload, dict):
            return
        given = cast("dict[str, Any]", payload)
        connection_id = given.get("connectionId")
        if not isinstance(connection_id, str) or len(connection_id) > 200:
            return
        key = (peer, connection_id)
        connection = self._connections.get(key)
        if kind == "OFFER":
            self._on_offer(peer, connection_id, given)
        elif connection is not None:
            connection.signal(kind, given)
        elif kind == "CANDIDATE":
            self._keep_early(key, given)

    def _keep_early(self, key: tuple[str, str], candidate: dict[str, Any]) -> None:
        kept = self._early.setdefault(key, [])
        if len(kept) < _MAX_EARLY[1]:
            kept.append(candidate)
        if len(self._early) > _MAX_EARLY[0]:
            self._early.pop(next(iter(self._early)))

    def _on_gone(self, peer: str, *, was_there: bool) -> None:
        """The broker knows nobody of this id, or one who does not let us in; or somebody left."""
        for connection in [each for (other, _), each in self._connections.items() if other == peer]:
            if was_there:
                connection.end(None if connection.open else PeerUnavailableError(f"peer {peer!r} left"))
            elif not connection.open:
                hint = "Is it started, at this broker, and is the secret in the metadata right?"
                connection.end(PeerUnavailableError(f"there is no peer {peer!r} that lets this one in", hint=hint))

    def _on_offer(self, peer: str, connection_id: str, offer: dict[str, Any]) -> None:
        early = self._early.pop((peer, connection_id), [])
        reason = self._refusal(peer, connection_id, offer)
        if reason is not None:
            # The same that the broker says of an id that nobody has: a stranger learns nothing of this peer.
            _log.warn("peer.refused", peer=peer, reason=reason)
            task = asyncio.create_task(self._refuse(peer))
            self._replies.add(task)
            task.add_done_callback(self._replies.discard)
            return
        name, label = cast("str | None", offer.get("serialization")), offer.get("label")
        connection = self._connection(
            peer,
            connection_id,
            name=name or "binary",
            label=label[:200] if isinstance(label, str) else None,
            reliable=offer.get("reliable") is True,
            metadata=_without_secret(offer.get("metadata")),
        )
        connection.on("open", lambda: self._on_incoming(connection))
        connection.start(offer.get("sdp"))
        for payload in early:
            connection.signal("CANDIDATE", payload)

    def _refusal(self, peer: str, connection_id: str, offer: dict[str, Any]) -> str | None:
        """Why an offer is not answered."""
        if self._state != "started":
            return "closed"
        if self.options.secret is not None and not _is_secret(self.options.secret, offer.get("metadata")):
            return "wrong secret"
        name = offer.get("serialization") or "default"
        if offer.get("type") != "data" or not isinstance(name, str) or name not in {"default", *NAMES}:
            return "not a data connection"
        if (peer, connection_id) in self._connections:
            return "offered twice"
        if len(self._connections) >= self.options.max_connections:
            return "too many connections"
        return None

    async def _refuse(self, peer: str) -> None:
        try:
            await self._signalling.send("EXPIRE", peer)
        except PeerError as error:
            _log.debug("peer.refusal_untold", error=error.message)

    def _on_incoming(self, connection: Connection) -> None:
        if self._events.has("connection"):
            self._events.emit("connection", connection)
            return
        if self._incoming.qsize() >= self.options.max_connections:  # nobody takes them
            oldest = self._incoming.get_nowait()
            if oldest is not None:
                oldest.end(PeerError("the connection was not taken"))
        self._incoming.put_nowait(connection)


def _is_secret(secret: str, metadata: Any) -> bool:
    given = cast("dict[str, Any]", metadata).get("secret") if isinstance(metadata, dict) else None
    return isinstance(given, str) and hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def _without_secret(metadata: Any) -> Any:
    if not isinstance(metadata, dict):
        return metadata
    return {key: value for key, value in cast("dict[str, Any]", metadata).items() if key != "secret"}
