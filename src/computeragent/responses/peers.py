"""`/responses` over WebRTC: a PeerJS peer that answers the same requests, and a broker to find it by."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from computeragent.errors import ValidationError
from computeragent.p2p import BrokerOptions, Peer, PeerOptions, open_broker, serve
from computeragent.responses import bodies
from computeragent.server.auth import Principal
from computeragent.wire.encoding import from_json

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from computeragent.responses.runs import Run
    from computeragent.responses.service import Responses

DEFAULT_ID = "computer-agent-proxy"
_PEER = Principal("peer", local=True)


def _silent(line: str) -> None:
    del line


@dataclass(frozen=True, kw_only=True)
class PeerChoice:
    """The peer of a server.

    `options` says how it is reached; a `secret` in them is asked of everybody. Without `signaling_host` the broker is
    one of our own, on the options' port of this machine. `told` gets a line when the peer is there.
    """

    peer_id: str = DEFAULT_ID
    options: PeerOptions = field(default_factory=PeerOptions)
    signaling_host: str | None = None
    welcome: bool = True
    told: Callable[[str], None] = field(default=_silent, compare=False)


@asynccontextmanager
async def serving(choice: PeerChoice, responses: Responses) -> AsyncGenerator[Peer]:
    """A peer that answers while the block runs. Raises `PeerError` and its kin when it cannot be had."""
    async with AsyncExitStack() as stack:
        options = choice.options
        if choice.signaling_host is None:
            host = "127.0.0.1" if options.exposure == "loopback" else "0.0.0.0"  # noqa: S104 - asked for
            named = BrokerOptions(allowed_hosts=() if options.exposure == "loopback" else ("*",))
            port = await stack.enter_async_context(open_broker(host, options.port, named))
            options = replace(options, host="127.0.0.1", port=port)
        else:
            options = replace(options, host=choice.signaling_host)
        peer = await stack.enter_async_context(Peer(choice.peer_id, options))
        answering = asyncio.create_task(serve(peer, Desk(responses).answer, welcome=choice.welcome))
        stack.push_async_callback(_ended, answering)
        choice.told(f"Agent proxy started at peer://{peer.id}, by the broker at {options.host}:{options.port}")
        yield peer


class Desk:
    """Answers what peers ask."""

    def __init__(self, responses: Responses) -> None:
        self._responses = responses

    async def answer(self, body: dict[str, Any]) -> dict[str, Any] | AsyncIterator[dict[str, Any]]:
        """The reply to a request: an envelope, or the events of a stream. Whoever leaves before ends the work."""
        request = bodies.create_from(body)
        if request.background:
            raise ValidationError("a peer cannot read a response later", hint="Leave `background` out.")
        run = self._responses.create(request, _PEER)
        if request.stream:
            return _events(run)
        try:
            await run.done.wait()
        except asyncio.CancelledError:
            await run.close()
            raise
        return bodies.envelope(run.as_dict())


async def _events(run: Run) -> AsyncGenerator[dict[str, Any]]:
    stream = run.stream()
    try:
        while page := await stream.page():
            for recorded in page:
                yield from_json(recorded.data)
    finally:
        stream.close()
        await run.close()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def serve_peers(app: Starlette) -> int:
    """Run an application's peer, without its HTTP, until interrupted."""

    async def until_told() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with app.router.lifespan_context(app):
            await stop.wait()

    asyncio.run(until_told())
    return 0
