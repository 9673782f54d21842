"""Stream torture: what the event streams of a harness server promise, held to it while connections break.

It needs nothing of the server but the protocol and the scripted engine.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import quote

from computeragent.client import HarnessClient
from computeragent.errors import ComputerAgentError, UnknownEngineError, ValidationError
from computeragent.testing.cutting_proxy import Cut, CuttingProxy
from computeragent.testing.raw_stream import Reading, StreamAddress, frame_id, frame_kind, read_stream
from computeragent.testing.torture_report import Check, TortureReport
from computeragent.wire.requests import UserInput

LIMIT = 120.0
"""Seconds after which a reading that does not end is a violation."""
_AROUND = 5  # events of a run beside its texts: start, init, turn, result, end
_LIVE_EVENTS = 200
_LIVE_PAUSE = 0.004
_EXPIRING = 1_300
_BIG = 64 * 1024
_BIG_EVENTS = 160
_INLINE = {"type": "inline", "manifest": {"name": "stream-torture", "version": "1"}}
_JUNK: tuple[str | bytes, ...] = (
    "abc", "-1", "1.5", "1e3", "0x10", "+1", "1 2", "1,2", "null", "9" * 30, "٣".encode(), b"\xff", "1;2",
)  # fmt: skip
_ODD = (
    "plain words",
    "grün 🌲 \u2028 \u2029 \x7f \x00 \x1b[31m",
    "data: not an event\n\nid: 7\nevent: ca_session_ended\n\n",
    "\r\n\r\n : ping \r",
    "",
    '"}]}\\',
)
Progress = Callable[[str], None]


async def stream_torture(
    url: str,
    *,
    token: str | None = None,
    events: int = 500,
    seeds: int = 20,
    concurrency: int = 16,
    slow: float = 75.0,
    heartbeat: float | None = 30.0,
    progress: Progress | None = None,
) -> TortureReport:
    """Torture the event streams of the harness server at `url`; what came of it.

    A run of `events` events is read with its connection cut inside each single event, `seeds` times at random bytes of
    it: ``events × seeds`` cuts. Then come runs under way, slow readers, silence, impossible ids, and bad ends.

    Args:
        url: Where the server is.
        token: A bearer token of it. All sessions that are made are deleted again.
        events: Events of the run that is cut; at least 10.
        seeds: How often it is cut at each event.
        concurrency: Connections that are read at the same time.
        slow: Seconds for which one subscriber reads a byte per second.
        heartbeat: Seconds of silence in which a heartbeat must come; None does not wait for one.
        progress: Is told, in short lines, what is going on.

    Raises `HarnessProtocolError` where there is no harness server, and `UnknownEngineError` where it does not offer the
    scripted engine. Violations are not raised: they are in the report.

    """
    if events < 2 * _AROUND or seeds < 1 or concurrency < 1:
        raise ValidationError(
            "events is at least 10, seeds and concurrency at least 1", hint="The defaults are 500, 20 and 16."
        )
    address = StreamAddress(url, token)
    began = time.monotonic()
    async with HarnessClient(base_url=url, token=token) as client:
        await _require_scripted(client)
        async with CuttingProxy(address) as proxy:
            torture = _Torture(client, address, proxy, progress or _silent)
            try:
                checks = await torture.all(
                    events=events, seeds=seeds, concurrency=concurrency, slow=slow, heartbeat=heartbeat
                )
            finally:
                await torture.tidy()
    return TortureReport(client.base_url, checks, time.monotonic() - began)


async def _require_scripted(client: HarnessClient) -> None:
    offered = cast("dict[str, Any]", (await client.health()).get("engines") or {})
    if "scripted" not in offered:
        raise UnknownEngineError("scripted", sorted(offered))


def _has_comment(reading: Reading) -> bool:
    return reading.comments > 0


def _says_anything(reading: Reading) -> bool:
    return bool(reading.frames or reading.comments)


def _silent(line: str) -> None:
    del line


@dataclass(frozen=True, slots=True)
class _Run:
    """A run and all its frames, as they are read when nothing is cut."""

    path: str
    frames: Sequence[bytes]

    def offset(self, index: int) -> int:
        """Bytes before an event."""
        return sum(len(frame) for frame in self.frames[:index])


class _Torture:
    def __init__(self, client: HarnessClient, address: StreamAddress, proxy: CuttingProxy, progress: Progress) -> None:
        self._client = client
        self._address = address
        self._proxy = proxy
        self._progress = progress
        self._made: list[str] = []

    async def all(
        self, *, events: int, seeds: int, concurrency: int, slow: float, heartbeat: float | None
    ) -> list[Check]:
        """Every check; those that mostly wait go on beside the others."""
        beside = [asyncio.create_task(self._timed(self._a_slow_reader_beside_a_fast_one, slow))]
        if heartbeat is not None:
            beside.append(asyncio.create_task(self._timed(self._silence, heartbeat)))
        try:
            whole = Check("a reading that is left alone")
            run = await self._finished_run(whole, events)
            if whole.violations:
                return [whole]  # there is nothing to torture
            checks = [
                whole,
                await self._timed(self._cut_inside_every_event, run, seeds, concurrency),
                await self._timed(self._cut_while_it_runs, seeds, concurrency),
                await self._timed(self._ids_that_cannot_be, run),
                await self._timed(self._ids_that_are_gone),
                await self._timed(self._runs_that_end_badly),
            ]
            self._progress("waiting for the slow reader")
            return [*checks, *await asyncio.gather(*beside)]
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def tidy(self) -> None:
        """Delete what was made."""
        for session in self._made:
            with suppress(ComputerAgentError):
                await self._client.delete_session(session)

    async def _timed(self, do: Callable[..., Awaitable[None]], *given: Any) -> Check:
        """One check; what keeps it from being done is a violation of it."""
        check = Check(" ".join(do.__name__.strip("_").split("_")))
        began = time.monotonic()
        try:
            await do(check, *given)
        except TimeoutError:
            check.violations.append(f"a stream did not end in {LIMIT:g} s")
        except ComputerAgentError as error:
            check.violations.append(f"{error.code}: {error.message}")
        check.seconds = time.monotonic() - began
        return check

    # ── Runs ──

    async def _open(self, *turns: list[dict[str, Any]]) -> str:
        """A scripted session; the path of its events."""
        body = {
            "engine": "scripted",
            "identity": {"loader": "passthrough", "source": _INLINE},
            "options": {"script": list(turns)},
            "streamingInput": True,
        }
        session = str((await self._client.create_session(body))["sessionId"])
        self._made.append(session)
        return f"/v1/sessions/{quote(session, safe='')}/events"

    async def _say(self, path: str, text: str = "go", *, last: bool = False) -> None:
        session = self._session(path)
        await self._client.send_message(session, UserInput(content=text))
        if last:
            await self._client.end_input(session)

    def _session(self, path: str) -> str:
        return path.split("/")[3]

    async def _over(self, path: str) -> None:
        async with asyncio.timeout(LIMIT):
            while (await self._client.session(self._session(path)))["status"] == "running":  # noqa: ASYNC110 - it is there
                await asyncio.sleep(0.02)

    async def _read(self, path: str, after: int | str | bytes | None = None, **how: Any) -> Reading:
        async with asyncio.timeout(LIMIT):
            return await read_stream(self._address, path, after=after, **how)

    async def _read_cut(self, path: str, after: int | None, cut: Cut) -> Reading:
        plan = partial(self._proxy.plan, cut=cut)
        return await self._read(path, after, through=self._proxy.port, connected=plan)

    async def _finished_run(self, check: Check, events: int) -> _Run:
        """A run that is over, and whether it is as it should be."""
        self._progress(f"a run of {events:,} events")
        began = time.monotonic()
        texts = [{"text": f"{number}: {_ODD[number % len(_ODD)]}"} for number in range(events - _AROUND)]
        if len(texts) > 50:
            texts[40] = {"text": "w" * _BIG}
        path = await self._open(texts)
        await self._say(path, last=True)
        first, second = await self._read(path), await self._read(path)
        check.tried, check.unit = len(first.frames), "events"
        _check_whole(check, first)
        check.expect(len(first.frames) >= events, f"{len(first.frames)} events came of a run of {events}")
        check.expect(second.frames == first.frames, "a second reading had other bytes")
        check.seconds = time.monotonic() - began
        return _Run(path, first.frames)

    # ── Cuts ──

    async def _cut_inside_every_event(self, check: Check, run: _Run, seeds: int, concurrency: int) -> None:
        """The run again and again, each connection cut inside the next event; resumed after what had come."""
        check.unit = "cuts"
        total, before = len(run.frames) * seeds, self._proxy.cuts
        offsets = [0]
        for frame in run.frames:
            offsets.append(offsets[-1] + len(frame))
        gate = asyncio.Semaphore(concurrency)

        async def one(seed: int) -> None:
            async with gate:
                await self._chain(check, run, offsets, random.Random(seed))  # noqa: S311 - a repeatable choice

        async def tell() -> None:
            while True:
                self._progress(f"cut {self._proxy.cuts - before:,} of {total:,}")
                await asyncio.sleep(0.5)

        telling = asyncio.create_task(tell())
        try:
            await asyncio.gather(*(one(seed) for seed in range(seeds)))
        finally:
            telling.cancel()
        check.tried = self._proxy.cuts - before
        check.expect(check.tried == total, f"{check.tried:,} connections were cut, not {total:,}")

    async def _chain(self, check: Check, run: _Run, offsets: list[int], chance: random.Random) -> None:
        """One reading of the run, cut inside every event in turn."""
        had = 0
        for index, frame in enumerate(run.frames):
            cut = Cut(offsets[index] - offsets[had] + chance.randrange(len(frame)), reset=chance.random() < 0.5)
            reading = await self._read_cut(run.path, had - 1 if had else None, cut)
            if not self._goes_on(check, run, had, reading):
                return
            if not check.expect(
                len(reading.frames) + had <= index and not reading.complete,
                f"cut in event {index}: {len(reading.frames)} events came after {had - 1}",
            ):
                return
            had += len(reading.frames)
        reading = await self._read(run.path, had - 1 if had else None)
        if self._goes_on(check, run, had, reading):
            check.expect(had + len(reading.frames) == len(run.frames), f"the end was lost after event {had - 1}")
            check.expect(reading.complete, "the last connection did not end by itself")

    def _goes_on(self, check: Check, run: _Run, had: int, reading: Reading) -> bool:
        """Whether a connection went on exactly after what had come before it."""
        if reading.status not in {0, 200}:
            return check.expect(
                False, f"resuming after {had - 1} was answered {reading.status}: {reading.body[:120]!r}"
            )
        expected = list(run.frames[had : had + len(reading.frames)])
        if reading.frames == expected:
            return True
        ids, wanted = [frame_id(each) for each in reading.frames], [frame_id(each) for each in expected]
        if ids != wanted:
            return check.expect(False, f"after event {had - 1} came {ids[:5]}, not {wanted[:5]}")
        return check.expect(False, f"after event {had - 1} the same ids came with other bytes")

    async def _cut_while_it_runs(self, check: Check, seeds: int, concurrency: int) -> None:
        """A run under way, read by some whose connections are cut all the time, and by one whose is not."""
        self._progress("a run under way")
        check.unit = "cuts"
        before = self._proxy.cuts
        steps: list[dict[str, Any]] = []
        for number in range(_LIVE_EVENTS):
            steps += [{"text": f"{number}: {_ODD[number % len(_ODD)]}"}, {"delay": _LIVE_PAUSE}]
        path = await self._open(steps)
        calm = asyncio.create_task(self._read(path))
        readers = [self._restless(check, path, random.Random(seed)) for seed in range(min(seeds, concurrency))]  # noqa: S311
        reading = asyncio.gather(*readers)
        await self._say(path, last=True)
        found = await reading
        whole = await calm
        _check_whole(check, whole)
        later = await self._read(path)
        check.expect(later.frames == whole.frames, "read later, the run had other bytes")
        for each in found:
            check.expect(each == whole.frames, f"a reader that was cut had {len(each)} events of {len(whole.frames)}")
        check.tried = self._proxy.cuts - before

    async def _restless(self, check: Check, path: str, chance: random.Random) -> list[bytes]:
        """Read a run to its end over connections that are cut again and again."""
        got: list[bytes] = []
        longest = 2_000
        async with asyncio.timeout(LIMIT):
            while True:
                cut = Cut(chance.randrange(1, longest), reset=chance.random() < 0.5)
                reading = await self._read_cut(path, frame_id(got[-1]) if got else None, cut)
                if reading.status not in {0, 200}:
                    check.expect(False, f"resuming was answered {reading.status}: {reading.body[:120]!r}")
                    return got
                got += reading.frames
                if reading.complete:
                    return got
                longest = 2_000 if reading.frames else longest * 2

    # ── Slow and silent ──

    async def _a_slow_reader_beside_a_fast_one(self, check: Check, slow: float) -> None:
        """Two subscribers to a big run, one of which reads a byte per second: neither delays the other or loses any."""
        check.unit = "bytes"
        path = await self._open([{"text": "{message}"}] * _BIG_EVENTS)
        enough, taken = asyncio.Event(), 0

        async def pace() -> int:
            nonlocal taken
            if not enough.is_set() and taken:
                with suppress(TimeoutError):
                    await asyncio.wait_for(enough.wait(), 1.0)
            taken += 1
            return 65536 if enough.is_set() else 1

        crawling = asyncio.create_task(read_stream(self._address, path, pace=pace))
        try:
            await self._say(path, "w" * _BIG, last=True)
            fast = await self._read(path)
            _check_whole(check, fast)
            check.tried = sum(map(len, fast.frames))
            check.expect(taken < check.tried // 2, "the fast reader waited for the slow one")
            await asyncio.sleep(slow)
        finally:
            enough.set()
        reading = await crawling
        frames = reading.frames
        check.expect(frames == list(fast.frames[: len(frames)]), "the slow reader had other events")
        check.note = f"the slow one was cut after {len(frames)} of {len(fast.frames)} events and went on"
        if reading.complete:
            check.note = f"the slow one was let stay for {slow:g} s"
        else:
            rest = await self._read(path, reading.last_id)
            frames = [*frames, *rest.frames]
        check.expect(frames == fast.frames, f"the slow reader had {len(frames)} events of {len(fast.frames)}")

    async def _silence(self, check: Check, heartbeat: float) -> None:
        """A session in which nothing happens: comments must come, and no events."""
        check.unit = "heartbeats"
        path = await self._open([{"text": "x"}])
        began = time.monotonic()
        try:
            async with asyncio.timeout(heartbeat):
                reading = await read_stream(self._address, path, until=_has_comment)
        except TimeoutError:
            check.violations.append(f"nothing came in {heartbeat:g} s of silence")
            return
        check.tried = reading.comments
        check.expect(reading.comments > 0, "the stream ended in silence")
        check.note = f"after {time.monotonic() - began:.1f} s"

    # ── Ids ──

    async def _ids_that_cannot_be(self, check: Check, run: _Run) -> None:
        """Junk is 400; an id that has not happened is 409 while the run lives and an empty stream after its end."""
        self._progress("ids that cannot be")
        check.unit = "requests"
        live = await self._open([{"text": "x"}, {"delay": 600}])
        await self._say(live)
        newest = len(run.frames) - 1
        for path in (run.path, live):
            for junk in _JUNK:
                await self._refused(check, path, junk, 400, None)
            await self._refused(check, f"{path}?lastEventId=abc", None, 400, None)
        await self._refused(check, live, 10**6, 409, None)
        await self._refused(check, f"{live}?lastEventId=1000000", None, 409, None)
        await self._refused(check, "/v1/sessions/sess_nobody/events", 3, 404, "NOT_FOUND")
        for after in (newest, newest + 1, 10**6):
            check.tried += 1
            reading = await self._read(run.path, after)
            is_empty = reading.status == 200 and reading.complete and not reading.frames
            check.expect(is_empty, f"after the end, id {after} brought {reading.status}, {len(reading.frames)} events")

    async def _refused(
        self, check: Check, path: str, after: int | str | bytes | None, status: int, code: str | None
    ) -> dict[str, Any]:
        """The error with which a request is refused."""
        check.tried += 1
        reading = await self._read(path, after, until=_says_anything)
        what = f"Last-Event-ID {after!r} on {path}"
        if not check.expect(reading.status == status, f"{what} was answered {reading.status}, not {status}"):
            return {}
        try:
            error = cast("dict[str, Any]", json.loads(reading.body)["error"])
        except (ValueError, KeyError, TypeError):
            check.violations.append(f"{what} was refused without an error in the envelope")
            return {}
        check.expect(code is None or error.get("code") == code, f"{what} was refused with {error.get('code')}")
        return error

    async def _ids_that_are_gone(self, check: Check) -> None:
        """A long turn and one after it: what is no longer kept is 410 with the earliest id, never skipped."""
        self._progress("ids that are gone")
        check.unit = "requests"
        path = await self._open([{"text": "old"}] * _EXPIRING, [{"text": "new"}])
        await self._say(path)
        await self._say(path, last=True)
        await self._over(path)
        check.tried += 1
        reading = await self._read(path, 0)
        if reading.status == 200:
            check.note = "the server keeps them all"
            ids = [frame_id(each) for each in reading.frames]
            check.expect(ids == list(range(1, len(ids) + 1)), "events were skipped")
            check.expect(len(ids) > _EXPIRING, f"{len(ids)} events came of more than {_EXPIRING}")
            return
        gone = await self._refused(check, path, 0, 410, None)
        details = gone.get("details")
        earliest: object = cast("dict[str, Any]", details).get("earliest") if isinstance(details, dict) else None
        if not isinstance(earliest, int) or isinstance(earliest, bool):
            check.expect(False, "410 did not say which is the earliest event")
            return
        check.note = f"410, earliest {earliest:,}"
        check.tried += 1
        rest = await self._read(path, earliest - 1)
        ids = [frame_id(each) for each in rest.frames]
        check.expect(ids == list(range(earliest, earliest + len(ids))), "after the earliest, events were skipped")
        check.expect(bool(ids) and _ended(rest.frames[-1]), "resuming at the earliest event brought no end")
        await self._refused(check, path, max(0, earliest - 2), 410, None)

    # ── Ends ──

    async def _runs_that_end_badly(self, check: Check) -> None:
        """Runs whose engine breaks, is cancelled or runs out of budget: the last event is their end all the same."""
        self._progress("runs that end badly")
        check.unit = "runs"
        endings: dict[str, list[dict[str, Any]]] = {
            "error": [{"text": "x"}, {"raise": "it broke"}],
            "budget_exceeded": [{"text": "x"}, {"end": "budget_exceeded"}],
            "cancelled": [{"text": "x"}, {"delay": 600}],
        }
        for reason, steps in endings.items():
            path = await self._open(steps)
            watching = asyncio.create_task(self._read(path))
            await self._say(path)
            if reason == "cancelled":
                await self._client.cancel(self._session(path))
            for reading in (await watching, await self._read(path)):
                check.tried += 1
                _check_whole(check, reading)
                said = _data(reading.frames[-1]).get("reason") if reading.frames else None
                check.expect(said == reason, f"a run that should end with {reason} ended with {said}")


def _check_whole(check: Check, reading: Reading) -> None:
    """One first event, one last, ids from 0 without a gap, line feeds alone, and an end of the answer itself."""
    frames = reading.frames
    if not check.expect(reading.status == 200, f"the stream was answered {reading.status}: {reading.body[:120]!r}"):
        return
    kind = reading.headers.get("content-type", "")
    check.expect(kind.startswith("text/event-stream"), f"a stream of content type {kind!r}")
    check.expect(reading.complete, "the answer did not end by itself")
    ids = [frame_id(each) for each in frames]
    check.expect(ids == list(range(len(ids))), f"ids are not 0 to {len(ids) - 1}")
    kinds = [frame_kind(each) for each in frames]
    check.expect(kinds[:1] == ["ca_session_started"], f"the first event is {kinds[:1]}")
    check.expect(kinds[-1:] == ["ca_session_ended"], f"the last event is {kinds[-1:]}")
    for each in ("ca_session_started", "ca_session_ended"):
        check.expect(kinds.count(each) == 1, f"{kinds.count(each)} events of {each}")
    check.expect(not any(b"\r" in each for each in frames), "line ends are not line feeds alone")
    told = [frame for frame, kind in zip(frames, kinds, strict=True) if _data(frame).get("kind") != kind]
    check.expect(not told, f"an event's name is not its kind: {told[:1]}")


def _ended(frame: bytes) -> bool:
    return frame_kind(frame) == "ca_session_ended"


def _data(frame: bytes) -> dict[str, Any]:
    """The event in a frame."""
    lines = [line.partition(b":")[2].removeprefix(b" ") for line in frame.split(b"\n") if line.startswith(b"data:")]
    try:
        found: object = json.loads(b"\n".join(lines))
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
