"""Every decision, allowances too, reaches an audit file and spans from each place that decides."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent
from computeragent.policy import PolicyDecision, PolicyInput, PolicyPrincipal, PolicyResult, PolicyToolAuthorizer
from computeragent.policy.types import denied_by_fault
from computeragent.telemetry import configure
from computeragent.telemetry.chain.key import known_key
from computeragent.telemetry.chain.verify import verify
from computeragent.telemetry.sinks import AuditFileSink, OtelSink
from puppets import scripted
from server.conftest import TOKEN, serving

from .otel.collector import Collector
from .otel.collector import serving as receiving

pytestmark = pytest.mark.anyio

WROTE = {"file_path": "a.txt", "content": "to ada@example.com"}
CALLS: Any = [
    [
        {"tool": "Write", "input": WROTE},
        {"tool": "Bash", "input": {"command": "rm -rf x"}},
        {"tool": "Down", "input": {}},
        {"text": "done"},
    ]
]


class Engine:
    """Lets things be written, forbids the shell, and is down for `Down`."""

    name = "house"

    async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002
        tool = input.action.tool_name
        if tool == "Down":
            return denied_by_fault(self.name, "POLICY_UNAVAILABLE", "the policy cannot be reached")
        if tool == "Write":
            return PolicyResult(PolicyDecision.ALLOW, reason="writing is fine", rule="writes", engine=self.name)
        return PolicyResult(PolicyDecision.DENY, reason="no shell", rule="shell", engine=self.name)

    async def aclose(self) -> None:
        return None


def decisions(path: Path) -> list[dict[str, Any]]:
    """The decisions of an audit file, which is intact."""
    assert verify(path, known_key()).findings == []
    rows = [json.loads(line).get("event", {}) for line in path.read_bytes().splitlines()]
    return [row["payload"] for row in rows if row.get("kind") == "policy_decision"]


def kinds(path: Path) -> list[str]:
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [row["event"]["kind"] for row in rows if "event" in row]


def expect(found: list[dict[str, Any]], principal: str) -> None:
    """What was decided of `CALLS`, by whom, why, and for whom."""
    for each in found:
        assert each.pop("latency_ms") >= 0
        assert each.pop("tool_use_id")
    whose = {"engine": "house", "decided_by": "policy", "principal_id": principal}
    assert found == [
        whose
        | {"decision": "allow", "tool_name": "Write", "rule": "writes", "reason": "writing is fine"}
        | {"tool_input": {"file_path": "a.txt", "content": "to [REDACTED:EMAIL]"}},
        whose
        | {"decision": "deny", "tool_name": "Bash", "rule": "shell", "reason": "no shell"}
        | {"tool_input": {"command": "rm -rf x"}},
        whose
        | {"decision": "deny", "tool_name": "Down", "code": "POLICY_UNAVAILABLE"}
        | {"reason": "the policy cannot be reached", "tool_input": {}},
    ]


async def test_from_a_harness(tmp_path: Path) -> None:
    sink = AuditFileSink(tmp_path / "audit.jsonl")
    work = tmp_path / "work"
    work.mkdir()
    async with scripted(work, CALLS, policy=Engine(), principal="ann@example.com", audit_sinks=[sink]) as agent:
        await agent.chat("go")
    expect(decisions(sink.path), "ann@example.com")
    assert kinds(sink.path) == ["session_started", *["policy_decision"] * 3, "session_ended"]


async def test_from_a_server_and_what_a_person_answers(tmp_path: Path) -> None:
    sink = AuditFileSink(tmp_path / "audit.jsonl")
    async with serving(tmp_path, policy=Engine(), audit_sinks=[sink]) as server:
        session = await server.open(*CALLS)
        await server.say(session, "go")
        await server.client.post(f"/v1/sessions/{session}/end-input")
        principal = next(e["principal"] for e in await server.events(session) if e["kind"] == "ca_permission_decision")
    assert principal.startswith("token-")
    expect(decisions(sink.path), principal)


async def test_who_answered_on_a_server(tmp_path: Path) -> None:
    sink = AuditFileSink(tmp_path / "audit.jsonl")
    async with serving(tmp_path, audit_sinks=[sink]) as server:
        session = await server.open([{"tool": "Bash", "input": {"command": "ls"}}, {"text": "done"}])
        await server.say(session, "go")
        while not (waits := (await server.client.get("/v1/approvals")).json()["approvals"]):
            await asyncio.sleep(0.01)
        path = f"/v1/sessions/{session}/permission/{waits[0]['callId']}"
        assert (await server.client.post(path, json={"decision": "allow", "by": "ann"})).status_code == 200
        await server.client.post(f"/v1/sessions/{session}/end-input")
        await server.events(session)
    (found,) = decisions(sink.path)
    assert (found["decision"], found["tool_name"]) == ("allow", "Bash")
    assert found["decided_by"].startswith("token-")
    assert found["decided_by"].endswith(" (ann)")


async def test_from_an_agent_whose_engine_runs_on_a_server(tmp_path: Path) -> None:
    sink = AuditFileSink(tmp_path / "here.jsonl")
    async with serving(tmp_path, policy=Engine()) as server:
        agent = ComputerAgent(
            source={"type": "inline", "manifest": {"name": "a"}},
            engine="scripted",
            options={"script": CALLS},
            harness_url=server.url,
            harness_kind="protocol",
            harness_token=TOKEN,
            audit_sinks=[sink],
        )
        async with agent:
            await agent.chat("go")
    expect(decisions(sink.path), decisions(sink.path)[0]["principal_id"])


async def test_from_an_authorizer_that_upstream_asks(tmp_path: Path) -> None:
    from claude_agent_sdk import ToolPermissionContext

    sink = AuditFileSink(tmp_path / "audit.jsonl")
    pipeline = configure(sinks=[sink])
    try:
        ask = PolicyToolAuthorizer(engine=Engine(), principal_resolver=lambda _: PolicyPrincipal("ann"))
        for step in CALLS[0][:-1]:
            await ask(step["tool"], step["input"], ToolPermissionContext())
        assert await pipeline.flush(10)
        expect(decisions(sink.path), "ann")
    finally:
        pipeline.close()
        configure(sinks=[])


async def test_on_spans(tmp_path: Path) -> None:
    collector = Collector()
    with receiving(collector) as url:
        pipeline = configure(sinks=[OtelSink(endpoint=url)])
        try:
            async with scripted(tmp_path, CALLS, policy=Engine(), principal="ann") as agent:
                await agent.chat("go")
            assert await pipeline.flush(10)
        finally:
            pipeline.close()
            configure(sinks=[])
        spans = {span["name"]: span["attributes"] for span in collector.spans}
    said = {
        "execute_tool Write": {"decision": "allow", "rule": "writes", "reason": "writing is fine"},
        "execute_tool Bash": {"decision": "deny", "rule": "shell", "reason": "no shell"},
        "execute_tool Down": {"decision": "deny", "code": "POLICY_UNAVAILABLE"},
    }
    for name, told in said.items():
        all_told = told | {"engine": "house", "principal": "ann", "decided_by": "policy"}
        assert {f"policy.{key}": value for key, value in all_told.items()}.items() <= spans[name].items()
        assert spans[name]["policy.latency_ms"] >= 0
