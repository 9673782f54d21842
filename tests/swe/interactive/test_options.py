"""What interactive agents are given reaches the real programs: skills, tool servers, models, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inspect_ai.agent import AgentState
from inspect_ai.model import GenerateInput, Model, ModelOutput, get_model
from inspect_ai.util import sandbox

from computeragent.swe import ACPAgent, interactive_claude_code, interactive_codex_cli, interactive_gemini_cli
from swe.agents.conftest import need
from swe.agents.scenes import MCP_SERVER, call, only, say, stdio_server, with_usage

from .leading import Talk, play

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("programs"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*MemoryObject"),  # streams of Inspect itself
]


def a_skill(folder: Path) -> Path:
    skill = folder / "knots"
    skill.mkdir()
    (skill / "SKILL.md").write_text("---\nname: knots\ndescription: how to tie a bowline\n---\nOver, under.\n")
    return skill


def model_of(talk: Any) -> Model:
    return get_model("mockllm/other", custom_outputs=talk, memoize=False)


class Offers(Talk):
    """Keeps the tools that it was offered."""

    async def __call__(self, messages: Any, tools: Any, *rest: Any) -> ModelOutput:
        if tools:
            self.offered = tools
        return await super().__call__(messages, tools, *rest)


def test_codex_with_a_model_of_its_own_a_skill_a_tool_server_and_settings(tmp_path: Path):
    need("codex_cli_acp")
    mine = Offers(use_the_server=[call("do"), say("Done.")])

    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        await agent.prompt("use the server")

    def make() -> ACPAgent:
        return interactive_codex_cli(
            model=model_of(mine),
            skills=[a_skill(tmp_path)],
            mcp_servers=[stdio_server()],
            goals=False,
            web_search="disabled",
            config_overrides={"developer_instructions": '"Mind the herons."'},
        )

    log = play(make, lead, Talk(x=[say("not me")]), tmp_path / "logs", given={"mcp_server.py": MCP_SERVER.read_text()})
    sample = only(log)
    assert sample.error is None, sample.error
    assert "touched.txt" in sample.scores["files"].metadata["files"]
    assert list(sample.model_usage) == ["mockllm/other"]
    said = "\n".join(message.text for message in mine.asked[0])
    assert "how to tie a bowline" in said
    assert "Mind the herons." in said
    assert not [tool.name for tool in mine.offered if "goal" in tool.name or "web_search" in tool.name]


@pytest.mark.soak
def test_claude_without_a_tool_with_a_skill_roles_and_a_filter(tmp_path: Path):
    need("claude_code_acp")
    talk = Offers(say_hello=[say("never said")])
    haiku = Offers()
    filtered: list[str] = []

    async def answer(
        model: Model, messages: Any, tools: Any, choice: Any, config: Any
    ) -> ModelOutput | GenerateInput | None:
        filtered.append(model.name)
        talk.offered = tools or talk.offered
        talk.asked.append(messages)
        return with_usage(ModelOutput.from_content("mockllm/model", "The filter says hello.")) if tools else None

    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        assert (await agent.prompt("say hello")).stop_reason == "end_turn"

    def make() -> ACPAgent:
        return interactive_claude_code(
            disallowed_tools=["WebFetch"], skills=[a_skill(tmp_path)], haiku_model=model_of(haiku), filter=answer
        )

    sample = only(play(make, lead, talk, tmp_path / "logs"))
    assert sample.error is None, sample.error
    assert sample.output.completion == "The filter says hello."
    names = {tool.name for tool in talk.offered}
    assert "Bash" in names
    assert "WebFetch" not in names
    offered = "\n".join([message.text for message in talk.asked[0]] + [tool.description for tool in talk.offered])
    assert "how to tie a bowline" in offered
    assert set(filtered) <= {"model", "other"}


@pytest.mark.soak
def test_gemini_on_this_machine_writes_what_it_does(tmp_path: Path):
    need("gemini_cli")
    talk = Talk(say_hello=[say("Hello.")])
    found: list[str] = []

    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        assert (await agent.prompt("say hello")).stop_reason == "end_turn"
        found.append((await sandbox().exec(["cat", f"{tmp_path}/gemini-debug.log"])).stdout)

    def make() -> ACPAgent:
        return interactive_gemini_cli(debug=True, env={"HOME": str(tmp_path)})

    sample = only(play(make, lead, talk, tmp_path / "logs", place="local"))
    assert sample.error is None, sample.error
    assert found[0]
    assert (tmp_path / ".gemini" / "settings.json").is_file()
