"""Who has which computer, and for how long: a bounded pool with leases, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from computeragent.computer.custom import are_functions
from computeragent.computer.kinds import open_computer, show, spec_of
from computeragent.computer.spec import ComputerSpec
from computeragent.computer.types import Computer, Killable
from computeragent.errors import ComputerBusyError, ComputerError, ValidationError
from computeragent.logs import Logger

Open = Callable[[ComputerSpec], Awaitable[Computer]]

LIMIT = 4
"""Computers at a time: what two processors drive."""
IDLE_TTL = 300.0
PATIENCE = 60.0
_RESET = 20.0
_CLOSE = 30.0
_ALIVE = 5.0
_PAUSE = 0.5  # seconds until a spare that was taken is replaced: whoever took it needs the processor first
_log = Logger("computer.pool")


@dataclass(eq=False, slots=True)
class _Place:
    """Room for one computer. `key` is whose it is; None for a spare, which nobody has had."""

    spec: ComputerSpec
    key: str | None
    computer: Computer | None = None
    expiry: asyncio.TimerHandle | None = None


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who waits for a place."""

    spec: ComputerSpec
    key: str
    place: asyncio.Future[_Place]


@dataclass(eq=False, slots=True)
class _Own:
    """A computer that callers brought along, and who uses it."""

    computer: Computer | Mapping[str, Any]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class ComputerPool:
    """Computers for many callers: at most `limit`, each leased to one at a time, reset before its next lease.

    A computer that was used is leased again under the same `key` alone, so that nothing of one tenant reaches another;
    spares, which nobody has had, go to anyone. Attached displays and remote machines are leased to one at a time, too,
    and are not reset. Who asks first is served first. A pool belongs to the event loop that it is first used in.

    Args:
        limit: Computers that there are at a time, idle ones included.
        idle_ttl: Seconds after which a computer that nobody leases is closed.
        warm: Spares to keep ready of what was leased last, as far as `limit` allows.
        timeout: Seconds that a lease waits for a computer.
        reset_timeout: Seconds that a computer may take to be as good as new; else it is closed.
        open: How a computer is opened.

    """

    def __init__(
        self,
        limit: int = LIMIT,
        *,
        idle_ttl: float = IDLE_TTL,
        warm: int = 0,
        timeout: float = PATIENCE,
        reset_timeout: float = _RESET,
        open: Open = open_computer,  # noqa: A002 - it is what it does
    ) -> None:
        if limit < 1 or not 0 <= warm <= limit:
            raise ValidationError(f"a pool of {limit} computers with {warm} spares cannot be")
        self._limit, self._warm, self._open = limit, warm, open
        self._idle_ttl, self._timeout, self._reset_timeout = idle_ttl, timeout, reset_timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._forget()

    @property
    def limit(self) -> int:
        """How many computers there are at a time. It may be set; a lower one acts as leases end."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        if limit < 1:
            raise ValidationError(f"a pool of {limit} computers cannot be")
        self._limit = limit
        if self._waiters:
            self._serve()

    @property
    def busy(self) -> int:
        """How many computers are not to be had: starting, leased, being reset or closing."""
        return len(self._busy)

    @property
    def idle(self) -> int:
        """How many are ready."""
        return len(self._idle)

    @property
    def is_closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._is_closed

    @asynccontextmanager
    async def lease(
        self, computer: ComputerSpec | Computer | Mapping[str, Any], *, key: str = "", timeout: float | None = None
    ) -> AsyncGenerator[Computer]:
        """A computer while the block runs. It is reset afterwards; the block does not wait for that.

        A `Computer` or a mapping of functions is the caller's own: it is kept from others meanwhile, and that is all.

        Args:
            computer: What to lease.
            key: Whose lease it is, such as a tenant and a digest of its environment.
            timeout: Seconds to wait for one; default the pool's.

        Raises:
            ComputerBusyError: None came free in time.
            ComputerError: It does not start, or the pool is closed.

        """
        self._belong_here()
        patience = self._timeout if timeout is None else timeout
        if isinstance(computer, Mapping) and not are_functions(computer):
            computer = spec_of(computer)
        if not isinstance(computer, ComputerSpec):
            async with self._borrowed(computer, patience) as own:
                yield own
            return
        place = await self._place(computer, key, patience)
        try:
            yield await self._ready(place)
        finally:
            self._release(place)

    async def prepare(self, spec: ComputerSpec, count: int = 1) -> None:
        """Return when this many spares of a spec are ready. Raises what keeps them from starting."""
        self._belong_here()
        while self._spares(spec) < count:
            if not self._has_room:
                raise ComputerBusyError(f"there is no room for {count} spares", hint=f"The limit is {self._limit}.")
            await self._start_spare(spec)

    async def aclose(self) -> None:
        """Close every computer, leased ones too, and refuse further leases. May be called again."""
        self._is_closed = True
        if self._renewals:  # they end sooner than they could be undone
            await asyncio.wait(set(self._renewals), timeout=self._reset_timeout)
        _used.discard(self)
        places, tasks, waiters = [*self._busy, *self._idle], list(self._tasks), list(self._waiters)
        self._forget()
        for waiter in waiters:
            if not waiter.place.done():
                waiter.place.set_exception(_closed())
        for place in places:
            _wake(place)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(_close(place) for place in places))

    def kill(self) -> None:
        """End the processes of every computer at once, without an event loop: at the end of a program."""
        _used.discard(self)
        places = [*self._busy, *self._idle]
        self._forget()
        for place in places:
            if isinstance(place.computer, Killable):
                with suppress(Exception):
                    place.computer.kill()

    # ── Waiting for a place ──

    async def _place(self, spec: ComputerSpec, key: str, patience: float) -> _Place:
        waiter = _Waiter(spec, key, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._serve()
        try:
            async with asyncio.timeout(patience):
                return await waiter.place
        except TimeoutError:
            self._hand_back(waiter)
            raise ComputerBusyError(
                f"no computer came free within {patience:g} seconds",
                hint=f"{self._limit} may be in use at a time; try again later.",
            ) from None
        except BaseException:
            self._hand_back(waiter)
            raise

    def _hand_back(self, waiter: _Waiter) -> None:
        """A waiter goes away; what it was given at that very moment goes to the next."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            self._serve()
        elif waiter.place.done() and not waiter.place.cancelled() and waiter.place.exception() is None:
            place = waiter.place.result()
            if place in self._busy:
                self._rest(place) if place.computer is not None else self._free(place)

    def _serve(self) -> None:
        """Give places to those who wait, in order. Who waits for one certain machine holds up nobody else."""
        for waiter in list(self._waiters):
            if waiter.place.done():  # cancelled, and not yet gone
                continue
            only = waiter.spec.place
            if only is not None and any(place.spec.place == only for place in self._busy):
                continue
            place = self._find(waiter)
            if place is None:
                return
            self._waiters.remove(waiter)
            self._busy.add(place)
            waiter.place.set_result(place)

    def _find(self, waiter: _Waiter) -> _Place | None:
        """An idle computer that fits, else room for a new one; None where there is neither as yet."""
        for key in (waiter.key, None):
            for place in self._idle:
                if place.spec == waiter.spec and place.key == key:
                    self._take(place)
                    place.key = waiter.key
                    return place
        if self._has_room:
            return _Place(waiter.spec, waiter.key)
        if self._idle and not self._closing:  # the one that has been idle for longest makes room
            self._retire(self._idle[0])
        return None

    async def _ready(self, place: _Place) -> Computer:
        """The computer of a place: one that lives, started if need be."""
        spec = place.spec
        if place.computer is not None and not await _lives(place.computer):
            _log.warn("found_dead", kind=spec.kind)
            await _close(place)
        if place.computer is None:
            opened = await self._open(spec)
            place.computer = opened
            if place not in self._busy:  # the pool was closed meanwhile
                await _close(place)
                raise _closed()
        elif spec.page is not None:
            await show(place.computer, spec.page)
        if self._warm and not self._is_warming:
            self._is_warming = True
            self._later(self._keep_warm(spec))
        return place.computer

    # ── Giving it back ──

    def _release(self, place: _Place) -> None:
        if place not in self._busy:
            return  # it was closed with the pool
        if place.computer is None:
            self._free(place)
        else:
            self._renewals.add(self._later(self._renew(place, place.computer)))

    async def _renew(self, place: _Place, computer: Computer) -> None:
        """Make a computer as good as new for its next lease, or close it."""
        if place.spec.place is None:
            try:
                async with asyncio.timeout(self._reset_timeout):
                    await computer.reset()
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody else gets this computer
                _log.warn("not_reset", kind=place.spec.kind, error=str(error)[:200])
            else:
                self._rest(place)
                return
        await self._end(place)

    async def _end(self, place: _Place) -> None:
        await _close(place)
        self._free(place)

    def _free(self, place: _Place) -> None:
        """The place is no more; its room is."""
        self._busy.discard(place)
        self._closing.discard(place)
        self._serve()

    def _rest(self, place: _Place) -> None:
        """A computer is idle: until its next lease, or until nobody has come for it."""
        if place not in self._busy:
            return
        if len(self._busy) + len(self._idle) > self._limit:
            self._closing.add(place)
            self._renewals.add(self._later(self._end(place)))
            return
        self._busy.discard(place)
        self._idle.append(place)
        place.expiry = asyncio.get_running_loop().call_later(self._idle_ttl, self._retire, place)
        self._serve()

    def _take(self, place: _Place) -> None:
        self._idle.remove(place)
        _wake(place)

    def _retire(self, place: _Place) -> None:
        """Close an idle computer; its room is taken until it is gone."""
        if place in self._idle:
            self._take(place)
            self._busy.add(place)
            self._closing.add(place)
            self._renewals.add(self._later(self._end(place)))

    # ── Spares ──

    def _spares(self, spec: ComputerSpec) -> int:
        return sum(place.key is None and place.spec == spec for place in self._idle)

    async def _start_spare(self, spec: ComputerSpec) -> None:
        place = _Place(spec, None)
        self._busy.add(place)
        try:
            place.computer = await self._open(spec)
        except BaseException:
            self._free(place)
            raise
        if place in self._busy:
            self._rest(place)
        else:
            await _close(place)

    async def _keep_warm(self, spec: ComputerSpec) -> None:
        try:
            await asyncio.sleep(_PAUSE)
            while self._spares(spec) < self._warm and self._has_room and not self._waiters and spec.place is None:
                await self._start_spare(spec)
        except ComputerError as error:
            _log.warn("spare_failed", error=str(error)[:200])
        finally:
            self._is_warming = False

    # ── Computers that callers bring along ──

    @asynccontextmanager
    async def _borrowed(self, computer: Computer | Mapping[str, Any], patience: float) -> AsyncGenerator[Computer]:
        own = self._owned.setdefault(id(computer), _Own(computer))
        own.users += 1
        try:
            try:
                async with asyncio.timeout(patience):
                    await own.lock.acquire()
            except TimeoutError:
                raise ComputerBusyError(
                    f"the computer did not come free within {patience:g} seconds", hint="It is used by one at a time."
                ) from None
            try:
                yield await open_computer(computer)
            finally:
                own.lock.release()
        finally:
            own.users -= 1
            if not own.users:
                self._owned.pop(id(computer), None)

    # ── Its own life ──

    def _forget(self) -> None:
        self._busy: set[_Place] = set()
        self._idle: list[_Place] = []
        self._closing: set[_Place] = set()
        self._waiters: list[_Waiter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewals: set[asyncio.Task[None]] = set()  # those that make computers as good as new, or close them
        self._owned: dict[int, _Own] = {}
        self._is_warming = False

    @property
    def _has_room(self) -> bool:
        return len(self._busy) + len(self._idle) < self._limit

    def _belong_here(self) -> None:
        """Computers belong to an event loop; those of one that is over have nobody left to close them in peace."""
        if self._is_closed:
            raise _closed()
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            if not self._loop.is_closed():
                raise ComputerError("this pool belongs to another event loop", hint="Make one for each.")
            self.kill()
        self._loop = loop
        _used.add(self)

    def _later(self, doing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._renewals.discard)
        return task


_used: set[ComputerPool] = set()
_default: dict[asyncio.AbstractEventLoop, ComputerPool] = {}


def default_pool() -> ComputerPool:
    """The pool of this event loop. Its computers end with `aclose`, or with the program; `limit` may be set."""
    for loop, pool in list(_default.items()):
        if loop.is_closed():
            _default.pop(loop).kill()
        elif pool.is_closed:
            _default.pop(loop)
    return _default.setdefault(asyncio.get_running_loop(), ComputerPool())


@atexit.register
def _kill_all() -> None:
    for pool in list(_used):
        pool.kill()


def _wake(place: _Place) -> None:
    if place.expiry is not None:
        place.expiry.cancel()
        place.expiry = None


async def _lives(computer: Computer) -> bool:
    try:
        async with asyncio.timeout(_ALIVE):
            await computer.cursor_position()
    except Exception:  # noqa: BLE001 - whatever it says, it is not to be leased
        return False
    return True


async def _close(place: _Place) -> None:
    """Close a place's computer, by force if it does not go."""
    computer = place.computer
    if computer is None:
        return
    try:
        async with asyncio.timeout(_CLOSE):
            await computer.close()
    except Exception as error:  # noqa: BLE001 - then by force
        _log.warn("not_closed", kind=place.spec.kind, error=str(error)[:200])
        if isinstance(computer, Killable):
            await asyncio.to_thread(computer.kill)
    place.computer = None


def _closed() -> ComputerError:
    return ComputerError("the pool of computers is closed")
