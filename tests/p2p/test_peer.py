"""Peers with each other, over real WebRTC: being found, talking, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from websockets.asyncio.client import connect

from computeragent.errors import (
    ComputerAgentError,
    PeerError,
    PeerIdTakenError,
    PeerMessageError,
    PeerUnavailableError,
    UnsupportedRuntimeError,
    ValidationError,
)
from computeragent.p2p import BrokerOptions, Connection, Peer, PeerOptions, open_broker

from .conftest import At

pytestmark = pytest.mark.anyio


async def echoing(peer: Peer) -> None:
    async for connection in peer.connections():
        await echo(connection)


async def echo(connection: Connection) -> None:
    try:
        async for message in connection:
            await connection.send(message)
    except PeerError:
        pass


class Echo:
    """A peer that sends back what it hears, to everybody at once."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.seen: list[Connection] = []
        peer.on("connection", self.seen.append)
        peer.on("connection", echo)


async def test_the_sample_of_the_documentation(at: At, broker_port: int) -> None:
    async with Peer("computer-agent-proxy", at()) as proxy:
        Echo(proxy)
        peer = Peer(id="client", peer_options=PeerOptions(host="localhost", port=broker_port))
        await peer.start()
        connection = peer.connect("computer-agent-proxy")
        request = {"model": "anthropic/claude-3-5-sonnet-20241022", "input": "Hello from P2P!"}
        await connection.send(json.dumps(request))
        assert json.loads(await connection.receive()) == request
        await peer.close()
        assert connection.closed


@pytest.mark.parametrize("reliable", [True, False])
@pytest.mark.parametrize(
    ("serialization", "message"),
    [
        ("binary", {"text": "é" * 200_000, "bytes": bytes(range(256)), "list": [1, None, True, 1.5]}),
        ("binary-utf8", "x" * 100_000),
        ("json", {"text": "é" * 50_000}),
        ("raw", "é" * 50_000),
        ("raw", bytes(range(256)) * 400),
    ],
)
async def test_messages_of_each_serialization(at: At, serialization: str, message: Any, reliable: bool) -> None:
    async with Peer(options=at()) as server, Peer(options=at()) as client:
        echo = Echo(server)
        async with client.connect(server.id, serialization=serialization, reliable=reliable) as connection:
            await connection.send(message)
            assert await connection.receive() == message
        assert (echo.seen[0].serialization, echo.seen[0].reliable) == (serialization, reliable)
        assert echo.seen[0].peer == client.id


async def test_five_megabytes_arrive_and_closing_waits_for_them(at: At) -> None:
    """Nobody is taken for dead meanwhile, although signs of life wait behind the data."""
    busy = at(heartbeat=0.1, dead_after=0.5)
    async with Peer(options=busy) as server, Peer(options=busy) as client:
        connection = client.connect(server.id)
        await connection.send(b"x" * 5_000_000)
        closing = asyncio.create_task(connection.close())
        incoming = await anext(server.connections())
        assert len(await incoming.receive()) == 5_000_000
        await closing
        await incoming.wait_closed()
        assert incoming.error is None


async def test_messages_keep_their_order(at: At) -> None:
    async with Peer(options=at()) as server, Peer(options=at()) as client:
        connection = client.connect(server.id)
        for n in range(300):
            await connection.send(n)
        incoming = await anext(server.connections())
        assert [await incoming.receive() for _ in range(300)] == list(range(300))


async def test_events_tell_of_a_life(at: At) -> None:
    told: list[Any] = []
    async with Peer("server", at()) as server, Peer("client", at()) as client:
        server.on("connection", lambda connection: connection.on("data", lambda data: told.append(("data", data))))
        connection = client.connect("server", metadata={"who": "me"}, label="talk")
        for event in ("open", "close", "error"):
            connection.on(event, lambda *values, event=event: told.append((event, *values)))
        await connection.send("hello")
        await connection.close()
        assert sorted(told) == [("close",), ("data", "hello"), ("open",)]
        assert (connection.open, connection.closed, connection.error) == (False, True, None)
        with pytest.raises(PeerError, match="closed"):
            await connection.send("more")
        with pytest.raises(ValidationError, match="no event"):
            connection.on("dta", print)


