"""The real agents, from their packages, run from their rows alone against the model simulator."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import claude_agent_sdk
import pytest

from computeragent.artifacts import fetch
from computeragent.clis import CLIS, McpServer, cli

from .running import run_cli, simulator_for

pytestmark = pytest.mark.e2e

MCP_SERVER = Path(__file__).resolve().parents[1] / "e2e" / "mcp_server.py"
SOAK = pytest.mark.soak
LIMIT = pytest.mark.timeout(900)


@pytest.fixture
def claude() -> Path:
    """The Claude Code that comes with the SDK: nothing is fetched."""
    return Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"


def test_claude_runs_a_tool_and_resumes(claude: Path, tmp_path: Path):
    session = str(uuid.uuid4())
    with simulator_for("claude_code") as simulator:
        done = run_cli(
            claude, "claude_code", simulator, tmp_path, session_id=session, system_prompt="Be terse, Claude."
        )
        assert (done.status, done.proof) == (0, "simulated-proof\n"), done.stderr
        assert "all-is-written" in done.stdout
        assert b"Be terse, Claude." in simulator.calls[0].http.body
        again = run_cli(claude, "claude_code", simulator, tmp_path, session_id=session, resume=True, prompt="and now?")
        assert again.status == 0, again.stderr
        assert b"write the proof" in simulator.calls[-1].http.body
        assert {request.path.partition("?")[0] for request in simulator.requests} == {"/v1/messages"}


def test_claude_gets_skills_and_tool_servers_and_no_denied_tool(claude: Path, tmp_path: Path):
    row = cli("claude_code")
    server = McpServer(name="proof", command=sys.executable, args=(str(MCP_SERVER),))
    skill = tmp_path / "work" / ".claude" / "skills" / "knots"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text("---\nname: knots\ndescription: how to tie a bowline\n---\nOver, under.\n")
    with simulator_for("claude_code") as simulator:
        done = run_cli(claude, "claude_code", simulator, tmp_path, mcp=(server,), deny=("WebSearch",))
        assert done.status == 0, done.stderr
        assert Path(row.skills_folder(done.run)) == skill.parent
        asked = simulator.calls[0].parsed
        assert asked is not None
        names = {tool.name for tool in asked.tools}
        assert any(name.startswith("mcp__proof__") for name in names), names
        assert "WebSearch" not in names
        assert "Bash" in names
        assert b"how to tie a bowline" in simulator.calls[0].http.body


@pytest.fixture(scope="session")
def shared_cache(request: pytest.FixtureRequest) -> Path:
    """A cache that outlives the run of tests: a program is fetched once."""
    return request.config.cache.mkdir("computeragent-home")


@SOAK
@LIMIT
@pytest.mark.parametrize("name", list(CLIS))
def test_every_agent_runs_a_tool_and_resumes_from_its_package(
    name: str, shared_cache: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("COMPUTERAGENT_HOME", str(shared_cache))
    program = fetch(name).program
    with simulator_for(name) as simulator:
        done = run_cli(program, name, simulator, tmp_path, limit=120)
        assert (done.status, done.proof) == (0, "simulated-proof\n"), done.stdout + done.stderr
        assert simulator.calls
        assert all(request.dialect == cli(name).dialect for request in simulator.calls)
        answer = "-and now we write the proof again" if name == "mini_swe_agent" else "--and now?"
        before = len(simulator.calls)
        again = run_cli(program, name, simulator, tmp_path, limit=120, resume=True, prompt=answer)
        assert again.status == 0, again.stdout + again.stderr
        assert len(simulator.calls) > before
        assert b"Please write the proof" in simulator.calls[-1].http.body
        assert answer.encode() in simulator.calls[-1].http.body
    assert os.access(program, os.X_OK)
