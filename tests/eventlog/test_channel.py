"""One session's stream, over every log: ids without gaps, readers that miss nothing, a writer that waits."""

from __future__ import annotations

import asyncio
import gc
import secrets
from collections.abc import AsyncIterator, Callable

import pytest

from computeragent.errors import EventIdAheadError, EventsGoneError, NotFoundError, SessionLiveError
from computeragent.eventlog import (
    Channel,
    ChannelStream,
    EventLog,
    MemoryEventLog,
    RedisEventLog,
    Retention,
    SqliteEventLog,
)
from puppets import drain, kinds, until

from .events import ended, said, spent, started, turn

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def log(request: pytest.FixtureRequest) -> AsyncIterator[EventLog]:
    makers: dict[str, Callable[[], EventLog]] = {
        "memory": MemoryEventLog,
        "sqlite": SqliteEventLog,
        "redis": lambda: RedisEventLog(request.getfixturevalue("redis").url, prefix=secrets.token_hex(8)),
    }
    made = makers[request.param]()
    yield made
    await made.close()


async def write_run(channel: Channel, messages: int = 3) -> None:
    channel.append(started())
    channel.append(turn(channel.summary.turns))
    for number in range(messages):
        channel.append(said(str(number)))
    channel.append(ended())
    await channel.flush()


async def ids(stream: ChannelStream) -> list[int]:
    return [recorded.id for recorded in await drain(stream)]


async def test_ids_have_no_gaps_and_never_restart(log: EventLog):
    for _ in range(3):
        channel = await log.open("s")
        await write_run(channel)
        await log.release(channel)
    found = await log.read("s")
    assert [recorded.id for recorded in found] == list(range(18))
    assert kinds(found).count("ca_session_started") == 3


async def test_a_stream_without_an_id_begins_at_the_current_run(log: EventLog):
    for _ in range(2):
        channel = await log.open("s")
        await write_run(channel)
        await log.release(channel)
    assert await ids(channel.stream()) == list(range(6, 12))


async def test_resume_gives_only_what_was_missed(log: EventLog):
    channel = await log.open("s")
    await write_run(channel)
    assert await ids(channel.stream(3)) == [4, 5]


async def test_a_reader_waits_for_what_has_not_happened_yet(log: EventLog):
    channel = await log.open("s")
    channel.append(started())
    reader = asyncio.create_task(ids(channel.stream()))
    for _ in range(3):
        await asyncio.sleep(0.002)
        channel.append(said())
    assert not reader.done()
    channel.append(ended())
    assert await reader == [0, 1, 2, 3, 4]


async def test_an_id_after_the_end_gives_nothing(log: EventLog):
    channel = await log.open("s")
    await write_run(channel)
    assert await ids(channel.stream(5)) == []
    assert await ids(channel.stream(9999)) == []


async def test_an_id_beyond_the_newest_is_refused_while_the_run_is_live(log: EventLog):
    channel = await log.open("s")
    channel.append(started())
    await channel.flush()
    with pytest.raises(EventIdAheadError, match="event 1 does not exist yet; the newest is 0") as caught:
        channel.stream(1)
    assert (caught.value.code, caught.value.status) == ("EVENT_ID_AHEAD", 409)


async def test_the_newest_id_itself_can_be_resumed_from_while_live(log: EventLog):
    channel = await log.open("s")
    channel.append(started())
    stream = channel.stream(0)
    channel.append(ended())
    assert await ids(stream) == [1]


async def test_two_readers_each_get_everything(log: EventLog):
    channel = await log.open("s")
    channel.append(started())
    readers = [asyncio.create_task(ids(channel.stream())) for _ in range(2)]
    channel.append(said())
    await asyncio.sleep(0)
    channel.append(ended())
    assert await asyncio.gather(*readers) == [[0, 1, 2], [0, 1, 2]]


async def test_a_slow_reader_gets_everything_in_order(log: EventLog):
    channel = await log.open("s")
    stream = channel.stream(-1)
    found: list[int] = []

    async def read_slowly() -> None:
        async for recorded in stream:
            found.append(recorded.id)
            if recorded.id % 400 == 0:
                await asyncio.sleep(0.005)

    channel.append(started())
    reader = asyncio.create_task(read_slowly())
    for _ in range(2000):
        channel.append(said())
        if channel.next_id % 100 == 0:
            await asyncio.sleep(0)
    channel.append(ended())
    await reader
    assert found == list(range(2002))


async def test_a_closed_stream_ends_even_while_its_reader_waits(log: EventLog):
    channel = await log.open("s")
    channel.append(started())
    stream = channel.stream()
    reader = asyncio.create_task(ids(stream))
    await until(lambda: stream.position == 0)
    stream.close()
    assert await reader == [0]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_closing_one_reader_leaves_the_others(log: EventLog):
    channel = await log.open("s")
    channel.append(started())
    one, other = channel.stream(), channel.stream()
    one.close()
    channel.append(ended())
    assert await ids(other) == [0, 1]


async def test_an_event_is_encoded_once_and_its_bytes_are_what_readers_share(log: EventLog):
    channel = await log.open("s")
    channel.append(started())
    channel.append(said("ü"))
    first, second = await anext(channel.stream(0)), await anext(channel.stream(0))
    assert (
        first.data == second.data == '{"kind":"sdk_message","sessionId":"s","payload":{"type":"x","text":"ü"}}'.encode()
    )


