"""The example agent and the documentation page are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from computeragent.identity.gap import GapIdentityLoader
from computeragent.identity.loading import default_loader
from computeragent.wire.identity import LocalSource

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


async def _load(folder: Path, state_dir: Path):
    return await GapIdentityLoader().load(
        source=LocalSource(path=str(folder)),
        target_engine="claude-agent-sdk",
        workspace_path=folder,
        state_dir=state_dir,
        trusted=True,
    )


async def test_the_example_agent_loads_without_a_note(tmp_path: Path):
    folder = ROOT / "examples" / "agents" / "hello"
    assert default_loader(folder) == "gap"
    manifest = await _load(folder, tmp_path)
    assert (manifest.name, manifest.notes) == ("hello", ())
    assert manifest.options["max_turns"] == 20
    assert (tmp_path / "plugin/skills/greeting/SKILL.md").exists()


async def test_the_agent_yaml_of_the_page_loads_without_a_note(tmp_path: Path):
    [block] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "identity.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "agent.yaml").write_text(block)
    manifest = await _load(tmp_path / "agent", tmp_path)
    assert manifest.notes == ()
    assert manifest.options["max_budget_usd"] == 0.5
    assert manifest.harden({"permission_mode": "bypassPermissions"})["permission_mode"] == "default"
