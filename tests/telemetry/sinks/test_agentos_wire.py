"""What the AgentOS sink sends and what it makes of answers: bodies, limits, keys, discovery, forks and kills."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

from computeragent import discovery
from computeragent.errors import ValidationError
from computeragent.telemetry import Pipeline, TelemetryEvent
from computeragent.telemetry.protocols import RetryLater
from computeragent.telemetry.sinks import AgentOSHttpSink

from . import ingest
from .ingest import Answer, Asked, Ingest
from .telling import TOKEN, delivered, sink_for, tell, ticking

pytestmark = pytest.mark.anyio


async def test_what_a_full_spool_has_no_room_for_is_counted_and_the_rest_arrives(tmp_path: Path) -> None:
    with Ingest(ingest.always(503)) as server:
        sink = sink_for(server)
        pipeline = Pipeline(middleware=[], sinks=[sink], spool_dir=tmp_path, max_spool_bytes=40_000)
        await tell(pipeline, 0, 405)
        assert not await pipeline.flush(5)
        server.behave = ingest.healthy
        await delivered(pipeline)
        stats = pipeline.stats()["sinks"][sink.destination]
        numbers = sorted(one["payload"]["number"] for one in server.events if "number" in one["payload"])
        last_gap = max((at for at in range(1, len(numbers)) if numbers[at] != numbers[at - 1] + 1), default=0)
        early, rest = numbers[:last_gap], numbers[last_gap:]
        assert len(early) <= 20  # one batch: it was on its way already
        assert rest == list(range(405 - len(rest), 405))  # the oldest went
        lost = 405 - len(numbers)
        # What was on its way may have been dropped already; news of what was dropped may be dropped itself.
        assert lost <= stats["dropped"] <= lost + len(early) + 10
        assert 0 < len(numbers) < 405
        await pipeline.aclose()


async def test_one_event_that_the_server_will_never_take_costs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Ingest(ingest.poisoned) as server:
        sink = sink_for(server)
        pipeline = Pipeline(middleware=[], sinks=[sink], spool_dir=tmp_path)
        await tell(pipeline, 0, 7)
        bad = TelemetryEvent(kind="user_message", session_id="s0", payload={"poison": "x" * 2_000, "host": "h"})
        await pipeline.emit(bad)
        await tell(pipeline, 7, 60)
        await delivered(pipeline)
        await pipeline.aclose()
        assert sorted(one["payload"]["number"] for one in server.events) == list(range(60))
    assert sink.refused == 1
    assert bad.event_id in caplog.text


async def test_an_event_is_refused_once_although_its_batch_was_tried_again(tmp_path: Path) -> None:
    def behave(asked: Asked) -> Answer:
        if any(one["payload"].get("number") == 19 for one in asked.events) and not healed and len(asked.events) < 20:
            return Answer(503)
        return ingest.poisoned(asked)

    healed: list[bool] = []
    with Ingest(behave) as server:
        sink = sink_for(server)
        pipeline = Pipeline(middleware=[], sinks=[sink], spool_dir=tmp_path)
        bad = TelemetryEvent(kind="user_message", session_id="s0", payload={"poison": True})
        await pipeline.emit(bad)
        await tell(pipeline, 1, 20)
        assert not await pipeline.flush(5)
        healed.append(True)
        await delivered(pipeline)
        await pipeline.aclose()
        assert sorted(one["payload"]["number"] for one in server.events) == list(range(1, 20))
        assert server.repeats == 0  # the half that was taken is not sent again
    assert sink.refused == 1


async def test_an_event_larger_than_a_body_may_be_arrives_shortened(tmp_path: Path) -> None:
    with Ingest(ingest.largest(4_000)) as server:
        sink = sink_for(server, max_buffer_bytes=30_000)
        sink._compress = False
        pipeline = Pipeline(middleware=[], sinks=[sink], spool_dir=tmp_path)
        text = "".join(f"{number} " for number in range(12_000))
        await pipeline.emit(TelemetryEvent(kind="tool_result", session_id="s", payload={"content": text, "host": "h"}))
        await delivered(pipeline)
        await pipeline.aclose()
        (one,) = server.events
        assert all(asked.size < 31_000 for asked in server.asked)
    kept, mark, _ = one["payload"]["content"].partition("…(+")
    assert mark
    assert text.startswith(kept)
    assert len(kept) >= 1_000
    assert one["payload"]["host"] == "h"
    assert sink.refused == 0


async def test_requests_are_compressed_and_small_ones_are_not(tmp_path: Path) -> None:
    with Ingest() as server:
        pipeline = Pipeline(middleware=[], sinks=[sink_for(server)], spool_dir=tmp_path)
        await tell(pipeline, 0, 1)
        await delivered(pipeline)
        await tell(pipeline, 1, 300)
        await delivered(pipeline)
        await pipeline.aclose()
        assert not server.asked[0].compressed
        assert any(asked.compressed for asked in server.asked)
        assert len(server.asked) < 300


async def test_what_ingest_does_not_know_is_not_sent_and_the_host_is(tmp_path: Path) -> None:
    with Ingest() as server:
        pipeline = Pipeline(middleware=[], sinks=[sink_for(server, host="build-7")], spool_dir=tmp_path)
        await pipeline.emit(TelemetryEvent(kind="response_first_token", session_id="s", payload={}))
        quoting = {"text": '"kind":"response_first_token"'}
        await pipeline.emit(TelemetryEvent(kind="user_message", session_id="s", payload=quoting))
        await delivered(pipeline)
        await pipeline.aclose()
        assert [(one["kind"], one["host"]) for one in server.events] == [("user_message", "build-7")]


async def test_the_token_is_nowhere_but_in_the_header(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with Ingest(ingest.first(1, 401), token=TOKEN) as server:
        url = server.url.replace("://", "://user:pa55w0rd@") + "?key=qu3ry"
        sink = sink_for(server, url=server.url)
        secretive = sink_for(server, url=url)
        pipeline = Pipeline(middleware=[], sinks=[sink], spool_dir=tmp_path)
        await tell(pipeline, 0, 30)
        await pipeline.flush(5)
        await pipeline.settle(5)
        said = [repr(sink), sink.destination, repr(pipeline.stats()), caplog.text, repr(secretive), str(vars(pipeline))]
        said += [file.read_bytes().decode("latin1") for file in tmp_path.iterdir()]
        for secret in (TOKEN, "pa55w0rd", "qu3ry"):
            assert not [text for text in said if secret in text]
        await delivered(pipeline)
        await pipeline.aclose()


@pytest.mark.parametrize("odd", ["\n", "\x00b", "\N{SNOWMAN}", " "])
async def test_a_key_that_no_header_can_carry_is_not_quoted(
    odd: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Ingest(token=TOKEN) as server:
        sink = sink_for(server, token=TOKEN + odd)
        pipeline = Pipeline(middleware=[], sinks=[sink], spool_dir=tmp_path)
        await tell(pipeline, 0, 3)
        arrived = await pipeline.flush(5)
        assert arrived is (not odd.strip())  # a line break after a key is forgiven
        assert "5ecret" not in caplog.text + repr(pipeline.stats())
        pipeline.close(1)


async def test_direct_emission_delivers_or_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with Ingest(token=TOKEN) as server:
        monkeypatch.setenv("COMPUTERAGENT_HARNESS_TOKEN", TOKEN)
        monkeypatch.setenv("AGENTOS_INGEST_URL", server.url)
        sink = AgentOSHttpSink()
        one = TelemetryEvent(kind="user_message", session_id="s", payload={"text": "hello"})
        async with ticking():
            await sink.emit(one)
        await sink.flush()
        assert [event["event_id"] for event in server.events] == [one.event_id]
        server.behave = ingest.always(503)
        with pytest.raises(RetryLater, match="503"):
            await sink.emit(one)
        await sink.aclose()


@pytest.mark.parametrize("url", ["ftp://h/x", "http://", "http://h:port/", "http://[/", "h/x", "http://u:p/w@h/x"])
def test_a_url_that_is_none_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        AgentOSHttpSink(url=url)
    assert url not in str(refused.value)
    assert refused.value.hint


def test_no_url_is_refused_with_what_to_set() -> None:
    with pytest.raises(ValidationError) as refused:
        AgentOSHttpSink()
    assert "AGENTOS_INGEST_URL" in (refused.value.hint or "")


async def test_the_discovery_document_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, str] = {}
    monkeypatch.setattr(discovery, "endpoints", lambda: found)
    monkeypatch.setattr(discovery, "RETRY_AFTER", 0.01)
    monkeypatch.setenv("AGENTOS_DISCOVERY_URL", "http://127.0.0.1:1/agentos/api/discovery")
    with Ingest() as server:
        sink = sink_for(server, url=None)
        pipeline = Pipeline(middleware=[], sinks=[sink], spool_dir=tmp_path)
        await tell(pipeline, 0, 5)
        assert not await pipeline.flush(5)  # the document cannot be had yet
        found["ingest"] = server.url
        await delivered(pipeline)
        await pipeline.aclose()
        assert len(server.events) == 5


def test_a_process_killed_in_an_outage_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys, time
        import anyio
        from computeragent.telemetry import Pipeline, TelemetryEvent
        from computeragent.telemetry.sinks import AgentOSHttpSink
        pipeline = Pipeline(sinks=[AgentOSHttpSink(url=sys.argv[2], flush_threshold=20)], spool_dir=sys.argv[1])
        async def main():
            await pipeline.emit(TelemetryEvent(kind="session_started", session_id="s", agent_name="triage"))
            for number in range(405):
                await pipeline.emit(TelemetryEvent(kind="user_message", session_id="s", payload={"number": number}))
            assert await pipeline.settle(20)
            print("committed", flush=True)
            time.sleep(60)
        anyio.run(main)
    """)
    with Ingest(ingest.between(3, 10_000, 503)) as server:
        command = [sys.executable, "-c", program, str(tmp_path), server.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == "committed\n"
            ingest.wait_until(lambda: len(server.asked) >= 3)  # some are through, the outage has begun
            run.send_signal(signal.SIGKILL)
        server.behave = ingest.healthy
        following = Pipeline(middleware=[], sinks=[sink_for(server)], spool_dir=tmp_path)
        following.adopt()
        assert following.flush_sync(20)
        following.close()
        assert server.numbers("s") == list(range(405))
        kinds = [one["kind"] for one in server.events]
        assert (kinds[0], kinds[-1]) == ("session_started", "session_ended")
        assert server.events[-1]["payload"]["subtype"] == "process_lost"
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_has_connections_of_its_own(tmp_path: Path) -> None:
    with Ingest() as server:
        sink = sink_for(server)
        pipeline = Pipeline(middleware=[], sinks=[sink], spool_dir=tmp_path)
        asyncio.run(tell(pipeline, 0, 10))
        assert pipeline.flush_sync(20)  # its connection is open, and kept
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads is what this is about
            child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.run(tell(pipeline, 10, 200))
                code = 0 if pipeline.flush_sync(20) else 2
                pipeline.close()
            finally:
                os._exit(code)
        asyncio.run(tell(pipeline, 200, 405))
        assert pipeline.flush_sync(20)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        pipeline.close()
        assert sorted(one["payload"]["number"] for one in server.taken) == list(range(405))
