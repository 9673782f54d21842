"""Delivery through outages: nothing is lost once the backend is back, what is sent again has the ids that it had."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from computeragent.telemetry import Pipeline, TelemetryEvent
from computeragent.telemetry.event import encode
from computeragent.telemetry.protocols import RetryLater
from computeragent.telemetry.shipping import Shipper
from computeragent.telemetry.sinks.otel import OtelSink
from computeragent.telemetry.sinks.otel.outlet import Box
from computeragent.telemetry.sinks.otel.wire import RejectedError
from computeragent.telemetry.spool import Spool, Spooled
from computeragent.telemetry.trace_context import ids_of

from .collector import Answer, Collector, serving
from .stories import Teller, one_turn

ONE_TURN = Counter({"invoke_agent reviewer": 1, "chat claude-sonnet-4-5": 2, "execute_tool Bash": 1})


def spans(collector: Collector) -> Counter[str]:
    """Names of the spans that were accepted, each id once."""
    return Counter({span["span_id"]: span["name"] for span in collector.spans}.values())


def until_delivered(sink: OtelSink, batch: list[Spooled], attempts: int = 20) -> Spooled | None:
    """What the shipper does, without its pauses."""
    for _ in range(attempts):
        try:
            return sink.deliver(batch)
        except (RetryLater, OSError):
            continue
    raise AssertionError("never delivered")


def test_all_that_was_told_is_delivered_through_spool_and_shipper(
    collector: Collector, endpoint: str, tmp_path: Path
) -> None:
    sink = OtelSink(endpoint=endpoint)
    spool = Spool.create(tmp_path)
    spool.subscribe([sink.destination])
    shipper = Shipper(sink, lambda: [spool])
    for number in range(3):
        spool.append([encode(event) for event in one_turn(f"ca_{number}").events])
        shipper.notify()
    assert shipper.flush(time.monotonic() + 20)
    shipper.close(time.monotonic() + 20)
    sink.close()
    assert spans(collector) == Counter({name: 3 * count for name, count in ONE_TURN.items()})
    assert collector.total("gen_ai.client.token.usage", gen_ai__token__type="output") == 3 * 42
    assert spool.drained
    spool.close()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 404, 401, 301])
def test_what_a_backend_does_not_take_is_kept_until_it_does(status: int, collector: Collector, endpoint: str) -> None:
    collector.answers = [Answer(status)] * 5
    sink = OtelSink(endpoint=endpoint)
    batch = one_turn().batch()
    for _ in range(5):
        with pytest.raises((OSError, RetryLater), match=f"answers {status}"):
            sink.deliver(batch)
    assert sink.deliver(batch) is None
    sink.close()
    assert len(collector.spans) == sum(ONE_TURN.values())
    assert collector.total("computeragent.usage.cost_usd") == pytest.approx(0.02)
    attempts = [each.message.SerializeToString() for each in collector.requests if each.signal == "traces"]
    assert len(attempts) == 6
    assert len(set(attempts)) == 1  # the same spans with the same ids each time


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_an_outage_of_one_signal_sends_the_others_once(signal: str, collector: Collector, endpoint: str) -> None:
    sink = OtelSink(endpoint=endpoint)
    sink.bind(type("Settings", (), {"capture_content": True}))
    sound = {"traces": 0, "metrics": 1, "logs": 2}[signal]
    collector.answers = [Answer()] * sound + [Answer(503)] * 3
    until_delivered(sink, one_turn().batch())
    sink.close()
    assert Counter(each.signal for each in collector.requests if each.status == 200) == {
        "traces": 1,
        "metrics": 1,
        "logs": 1,
    }
    assert collector.total("gen_ai.client.token.usage", gen_ai__token__type="output") == 42


def test_a_backend_says_how_long_to_wait(collector: Collector, endpoint: str) -> None:
    collector.answers = [
        Answer(429, {"Retry-After": "17"}),
        Answer(503, {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    ]
    sink = OtelSink(endpoint=endpoint)
    batch = one_turn().batch()
    with pytest.raises(RetryLater) as first:
        sink.deliver(batch)
    with pytest.raises(RetryLater) as second:
        sink.deliver(batch)
    sink.close()
    assert first.value.after == 17
    assert second.value.after is not None
    assert second.value.after > 1_000_000


def test_a_backend_that_refuses_connections_gets_all_once_it_is_there(collector: Collector) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    sink = OtelSink(endpoint=f"http://127.0.0.1:{port}")
    batch = one_turn().batch()
    with pytest.raises(ConnectionError, match="cannot be reached"):
        sink.deliver(batch)
    with serving(collector, port):
        until_delivered(sink, batch)
        sink.close()
    assert spans(collector) == ONE_TURN


def test_a_black_hole_costs_a_timeout_and_no_event(
    collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    collector.answers = [Answer(None)] * 2
    sink = OtelSink(endpoint=endpoint)
    batch = one_turn().batch()
    for _ in range(2):
        with pytest.raises(ConnectionError, match="ReadTimeout"):
            sink.deliver(batch)
    collector.goes_on.set()
    until_delivered(sink, batch)
    sink.close()
    assert spans(collector) == ONE_TURN


def test_a_slow_backend_gets_all(collector: Collector, endpoint: str) -> None:
    collector.always = Answer(delay=0.2)
    sink = OtelSink(endpoint=endpoint)
    for number in range(3):
        assert sink.deliver(one_turn(f"ca_{number}").batch(f"spool-{number}")) is None
    sink.close()
    assert len(collector.spans) == len(collector.requests) // 2 * 4 == 12


def test_a_connection_that_was_kept_and_has_gone_is_made_anew(collector: Collector) -> None:
    with serving(collector) as url:
        sink = OtelSink(endpoint=url)
        sink.deliver(one_turn("ca_1").batch())
    with serving(collector, int(url.rpartition(":")[2])):
        sink.deliver(one_turn("ca_2").batch("other"))
        sink.close()
    assert len(collector.spans) == 8


def test_data_that_nobody_takes_costs_itself_only() -> None:
    poison = "poison"
    kept: list[Any] = []

    class Exporter:
        def export(self, data: Any) -> None:
            if poison in data:
                raise RejectedError("it answers 400")
            kept.extend(data)

        def close(self) -> None:
            pass

    box = Box(Exporter(), batch=8, most=100)
    for item in [*range(5), poison, *range(5, 20)]:
        box.put(item)
    box.send()
    assert kept == list(range(20))
    assert box.dropped == 1


def test_a_refusal_of_data_does_not_stop_what_is_behind_it(collector: Collector, endpoint: str) -> None:
    sink = OtelSink(endpoint=endpoint)
    collector.always = Answer(400)
    assert sink.deliver(one_turn("ca_1").batch("one")) is None
    collector.always = Answer()
    sink.deliver(one_turn("ca_2").batch("two"))
    sink.close()
    assert {span["attributes"]["gen_ai.conversation.id"] for span in collector.spans} == {"ca_2"}


@pytest.mark.parametrize("status", [401, 403, 404, 405, 501])
def test_a_backend_for_traces_alone_gets_traces(
    status: int, collector: Collector, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Jaeger, Tempo and others have no place for metrics and logs, and must not be held up by them."""
    collector.refused = {"metrics": Answer(status), "logs": Answer(status)}
    sink = OtelSink(endpoint=endpoint)
    sink.bind(type("Settings", (), {"capture_content": True}))
    for number in range(3):
        assert sink.deliver(one_turn(f"ca_{number}").batch(f"spool-{number}")) is None
    sink.close()
    assert len(collector.spans) == 12
    assert caplog.text.count("signal_not_taken") == 2


