"""The real agents, led in real evaluations: turns, an interrupt in mid-call, another turn, nothing left behind."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.agent import AgentState, BridgedToolsSpec

from computeragent import swe
from computeragent.clis import cli
from computeragent.processes import marks
from computeragent.swe import ACPAgent
from swe.agents.conftest import need
from swe.agents.scenes import call, only, say, secret_word, shell

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


def living(mark: str) -> set[int]:
    """Processes of an agent that was given this mark, and of what it has started."""
    return {pid for pid, value in marks("ACP_TEST").items() if value == mark}


@pytest.mark.parametrize("name", NAMES)
def test_two_turns_an_interrupted_one_and_another(name: str, tmp_path: Path):
    need(artifact_of(name))
    mark = uuid.uuid4().hex
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
        seen["processes"] = living(mark)

    def make() -> ACPAgent:
        tools = [BridgedToolsSpec(name="host", tools=[secret_word()])]
        make = getattr(swe, f"interactive_{name}")
        return make(bridged_tools=tools, system_prompt="Mind the otters.", env={"ACP_TEST": mark})

    log = play(make, lead, talk, tmp_path / "logs")
    sample = only(log)
    assert sample.error is None, sample.error
    assert stops == ["end_turn", "end_turn", "cancelled", "end_turn"]
    assert seen["processes"]
    assert not living(mark)
    assert "proof.txt" in sample.scores["files"].metadata["files"]
    results = [message.text for message in sample.messages if message.role == "tool"]
    assert any("simulated-proof" in text for text in results)
    assert any("otter-7" in text for text in results)
    assert sample.output.completion == "Still here."
    assert any("Mind the otters." in message.text for message in talk.asked[0])
