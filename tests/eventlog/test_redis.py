"""The shared log on a real Redis: one writer at a time, an outage costs nothing, and what is lost is said."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from computeragent.errors import (
    EventIdAheadError,
    EventLogError,
    EventLogUnavailableError,
    EventsGoneError,
    MissingExtraError,
    NotFoundError,
    SessionLiveError,
    ValidationError,
)
from computeragent.eventlog import Channel, RedisEventLog, Retention
from computeragent.harness.harness import end_interrupted_run
from puppets import drain, kinds, until
from redis_server import RedisServer, running_redis

from .events import ended, said, started, turn

pytestmark = pytest.mark.anyio
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")

HOLDER = """
import asyncio, sys
sys.path.insert(0, sys.argv[3])
from computeragent.eventlog import RedisEventLog
from eventlog.events import said, started, turn
async def main():
    log = RedisEventLog(sys.argv[1], prefix=sys.argv[2], lease=0.5)
    channel = await log.open("s")
    for event in (started(), turn(0), said()):
        channel.append(event)
    await channel.flush()
    print("ready", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""

Make = Callable[..., RedisEventLog]


@pytest.fixture
def prefix() -> str:
    return secrets.token_hex(8)


@pytest.fixture
async def make(redis: RedisServer, prefix: str) -> AsyncIterator[Make]:
    """Logs of several servers on one Redis; all are closed at the end."""
    made: list[RedisEventLog] = []

    def one(**settings: Any) -> RedisEventLog:
        made.append(RedisEventLog(redis.url, **({"prefix": prefix} | settings)))
        return made[-1]

    yield one
    for log in made:
        await log.close()


@contextmanager
def holder(redis: RedisServer, prefix: str) -> Iterator[subprocess.Popen[str]]:
    """Another process in the midst of a run of the session "s"."""
    command = [sys.executable, "-c", HOLDER, redis.url, prefix, str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stdout.readline() == "ready\n"
        try:
            yield running
        finally:
            running.kill()


def write(channel: Channel, messages: int = 3, *, end: bool = True) -> None:
    channel.append(started())
    channel.append(turn(channel.summary.turns))
    for number in range(messages):
        channel.append(said(str(number)))
    if end:
        channel.append(ended())


async def let_lapse(redis: RedisServer, log: RedisEventLog, prefix: str) -> None:
    """Redis lets a lease expire, as if its holder had been asleep."""
    assert redis.command("del", f"{prefix}:1:lease:{log.mark}") == "1"


# ── One writer ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_is_live_as_long_as_its_process_and_free_when_it_was_killed(
    redis: RedisServer, prefix: str, make: Make
):
    log = make()
    with holder(redis, prefix) as running:
        await asyncio.sleep(0.7)  # longer than its lease: it was renewed
        with pytest.raises(SessionLiveError, match="session s is live in another harness"):
            await log.open("s")
        assert await log.orphans() == []
        running.kill()
        while await log.orphans() != ["s"]:
            await asyncio.sleep(0.02)
    channel = await log.open("s")
    assert (channel.live, channel.newest, channel.summary.turns) == (True, 2, 1)
    end_interrupted_run(channel)
    await log.release(channel)
    found = await log.read("s")
    assert kinds(found)[-1] == "ca_session_ended"
    assert found[-1].event.error_code == "INTERRUPTED"
    assert await log.orphans() == []


async def test_an_owner_that_was_taken_for_dead_writes_nothing_more(redis: RedisServer, prefix: str, make: Make):
    old, new = make(), make()
    stale = await old.open("s")
    write(stale, end=False)
    await stale.flush()
    await let_lapse(redis, old, prefix)
    channel = await new.open("s")
    assert channel.generation > stale.generation
    stale.append(said("too late"))
    end_interrupted_run(channel)
    write(channel)
    await channel.flush()
    with pytest.raises(EventLogError, match="session s was taken over by another process"):
        await stale.flush()
    with pytest.raises(EventLogError, match="taken over"):
        stale.append(ended())
    found = await new.read("s")
    assert [recorded.id for recorded in found] == list(range(12))
    assert not any(b"too late" in recorded.data for recorded in found)
    await old.release(stale)  # gives nothing back that is another's
    with pytest.raises(SessionLiveError):
        await old.open("s")


async def test_an_owner_that_slept_learns_that_its_silent_run_was_taken_over(
    redis: RedisServer, prefix: str, make: Make
):
    old, new = make(lease=0.3), make()
    channel, kept = await old.open("s"), await old.open("kept")
    channel.append(started())
    kept.append(started("kept"))
    await asyncio.gather(channel.flush(), kept.flush())
    broken: list[Exception] = []
    channel.on_broken = broken.append
    await let_lapse(redis, old, prefix)
    await new.open("s")
    await until(lambda: bool(broken))
    assert "taken over" in str(broken[0])
    kept.append(ended("kept"))
    await kept.flush()


async def test_many_who_want_one_abandoned_session_are_refused_but_one(redis: RedisServer, prefix: str, make: Make):
    dead = make()
    await dead.open("s")
    await let_lapse(redis, dead, prefix)
    logs = [make() for _ in range(8)]
    outcomes = await asyncio.gather(*(log.open("s") for log in logs), return_exceptions=True)
    assert sum(isinstance(outcome, Channel) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, SessionLiveError) for outcome in outcomes) == 7