async def test_what_came_before_the_callback_is_told_to_it(at: At) -> None:
    async with Peer(options=at()) as server, Peer(options=at()) as client:
        connection = client.connect(server.id, metadata={"n": 1}, label="talk")
        for n in range(3):
            await connection.send(n)
        incoming = await anext(server.connections())
        assert (incoming.metadata, incoming.label) == ({"n": 1}, "talk")
        while len(incoming._waiting) < 3:
            await asyncio.sleep(0.01)
        got: list[int] = []
        incoming.on("data", got.append)
        assert got == [0, 1, 2]


async def test_several_connections_at_once(at: At) -> None:
    async with Peer(options=at()) as server, Peer(options=at()) as client, Peer(options=at()) as other:
        Echo(server)

        async def ask(peer: Peer, n: int) -> int:
            async with peer.connect(server.id) as connection:
                await connection.send(n)
                return await connection.receive()

        answers = await asyncio.gather(*(ask(peer, n) for n, peer in enumerate([client, other] * 3)))
        assert answers == list(range(6))


async def test_an_id_that_is_taken_is_an_error(at: At) -> None:
    async with Peer("desk", at()):
        with pytest.raises(PeerIdTakenError, match="desk"):
            await Peer("desk", at()).start()


async def test_an_id_that_nobody_has_is_an_error(at: At) -> None:
    async with Peer(options=at()) as client:
        with pytest.raises(PeerUnavailableError, match="no peer 'nobody'"):
            await client.connect("nobody").opened()
        with pytest.raises(PeerUnavailableError):
            await client.connect("nobody").send("hello")


async def test_a_wrong_secret_is_like_nobody_there(at: At) -> None:
    async with Peer("desk", at(secret="open sesame")) as server, Peer(options=at()) as client:
        echo = Echo(server)
        for metadata in (None, "open sesame", {}, {"secret": "wrong"}, {"secret": 1}, {"secret": "\ud800"}):
            with pytest.raises(PeerUnavailableError) as caught:
                await client.connect("desk", metadata=metadata).opened()
            assert caught.value.message == "there is no peer 'desk' that lets this one in"
        assert echo.seen == []
        async with client.connect("desk", metadata={"secret": "open sesame", "who": "me"}) as connection:
            await connection.send("hello")
            assert await connection.receive() == "hello"
        assert [each.metadata for each in echo.seen] == [{"who": "me"}]


def test_secrets_are_in_no_representation() -> None:
    options = PeerOptions(secret="s3cret", exposure="all", ice_servers=[{"urls": "turn:a", "credential": "s3cret"}])
    assert "s3cret" not in repr(options)


async def test_nobody_at_the_broker_is_an_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(PeerError, match="cannot be reached"):
            await Peer(options=PeerOptions(host="127.0.0.1", port=unused.getsockname()[1])).start()


async def test_a_broker_that_refuses_says_why(broker_port: int) -> None:
    with pytest.raises(PeerError, match="Invalid key provided"):
        await Peer(options=PeerOptions(port=broker_port, key="wrong")).start()


async def test_a_broker_that_restarts_is_found_again_and_connections_outlive_it() -> None:
    async with open_broker(port=0) as port:
        options = PeerOptions(port=port)
        server, client = await Peer("desk", options).start(), await Peer(options=options).start()
        Echo(server)
        before = await client.connect("desk").opened()
    await before.send("without a broker")
    assert await before.receive() == "without a broker"
    async with open_broker(port=port):
        after = client.connect("desk")
        await after.send("with a new one")
        assert await after.receive() == "with a new one"
        await client.close()
        await server.close()


