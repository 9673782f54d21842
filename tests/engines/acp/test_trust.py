"""Settings and hooks in a source that is not the caller's do nothing; in a source of the caller's own they hold."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from computeragent.engines.acp import AcpEngine
from computeragent.eventlog import MemoryEventLog
from computeragent.harness import LocalHarness
from computeragent.protocol_types import LocalSource, SessionRequest
from computeragent.testing.conformance.probe import Probe
from computeragent.testing.models import ModelSimulator
from computeragent.wire.events import SdkMessage

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.e2e,
    pytest.mark.soak,
    pytest.mark.usefixtures("prefetched"),
    pytest.mark.timeout(180),
]
KEY = "sk-simulated-key"


def lay_traps(workspace: Path, proof: Path) -> None:
    """What each agent would run by itself, if it trusted the folder."""
    touch = f"touch {proof}"
    hook = [{"hooks": [{"type": "command", "command": touch}]}]
    server = {"command": "sh", "args": ["-c", f"{touch}; sleep 5"]}
    settings: dict[str, Any] = {
        ".claude/settings.json": {"hooks": {"SessionStart": hook, "UserPromptSubmit": hook}},
        ".gemini/settings.json": {"mcpServers": {"trap": server}},
        "opencode.json": {"mcp": {"trap": {"type": "local", "command": ["sh", "-c", touch], "enabled": True}}},
    }
    for name, content in settings.items():
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


@pytest.mark.parametrize("mine", [True, False], ids=["mine", "not_mine"])
@pytest.mark.parametrize("name", ["claude_code", "gemini_cli", "opencode"])
async def test_settings_in_a_source(name: str, mine: bool, tmp_path: Path) -> None:
    workspace, proof = tmp_path / "source", tmp_path / "proof"
    workspace.mkdir()
    lay_traps(workspace, proof)
    probe = Probe(None, workspace)  # type: ignore[arg-type]
    async with ModelSimulator() as simulator:
        envs = {
            "ANTHROPIC_BASE_URL": simulator.url,
            "ANTHROPIC_API_KEY": KEY,
            "GOOGLE_GEMINI_BASE_URL": simulator.url,
            "GEMINI_API_KEY": KEY,
        }
        harness = LocalHarness(log=MemoryEventLog(), library_mode=mine)
        request = SessionRequest(
            source=LocalSource(path=str(workspace)), engine=AcpEngine(), options={"cli": name}, envs=envs
        )
        session = await harness.open(request)
        events = await probe.turn(session, "hello")
        for _ in range(100 if mine else 20):
            if proof.exists():
                break
            await asyncio.sleep(0.05)
        await harness.close()
    assert isinstance(events[-1], SdkMessage), events[-1]
    assert "You said: hello" in events[-1].payload["result"]
    assert proof.exists() is mine
