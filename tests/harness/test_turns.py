"""The turn queue: one message at a time, the next only after the turn before it has ended."""

from __future__ import annotations

import asyncio

import pytest

from computeragent.harness.turns import TurnQueue
from computeragent.wire.requests import UserInput
from puppets import until

pytestmark = pytest.mark.anyio


def message(text: str) -> UserInput:
    return UserInput(content=text)


@pytest.fixture
def begun() -> list[tuple[int, str]]:
    return []


@pytest.fixture
def queue(begun: list[tuple[int, str]]) -> TurnQueue:
    return TurnQueue(5, lambda index, message: begun.append((index, str(message.content))))


async def test_turns_are_numbered_from_the_first_index(queue: TurnQueue):
    assert [queue.put(message("a")), queue.put(message("b"))] == [5, 6]


async def test_a_turn_begins_when_its_message_is_taken(queue: TurnQueue, begun: list[tuple[int, str]]):
    queue.put(message("a"))
    assert begun == []
    assert (await anext(queue)).content == "a"
    assert begun == [(5, "a")]
    assert queue.current == 5


async def test_the_next_message_waits_for_the_end_of_the_turn(queue: TurnQueue, begun: list[tuple[int, str]]):
    queue.put(message("a"))
    queue.put(message("b"))
    await anext(queue)
    second = asyncio.create_task(anext(queue))
    await asyncio.sleep(0.005)
    assert not second.done()
    queue.end_turn()
    assert (await second).content == "b"
    assert begun == [(5, "a"), (6, "b")]


async def test_a_reader_waits_for_a_message(queue: TurnQueue):
    reading = asyncio.create_task(anext(queue))
    await asyncio.sleep(0)
    queue.put(message("late"))
    assert (await reading).content == "late"


async def test_closing_lets_the_engine_have_what_waits_and_then_ends(queue: TurnQueue):
    queue.put(message("a"))
    queue.close()
    assert queue.closed
    assert (await anext(queue)).content == "a"
    queue.end_turn()
    with pytest.raises(StopAsyncIteration):
        await anext(queue)


async def test_closing_while_a_turn_runs_ends_the_input_at_once_where_nothing_waits(queue: TurnQueue):
    queue.put(message("a"))
    await anext(queue)
    reading = asyncio.create_task(anext(queue, None))
    await asyncio.sleep(0)
    queue.close()
    assert await reading is None


async def test_dropping_forgets_what_waits(queue: TurnQueue):
    queue.put(message("a"))
    queue.drop()
    with pytest.raises(StopAsyncIteration):
        await anext(queue)


async def test_a_turn_that_waits_can_be_taken_back(queue: TurnQueue, begun: list[tuple[int, str]]):
    first, second, third = (queue.put(message(text)) for text in "abc")
    assert queue.withdraw(second) is True
    assert queue.withdraw(second) is False
    await anext(queue)
    assert queue.withdraw(first) is False
    queue.end_turn()
    await anext(queue)
    assert [index for index, _ in begun] == [first, third]


async def test_a_queue_is_idle_when_nothing_runs_and_nothing_waits(queue: TurnQueue):
    assert queue.idle
    queue.put(message("a"))
    assert not queue.idle
    await anext(queue)
    assert not queue.idle
    queue.end_turn()
    assert queue.idle


async def test_a_taken_back_turn_that_was_the_last_lets_a_closed_queue_end(queue: TurnQueue):
    queue.put(message("a"))
    await anext(queue)
    waiting = queue.put(message("b"))
    queue.close()
    reading = asyncio.create_task(anext(queue, None))
    await asyncio.sleep(0)
    queue.withdraw(waiting)
    await until(reading.done)
    assert reading.result() is None
