"""The broker over real sockets: PeerJS's protocol, its limits, and who is let in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from computeragent.errors import PeerError
from computeragent.p2p import BrokerOptions, open_broker
from computeragent.p2p.broker import MAX_MESSAGE, MAX_PENDING

pytestmark = pytest.mark.anyio


def url(port: int, peer_id: str, *, token: str = "t", key: str = "peerjs", path: str = "/") -> str:
    return f"ws://127.0.0.1:{port}{path}peerjs?key={key}&id={peer_id}&token={token}&version=1.5.5"


@asynccontextmanager
async def member(port: int, peer_id: str, **given: Any) -> AsyncGenerator[ClientConnection]:
    async with connect(url(port, peer_id, **given)) as socket:
        assert await heard(socket) == {"type": "OPEN"}
        yield socket


async def heard(socket: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), 10))


async def refused(port: int, peer_id: str, **given: Any) -> Any:
    async with connect(url(port, peer_id, **given)) as socket:
        answer = await heard(socket)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 10)
        return answer


async def test_a_random_id_for_whoever_asks(broker_port: int) -> None:
    async with httpx2.AsyncClient(base_url=f"http://localhost:{broker_port}") as client:
        first, second = await client.get("/peerjs/id"), await client.get("/peerjs/id?ts=1&version=1.5.5")
        assert first.status_code == 200
        assert len(first.text) == 32
        assert first.text != second.text
        assert (await client.get("/")).json()["name"] == "PeerJS Server"
        assert (await client.get("/peerjs/peers")).status_code == 401


async def test_web_pages_of_this_machine_are_let_in_and_strangers_are_not() -> None:
    options = BrokerOptions(allowed_origins=["https://example.com"], allowed_hosts=["desk.local"])
    async with open_broker(port=0, options=options) as port, httpx2.AsyncClient() as client:
        at = f"http://127.0.0.1:{port}/peerjs/id"
        for origin in ("http://localhost:3000", "http://127.0.0.1", "https://example.com"):
            answer = await client.get(at, headers={"origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin
        for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
            assert (await client.get(at, headers={"origin": origin})).status_code == 403
            with pytest.raises(InvalidStatus):
                async with connect(url(port, "page"), origin=origin):  # type: ignore[arg-type]
                    pass
        assert (await client.get(at, headers={"host": "evil.example"})).status_code == 403
        assert (await client.get(at, headers={"host": f"desk.local:{port}"})).status_code == 200


async def test_a_path_and_a_key_of_ones_own() -> None:
    async with open_broker(port=0, options=BrokerOptions(path="/meet", key="ours")) as port:
        async with member(port, "a", key="ours", path="/meet/"):
            pass
        answer = await refused(port, "b", path="/meet/")
        assert answer == {"type": "ERROR", "payload": {"msg": "Invalid key provided"}}


async def test_an_id_is_taken_unless_by_the_same_peer(broker_port: int) -> None:
    async with member(broker_port, "desk", token="one") as first:
        answer = await refused(broker_port, "desk", token="two")
        assert answer == {"type": "ID-TAKEN", "payload": {"msg": "ID is taken"}}
        async with member(broker_port, "desk", token="one") as again:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(first.recv(), 10)
            async with member(broker_port, "other") as other:
                await other.send(json.dumps({"type": "OFFER", "dst": "desk", "payload": {}}))
                assert (await heard(again))["type"] == "OFFER"
    async with member(broker_port, "desk", token="three"):
        pass  # it is free again


@pytest.mark.parametrize("peer_id", ["", "a%20%20b", "-a", "%F0%9F%90%8C", "x" * 129])
async def test_an_id_that_is_not_valid_is_refused(broker_port: int, peer_id: str) -> None:
    assert (await refused(broker_port, peer_id))["type"] == "ERROR"


async def test_messages_are_relayed_with_their_true_sender(broker_port: int) -> None:
    async with member(broker_port, "a") as a, member(broker_port, "b") as b:
        for kind in ("OFFER", "ANSWER", "CANDIDATE", "LEAVE", "EXPIRE"):
            await a.send(json.dumps({"type": kind, "src": "somebody-else", "dst": "b", "payload": {"n": 1}}))
            assert await heard(b) == {"type": kind, "src": "a", "dst": "b", "payload": {"n": 1}}


async def test_malformed_messages_are_left_out(broker_port: int) -> None:
    async with member(broker_port, "a") as a, member(broker_port, "b") as b:
        for text in (
            "{",
            "[]",
            "1",
            '{"type":"OFFER"}',
            '{"type":"ADMIN","dst":"b"}',
            '{"type":5,"dst":["b"]}',
            '{"type":[1],"dst":"b"}',
        ):
            await a.send(text)
        await a.send(b"\xff\xfe")
        await a.send('{"type":"OFFER","dst":"b","payload":"the first that is one"}')
        assert (await heard(b))["payload"] == "the first that is one"


async def test_a_peer_that_comes_late_hears_what_waited(broker_port: int) -> None:
    async with member(broker_port, "a") as a:
        await a.send('{"type":"OFFER","dst":"late","payload":1}')
        await a.send('{"type":"CANDIDATE","dst":"late","payload":2}')
        await a.send('{"type":"HEARTBEAT"}')
        await asyncio.sleep(0.05)
        async with member(broker_port, "late") as late:
            assert [(await heard(late))["payload"], (await heard(late))["payload"]] == [1, 2]
            with pytest.raises(TimeoutError):  # nothing expires that was delivered
                await asyncio.wait_for(a.recv(), 0.6)


async def test_what_nobody_takes_expires(broker_port: int) -> None:
    async with member(broker_port, "a") as a:
        await a.send('{"type":"OFFER","dst":"nobody","payload":1}')
        await a.send('{"type":"CANDIDATE","dst":"nobody","payload":1}')
        assert await heard(a) == {"type": "EXPIRE", "src": "nobody", "dst": "a"}
        with pytest.raises(TimeoutError):  # it is said once
            await asyncio.wait_for(a.recv(), 0.6)


async def test_what_waits_is_bounded() -> None:
    async with open_broker(port=0, options=BrokerOptions(expire_after=60)) as port, member(port, "a") as a:
        for n in range(MAX_PENDING + 1):
            await a.send(json.dumps({"type": "OFFER", "dst": f"nobody-{n}", "payload": n}))
        assert await heard(a) == {"type": "EXPIRE", "src": f"nobody-{MAX_PENDING}", "dst": "a"}


async def test_a_message_that_is_too_large_ends_its_sender(broker_port: int) -> None:
    async with member(broker_port, "a") as a:
        await a.send("x" * (MAX_MESSAGE + 1))
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(a.recv(), 10)
    async with member(broker_port, "a"):
        pass


async def test_a_silent_peer_is_dropped_and_one_with_a_heartbeat_is_not() -> None:
    async with (
        open_broker(port=0, options=BrokerOptions(silent_after=0.6)) as port,
        member(port, "silent") as silent,
        member(port, "alive") as alive,
    ):
        for _ in range(8):
            await alive.send('{"type":"HEARTBEAT"}')
            await asyncio.sleep(0.1)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(silent.recv(), 10)
        await alive.send('{"type":"OFFER","dst":"alive","payload":1}')
        assert (await heard(alive))["type"] == "OFFER"


async def test_who_leaves_is_gone(broker_port: int) -> None:
    async with member(broker_port, "a", token="one") as a:
        await a.send('{"type":"LEAVE"}')
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(a.recv(), 10)
        async with member(broker_port, "a", token="two"):
            pass


async def test_how_many_are_there_is_bounded() -> None:
    async with open_broker(port=0, options=BrokerOptions(max_peers=1)) as port, member(port, "a"):
        assert (await refused(port, "b"))["type"] == "ERROR"


async def test_a_port_that_is_taken_is_an_error(broker_port: int) -> None:
    with pytest.raises(PeerError, match="cannot listen"):
        async with open_broker(port=broker_port):
            pass
