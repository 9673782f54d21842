"""A data connection to one peer: from its offer to its end. Peers are met in `peer.py`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal, Self

from computeragent.errors import ComputerAgentError, PeerError, PeerMessageError, PeerUnavailableError
from computeragent.logs import Logger
from computeragent.p2p import ice
from computeragent.p2p.events import Events
from computeragent.p2p.options import PeerOptions
from computeragent.p2p.serialization import Signal, serialization

MAX_UNSENT = 4 * 1024 * 1024  # bytes on their way before `send` waits
MAX_WAITING = 10_000  # messages to be read
_MAX_SIGNALS = 128  # of a connection that is being made
_FEWEST_ASKED = 2  # times before a peer counts as dead
_FLUSH = 10.0  # seconds that closing waits for what was sent
_log = Logger("p2p")

Tell = Callable[[str, dict[str, Any]], Awaitable[None]]


class Connection:
    """Messages to and from another peer, in both directions, until one side closes.

    Read it as an async iterator, with `receive`, or with ``on("data", callback)``; once there is a callback, messages
    go there. Events: ``open``, ``data`` (message), ``error`` (a `ComputerAgentError`), ``close``.
    """

    def __init__(
        self,
        peer: str,
        connection_id: str,
        options: PeerOptions,
        tell: Tell,
        *,
        name: str,
        label: str,
        reliable: bool,
        metadata: Any = None,
    ) -> None:
        self.peer = peer
        self.id = connection_id
        self.label = label
        self.serialization = name
        self.reliable = reliable
        self.metadata = metadata
        self.error: ComputerAgentError | None = None
        self._options = options
        self._tell = tell
        self._codec = serialization(name, options.max_message)
        self._events = Events("open", "data", "error", "close")
        self._state: Literal["connecting", "open", "closed"] = "connecting"
        self._changed = asyncio.Event()  # once: open or closed
        self._ended = asyncio.Event()
        self._signals: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(_MAX_SIGNALS)
        self._waiting: deque[tuple[Any, int]] = deque()
        self._waiting_size = 0
        self._arrived = asyncio.Event()
        self._sending = asyncio.Lock()
        self._drained = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection: Any = None
        self._channel: Any = None

    @property
    def open(self) -> bool:
        """Whether messages can be sent now."""
        return self._state == "open"

    @property
    def closed(self) -> bool:
        """Whether it has ended, or was never made; then `error` says why, unless one side just closed it."""
        return self._state == "closed"

    def on(self, event: str, callback: Callable[..., Any]) -> None:
        """Call `callback`, plain or async, at each event; data that has come before is told at once."""
        self._events.on(event, callback)
        if event == "data":
            while self._waiting:
                self._events.emit("data", self._next())

    async def opened(self) -> Self:
        """Wait until it is open. Raises `PeerUnavailableError` or `PeerError` when it does not get there."""
        await self._changed.wait()
        if not self.open:
            raise self._why_closed()
        return self

    async def wait_closed(self) -> None:
        """Wait for its end."""
        await self._ended.wait()

    async def send(self, value: Any) -> None:
        """Send a message, after those sent before; waits until it is open, and while too much is on its way.

        Raises `PeerMessageError` for what cannot be sent, `PeerError` when the connection is not made or has ended.
        """
        frames = self._codec.frames(value)
        await self.opened()
        async with self._sending:
            for frame in frames:
                while self.open and self._channel.bufferedAmount > MAX_UNSENT:
                    self._drained.clear()
                    await self._drained.wait()
                if not self.open:
                    raise self._why_closed()
                try:
                    self._channel.send(frame)
                except ValueError as error:
                    raise PeerMessageError(f"the other peer does not take a message of this size: {error}") from error
                except Exception as error:
                    raise PeerError(f"the connection to peer {self.peer!r} is closing") from error

    async def receive(self) -> Any:
        """The next message. Raises `PeerError` when there will be none."""
        while not self._waiting:
            if self.closed:
                raise self._why_closed()
            self._arrived.clear()
            await self._arrived.wait()
        return self._next()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Messages until it is closed; an end that nobody asked for raises `PeerError`."""
        while True:
            try:
                message = await self.receive()
            except PeerError:
                if self.error is not None:
                    raise
                return
            yield message

    async def close(self) -> None:
        """Send what is on its way, then end it. Does nothing the second time."""
        if self.open:
            await self._flush()
        self.end(None)
        await self._ended.wait()

    async def __aenter__(self) -> Self:
        return await self.opened()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # What follows is for `Peer`.

    def start(self, offer: Any = None) -> None:
        """Make the connection: offer one, or answer an offer."""
        self._run(self._within(self._answer(offer) if offer is not None else self._offer()))
        self._run(self._require_open())

    def signal(self, kind: str, payload: Any) -> None:
        """Something came from the other side by way of the broker."""
        if self._signals.full():
            _log.warn("peer.too_many_signals", peer=self.peer)
        elif not self.closed:
            self._signals.put_nowait((kind, payload))

    def end(self, error: ComputerAgentError | None) -> None:
        """End it now; `error` is why."""
        if self.closed:
            return
        self._state, self.error = "closed", error
        for event in (self._changed, self._arrived, self._drained):
            event.set()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        if error is not None:
            self._events.emit("error", error)
        self._run(self._release())

    def _run(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _release(self) -> None:
        try:
            if self._connection is not None:
                await asyncio.wait_for(self._connection.close(), _FLUSH)
        except Exception as error:  # noqa: BLE001 - it is gone in any case
            _log.debug("peer.close_failed", error=type(error).__name__)
        finally:
            self._ended.set()
            self._events.emit("close")

    async def _within(self, work: Any) -> None:
        try:
            await work
        except ComputerAgentError as error:
            self.end(error)
        except Exception as error:  # noqa: BLE001 - what a peer sends reaches deep into aiortc
            _log.info("peer.negotiation_failed", peer=self.peer, error=type(error).__name__)
            self.end(PeerError(f"no connection to peer {self.peer!r} could be negotiated: {type(error).__name__}"))

    async def _require_open(self) -> None:
        limit = self._options.open_timeout
        try:
            await asyncio.wait_for(self._changed.wait(), limit)
        except TimeoutError:
            self.end(
                PeerUnavailableError(
                    f"peer {self.peer!r} did not open a connection within {limit:g} s",
                    hint="Are both peers within each other's exposure, and do firewalls let UDP through?",
                )
            )

    def _prepared(self) -> Any:
        connection = self._connection = ice.new_connection(self._options)
        connection.on("connectionstatechange", self._on_state)
        return connection

    async def _offer(self) -> None:
        connection = self._prepared()
        self._attach(connection.createDataChannel(self.label, ordered=self.reliable))
        ice.restrict(connection, self._options.exposure)
        await connection.setLocalDescription(await connection.createOffer())
        await self._tell("OFFER", {**self._described(), **self._parameters()})
        await self._negotiate(connection, is_described=False)

    def _parameters(self) -> dict[str, Any]:
        given = {"label": self.label, "reliable": self.reliable, "serialization": self.serialization}
        return given if self.metadata is None else {**given, "metadata": self.metadata}

    async def _answer(self, offer: Any) -> None:
        remote = ice.description(offer, "offer", self._options.exposure)
        connection = self._prepared()
        connection.on("datachannel", self._attach)
        await connection.setRemoteDescription(remote)
        if connection.sctp is None:
            raise PeerError(f"the offer of peer {self.peer!r} has no data channel")
        ice.restrict(connection, self._options.exposure)
        await connection.setLocalDescription(await connection.createAnswer())
        await self._tell("ANSWER", self._described())
        await self._negotiate(connection, is_described=True)

    def _described(self) -> dict[str, Any]:
        local = self._connection.localDescription
        return {"sdp": {"type": local.type, "sdp": local.sdp}, "type": "data", "connectionId": self.id}

    async def _negotiate(self, connection: Any, *, is_described: bool) -> None:
        """Take the answer, and candidates; those that come before the answer wait for it."""
        early: list[Any] = []
        while True:
            kind, payload = await self._signals.get()
            if kind == "ANSWER" and not is_described:
                await connection.setRemoteDescription(
                    ice.description(payload.get("sdp"), "answer", self._options.exposure)
                )
                is_described = True
                found, early = early, []
            elif kind == "CANDIDATE":
                found = [ice.candidate(payload.get("candidate"), self._options.exposure)]
            else:
                continue
            found = [candidate for candidate in found if candidate is not None]
            if not is_described:
                early += found
                continue
            for candidate in found:
                await connection.addIceCandidate(candidate)

    def _attach(self, channel: Any) -> None:
        if self._channel is not None:  # a connection of PeerJS has one channel
            channel.close()
            return
        self._channel = channel
        channel.bufferedAmountLowThreshold = MAX_UNSENT // 2
        channel.on("bufferedamountlow", self._drained.set)
        channel.on("message", self._on_frame)
        channel.on("close", lambda: self.end(None))
        if channel.readyState == "open":
            self._on_open()
        else:
            channel.on("open", self._on_open)

    def _on_open(self) -> None:
        if self._state != "connecting":
            return
        self._state = "open"
        self._changed.set()
        self._run(self._watch(ice.Pulse(self._connection)))
        self._events.emit("open")

    def _on_state(self) -> None:
        state = self._connection.connectionState
        if state == "failed":
            self.end(
                PeerError(
                    f"no path to peer {self.peer!r}",
                    hint="Each peer must be within the other's exposure, by UDP.",
                )
            )
        elif state == "closed":
            self.end(None)

    async def _watch(self, pulse: ice.Pulse) -> None:
        """End it when the other side is silent. One that was only not listened to is asked before that is believed."""
        unanswered = 0
        while unanswered < _FEWEST_ASKED or pulse.silence() < self._options.dead_after:
            await asyncio.sleep(self._options.heartbeat)
            if pulse.silence() >= self._options.heartbeat / 2:
                unanswered = 0 if await pulse.ask() else unanswered + 1
            else:
                unanswered = 0
        self.end(PeerError(f"peer {self.peer!r} has been silent for {self._options.dead_after:g} s"))

    def _on_frame(self, frame: bytes | str) -> None:
        if not self.open:
            return
        try:
            message = self._codec.read(frame)
        except PeerMessageError as error:
            _log.warn("peer.malformed", peer=self.peer, reason=error.message)
            self.end(error)
            return
        if message is Signal.INCOMPLETE:
            return
        if message is Signal.CLOSE:
            self.end(None)
        elif self._events.has("data"):
            self._events.emit("data", message)
        else:
            self._keep(message, len(frame))

    def _keep(self, message: Any, size: int) -> None:
        self._waiting.append((message, size))
        self._waiting_size += size
        self._arrived.set()
        if self._waiting_size > 2 * self._options.max_message or len(self._waiting) > MAX_WAITING:
            self.end(PeerMessageError(f"peer {self.peer!r} sends faster than its messages are read"))

    def _next(self) -> Any:
        message, size = self._waiting.popleft()
        self._waiting_size -= size
        return message

    async def _flush(self) -> None:
        """Wait until the other side has everything; WebRTC itself drops what is on its way."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH):
                while self.open and (self._channel.bufferedAmount or ice.is_sending(self._connection)):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

    def _why_closed(self) -> ComputerAgentError:
        if self.error is not None:
            return self.error
        return PeerError(f"the connection to peer {self.peer!r} is closed")
