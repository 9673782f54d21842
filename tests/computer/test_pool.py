"""The pool: bounded, in order, reset in between, nothing left. Its computers here are functions of this file."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from computeragent.computer.custom import CustomComputer
from computeragent.computer.kinds import ComputerSpec
from computeragent.computer.pool import ComputerPool, default_pool
from computeragent.errors import ComputerBusyError, ComputerError, ComputerUnsupportedError, ValidationError

pytestmark = pytest.mark.anyio
SPEC = ComputerSpec(kind="browser")
OTHER = ComputerSpec(kind="x11")


class Machine(CustomComputer):
    """A computer whose life is written down."""

    def __init__(self, maker: Maker) -> None:
        super().__init__({"screenshot": lambda: b"", "get_cursor_position": self._where})
        self.maker = maker
        self.number = len(maker.made)
        self.dirt: list[str] = []
        self.closed = False
        self.dead = False
        self.killed = False

    def _where(self) -> tuple[int, int]:
        if self.dead:
            raise RuntimeError("dead")
        return 0, 0

    async def reset(self) -> None:
        self.maker.resets += 1
        await self.maker.may_reset.wait()
        if self.maker.reset_fails:
            raise ComputerError("cannot be reset")
        self.dirt.clear()

    async def close(self) -> None:
        self.closed = True
        await super().close()

    def kill(self) -> None:
        self.killed = True


class Maker:
    """Opens computers, as told."""

    def __init__(self) -> None:
        self.made: list[Machine] = []
        self.resets = 0
        self.reset_fails = False
        self.fails = False
        self.may_reset = asyncio.Event()
        self.may_reset.set()
        self.may_open = asyncio.Event()
        self.may_open.set()

    async def __call__(self, spec: ComputerSpec) -> Machine:
        await self.may_open.wait()
        if self.fails:
            raise ComputerError("does not start")
        machine = Machine(self)
        self.made.append(machine)
        return machine

    @property
    def open(self) -> list[int]:
        return [each.number for each in self.made if not each.closed]


@pytest.fixture
def maker() -> Maker:
    return Maker()


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def pool(maker: Maker) -> AsyncIterator[ComputerPool]:
    pool = ComputerPool(2, open=maker, timeout=2.0)
    yield pool
    await pool.aclose()
    assert maker.open == []


async def test_a_computer_is_reset_and_leased_again(pool: ComputerPool, maker: Maker) -> None:
    async with pool.lease(SPEC) as computer:
        assert isinstance(computer, Machine)
        computer.dirt.append("a cookie")
    await until(lambda: pool.idle == 1)
    async with pool.lease(SPEC) as again:
        assert again is computer
        assert computer.dirt == []
    assert maker.resets == 1


async def test_what_one_tenant_used_reaches_no_other(pool: ComputerPool, maker: Maker) -> None:
    async with pool.lease(SPEC, key="a") as first:
        pass
    await until(lambda: pool.idle == 1)
    async with pool.lease(SPEC, key="b") as second:
        assert second is not first
    await until(lambda: pool.idle == 2)
    async with pool.lease(SPEC, key="a") as again:
        assert again is first


async def test_a_lease_ends_without_waiting_for_the_reset_and_the_next_one_does(
    pool: ComputerPool, maker: Maker
) -> None:
    pool = ComputerPool(1, open=maker)
    maker.may_reset.clear()
    async with pool.lease(SPEC) as first:
        pass
    waiting = asyncio.create_task(leased(pool))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    maker.may_reset.set()
    assert await waiting is first
    await pool.aclose()


async def leased(pool: ComputerPool, spec: ComputerSpec = SPEC, **options: Any) -> Any:
    async with pool.lease(spec, **options) as computer:
        return computer


async def test_no_more_than_the_limit_and_busy_after_the_time(pool: ComputerPool, maker: Maker) -> None:
    async with pool.lease(SPEC), pool.lease(SPEC):
        with pytest.raises(ComputerBusyError) as told:
            await leased(pool, timeout=0.05)
        assert told.value.code == "COMPUTER_BUSY"
    assert len(maker.made) == 2


async def test_the_limit_may_be_raised_and_lowered(pool: ComputerPool, maker: Maker) -> None:
    async with pool.lease(SPEC), pool.lease(SPEC):
        third = asyncio.create_task(leased(pool))
        await asyncio.sleep(0.01)
        assert not third.done()
        pool.limit = 3
        await third
        pool.limit = 1
    await until(lambda: pool.busy == 0)
    assert len(maker.open) == 1
    with pytest.raises(ValidationError):
        pool.limit = 0


async def test_leases_come_in_the_order_in_which_they_were_asked_for(maker: Maker) -> None:
    pool = ComputerPool(1, open=maker)
    order: list[int] = []

    async def ask(number: int) -> None:
        async with pool.lease(SPEC if number % 2 else OTHER, key=str(number % 3)):
            order.append(number)
            await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(ask(number))
            await asyncio.sleep(0)
    assert order == list(range(12))
    assert pool.busy + pool.idle <= 1
    await pool.aclose()
    assert maker.open == []


async def test_an_idle_computer_of_another_kind_makes_room(pool: ComputerPool, maker: Maker) -> None:
    for key in ("a", "b"):
        await leased(pool, key=key)
    await until(lambda: pool.idle == 2)
    await leased(pool, OTHER)
    assert maker.made[0].closed
    assert not maker.made[1].closed


async def test_a_cancelled_lease_frees_its_computer(pool: ComputerPool, maker: Maker) -> None:
    async def hold() -> None:
        async with pool.lease(SPEC):
            await asyncio.Event().wait()

    holders = [asyncio.create_task(hold()) for _ in range(2)]
    await until(lambda: len(maker.made) == 2)
    for holder in holders:
        holder.cancel()
    await until(lambda: pool.idle == 2)


async def test_a_holder_that_dies_without_a_word_frees_its_computer(pool: ComputerPool, maker: Maker) -> None:
    async def forget() -> None:
        stack = AsyncExitStack()
        await stack.enter_async_context(pool.lease(SPEC))

    await asyncio.create_task(forget())
    gc.collect()
    await until(lambda: pool.idle == 1)


async def test_one_who_gives_up_waiting_holds_up_nobody(maker: Maker) -> None:
    pool = ComputerPool(1, open=maker)
    async with pool.lease(SPEC):
        impatient = asyncio.create_task(leased(pool))
        patient = asyncio.create_task(leased(pool))
        await asyncio.sleep(0.01)
        impatient.cancel()
    assert await patient is maker.made[0]
    await pool.aclose()


@pytest.mark.parametrize("moments", range(12))
async def test_cancelled_at_the_moment_of_being_served(maker: Maker, moments: int) -> None:
    pool = ComputerPool(1, open=maker)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(pool.lease(SPEC))
        waiting = asyncio.create_task(leased(pool))
        await asyncio.sleep(0.01)
    for _ in range(moments):  # in some one of them it has its place and does not know
        await asyncio.sleep(0)
    waiting.cancel()
    assert await leased(pool, timeout=1.0) is maker.made[0]
    await pool.aclose()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_computer_that_cannot_be_reset_is_replaced(pool: ComputerPool, maker: Maker) -> None:
    maker.reset_fails = True
    first = await leased(pool)
    await until(lambda: maker.made[0].closed)
    assert await leased(pool) is not first


async def test_a_reset_that_takes_too_long_is_given_up(maker: Maker) -> None:
    pool = ComputerPool(1, open=maker, reset_timeout=0.05)
    maker.may_reset.clear()
    await leased(pool)
    await leased(pool)
    assert maker.made[0].closed
    await pool.aclose()
    assert maker.open == []


async def test_a_computer_that_died_while_idle_is_replaced(pool: ComputerPool, maker: Maker) -> None:
    first = await leased(pool)
    await until(lambda: pool.idle == 1)
    maker.made[0].dead = True
    assert await leased(pool) is not first
    assert maker.made[0].closed


async def test_a_computer_that_does_not_start_leaves_room(pool: ComputerPool, maker: Maker) -> None:
    maker.fails = True
    for _ in range(3):
        with pytest.raises(ComputerError, match="does not start"):
            await leased(pool)
    assert pool.busy == 0
    maker.fails = False
    await leased(pool)


async def test_idle_computers_are_closed_after_a_while(maker: Maker) -> None:
    pool = ComputerPool(open=maker, idle_ttl=0.05)
    await leased(pool)
    await until(lambda: maker.made[0].closed)
    await until(lambda: pool.busy + pool.idle == 0)
    await pool.aclose()


async def test_a_spare_is_ready_and_goes_to_anyone(maker: Maker) -> None:
    pool = ComputerPool(3, open=maker, warm=1)
    await pool.prepare(SPEC)
    spare = maker.made[0]
    maker.may_open.clear()  # nothing can be started now
    async with pool.lease(SPEC, key="anyone") as computer:
        assert computer is spare
        maker.may_open.set()
        await until(lambda: pool.idle == 1)  # and another one comes in its place
    await pool.aclose()
    assert maker.open == []


async def test_a_machine_that_there_is_only_one_of_is_leased_to_one_at_a_time(maker: Maker) -> None:
    pool = ComputerPool(4, open=maker)
    there = ComputerSpec(kind="remote", url="http://10.0.0.5:8000", api_key="a")
    same = ComputerSpec(kind="remote", url="http://10.0.0.5:8000", api_key="b")
    async with pool.lease(there):
        with pytest.raises(ComputerBusyError):
            await leased(pool, same, timeout=0.05)
        await leased(pool, SPEC, timeout=0.5)  # who wants something else is not held up
    await leased(pool, same)
    assert maker.resets == 1  # somebody's machine is not reset
    await pool.aclose()


async def test_the_pool_closes_all_leased_ones_too(maker: Maker) -> None:
    pool = ComputerPool(3, open=maker)
    await leased(pool)
    async with pool.lease(SPEC):
        waiting = [asyncio.create_task(leased(pool)) for _ in range(4)]
        await asyncio.sleep(0.02)
        await pool.aclose()
        assert maker.open == []
    for answer in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(answer, (Machine, ComputerError))
    with pytest.raises(ComputerError, match="closed"):
        await leased(pool)
    await pool.aclose()


async def test_closed_while_a_computer_starts(maker: Maker) -> None:
    pool = ComputerPool(open=maker)
    maker.may_open.clear()
    starting = asyncio.create_task(leased(pool))
    await asyncio.sleep(0.01)
    await pool.aclose()
    maker.may_open.set()
    with pytest.raises(ComputerError, match="closed"):
        await starting
    assert maker.open == []


async def test_functions_of_a_caller_are_used_by_one_at_a_time() -> None:
    pool = ComputerPool()
    pixel = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010806000000") + bytes(16)
    functions = {"screenshot": lambda: pixel, "click": lambda x, y: None}
    async with pool.lease(functions) as computer:
        assert computer.kind == "custom"
        with pytest.raises(ComputerBusyError):
            await leased(pool, functions, timeout=0.02)  # type: ignore[arg-type]
    async with pool.lease(functions, timeout=0.5):
        pass
    await pool.aclose()


async def test_plain_data_is_a_spec_that_reaches_no_display_of_this_machine(pool: ComputerPool) -> None:
    async with pool.lease({"kind": "browser"}) as computer:
        assert isinstance(computer, Machine)
    with pytest.raises(ComputerUnsupportedError):
        await leased(pool, {"display": ":0"})  # type: ignore[arg-type]


def test_computers_of_a_loop_that_is_over_are_killed() -> None:
    made: list[Machine] = []

    async def use() -> ComputerPool:
        maker = Maker()
        pool = default_pool()
        pool._open = maker
        await leased(pool)
        made.extend(maker.made)
        return pool

    first = asyncio.run(use())
    second = asyncio.run(use())
    assert first is not second
    assert made[0].killed
    second.kill()
    assert made[1].killed


def test_a_pool_of_nothing_cannot_be() -> None:
    with pytest.raises(ValidationError):
        ComputerPool(0)
    with pytest.raises(ValidationError):
        ComputerPool(2, warm=3)
