"""The examples of policies run as their readers run them, with a real agent and the simulated model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.policy.servers import OpaServer, RegoCpp, serving

from computeragent.policy import CedarPolicyEngine, PolicyAction, PolicyInput, PolicyPrincipal, PolicyResource

EXAMPLES = Path(__file__).parents[2] / "examples"
REGO = EXAMPLES / "policies" / "computeragent.rego"
CEDAR = EXAMPLES / "policies" / "computeragent.cedar"
CALLS = [
    ("Read", {"file_path": "/etc/hosts"}, [], {}, True),
    ("Write", {"file_path": "a", "content": ""}, [], {}, False),
    ("Write", {"file_path": "a", "content": ""}, ["engineer"], {}, True),
    ("Bash", {"command": "ls"}, ["engineer"], {"env": "prod", "risk": "read"}, True),
    ("Bash", {"command": "dd of=/dev/sda"}, ["engineer"], {"env": "prod", "risk": "destructive"}, False),
    ("Bash", {"command": "cd /; rm -rf *"}, ["engineer"], {}, False),
    ("Bash", {"command": "rm -fr *"}, ["engineer"], {}, False),
    ("WebFetch", {"url": "http://x"}, ["engineer"], {}, False),
]


@pytest.mark.e2e
@pytest.mark.parametrize("engine", ["opa", "cedar"])
def test_the_agent_reads_and_deletes_nothing(engine: str, tmp_path: Path):
    server = OpaServer(RegoCpp(REGO.read_text()))
    with serving(server.app()) as url:
        done = run(engine, tmp_path, OPA_URL=url)
    assert done.returncode == 0, done.stderr
    assert "the build folder is still there" in done.stdout
    assert "rm -rf build" in done.stdout
    if engine == "opa":
        assert [asked["input"]["action"]["tool_name"] for asked in server.asked] == ["Read", "Bash"]


@pytest.mark.e2e
def test_without_opa_nothing_runs(tmp_path: Path):
    done = run("opa", tmp_path, OPA_URL="http://127.0.0.1:9")
    assert "the build folder is still there" in done.stdout, done.stderr


def run(engine: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HOME": str(home), **env}
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        env.pop(name, None)
    program = [sys.executable, "-W", "error", str(EXAMPLES / f"with_{engine}_policy.py")]
    return subprocess.run(program, env=env, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.anyio
@pytest.mark.parametrize(("tool", "tool_input", "groups", "context", "allowed"), CALLS)
async def test_both_policies_say_the_same(tool: str, tool_input: dict, groups: list, context: dict, allowed: bool):
    question = PolicyInput(
        PolicyPrincipal("alice", groups), PolicyAction("tool_use", tool, tool_input), PolicyResource(), context
    )
    result = await CedarPolicyEngine(path=CEDAR).evaluate(question)
    rego = RegoCpp(REGO.read_text())
    decided = rego.decide(["computeragent", "tools", "decision"], question.to_json())
    assert (result.decision.value == "allow", decided["allow"]) == (allowed, allowed)
    assert result.code is None
    assert decided["reason"]
