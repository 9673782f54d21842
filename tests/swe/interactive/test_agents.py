"""The real agents, led in real evaluations: turns, an interrupt in mid-call, another turn, nothing left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.agent import AgentState, BridgedToolsSpec

from computeragent import swe
from computeragent.clis import cli
from computeragent.swe import ACPAgent
from swe.agents.conftest import need
from swe.agents.scenes import call, only, processes_of, say, secret_word, shell

from .leading import PROOF, Talk, play

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("programs"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*MemoryObject"),  # streams of Inspect itself
]
NAMES = ["claude_code", "codex_cli", "gemini_cli", pytest.param("opencode", marks=pytest.mark.soak)]


def artifact_of(name: str) -> str:
    row = cli(name)
    return name if row.acp is None or row.acp.adapter is None else f"{name}_acp"


@pytest.mark.parametrize("name", NAMES)
def test_two_turns_an_interrupted_one_and_another(name: str, tmp_path: Path):
    need(artifact_of(name))
    talk = Talk(
        write_the_proof=[shell(name, PROOF), say("It is written.")],
        the_secret=[call("secret_word", key="7"), say("I know it.")],
        still_there=[say("Still here.")],
    )
    stops: list[str] = []
    seen: dict[str, Any] = {}

    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        stops.append((await agent.prompt("Please write the proof")).stop_reason)
        stops.append((await agent.prompt("Find the secret")).stop_reason)
        third = asyncio.create_task(agent.prompt("take your time"))
        await talk.thinking.wait()
        await agent.interrupt()
        stops.append((await third).stop_reason)
        stops.append((await agent.prompt("still there?")).stop_reason)
        seen["processes"] = len(processes_of(artifact_of(name)))

    def make() -> ACPAgent:
        tools = [BridgedToolsSpec(name="host", tools=[secret_word()])]
        return getattr(swe, f"interactive_{name}")(bridged_tools=tools, system_prompt="Mind the otters.")

    log = play(make, lead, talk, tmp_path / "logs")
    sample = only(log)
    assert sample.error is None, sample.error
    assert stops == ["end_turn", "end_turn", "cancelled", "end_turn"]
    assert seen["processes"] > 0
    assert processes_of(artifact_of(name)) == []
    assert "proof.txt" in sample.scores["files"].metadata["files"]
    results = [message.text for message in sample.messages if message.role == "tool"]
    assert any("simulated-proof" in text for text in results)
    assert any("otter-7" in text for text in results)
    assert sample.output.completion == "Still here."
    assert any("Mind the otters." in message.text for message in talk.asked[0])