def test_a_batch_that_was_taken_in_is_not_taken_in_again(collector: Collector, endpoint: str) -> None:
    sink = OtelSink(endpoint=endpoint)
    batch = one_turn().batch()
    sink.deliver(batch)
    sink.deliver(batch)
    sink.close()
    assert len(collector.spans) == 4


# ── Crashes ──


def test_an_open_turn_is_needed_from_its_start(collector: Collector, endpoint: str) -> None:
    sink = OtelSink(endpoint=endpoint)
    batch = one_turn().batch()
    assert sink.deliver(batch[:5]) == batch[0]  # with the start of its session
    assert sink.deliver(batch[5:-2]) == batch[0]
    assert sink.deliver(batch[-2:]) is None
    sink.close()


def test_a_later_turn_is_needed_without_what_was_before_it(collector: Collector, endpoint: str) -> None:
    told = Teller().prompt(0).says(1, "msg_1", "One.").result(2).prompt(3, "And now?")
    turn = next(number for number, event in enumerate(told.events) if event.payload.get("turn_index") == 1)
    sink = OtelSink(endpoint=endpoint)
    batch = told.batch()
    assert sink.deliver(batch[:turn]) is None
    assert sink.deliver(batch[turn:]) == batch[turn]
    sink.close()


def test_turns_of_another_spool_hold_nothing_back(collector: Collector, endpoint: str) -> None:
    sink = OtelSink(endpoint=endpoint)
    orphan = one_turn("ca_lost").batch("orphan")[:5]
    assert sink.deliver(orphan) == orphan[0]
    assert sink.deliver(one_turn("ca_mine").batch("mine")) is None
    sink.close()