async def test_an_event_that_cannot_be_encoded_takes_no_id(log: EventLog):
    channel = await log.open("s")
    channel.append(started())
    with pytest.raises(TypeError):
        channel.append(started(agent=object()))  # type: ignore[arg-type]
    assert channel.append(ended()) == 1


async def test_a_session_has_one_writer(log: EventLog):
    channel = await log.open("s")
    with pytest.raises(SessionLiveError):
        await log.open("s")
    await log.release(channel)
    await log.open("s")


async def test_a_session_that_was_never_written_is_not_found(log: EventLog):
    with pytest.raises(NotFoundError, match="session nobody not found"):
        await log.read("nobody")


async def test_reading_past_the_end_of_a_session_gives_nothing(log: EventLog):
    channel = await log.open("s")
    await write_run(channel)
    assert await log.read("s", 5) == []
    assert [recorded.id for recorded in await log.read("s", 1, limit=2)] == [2, 3]


async def test_the_summary_tells_the_session_in_one_line(log: EventLog):
    channel = await log.open("s")
    channel.append(started(agent="triage"))
    channel.append(turn(0, "Why did\n  the build fail? " + "x" * 100))
    channel.append(spent(0.25, tokens=10))
    channel.append(spent(0.2, tokens=5))
    channel.append(ended(reason="budget_exceeded"))
    await log.release(channel)
    (summary,) = await log.sessions()
    assert (summary.session_id, summary.agent, summary.engine) == ("s", "triage", "scripted")
    assert (summary.runs, summary.turns, summary.tokens, summary.cost_usd) == (1, 1, 15, 0.25)
    assert (summary.status, summary.live) == ("budget_exceeded", False)
    assert summary.title.startswith("Why did the build fail? xxx")
    assert len(summary.title) == 80


async def test_the_cost_of_a_session_is_the_sum_of_its_runs(log: EventLog):
    for cost in (0.5, 0.25):
        channel = await log.open("s")
        channel.append(started())
        channel.append(spent(cost))
        channel.append(ended())
        await log.release(channel)
    assert (await log.sessions())[0].cost_usd == 0.75


async def test_a_message_with_a_lone_surrogate_is_recorded(log: EventLog):
    channel = await log.open("s")
    channel.append(started())
    channel.append(turn(0, "a\ud800b"))
    channel.append(ended())
    await channel.flush()
    assert "a�b" in (await log.read("s"))[1].data.decode()
    await log.release(channel)
    assert len(await log.sessions()) == 1


async def test_sessions_are_listed_by_last_use(log: EventLog):
    for name in ("a", "b", "a"):
        channel = await log.open(name)
        channel.append(started(name))
        channel.append(ended(name))
        await log.release(channel)
        await asyncio.sleep(0.002)
    assert [summary.session_id for summary in await log.sessions()] == ["a", "b"]
    assert [summary.session_id for summary in await log.sessions(limit=1)] == ["a"]


# ── Back-pressure: only where nothing else keeps the events ─────────────────────────────────────────────────


async def full_channel(events: int = 8) -> Channel:
    channel = await MemoryEventLog(Retention(max_bytes=1000)).open("s")
    channel.append(started())
    channel.append(turn(0))
    for _ in range(events):
        channel.append(said("x" * 100))
    return channel


async def test_above_the_byte_cap_the_writer_waits_for_the_reader_and_goes_on_when_it_has_read():
    channel = await MemoryEventLog(Retention(max_bytes=1000)).open("s")
    channel.append(started())
    stream, waited = channel.stream(), 0

    async def write() -> None:
        nonlocal waited
        for _ in range(100):
            channel.append(said("x" * 100))
            if channel.full:
                waited += 1
                await channel.room()
        channel.append(ended())

    writer = asyncio.create_task(write())
    assert await ids(stream) == list(range(102))
    await writer
    assert waited > 5


async def test_the_writer_waits_for_the_slowest_reader():
    channel = await full_channel(events=0)
    fast, slow = channel.stream(), channel.stream()
    for _ in range(8):
        channel.append(said("x" * 100))
    room = asyncio.create_task(channel.room())
    for _ in range(10):
        await anext(fast)
    await asyncio.sleep(0.01)
    assert not room.done()
    for _ in range(10):
        await anext(slow)
    await room


async def test_a_reader_that_stops_reading_frees_the_writer():
    channel = await full_channel(events=0)
    stream = channel.stream()
    for _ in range(8):
        channel.append(said("x" * 100))
    room = asyncio.create_task(channel.room())
    await asyncio.sleep(0.005)
    assert not room.done()
    stream.close()
    await room


async def test_a_reader_that_was_forgotten_frees_the_writer():
    channel = await full_channel(events=0)
    stream = channel.stream()
    for _ in range(8):
        channel.append(said("x" * 100))
    room = asyncio.create_task(channel.room())
    await asyncio.sleep(0.005)
    assert not room.done()
    del stream
    gc.collect()
    await room


async def test_without_a_reader_the_writer_never_waits_and_the_oldest_events_go():
    channel = await full_channel(events=20)
    await channel.room()
    assert 0 < channel.earliest < channel.newest
    with pytest.raises(EventsGoneError) as caught:
        channel.stream()
    assert (caught.value.status, caught.value.earliest) == (410, channel.earliest)
    assert caught.value.details == {"earliest": channel.earliest}
    assert caught.value.hint == f"Resume after {channel.earliest - 1}, the oldest place that is still kept."
    channel.append(ended())
    assert (await ids(channel.stream(channel.earliest - 1)))[-1] == channel.newest
