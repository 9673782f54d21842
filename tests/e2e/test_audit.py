"""Decisions of the drop-in on the real CLI: each is in the audit file, whatever was decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import ClaudeAgentOptions

from computeragent import configure, query
from computeragent.policy import PolicyDecision, PolicyInput, PolicyPrincipal, PolicyResult, PolicyToolAuthorizer
from computeragent.telemetry.chain.key import known_key
from computeragent.telemetry.chain.verify import verify
from computeragent.telemetry.sinks import AuditFileSink
from computeragent.testing.models import ModelSimulator, parse_script

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

SCRIPT = """
- match: go
  turns:
    - tools: [{name: Write, input: {file_path: WORK/a.txt, content: "to ada@example.com"}}]
    - tools: [{name: Bash, input: {command: "touch WORK/b.txt"}}]
    - text: Done.
"""


class NoShell:
    """Forbids the shell."""

    name = "house"

    async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002
        if input.action.tool_name == "Bash":
            return PolicyResult(PolicyDecision.DENY, reason="no shell", rule="shell", engine=self.name)
        return PolicyResult(PolicyDecision.ALLOW, rule="rest", engine=self.name)

    async def aclose(self) -> None:
        return None


async def test_every_decision_of_a_query_is_in_the_audit_file(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    sink = AuditFileSink(tmp_path / "audit.jsonl")
    pipeline = configure(sinks=[sink])
    authorizer = PolicyToolAuthorizer(engine=NoShell(), principal_resolver=lambda _: PolicyPrincipal("ann"))
    try:
        with ModelSimulator.start_in_thread(parse_script(SCRIPT.replace("WORK", str(work)))) as model:
            env = model.claude_environment(tmp_path / "config") | {"HOME": str(tmp_path), "IS_SANDBOX": "1"}
            options = ClaudeAgentOptions(cwd=str(work), env=env, can_use_tool=authorizer)
            async for _ in query(prompt="go", options=options):
                pass
        assert await pipeline.flush(10)
    finally:
        pipeline.close()
        configure(sinks=[])
    assert verify(sink.path, known_key()).findings == []
    rows = [json.loads(line).get("event", {}) for line in sink.path.read_bytes().splitlines()]
    assert (rows[1]["kind"], rows[-1]["kind"]) == ("session_started", "session_ended")
    found: list[Any] = [row["payload"] for row in rows if row.get("kind") == "policy_decision"]
    told = [(each["tool_name"], each["decision"], each["rule"], each.get("reason")) for each in found]
    assert told == [("Write", "allow", "rest", None), ("Bash", "deny", "shell", "no shell")]
    assert found[0]["tool_input"] == {"file_path": f"{work}/a.txt", "content": "to [REDACTED:EMAIL]"}
    for each in found:
        assert (each["principal_id"], each["engine"], each["decided_by"]) == ("ann", "house", "policy")
        assert each["latency_ms"] >= 0
    assert (work / "a.txt").exists()
    assert not (work / "b.txt").exists()