def test_after_a_crash_the_next_process_sends_the_same_ids(collector: Collector, endpoint: str) -> None:
    batch = one_turn().batch()
    first = OtelSink(endpoint=endpoint)
    needed = first.deliver(batch[:-2])
    first.close()  # as good as a crash: nothing is ended
    before = {(span["trace_id"], span["span_id"], span["name"]) for span in collector.spans}
    assert len(before) == 2
    assert needed is not None
    second = OtelSink(endpoint=endpoint)
    assert second.deliver([each for each in batch if each.position >= needed.position]) is None
    second.close()
    after = {(span["trace_id"], span["span_id"], span["name"]) for span in collector.spans}
    assert before < after
    assert len(after) == 4


KILLED = """
import sys, time
from computeragent.telemetry import Pipeline
from computeragent.telemetry.sinks.otel import OtelSink
import anyio
from telemetry.otel.stories import one_turn

async def main():
    pipeline = Pipeline(sinks=[OtelSink(endpoint=sys.argv[1])], middleware=[])
    for event in one_turn().events[:-2]:
        await pipeline.emit(event)
    await pipeline.flush(0.5)
    print("told", flush=True)
    time.sleep(60)

anyio.run(main)
"""


@pytest.mark.anyio
async def test_what_a_killed_process_told_is_exported_by_the_next_one(collector: Collector) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    tests = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", KILLED, url], cwd=tests, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "told\n"
        process.kill()
    pipeline = Pipeline(sinks=[OtelSink(endpoint=url)], middleware=[])
    with serving(collector, int(url.rpartition(":")[2])):
        await pipeline.emit(TelemetryEvent(kind="system_message", session_id="ca_other"))
        await pipeline.flush(20)
        await pipeline.aclose()
    told = one_turn()
    assert spans(collector) == ONE_TURN
    (root,) = [span for span in collector.spans if not span["parent"]]
    assert (root["trace_id"], root["span_id"]) == ids_of(told.events[1].event_id)
    assert root["attributes"]["error.type"] == "process_lost"


SHORT = """
import asyncio, builtins, sys, threading

load = builtins.__import__

def slowly(name, *rest, **more):  # a machine on which the program is over before the SDK is there
    if name == "computeragent.telemetry.sinks.otel.outlet":
        threading.main_thread().join()
    return load(name, *rest, **more)

builtins.__import__ = slowly

from computeragent import configure, get_pipeline
from computeragent.telemetry import TelemetryEvent
from computeragent.telemetry.sinks import OtelSink

configure(sinks=[OtelSink(endpoint=sys.argv[1])])

async def tell():
    for kind in ("session_started", "turn_started", "turn_ended", "session_ended"):
        await get_pipeline().emit(TelemetryEvent(kind=kind, session_id="s", agent_name="brief"))

asyncio.run(tell())
"""