async def test_bytes_that_are_no_message_end_their_connection_alone(at: At) -> None:
    async with Peer(options=at()) as server, Peer(options=at()) as client:
        echo = Echo(server)
        fine = await client.connect(server.id).opened()
        for frame in (b"\xd4", b"\xb5cut", "text", b"\x91" * 10_000, b""):
            bad = await client.connect(server.id).opened()
            bad._channel.send(frame)
            await asyncio.wait_for(bad.wait_closed(), 10)
            assert isinstance(echo.seen[-1].error, PeerMessageError)
        await fine.send("still there")
        assert await fine.receive() == "still there"


async def test_a_message_that_is_too_large_ends_the_connection(at: At) -> None:
    async with Peer(options=at(max_message=100_000)) as server, Peer(options=at()) as client:
        echo = Echo(server)
        connection = await client.connect(server.id).opened()
        await connection.send("x" * 300_000)
        await asyncio.wait_for(connection.wait_closed(), 10)
        assert isinstance(echo.seen[0].error, PeerMessageError)
        with pytest.raises(PeerMessageError, match="larger than"):
            await (await client.connect(server.id, serialization="json").opened()).send("x" * 300_000)


async def test_who_reads_too_slowly_does_not_fill_the_memory(at: At) -> None:
    async with Peer(options=at(max_message=50_000)) as server, Peer(options=at()) as client:
        connection = await client.connect(server.id).opened()
        incoming = await anext(server.connections())
        with pytest.raises(PeerError):
            await send_for_ever(connection)
        await asyncio.wait_for(incoming.wait_closed(), 10)
        assert isinstance(incoming.error, PeerMessageError)


async def send_for_ever(connection: Connection) -> None:
    while True:
        await connection.send("x" * 10_000)
        await asyncio.sleep(0)


async def test_how_many_connections_there_are_is_bounded(at: At) -> None:
    async with Peer(options=at(max_connections=1)) as server, Peer(options=at()) as client:
        Echo(server)
        async with client.connect(server.id):
            with pytest.raises(PeerUnavailableError):
                await client.connect(server.id).opened()
        while server._connections:
            await asyncio.sleep(0.01)
        await client.connect(server.id).opened()


OFFER = {"type": "data", "connectionId": "dc_1", "serialization": "binary", "reliable": True}
AUDIO = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "text",
        {"connectionId": 5},
        {"connectionId": "x" * 300},
        {**OFFER, "type": "media"},
        {**OFFER, "serialization": "pickle"},
        {**OFFER, "serialization": ["binary"]},
        {**OFFER, "sdp": None},
        {**OFFER, "sdp": {"type": "offer", "sdp": "nonsense"}},
        {**OFFER, "sdp": {"type": "answer", "sdp": AUDIO}},
        {**OFFER, "sdp": {"type": "offer", "sdp": AUDIO}},
    ],
)
async def test_a_malformed_offer_harms_nobody(at: At, broker_port: int, payload: Any) -> None:
    async with Peer("desk", at()) as server, Peer(options=at()) as client:
        Echo(server)
        async with connect(f"ws://127.0.0.1:{broker_port}/peerjs?key=peerjs&id=rogue&token=t") as rogue:
            await rogue.recv()
            await rogue.send(json.dumps({"type": "OFFER", "dst": "desk", "payload": payload}))
            for candidate in (None, {"candidate": 5}, {"candidate": "candidate:nonsense"}):
                signal = {"candidate": candidate, "connectionId": "dc_1", "type": "data"}
                await rogue.send(json.dumps({"type": "CANDIDATE", "dst": "desk", "payload": signal}))
            await rogue.send(json.dumps({"type": "ANSWER", "dst": "desk", "payload": payload}))
            async with client.connect("desk") as connection:
                await connection.send("fine")
                assert await connection.receive() == "fine"
        while any(each.peer == "rogue" for each in server._connections.values()):
            await asyncio.sleep(0.01)


