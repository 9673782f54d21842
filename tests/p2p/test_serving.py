"""Requests of peers: their forms, their replies, their ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from computeragent.errors import UnknownModelError
from computeragent.p2p import Connection, Peer, serve

from .conftest import At

pytestmark = pytest.mark.anyio


class Desk:
    """A handler that does what a request's `do` says."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.cancelled: list[Any] = []
        self.started = asyncio.Event()

    async def __call__(self, request: dict[str, Any]) -> dict[str, Any] | AsyncIterator[dict[str, Any]]:
        self.requests.append(request)
        match request.get("do"):
            case "wait":
                self.started.set()
                await self._wait(request)
            case "stream":
                return self._stream(request)
            case "refuse":
                raise UnknownModelError("no provider serves 'x'", hint="Try another.")
            case "fail":
                raise RuntimeError("with a secret in it")
            case "much":
                return {"text": "x" * 300_000}
        return {"success": True, "result": {"output": []}, "model": request.get("model")}

    async def _wait(self, request: dict[str, Any]) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.append(request.get("n"))
            raise

    async def _stream(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for n in range(3):
            yield {"type": "response.output_text.delta", "n": n}
        if request.get("then") == "fail":
            raise UnknownModelError("the model went away")
        if request.get("then") == "wait":
            self.started.set()
            await self._wait(request)


@asynccontextmanager
async def serving(at: At, desk: Desk, *, welcome: bool = False, **given: Any) -> AsyncGenerator[Peer]:
    async with Peer("desk", at()) as server, Peer(options=at()) as client:
        task = asyncio.create_task(serve(server, desk, welcome=welcome, **given))
        try:
            yield client
        finally:
            task.cancel()
            await asyncio.wait({task})


async def ask(connection: Connection, request: Any) -> Any:
    await connection.send(request)
    return await connection.receive()


async def test_a_connection_begins_with_a_welcome(at: At) -> None:
    async with serving(at, Desk(), welcome=True) as client, client.connect("desk") as connection:
        assert json.loads(await connection.receive()) == {
            "type": "welcome",
            "message": "Connected to ComputerAgent Proxy",
            "endpoints": ["/responses"],
        }


async def test_a_reply_has_the_form_of_its_request(at: At) -> None:
    desk = Desk()
    reply = {"success": True, "result": {"output": []}, "model": "m"}
    async with serving(at, desk) as client, client.connect("desk") as connection:
        assert json.loads(await ask(connection, '{"model": "m", "input": "hi"}')) == reply
        assert json.loads(await ask(connection, b'{"model": "m", "input": "hi"}')) == reply
        assert await ask(connection, {"model": "m", "input": "hi"}) == reply
        assert desk.requests == [{"model": "m", "input": "hi"}] * 3


async def test_requests_in_the_form_of_http(at: At) -> None:
    desk = Desk()
    async with serving(at, desk) as client, client.connect("desk") as connection:
        request = {"method": "POST", "path": "/responses", "headers": {}, "body": {"model": "m"}}
        answer = await ask(connection, request)
        assert answer["status"] == 200
        assert answer["headers"] == {"Content-Type": "application/json"}
        assert answer["body"]["success"] is True
        assert (await ask(connection, {**request, "body": '{"model": "m"}'}))["status"] == 200
        assert (await ask(connection, {**request, "path": "/etc/passwd"}))["status"] == 404
        assert (await ask(connection, {**request, "method": "DELETE"}))["status"] == 400
        assert (await ask(connection, {**request, "body": None}))["status"] == 400
        refused = await ask(connection, {**request, "body": {"do": "refuse", "model": "x"}, "request_id": "r"})
        assert (refused["status"], refused["request_id"]) == (400, "r")
        assert refused["body"] == {
            "success": False,
            "error": "no provider serves 'x'",
            "code": "UNKNOWN_MODEL",
            "hint": "Try another.",
            "model": "x",
        }
        assert desk.requests == [{"model": "m"}, {"model": "m"}, {"do": "refuse", "model": "x"}]


async def test_replies_are_told_apart_by_their_request_id(at: At) -> None:
    async with serving(at, Desk()) as client, client.connect("desk") as connection:
        await connection.send({"do": "stream", "then": "wait", "request_id": "slow"})
        await connection.send('{"model": "m", "request_id": 2}')
        messages = [await connection.receive() for _ in range(4)]
        texts = [json.loads(message) for message in messages if isinstance(message, str)]
        assert [text["request_id"] for text in texts] == [2]
        assert [message["n"] for message in messages if not isinstance(message, str)] == [0, 1, 2]


async def test_events_are_messages(at: At) -> None:
    async with serving(at, Desk()) as client, client.connect("desk") as connection:
        await connection.send({"do": "stream", "then": "fail", "request_id": "r"})
        events = [await connection.receive() for _ in range(4)]
        assert events[:3] == [{"type": "response.output_text.delta", "n": n, "request_id": "r"} for n in range(3)]
        assert events[3] == {
            "success": False,
            "error": "the model went away",
            "code": "UNKNOWN_MODEL",
            "request_id": "r",
        }
        await connection.send({"method": "POST", "path": "/responses", "body": {"do": "stream"}})
        first = await connection.receive()
        assert (first["headers"]["Content-Type"], first["body"]["n"]) == ("text/event-stream", 0)


async def test_what_is_no_request_gets_a_clear_error(at: At) -> None:
    desk = Desk()
    async with serving(at, desk) as client, client.connect("desk") as connection:
        answer = json.loads(await ask(connection, "{not json"))
        assert answer == {"success": False, "error": "Invalid JSON in request", "code": "VALIDATION"}
        for request in ("[]", "1", "null", "", "[" * 5000, 5, None, [1]):
            assert json.loads(await ask(connection, request))["code"] == "VALIDATION"
        for request_id in (True, 1.5, [], "x" * 300):
            assert (await ask(connection, {"request_id": request_id}))["code"] == "VALIDATION"
        assert desk.requests == []


async def test_what_a_handler_raises_stays_here(at: At) -> None:
    async with serving(at, Desk()) as client, client.connect("desk") as connection:
        answer = await ask(connection, {"do": "fail", "model": "m"})
        assert answer == {"success": False, "error": "the request failed", "code": "INTERNAL", "model": "m"}
        assert (await ask(connection, {"model": "m"}))["success"] is True


async def test_a_reply_too_large_for_the_connection_says_so(at: At) -> None:
    async with serving(at, Desk()) as client:
        async with client.connect("desk", serialization="json") as connection:
            answer = await ask(connection, {"do": "much"})
            assert answer["code"] == "PEER_MESSAGE"
        async with client.connect("desk") as connection:
            assert len((await ask(connection, {"do": "much"}))["text"]) == 300_000


async def test_a_connection_has_only_so_many_requests_under_way(at: At) -> None:
    async with serving(at, Desk(), max_requests=2) as client, client.connect("desk") as connection:
        for n in range(3):
            await connection.send({"do": "wait", "request_id": n})
        assert await connection.receive() == {
            "success": False,
            "error": "2 requests of this connection are under way",
            "code": "TOO_MANY_SESSIONS",
            "hint": "Wait for one of their replies.",
            "request_id": 2,
        }
        async with client.connect("desk") as other:
            assert (await ask(other, {"model": "m"}))["success"] is True


async def test_a_request_is_given_up_when_asked_to(at: At) -> None:
    desk = Desk()
    async with serving(at, desk) as client, client.connect("desk") as connection:
        await connection.send({"do": "wait", "n": 1, "request_id": "one"})
        await desk.started.wait()
        await connection.send({"type": "cancel", "request_id": "another"})
        await connection.send({"type": "cancel"})
        assert (await ask(connection, {"model": "m"}))["success"] is True
        assert desk.cancelled == []
        await connection.send({"type": "cancel", "request_id": "one"})
        assert (await ask(connection, {"model": "m"}))["success"] is True
        assert desk.cancelled == [1]


@pytest.mark.parametrize("request_", [{"do": "wait", "n": 1}, {"do": "stream", "then": "wait", "n": 1}])
async def test_requests_of_a_peer_that_leaves_are_cancelled(at: At, request_: dict[str, Any]) -> None:
    desk = Desk()
    async with serving(at, desk) as client:
        async with client.connect("desk") as connection:
            await connection.send(request_)
            await desk.started.wait()
        for _ in range(500):
            if desk.cancelled:
                break
            await asyncio.sleep(0.01)
        assert desk.cancelled == [1]


async def test_serving_ends_with_its_peer(at: At) -> None:
    async with Peer("desk", at()) as server, Peer(options=at()) as client:
        serving = asyncio.create_task(serve(server, Desk()))
        connection = await client.connect("desk").opened()
        await server.close()
        await asyncio.wait_for(serving, 10)
        await asyncio.wait_for(connection.wait_closed(), 10)