async def test_a_closed_log_frees_what_it_held_at_once(make: Make):
    one, other = make(), make()
    channel = await one.open("s")
    write(channel, end=False)
    await one.close()
    assert (await other.open("s")).live
    with pytest.raises(EventLogError, match="the event log is closed"):
        await one.open("s")


async def test_an_opening_that_was_cancelled_holds_nothing(make: Make):
    one, other = make(), make()
    opening = asyncio.create_task(one.open("s"))
    await asyncio.sleep(0.001)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    while True:
        try:
            await other.open("s")
        except SessionLiveError:
            await asyncio.sleep(0.005)
        else:
            break


# ── Outages ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_redis_may_be_killed_and_started_again_in_the_midst_of_a_run():
    with running_redis(*DURABLE) as server:
        async with RedisEventLog(server.url) as log, RedisEventLog(server.url) as other:
            channel = await log.open("s")
            write(channel, 50, end=False)
            await channel.flush()
            mirror = await other.follow("s")
            readers = [asyncio.create_task(drain(each.stream(-1))) for each in (channel, mirror)]
            for _ in range(2):
                server.stop()
                for number in range(50):
                    channel.append(said(f"while it is away {number}"))
                await asyncio.sleep(0.05)
                server.start()
            channel.append(ended())
            await channel.flush()
            for reader in readers:
                assert [recorded.id for recorded in await reader] == list(range(153))
            assert [recorded.id for recorded in await log.read("s")] == list(range(153))
            await log.release(channel)


async def test_connections_that_are_cut_lose_and_repeat_nothing(redis: RedisServer, make: Make):
    log = make()
    channel = await log.open("s")
    channel.append(started())
    for number in range(400):
        channel.append(said(str(number)))
        if number % 20 == 0:
            await asyncio.to_thread(redis.command, "client", "kill", "type", "normal")
    channel.append(ended())
    await channel.flush()
    found = await log.read("s", limit=1000)
    assert [recorded.id for recorded in found] == list(range(402))
    assert [recorded.event.payload["text"] for recorded in found[1:-1]] == [str(number) for number in range(400)]


async def test_an_answer_that_was_lost_does_not_write_twice(redis: RedisServer, make: Make, monkeypatch: Any):
    log = make()
    channel = await log.open("s")
    really = log._link.run_each
    lost: list[int] = []

    async def run_each(script: str, calls: Any) -> Any:
        answers = await really(script, calls)
        if len(lost) < 3:
            lost.append(1)
            raise ConnectionError("the answer did not arrive")
        return answers

    monkeypatch.setattr(log._link, "run_each", run_each)
    write(channel)
    await channel.flush()
    assert len(lost) == 3
    assert [recorded.id for recorded in await log.read("s")] == list(range(6))


async def test_when_redis_stays_away_the_channel_breaks_and_says_so():
    with running_redis() as server:
        log = RedisEventLog(server.url, patience=0.2)
        channel = await log.open("s")
        channel.append(started())
        await channel.flush()
        reader = asyncio.create_task(drain(channel.stream()))
        server.stop()
        channel.append(said())
        with pytest.raises(EventLogUnavailableError, match=r"the event log in Redis at .* cannot be used") as caught:
            await channel.flush()
        assert (caught.value.code, caught.value.status) == ("EVENT_LOG_UNAVAILABLE", 503)
        with pytest.raises(EventLogUnavailableError):
            await reader
        with pytest.raises(EventLogUnavailableError):
            await log.release(channel)
        await log.close()


