"""Streams of the server against slow clients, and clocks that go back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from computeragent.eventlog import Channel, MemoryEventLog, RedisEventLog, SessionSummary, SharedSqliteEventLog
from computeragent.eventlog.channel import Retention
from computeragent.server.stream import LARGEST_WRITE, EventStreamResponse
from computeragent.wire.events import (
    AgentIdentity,
    Capabilities,
    CaSessionEnded,
    CaSessionStarted,
    CaTurnStarted,
    SdkMessage,
    raw_payload,
)
from computeragent.wire.sse import HEARTBEAT
from redis_server import RedisServer

from .conftest import Server, serving

pytestmark = pytest.mark.anyio


# ── Writes ──


async def channel_of(log: MemoryEventLog, texts: list[str]) -> Channel:
    """A run that is over."""
    channel = await log.open("one")
    can = Capabilities(
        streaming_input=True, partial_messages=True, permission_callback=True, sessions=True, budget=True
    )
    identity = AgentIdentity(name="a", version="1")
    channel.append(CaSessionStarted(session_id="one", engine="e", identity=identity, capabilities=can))
    for text in texts:
        channel.append(SdkMessage(session_id="one", raw=raw_payload({"text": text})))
    channel.append(CaSessionEnded(session_id="one", reason="complete"))
    await channel.flush()
    return channel


async def stays() -> dict[str, Any]:
    """The `receive` of a client that stays."""
    await asyncio.Event().wait()
    return {}


async def test_a_client_that_is_slow_but_reads_is_not_cut() -> None:
    channel = await channel_of(MemoryEventLog(), ["w" * 200_000] * 20)
    written: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            written.append(len(message["body"]))
            await asyncio.sleep(0.05)

    response = EventStreamResponse(channel.stream(), slowest=0.5)  # all of it takes longer than that
    await response({}, stays, send)
    assert response.complete
    assert len(written) * 0.05 > 0.5
    assert max(written) <= LARGEST_WRITE
    assert sum(written) > 4_000_000


async def test_a_client_that_does_not_read_is_cut_and_holds_nothing() -> None:
    channel = await channel_of(MemoryEventLog(), ["x"])

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    response = EventStreamResponse(channel.stream(), slowest=0.05)
    await response({}, stays, send)
    assert not response.complete
    assert channel.readers == 0


async def test_small_events_that_are_there_go_out_in_one_write() -> None:
    channel = await channel_of(MemoryEventLog(), ["x"] * 300)
    written: list[bytes] = []

    async def send(message: Any) -> None:
        if message.get("body"):
            written.append(message["body"])

    await EventStreamResponse(channel.stream())({}, stays, send)
    assert len(written) == 1
    assert written[0].count(b"\n\n") == 302


async def live_channel() -> Channel:
    """A run that goes on, with nothing to say."""
    log = MemoryEventLog()
    channel = await log.open("one")
    can = Capabilities(
        streaming_input=True, partial_messages=True, permission_callback=True, sessions=True, budget=True
    )
    identity = AgentIdentity(name="a", version="1")
    channel.append(CaSessionStarted(session_id="one", engine="e", identity=identity, capabilities=can))
    return channel


async def test_heartbeats_come_in_silence_and_never_into_a_write_that_is_under_way() -> None:
    channel = await live_channel()
    written: list[bytes] = []
    writing = 0

    async def send(message: Any) -> None:
        nonlocal writing
        if message["type"] == "http.response.body":
            writing += 1
            assert writing == 1
            await asyncio.sleep(0.1 if b"data:" in message["body"] else 0)
            writing -= 1
            written.append(message["body"])

    reading = asyncio.create_task(EventStreamResponse(channel.stream(), heartbeat=0.03)({}, stays, send))
    while written.count(HEARTBEAT) < 2:
        await asyncio.sleep(0.01)
    channel.append(SdkMessage(session_id="one", raw=raw_payload({"text": "x"})))
    channel.append(CaSessionEnded(session_id="one", reason="complete"))
    await reading
    assert written[-1] == b""
    assert [body.count(b"\n\n") for body in written if b"data:" in body] == [1, 2]


async def test_a_client_that_takes_no_heartbeat_is_cut() -> None:
    channel = await live_channel()

    async def send(message: Any) -> None:
        if message.get("body") == HEARTBEAT:
            await asyncio.Event().wait()

    response = EventStreamResponse(channel.stream(), heartbeat=0.02, slowest=0.05)
    await response({}, stays, send)
    assert not response.complete
    assert channel.readers == 0


async def test_who_reads_a_long_past_without_ever_waiting_leaves_time_for_others() -> None:
    channel = await channel_of(MemoryEventLog(), ["w" * 50_000] * 100)
    others = 0

    async def send(message: Any) -> None:
        del message

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await EventStreamResponse(channel.stream())({}, stays, send)
    beside.cancel()
    assert others > 10


# ── Clocks ──


class Clock:
    """`time.time`, which goes back an hour at each step, and once ahead by a week."""

    def __init__(self, real: Callable[[], float]) -> None:
        self._real = real
        self.offset = 0.0

    def __call__(self) -> float:
        return self._real() + self.offset


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(time.time)
    monkeypatch.setattr(time, "time", made)
    return made


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
async def test_a_clock_that_goes_back_changes_no_order_and_loses_nothing(
    kind: str, clock: Clock, tmp_path: Path, redis: RedisServer
) -> None:
    logs: dict[str, Callable[[], Any]] = {
        "memory": MemoryEventLog,
        "sqlite": lambda: SharedSqliteEventLog(tmp_path / "log.db"),
        "redis": lambda: RedisEventLog(redis.url, prefix=f"clock-{tmp_path.name}"),
    }
    async with serving(tmp_path, log=logs[kind]()) as server:
        turns = [[{"text": f"line {turn}.{line}"} for line in range(5)] for turn in range(6)]
        session = await server.open(*turns)
        watching = asyncio.create_task(server.events(session))
        for turn in range(len(turns)):
            assert await server.say(session, "go") == turn
            await server.events(session, lambda event, turn=turn: event.get("endsTurn") and event["turnIndex"] == turn)
            clock.offset -= 3600
        other = await server.open([{"text": "x"}])  # opened "before" the first one
        listed = [one["sessionId"] for one in (await server.client.get("/v1/sessions")).json()["sessions"]]
        assert set(listed) == {session, other}
        clock.offset += 7 * 24 * 3600
        await server.client.post(f"/v1/sessions/{session}/end-input")
        whole = await watching
        assert [event["id"] for event in whole] == list(range(len(whole)))
        assert [f"line {turn}.{line}" in str(whole) for turn in range(6) for line in range(5)] == [True] * 30
        for after in (0, 17, len(whole) - 2):
            rest = await server.client.get(f"/v1/sessions/{session}/events", headers={"last-event-id": str(after)})
            if kind == "memory" and rest.status_code == 410:  # a week is longer than it keeps what nobody reads
                assert rest.json()["error"]["details"]["earliest"] > after + 1
                continue
            assert rest.text.count("\nid: ") == len(whole) - 1 - after
        again = await server.events(session, **{"last-event-id": str(whole[-2]["id"])})
        assert [event["kind"] for event in again] == ["ca_session_ended"]


async def test_retention_by_number_holds_while_the_clock_goes_back(clock: Clock) -> None:
    channel = Channel(MemoryEventLog(), SessionSummary("one"), retention=Retention(max_events=10, max_age=60))
    for number in range(100):
        channel.append(CaTurnStarted(session_id="one", turn_index=number))
        clock.offset -= 10
    await channel.flush()
    assert channel.newest == 99
    assert 85 <= channel.earliest <= 90
    clock.offset += 3600
    channel.append(CaTurnStarted(session_id="one", turn_index=100))
    await channel.flush()
    assert channel.earliest == 100  # all before is now old, but the current turn's start stays


# ── Ends ──


async def test_a_stream_that_was_open_on_a_deleted_session_ends(server: Server) -> None:
    session = await server.open([{"delay": 60}])
    await server.say(session, "go")
    connected = asyncio.Barrier(4)

    async def watch() -> list[Any]:
        await server.events(session, lambda event: event["kind"] == "ca_turn_started")
        begun = asyncio.Event()
        reading = asyncio.create_task(server.events(session, lambda _: bool(begun.set())))
        await begun.wait()
        await connected.wait()
        return await reading

    watching = [asyncio.create_task(watch()) for _ in range(3)]
    await connected.wait()
    await server.client.delete(f"/v1/sessions/{session}")
    assert {(await each)[-1]["kind"] for each in watching} == {"ca_session_ended"}
