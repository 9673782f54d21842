"""The log in memory: bounded, and never at the cost of a reader or of the current turn."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from computeragent.errors import EventsGoneError, NotFoundError
from computeragent.eventlog import MemoryEventLog, Retention

from .events import ended, said, started, turn


@given(
    st.lists(st.sampled_from(["say", "say", "turn", "reader", "read", "close"]), max_size=60),
    st.integers(1, 8),
)
@settings(deadline=None)
def test_what_goes_is_never_of_the_current_turn_and_never_unread(steps: list[str], max_events: int):
    async def run() -> None:
        channel = await MemoryEventLog(Retention(max_events=max_events)).open("s")
        channel.append(started())
        turn_start, turns = 0, 0
        readers = []
        for step in steps:
            if step == "say":
                channel.append(said())
            elif step == "turn":
                turn_start = channel.append(turn(turns))
                turns += 1
            elif step == "reader":
                readers.append(channel.stream(channel.earliest - 1))
            elif step == "read" and readers and readers[0].position < channel.newest:
                position = readers[0].position
                assert (await anext(readers[0])).id == position + 1
            elif step == "close" and readers:
                readers.pop().close()
            unread = [reader.position + 1 for reader in readers]
            assert channel.earliest <= min([turn_start, *unread])
            kept = channel.newest - channel.earliest + 1
            needed = channel.newest - min([turn_start, *unread]) + 1
            assert kept <= max(max_events, needed) or step in {"read", "close", "turn"}  # trimmed at the next append
        channel.append(ended())
        for reader in readers:
            first = reader.position + 1
            assert [recorded.id async for recorded in reader] == list(range(first, channel.next_id))

    asyncio.run(run())


@pytest.mark.anyio
async def test_events_beyond_the_age_go_and_resuming_from_them_is_refused_with_the_earliest():
    channel = await MemoryEventLog(Retention(max_age=0.0)).open("s")
    channel.append(started())
    channel.append(turn(0))
    channel.append(said())
    channel.append(turn(1))
    channel.append(said())
    assert channel.earliest == 3
    with pytest.raises(EventsGoneError, match="events after 1 are no longer kept; the earliest kept event is 3"):
        channel.stream(1)
    assert channel.stream(2) is not None


@pytest.mark.anyio
async def test_a_thousand_events_are_kept_by_default():
    channel = await MemoryEventLog().open("s")
    channel.append(started())
    for index in range(1500):
        channel.append(turn(index))
    assert channel.newest - channel.earliest + 1 == 1000


@pytest.mark.anyio
async def test_finished_sessions_beyond_the_limit_go_oldest_first_and_live_ones_stay():
    log = MemoryEventLog(max_sessions=2)
    live = await log.open("live")
    live.append(started("live"))
    for name in ("a", "b", "c"):
        channel = await log.open(name)
        channel.append(started(name))
        channel.append(ended(name))
        await log.release(channel)
    assert sorted(summary.session_id for summary in await log.sessions()) == ["c", "live"]
    with pytest.raises(NotFoundError):
        await log.read("a")