async def test_above_the_byte_cap_the_writer_waits_until_redis_is_back():
    with running_redis(*DURABLE) as server:
        async with RedisEventLog(server.url, retention=Retention(max_bytes=10_000)) as log:
            channel = await log.open("s")
            channel.append(started())
            await channel.flush()
            server.stop()
            while not channel.full:
                channel.append(said("x" * 1000))
            room = asyncio.create_task(channel.room())
            await asyncio.sleep(0.1)
            assert not room.done()
            server.start()
            await room
            channel.append(ended())
            await log.release(channel)


async def test_a_redis_that_lost_its_data_breaks_the_run_and_does_not_begin_it_in_the_middle():
    with running_redis() as server:
        async with RedisEventLog(server.url) as log:
            channel = await log.open("s")
            write(channel, end=False)
            await channel.flush()
            server.stop()
            server.start()
            channel.append(said())
            with pytest.raises(EventLogError, match="session s is no longer in Redis"):
                await channel.flush()
            with pytest.raises(NotFoundError):
                await log.read("s")
            await log.release(channel)
            write(await log.open("s"))


async def test_a_session_that_its_log_could_not_give_back_is_an_orphan_of_its_own():
    with running_redis(*DURABLE) as server:
        async with RedisEventLog(server.url, patience=0.1) as log:
            channel = await log.open("s")
            channel.append(started())
            await channel.flush()
            server.stop()
            with pytest.raises(EventLogUnavailableError):
                await log.release(channel)
            server.start()
            assert await log.orphans() == ["s"]
            assert (await log.open("s")).live


# ── Followers ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_copy_streams_as_the_original_does(make: Make):
    one, other = make(), make()
    channel = await one.open("s")
    write(channel)
    await one.release(channel)
    channel = await one.open("s")
    write(channel, end=False)
    await channel.flush()
    copy = await other.follow("s")
    assert await other.follow("s") is copy
    with pytest.raises(EventIdAheadError, match="event 11 does not exist yet; the newest is 10"):
        copy.stream(11)
    readers = [
        asyncio.create_task(drain(each.stream(after))) for each in (channel, copy) for after in (None, -1, 4, 10)
    ]
    for _ in range(300):
        channel.append(said())
        await asyncio.sleep(0)
    channel.append(ended())
    found = await asyncio.gather(*readers)
    assert found[:4] == found[4:]
    assert [recorded.id for recorded in found[5]] == list(range(312))
    assert found[4][0].id == 6
    assert await drain((await other.follow("s")).stream(311)) == []
    with pytest.raises(NotFoundError):
        await other.follow("nobody")


async def test_a_copy_knows_at_once_what_was_committed_before_it_was_asked(make: Make):
    one, other = make(), make()
    channel = await one.open("s")
    channel.append(started())
    await channel.flush()
    first = (await other.follow("s")).stream()
    for _ in range(20):
        channel.append(said())
        await channel.flush()
        (await other.follow("s")).stream(channel.newest).close()  # would be refused if the copy were behind
    first.close()


async def test_a_reader_of_a_copy_gets_the_end_that_another_server_writes(redis: RedisServer, prefix: str, make: Make):
    log = make()
    with holder(redis, prefix) as running:
        reader = asyncio.create_task(drain((await log.follow("s")).stream()))
        running.kill()
        while not await log.orphans():
            await asyncio.sleep(0.02)
    third = make()
    channel = await third.open("s")
    end_interrupted_run(channel)
    await third.release(channel)
    assert [recorded.id for recorded in await reader] == [0, 1, 2, 3]


async def test_readers_of_a_session_that_is_deleted_in_the_midst_are_told(make: Make):
    one, other = make(), make()
    channel = await one.open("s")
    channel.append(started())
    await channel.flush()
    reader = asyncio.create_task(drain((await other.follow("s")).stream()))
    await other.delete("s")
    channel.append(said())
    with pytest.raises(EventLogError, match="session s is no longer in Redis"):
        await channel.flush()
    with pytest.raises(NotFoundError, match="session s was deleted"):
        await reader


