"""The documented examples of the published package, as their users wrote them, against real servers on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.telemetry.otel.collector import Collector, serving
from tests.telemetry.sinks.ingest import Ingest

from computeragent.testing.models import ModelSimulator, parse_script

pytestmark = pytest.mark.e2e

SCRIPT = """
- match: Summarize the README
  turns:
    - tools: [{name: Read, input: {file_path: WORK/README.md}}]
    - text: It is about ada@example.com.
- match: List the files
  reply: README.md
"""
SWAP = """
    import asyncio
    from computeragent import ClaudeAgentOptions, query
    from computeragent.types import ResultMessage
    options = ClaudeAgentOptions(
        model="claude-haiku-4-5",
        system_prompt="You are a helpful assistant.",
        allowed_tools=["Read", "Glob", "Grep"],
        permission_mode="default",
    )
    async def main():
        async for message in query(prompt="Summarize the README.md.", options=options):
            if isinstance(message, ResultMessage):
                print(f"answer ({message.num_turns} turns): {message.result}")
    asyncio.run(main())
"""
CONFIGURED = """
    from computeragent import configure, PiiRedactor, GuardrailFilter
    from computeragent.telemetry.sinks import OtelSink, AgentOSHttpSink
    configure(
        middleware=[
            PiiRedactor(strategy="hash", extra_patterns=[r"BADGE-\\d{6}"]),
            GuardrailFilter(
                max_attribute_length=4096,
                tool_name_allowlist={"Read", "Glob", "Grep", "mcp__nordassist-tools__*"},
                cost_ceiling_usd=1.50,
            ),
        ],
        sinks=[
            OtelSink(), # picks up env
            AgentOSHttpSink(url="INGEST"), # → server writes Mongo
        ],
    )
"""
HARNESS = """
    import asyncio, os
    from pathlib import Path
    from computeragent import ComputerAgent
    from computeragent.telemetry import Pipeline
    from computeragent.telemetry.sinks import AgentOSHttpSink
    pipeline = Pipeline(sinks=[AgentOSHttpSink(url="INGEST", token="cak_0123456789abcdef")])
    async def run():
        async with ComputerAgent(
            source=Path.cwd(), engine="claude-agent-sdk", runtime="local",
            options={"system_prompt": "You are terse.", "allowed_tools": ["Read", "Glob"]},
            envs={name: os.environ[name] for name in os.environ if name.startswith(("ANTHROPIC", "CLAUDE", "HOME"))},
            telemetry_pipeline=pipeline,
        ) as agent:
            result = await agent.chat("List the files in this directory.")
            print(result.messages, result.usage)
    asyncio.run(run())
"""


def run(program: str, tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    work = tmp_path / "work"
    work.mkdir()
    (work / "README.md").write_text("Written by ada@example.com.\n")
    with ModelSimulator.start_in_thread(parse_script(SCRIPT.replace("WORK", str(work)))) as sim:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AGENTOS_"))}
        patient = {"COMPUTERAGENT_EXIT_TIMEOUT": "30"}  # a busy machine takes seconds to import the exporters
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            cwd=work,
            env={**clean, **sim.claude_environment(tmp_path / "claude"), "HOME": str(tmp_path), **patient, **env},
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done


def test_the_minimal_swap_prints_the_answer_and_nothing_else(tmp_path: Path) -> None:
    done = run(SWAP, tmp_path)
    assert done.stdout == "answer (2 turns): It is about ada@example.com.\n"
    assert done.stderr == ""
    assert not (Path(os.environ["COMPUTERAGENT_HOME"]) / "spool").exists()


def test_an_endpoint_in_the_environment_is_all_that_telemetry_needs(tmp_path: Path) -> None:
    collector = Collector()
    with serving(collector) as url:
        run(SWAP, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=url)
    names = {span["name"] for span in collector.spans}
    assert {"invoke_agent You are a helpful assistant.", "execute_tool Read"} <= names
    assert any(name.startswith("chat ") for name in names)


def test_configure_with_several_sinks(tmp_path: Path) -> None:
    collector = Collector()
    with serving(collector) as url, Ingest(token="cak_k") as ingest:
        program = textwrap.dedent(CONFIGURED.replace("INGEST", ingest.url)) + textwrap.dedent(SWAP)
        done = run(program, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=url, COMPUTERAGENT_HARNESS_TOKEN="cak_k")
        events = ingest.events
    assert any(span["name"] == "execute_tool Read" for span in collector.spans)
    assert done.stdout.startswith("answer")
    assert [event["kind"] for event in events][:2] == ["session_started", "turn_started"]
    assert events[-1]["kind"] == "session_ended"
    assert "ada@example.com" not in json.dumps(events)


def test_a_harness_with_a_pipeline_of_its_own(tmp_path: Path) -> None:
    with Ingest(token="cak_0123456789abcdef") as ingest:
        done = run(HARNESS.replace("INGEST", ingest.url), tmp_path)
        events = ingest.events
    assert "README.md" in done.stdout
    started = next(event for event in events if event["kind"] == "session_started")
    assert (started["payload"]["prompt"], started["payload"]["harness_mode"]) == (
        "List the files in this directory.",
        True,
    )
    assert events[-1]["kind"] == "session_ended"
