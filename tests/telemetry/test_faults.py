"""What goes wrong in middleware, sinks and events of one's own costs that one event, and changes nobody's message."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import uuid
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.telemetry.listening import Depot, Listener

from computeragent import GuardrailFilter
from computeragent.telemetry import Pipeline, TelemetryEvent
from computeragent.telemetry.lane import Lane
from computeragent.telemetry.steps import Step

pytestmark = pytest.mark.anyio


def event(number: int, **given: Any) -> TelemetryEvent:
    return TelemetryEvent(kind="system_message", session_id="s1", payload={"number": number}, **given)


def numbers(sink: Listener | Depot) -> list[int]:
    return [one.payload["number"] for one in sink.events]


class Raises:
    """A guard and keeper of secrets of which everything fails."""

    enforced_ceiling_usd = None

    def verdict(self, session_id: str) -> Any:
        raise ValueError("verdict")

    def learn(self, session_id: str, settings: Any) -> None:
        raise ValueError("learn")

    def forget(self, session_id: str) -> None:
        raise ValueError("forget")

    async def __call__(self, event: TelemetryEvent) -> TelemetryEvent:
        return event


@pytest.mark.parametrize("junk", [True, {}, "exit", "payload", "session"])
async def test_middleware_that_returns_junk_loses_that_event_only(junk: Any) -> None:
    async def odd(event: TelemetryEvent) -> Any:
        if event.payload["number"] != 1:
            return event
        if junk == "exit":
            sys.exit(3)
        if junk == "payload":
            event.payload = None  # type: ignore[assignment]
        elif junk == "session":
            event.session_id = ["s1"]  # type: ignore[assignment]
        return junk if isinstance(junk, (bool, dict)) else event

    sinks = [Listener(), Listener()]
    pipeline = Pipeline(middleware=[odd], sinks=sinks)
    for number in range(3):
        await pipeline.emit(event(number))
    assert await pipeline.flush()
    assert [numbers(sink) for sink in sinks] == [[0, 2], [0, 2]]
    assert pipeline.stats()["failed"] == {"function": 1}
    await pipeline.aclose()


async def test_a_guard_that_raises_costs_no_event() -> None:
    sink = Listener()
    pipeline = Pipeline(middleware=[Raises()], sinks=[sink])
    pipeline.offer(Step(0, lambda _: pipeline.learned("s1", [{}])))
    await pipeline.emit(event(1))
    await pipeline.emit(TelemetryEvent(kind="session_ended", session_id="s1", payload={"number": 2}))
    assert await pipeline.flush()
    assert numbers(sink) == [1, 2]
    assert pipeline.stats()["failed"] == {"Raises": 4}
    await pipeline.aclose()


async def test_odd_events_of_ones_own_cost_no_others() -> None:
    sink, depot = Listener(), Depot()
    pipeline = Pipeline(sinks=[sink, depot])
    odd: list[Any] = [5, event(1, timestamp=None), event(2, agent_id=uuid.UUID(int=1)), event(3)]
    odd[3].session_id = ["s1"]
    for one in [event(0), *odd, event(4)]:
        await pipeline.emit(one)
    assert await pipeline.flush()
    assert numbers(sink) == numbers(depot) == [0, 2, 4]
    assert depot.events[1].agent_id == str(uuid.UUID(int=1))
    assert pipeline.stats()["failed"] == {"tell": 3}
    await pipeline.aclose()


async def test_a_sink_that_exits_gets_the_next_event_all_the_same() -> None:
    class Leaving(Listener):
        async def emit(self, event: TelemetryEvent) -> None:
            if event.payload["number"] == 0:
                sys.exit(1)
            await super().emit(event)

    sink = Leaving()
    pipeline = Pipeline(sinks=[sink])
    await pipeline.emit(event(0))
    await pipeline.emit(event(1))
    assert await pipeline.flush()
    assert numbers(sink) == [1]
    await pipeline.aclose()


async def test_what_one_sink_changes_deep_inside_no_other_sees() -> None:
    class Changes(Listener):
        async def emit(self, event: TelemetryEvent) -> None:
            event.payload["tool_input"]["command"] = "changed"

    class Late(Listener):
        async def emit(self, event: TelemetryEvent) -> None:
            await asyncio.sleep(0.05)
            await super().emit(event)

    other = Late()
    pipeline = Pipeline(sinks=[Changes(), other])
    await pipeline.emit(TelemetryEvent(kind="tool_use", session_id="s1", payload={"tool_input": {"command": "ls"}}))
    assert await pipeline.flush()
    assert other.one("tool_use").payload == {"tool_input": {"command": "ls"}}
    await pipeline.aclose()


async def test_sinks_of_one_kind_have_counts_of_their_own() -> None:
    pipeline = Pipeline(sinks=[Listener(), Listener()])
    await pipeline.emit(event(1))
    assert await pipeline.flush()
    assert {name: state["delivered"] for name, state in pipeline.stats()["sinks"].items()} == {
        "Listener": 1,
        "Listener 2": 1,
    }
    await pipeline.aclose()


async def test_settling_needs_no_worker_thread_that_others_keep_busy() -> None:
    pipeline = Pipeline(sinks=[Listener()])
    async with anyio.create_task_group() as tasks:
        for _ in range(int(anyio.to_thread.current_default_thread_limiter().total_tokens)):
            tasks.start_soon(anyio.to_thread.run_sync, time.sleep, 1.5)
        await anyio.sleep(0.2)
        await pipeline.emit(event(1))
        with anyio.fail_after(30):
            assert await pipeline.settle(0.9)
    await pipeline.aclose()


def test_what_must_stay_is_bounded_as_well() -> None:
    async def stuck(items: list[str]) -> None:
        await asyncio.sleep(3600)

    lane: Lane[str] = Lane("test", stuck, max_items=100, max_bytes=5_000, weigh=len, keep=lambda _: True)
    for _ in range(1_000):
        lane.put("x" * 100)
    assert len(lane) <= 250
    assert lane.dropped >= 600


async def test_closing_waits_for_the_one_who_closes_already() -> None:
    class Slow(Listener):
        async def flush(self, timeout: float = 5.0) -> None:
            await asyncio.sleep(0.3)
            await super().flush(timeout)

    sink = Slow()
    pipeline = Pipeline(sinks=[sink])
    await pipeline.emit(event(1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pipeline.aclose)
        await anyio.sleep(0.05)
        await pipeline.aclose()
        assert sink.flushed == 1


async def test_what_is_logged_and_counted_of_a_fault_is_redacted(caplog: pytest.LogCaptureFixture) -> None:
    key = "sk-ant-api03-" + "A1b2C3d4E5f6G7h8" * 5

    class Failing(Listener):
        async def emit(self, event: TelemetryEvent) -> None:
            raise ConnectionError(f"nobody at https://ada:hunter2secret@host/{key}")

    async def quotes(event: TelemetryEvent) -> TelemetryEvent:
        if event.payload["number"] == 0:
            raise ValueError(f"ada@example.com said {key}")
        return event

    def filters(event: TelemetryEvent) -> TelemetryEvent:
        raise ValueError(f"ada@example.com said {key}")

    guard = GuardrailFilter(content_filter=filters, mode="observe")
    pipeline = Pipeline(middleware=[quotes, guard], sinks=[Failing()])
    with caplog.at_level("DEBUG", logger="computeragent"):
        await pipeline.emit(event(0))
        await pipeline.emit(event(1))
        await pipeline.emit(TelemetryEvent(kind="session_ended", session_id="s1", payload={"number": 2}))
        assert await pipeline.flush()
    said = caplog.text + repr(pipeline.stats())
    assert all(where in said for where in ("sink_failing", "content_filter_failed", "where=function"))
    assert not any(secret in said for secret in (key, "ada@example.com", "hunter2secret"))
    await pipeline.aclose()


def test_where_no_thread_can_be_had_nobody_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    pipeline = Pipeline(sinks=[Listener()])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        pipeline.offer(Step(0, lambda _: [event(1)]))
        before = time.monotonic()
        assert not pipeline.flush_sync(50)
        assert time.monotonic() - before < 25
    pipeline.offer(Step(0, lambda _: [event(2)]))
    assert pipeline.flush_sync(5)
    assert pipeline.stats()["emitted"] == 2
    pipeline.close(5)
