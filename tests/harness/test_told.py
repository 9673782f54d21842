"""What telemetry and audit sinks hear of harness runs, and what their guards do to them."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.telemetry.listening import Depot, Listener, Stuck

from computeragent import ComputerAgent, EngineError, GuardrailFilter, PiiRedactor
from computeragent.engines.scripted import ScriptedEngine
from computeragent.errors import ValidationError
from computeragent.eventlog import MemoryEventLog
from computeragent.harness.told import run_telemetry
from computeragent.protocol_types import SessionRequest
from computeragent.telemetry import Pipeline
from computeragent.wire.events import AgentIdentity, Capabilities, CaSessionStarted, CaTurnStarted, Recorded
from computeragent.wire.identity import LocalSource
from puppets import scripted, until

KINDS = [
    "session_started",
    "system_message",
    "turn_started",
    "tool_use",
    "assistant_message",
    "policy_decision",
    "tool_result",
    "assistant_message",
    "usage_snapshot",
    "turn_started",
    "user_message",
    "assistant_message",
    "usage_snapshot",
    "session_ended",
]

pytestmark = pytest.mark.anyio

USAGE = {"input_tokens": 10, "output_tokens": 5, "cost_usd": 0.25, "cost_semantic": "cumulative"}
TWO_TURNS: Any = [
    [
        {"tool": "Bash", "input": {"command": "mail ada@example.com"}, "result": "sent"},
        {"text": "Done."},
        {"usage": USAGE},
    ],
    [{"text": "Again."}, {"usage": USAGE | {"cost_usd": 0.75}}],
]


async def test_a_run_is_told_like_a_session_of_the_drop_in(tmp_path: Path) -> None:
    sink = Listener()
    pipeline = Pipeline(sinks=[sink])
    async with scripted(tmp_path, TWO_TURNS, telemetry_pipeline=pipeline) as agent:
        await agent.chat("one")
        await agent.chat("two")
        session_id = agent.session_id
    assert await pipeline.flush()
    assert {event.session_id for event in sink.events} == {session_id}
    assert sink.kinds == KINDS
    started = sink.one("session_started").payload
    assert (started["prompt"], started["engine"], started["harness_mode"]) == ("one", "scripted", True)
    assert sink.events[0].agent_name == tmp_path.name
    (decision,) = sink.of("policy_decision")
    assert (decision["decision"], decision["tool_name"]) == ("allow", "Bash")
    assert "ada@example.com" not in repr(sink.events)
    first, second = sink.of("usage_snapshot")
    assert first["usage"] == {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
    }
    assert (first["cost_usd"], second["cost_usd"], second["total_cost_usd"]) == (0.25, 0.5, 0.75)
    ended = sink.one("session_ended").payload
    assert (ended["is_error"], ended["total_cost_usd"], ended["usage"]["input_tokens"]) == (False, 0.75, 20)
    await pipeline.aclose()


async def test_ids_are_the_same_whoever_reads_the_log(tmp_path: Path) -> None:
    first, second = Listener(), Listener()
    async with scripted(tmp_path, TWO_TURNS, telemetry_pipeline=Pipeline(sinks=[first]), audit_sinks=[second]) as agent:
        await agent.chat("one")
    assert [event.event_id for event in first.events] == [event.event_id for event in second.events]
    assert len({event.event_id for event in first.events}) == len(first.events)


async def test_a_failed_run_is_told_as_one(tmp_path: Path) -> None:
    sink = Listener()
    pipeline = Pipeline(sinks=[sink])
    async with scripted(tmp_path, [[{"text": "well"}, {"raise": "it broke"}]], telemetry_pipeline=pipeline) as agent:
        with pytest.raises(EngineError):
            await agent.chat("go")
    await pipeline.flush()
    ended = sink.one("session_ended").payload
    assert (ended["is_error"], ended["error_message"]) == (True, "RuntimeError: it broke")
    await pipeline.aclose()


async def test_a_cancelled_run_is_no_failure(tmp_path: Path) -> None:
    sink = Listener()
    pipeline = Pipeline(sinks=[sink])
    async with scripted(tmp_path, [[{"delay": 60}]], telemetry_pipeline=pipeline) as agent:
        handle = agent.chat("go")
        async for event in handle:
            if event.kind == "ca_turn_started":
                await agent.cancel()
    await pipeline.flush()
    ended = sink.one("session_ended").payload
    assert (ended["is_error"], ended["subtype"]) == (False, "cancelled")
    await pipeline.aclose()


async def test_each_audit_sink_has_one_method_and_hears_all_in_order(tmp_path: Path) -> None:
    heard: list[str] = []
    heard_later: list[str] = []

    class Sync:
        def emit(self, event: Any) -> None:
            heard.append(event.kind)

    class Async:
        async def emit(self, event: Any) -> None:
            heard_later.append(event.kind)

    class Broken:
        def emit(self, event: Any) -> None:
            raise RuntimeError("the SIEM is down")

    async with scripted(tmp_path, TWO_TURNS, audit_sinks=[Sync(), Broken(), Async(), Stuck()]) as agent:
        result = await agent.chat("one")
        assert result.text == "Done."
    assert heard == heard_later
    assert heard[0] == "session_started"
    assert heard[-1] == "session_ended"
    assert "policy_decision" in heard


async def test_what_is_no_audit_sink_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        scripted(tmp_path, audit_sinks=[object()])
    assert "emit(event)" in (caught.value.hint or "")


async def test_a_spool_gets_what_a_run_tells(tmp_path: Path) -> None:
    depot = Depot()
    pipeline = Pipeline(sinks=[depot], spool_dir=tmp_path / "spool")
    async with scripted(tmp_path, TWO_TURNS, telemetry_pipeline=pipeline) as agent:
        await agent.chat("one")
    assert await pipeline.flush()
    assert depot.events[-1].kind == "session_ended"
    await pipeline.aclose()


@pytest.mark.parametrize(("kind", "reason"), [("cost", "budget_exceeded"), ("content", "error")])
async def test_an_enforcing_guard_ends_the_run(tmp_path: Path, kind: str, reason: str) -> None:
    def no_secrets(event: Any) -> Any:
        return None if "forbidden" in event.payload.get("text", "") else event

    guards = {"cost": GuardrailFilter(cost_ceiling_usd=0.5), "content": GuardrailFilter(content_filter=no_secrets)}
    usage = USAGE | {"cost_usd": 0.6}
    script: Any = {"cost": [[{"text": "dear"}, {"usage": usage}]], "content": [[{"text": "forbidden"}, {"delay": 60}]]}
    sink = Listener()
    pipeline = Pipeline(middleware=[PiiRedactor(), guards[kind]], sinks=[sink])
    log = MemoryEventLog()
    async with scripted(tmp_path, script[kind], telemetry_pipeline=pipeline, event_log=log) as agent:
        with suppress(EngineError):  # whether the guard is quicker than the turn's own end is open
            await agent.chat("one")
        session = agent._session
        assert session is not None
        await until(lambda: session.ended is not None)
        assert session.ended is not None
        assert session.ended.reason == reason
        if kind == "content":
            assert session.ended.error_code == "GUARDRAIL"
    await pipeline.flush()
    assert sink.one("session_ended").payload["is_error"]
    await pipeline.aclose()


async def test_a_git_source_is_told_by_its_canonical_name_folder_and_commit(tmp_path: Path) -> None:
    repository = tmp_path / "agents"
    (repository / "triage").mkdir(parents=True)
    (repository / "triage" / "agent.yaml").write_text("spec_version: '0.1.0'\nname: triage\nversion: 1.2.0\n")
    commands = [["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "x"]]
    for command in commands:
        subprocess.run(["git", *command], cwd=repository, check=True)
    sha = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True
    ).stdout
    sink = Listener()
    pipeline = Pipeline(sinks=[sink], middleware=[])
    source = {"type": "git", "url": f"file://{repository}", "subdir": "triage"}
    async with ComputerAgent(source=source, engine=ScriptedEngine(), telemetry_pipeline=pipeline) as agent:
        await agent.chat("hi")
    await pipeline.flush()
    started = sink.one("session_started").payload
    assert started["source_subdir"] == "triage"
    assert started["source_url"] == "agents"  # of a repository on this machine, its name alone
    assert started["agent_sha"] == sha.strip()
    assert (sink.events[0].agent_name, started["agent_version"]) == ("triage", "1.2.0")
    await pipeline.aclose()


async def test_a_local_folder_is_told_to_nobody_as_a_source(tmp_path: Path) -> None:
    sink = Listener()
    pipeline = Pipeline(sinks=[sink], middleware=[])
    async with scripted(tmp_path, telemetry_pipeline=pipeline) as agent:
        await agent.chat("hi")
    await pipeline.flush()
    assert "source_url" not in sink.one("session_started").payload
    await pipeline.aclose()


@pytest.mark.parametrize("how", ["broken", "cancelled"])
async def test_a_run_whose_log_breaks_off_has_an_end_all_the_same(how: str, tmp_path: Path) -> None:
    able = Capabilities(
        streaming_input=True, partial_messages=False, permission_callback=True, sessions=True, budget=True
    )
    identity = AgentIdentity(name="triage", version="1.0.0")
    started = CaSessionStarted(
        session_id="ses_1", engine="scripted", identity=identity, capabilities=able, resumed=False
    )
    turn = CaTurnStarted(session_id="ses_1", turn_index=0, message=None, user_text_len=0)

    class Run:
        id = "ses_1"

        async def events(self) -> Any:
            yield Recorded(0, 1.0, started, b"")
            yield Recorded(1, 1.0, turn, b"")
            if how == "cancelled":
                await asyncio.sleep(60)
            raise EngineError("the log is broken")

        def stop(self, reason: Any, message: str, code: str) -> None: ...

    sink = Listener()
    pipeline = Pipeline(middleware=[], sinks=[sink])
    told = run_telemetry([pipeline], SessionRequest(source=LocalSource(path=str(tmp_path))), {})
    assert told is not None
    told.follow(Run())
    await until(lambda: "turn_started" in sink.kinds)
    if how == "cancelled":
        assert told._reader is not None
        told._reader.cancel()
    await told.finish()
    await pipeline.aclose()
    ended = sink.one("session_ended").payload
    assert (ended["subtype"], ended["is_error"]) == (
        ("cancelled", False) if how == "cancelled" else ("ENGINE_FAILED", True)
    )