async def test_an_answer_that_never_comes_is_an_error(at: At, broker_port: int) -> None:
    async with connect(f"ws://127.0.0.1:{broker_port}/peerjs?key=peerjs&id=mute&token=t") as mute:
        await mute.recv()
        async with Peer(options=at(open_timeout=0.5)) as client:
            connection = client.connect("mute")
            assert json.loads(await mute.recv())["type"] == "OFFER"
            with pytest.raises(PeerUnavailableError, match=r"within 0\.5 s"):
                await connection.opened()


@pytest.mark.parametrize("exposure", ["loopback", "lan"])
async def test_only_addresses_within_the_exposure_are_offered(at: At, exposure: Any) -> None:
    import ipaddress

    async with Peer(options=at(exposure=exposure)) as server, Peer(options=at()) as client:
        Echo(server)
        connection = await client.connect(server.id).opened()
        (incoming,) = server._connections.values()
        listening = [ipaddress.ip_address(protocol.local_candidate.host) for protocol in _ice(incoming)._protocols]
        assert any(address.is_loopback for address in listening)
        assert all(address.is_private for address in listening)
        if exposure == "loopback":
            assert [str(address) for address in listening] == ["127.0.0.1"]
        await connection.close()


async def test_other_users_of_aiortc_notice_nothing(at: At) -> None:
    import aioice.ice

    before = (aioice.ice.get_host_addresses, aioice.ice.Connection.get_component_candidates)
    async with Peer(options=at()) as server, Peer(options=at()) as client:
        await client.connect(server.id).opened()
        assert (aioice.ice.get_host_addresses, aioice.ice.Connection.get_component_candidates) == before


def _ice(connection: Connection) -> Any:
    return connection._connection.sctp.transport.transport.iceGatherer._connection


def test_options_that_cannot_be_meant_are_an_error() -> None:
    for given in (
        {"exposure": "world"},
        {"ice_servers": ["stun:example.com"]},
        {"secret": ""},
        {"heartbeat": 7.0},
        {"port": 0},
        {"max_connections": 0},
    ):
        with pytest.raises(ValidationError):
            PeerOptions(**given)  # type: ignore[arg-type]
    for peer_id in ("", " a", "a  b", "ü", "a" * 129):
        with pytest.raises(ValidationError, match="peer id"):
            Peer(peer_id)
    with pytest.raises(ValidationError, match="same thing"):
        Peer("a", PeerOptions(), peer_options=PeerOptions())


async def test_a_peer_is_started_once_and_used_while_it_is(at: At) -> None:
    peer = Peer(options=at())
    with pytest.raises(PeerError, match="not started"):
        peer.connect("desk")
    async with peer:
        with pytest.raises(PeerError, match="started once"):
            await peer.start()
        for wrong in ({"id": "a b  c"}, {"id": "desk", "serialization": "yaml"}):
            with pytest.raises(ValidationError):
                peer.connect(**wrong)
    await peer.close()
    with pytest.raises(PeerError, match="closed"):
        peer.connect("desk")


async def test_without_the_extra_it_says_what_to_install(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "aiortc", None)
    with pytest.raises(ComputerAgentError) as caught:
        await Peer(options=at()).start()
    assert (caught.value.code, caught.value.hint) == ("MISSING_EXTRA", "pip install 'computer-agent-py[p2p]'")


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_gets_a_clear_error(anyio_backend: str) -> None:
    with pytest.raises(UnsupportedRuntimeError, match="asyncio"):
        await Peer().start()


async def test_broker_options_are_those_of_the_peer() -> None:
    async with (
        open_broker(port=0, options=BrokerOptions(path="/meet", key="ours")) as port,
        Peer(options=PeerOptions(port=port, path="meet", key="ours")) as peer,
    ):
        assert peer.open