def test_a_program_that_is_over_before_the_sdk_is_loaded_exports_all(collector: Collector, endpoint: str) -> None:
    patient = {**os.environ, "COMPUTERAGENT_EXIT_TIMEOUT": "30", "OTEL_SERVICE_NAME": "brief-service"}
    done = subprocess.run(
        [sys.executable, "-c", SHORT, endpoint], env=patient, capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stderr == ""
    assert [span["name"] for span in collector.spans] == ["invoke_agent brief"]
    assert collector.resource["service.name"] == "brief-service"


def test_turns_of_different_spools_are_told_apart_and_joined(collector: Collector, endpoint: str) -> None:
    """The disk failed in the middle of a turn: the rest comes from memory."""
    batch = one_turn().batch("disk")
    rest = [each._replace(spool="memory-1", position=number + 1) for number, each in enumerate(batch[5:])]
    sink = OtelSink(endpoint=endpoint)
    sink.deliver(batch[:5])
    assert sink.deliver(rest[:-2]) == rest[0]
    assert sink.deliver(rest[-2:]) is None
    sink.close()
    assert spans(collector) == ONE_TURN


def test_measurements_that_are_not_out_hold_their_turn(
    collector: Collector, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the export interval, while another turn is open, measurements wait, and so does the cursor."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
    sink = OtelSink(endpoint=endpoint)
    done = Teller("ca_1").prompt(0).says(1, "msg_1", "One.").result(2)
    busy = Teller("ca_2").prompt(0).says(1, "msg_1", "Two.")
    batch = [
        Spooled("spool", number + 1, 0.0, encode(event)) for number, event in enumerate([*done.events, *busy.events])
    ]
    assert sink.deliver(batch) == batch[0]
    assert collector.accepted("metrics") == []
    busy.result(2)
    later = Spooled("spool", len(batch) + 1, 0.0, encode(busy.events[-1]))
    assert sink.deliver([later]) is None
    sink.close()
    assert collector.total("computeragent.usage.cost_usd") == pytest.approx(0.04)


def test_events_that_make_no_sense_are_passed_over(collector: Collector, endpoint: str) -> None:
    told = one_turn()
    told.events[3].payload = {"usage": "none", "message_id": ["m"]}
    batch = told.batch()
    batch.insert(0, Spooled("spool", 0, 0.0, b"not json"))
    odd = [each._replace(position=number + 1) for number, each in enumerate(batch)]
    sink = OtelSink(endpoint=endpoint)
    assert sink.deliver(odd) is None
    sink.close()
    assert "invoke_agent reviewer" in {span["name"] for span in collector.spans}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_exports_its_own_only(collector: Collector, endpoint: str) -> None:
    collector.answers = [Answer(503)]
    sink = OtelSink(endpoint=endpoint)
    with pytest.raises(ConnectionError):
        sink.deliver(one_turn("ca_parent").batch())
    pid = os.fork()
    if pid == 0:
        try:
            sink.deliver(one_turn("ca_child").batch("child"))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert {span["attributes"]["gen_ai.conversation.id"] for span in collector.spans} == {"ca_child"}
    sink.close()


# ── What a failure says, and where ──


def test_a_failure_is_an_error_and_no_noise(
    collector: Collector, endpoint: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    collector.answers = [Answer(503)]
    sink = OtelSink(endpoint=endpoint)
    with caplog.at_level(logging.DEBUG, "opentelemetry"), pytest.raises(ConnectionError):
        sink.deliver(one_turn().batch())
    sink.close()
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr() == ("", "")


def test_the_log_of_the_users_own_exporters_is_left_alone(
    collector: Collector, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink = OtelSink(endpoint=endpoint)
    sink.deliver(one_turn().batch())
    sink.close()
    logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").warning("theirs")
    assert "theirs" in caplog.text


def test_measurements_add_up_over_an_outage(collector: Collector, endpoint: str) -> None:
    """The SDK goes on adding up what cannot be exported; nothing is sent twice."""
    sink = OtelSink(endpoint=endpoint)
    for number in range(4):
        collector.answers = [Answer(), Answer(503), Answer()]
        until_delivered(sink, one_turn(f"ca_{number}").batch(f"spool-{number}"))
    sink.close()
    assert collector.total("computeragent.usage.cost_usd") == pytest.approx(0.08)
    assert collector.total("gen_ai.client.token.usage", gen_ai__token__type="input") == 4 * 227
    assert json.dumps(collector.metrics).count("cumulative") == 0