# ── What is kept ────────────────────────────────────────────────────────────────────────────────────────────


async def test_old_events_go_and_resuming_from_them_says_which_is_the_earliest(make: Make):
    log = make(max_events=10, retention=Retention(max_events=2))
    channel = await log.open("s")
    channel.append(started())
    for number in range(5):
        channel.append(turn(number))
        for _ in range(9):
            channel.append(said())
        await channel.flush()
    channel.append(ended())
    await log.release(channel)
    assert channel.earliest == 41  # the current turn stays, whatever the number
    for reading in (channel, await log.follow("s")):
        with pytest.raises(EventsGoneError) as caught:
            reading.stream(7)
        assert (caught.value.earliest, caught.value.details) == (41, {"earliest": 41})
        assert [recorded.id for recorded in await drain(reading.stream(40))] == list(range(41, 52))
    with pytest.raises(EventsGoneError):
        await log.read("s")
    again = await log.open("s")
    assert (again.earliest, again.newest) == (41, 51)


async def test_the_current_turn_is_kept_whole(make: Make):
    log = make(max_events=5, retention=Retention(max_events=2))
    channel = await log.open("s")
    write(channel, 100)
    await channel.flush()
    assert channel.earliest == 1
    assert [recorded.id for recorded in await drain(channel.stream(0))] == list(range(1, 103))


async def test_a_finished_session_expires_and_one_that_runs_again_does_not(redis: RedisServer, make: Make):
    log = make(keep_finished=0.4)
    for name in ("gone", "again"):
        channel = await log.open(name)
        channel.append(started(name))
        channel.append(ended(name))
        await log.release(channel)
    await log.open("again")
    while len(await log.sessions()) == 2:
        await asyncio.sleep(0.05)
    assert [summary.session_id for summary in await log.sessions()] == ["again"]
    with pytest.raises(NotFoundError):
        await log.read("gone")
    assert len(await log.read("again")) == 2


async def test_sessions_are_listed_page_by_page(make: Make):
    log = make()
    for number in range(5):
        channel = await log.open(f"s{number}")
        channel.append(started())
        await channel.flush()
        await asyncio.sleep(0.002)
    pages = [await log.sessions(limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert [[summary.session_id for summary in page] for page in pages] == [["s4", "s3"], ["s2", "s1"], ["s0"], []]


async def test_a_deleted_session_is_gone_and_its_id_begins_anew(make: Make):
    log = make()
    channel = await log.open("s")
    write(channel)
    await log.release(channel)
    await log.delete("s")
    for missing in (log.read("s"), log.delete("s"), log.follow("s")):
        with pytest.raises(NotFoundError, match="session s not found"):
            await missing
    assert await log.sessions() == []
    new = await log.open("s")
    assert (new.newest, new.generation > channel.generation) == (-1, True)


async def test_a_session_that_was_opened_and_never_written_leaves_no_trace(redis: RedisServer, prefix: str, make: Make):
    log = make()
    await log.release(await log.open("s"))
    assert redis.command("keys", f"{prefix}:1:session:*") == ""


# ── Set up ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_redis_py_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(MissingExtraError) as caught:
        RedisEventLog("redis://localhost")
    assert caught.value.hint == "pip install 'computer-agent-py[redis]'"


@pytest.mark.parametrize("url", ["localhost:6379", "http://user:hidden@host/", "redis://", "redis://u:hidden@h:port/0"])
def test_what_is_no_address_is_refused_without_telling_its_password(url: str):
    with pytest.raises(ValidationError, match="is no address of a Redis server") as caught:
        RedisEventLog(url)
    assert "hidden" not in str(caught.value)


async def test_a_server_that_is_not_there_is_said_with_a_hint_and_without_the_password():
    log = RedisEventLog("redis://:hidden@127.0.0.1:1/0")
    with pytest.raises(EventLogUnavailableError, match=r"Redis at 127\.0\.0\.1:1 cannot be used") as caught:
        await log.open("s")
    assert "hidden" not in str(caught.value)
    assert caught.value.hint == "Is the Redis server up, is the URL right, does it take writes?"
    await log.close()


async def test_a_log_belongs_to_one_event_loop(make: Make):
    log = make()
    await log.ping()
    with pytest.raises(EventLogError, match="belongs to one event loop"):
        await asyncio.to_thread(asyncio.run, log.sessions())
