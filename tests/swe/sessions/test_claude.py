"""The real Claude Code as an agent of an evaluation: its model is Inspect's, its tools are real."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.agent import BridgedToolsSpec
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateInput, ModelOutput
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer
from inspect_ai.solver import TaskState
from inspect_ai.tool import Tool, tool
from inspect_ai.util import sandbox

from computeragent.swe.sessions import computeragent_agent
from swe.agents.conftest import need, programs  # noqa: F401 - a fixture

from .evaluating import calls, evaluate, only, says

HOST_KEY = "sk-ant-of-the-host-0123456789"


@tool
def add() -> Tool:
    async def execute(x: int, y: int) -> int:
        """Add two numbers.

        Args:
            x: One.
            y: The other.
        """
        return x + y

    return execute


@pytest.fixture(autouse=True)
def a_key_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs evaluations may have a key: the agent must not use it, nor the home that it belongs to."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", HOST_KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("XDG_STATE_HOME", os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


def test_the_model_is_inspects_and_tools_of_both_sides_are_used(tmp_path: Path) -> None:
    asked: list[Any] = []

    async def look(
        model: Any, messages: Any, tools: Any, choice: Any, config: Any
    ) -> ModelOutput | GenerateInput | None:
        del model, choice, config
        asked.append((messages, [each.name for each in tools]))
        return None

    outputs = [
        calls("Bash", command="cat a.txt; echo made > out.txt", description="look"),
        calls("mcp__sums__add", x=40, y=2),
        says("It is 42."),
    ]
    agent = computeragent_agent(
        bridged_tools=[BridgedToolsSpec("sums", [add()])], filter=look, options={"disallowed_tools": ["WebFetch"]}
    )
    samples = [Sample(input="What is it?", target="42", files={"a.txt": "forty and two"})]
    log = evaluate(tmp_path / "logs", agent, samples=samples, outputs=outputs)
    sample = only(log)
    assert sample.error is None, sample.error
    assert sample.scores is not None
    assert sample.scores["includes"].value == "C"
    assert [message.role for message in sample.messages] == ["user", *["assistant", "tool"] * 2, "assistant"]
    assert [m.text for m in sample.messages if m.role == "tool"] == ["forty and two", "42"]
    assert sample.model_usage["mockllm/model"].total_tokens == 21
    assert sample.output.usage is not None
    assert sample.output.usage.total_cost is None  # what Claude Code takes for its price is another model's
    assert len([event for event in sample.events if event.event == "model"]) == 3
    assert all("WebFetch" not in names for _, names in asked)
    assert not any((tmp_path / "home").glob(".claude*"))


@scorer(metrics=[accuracy()])
def carried() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        del state, target
        listed = await sandbox().exec(["sh", "-c", "ls; cat out.txt; ./run.sh"])
        return Score(value="C" if listed.success else "I", explanation=listed.stdout)

    return score


def test_beside_another_sandbox_it_is_jailed_and_its_files_are_carried(tmp_path: Path) -> None:
    command = (
        "rm gone.txt; echo made > out.txt; printf '#!/bin/sh\\necho ran\\n' > run.sh; chmod +x run.sh; echo $HOME; env"
    )
    outputs = [calls("Bash", command=command, description="work"), says("Done.")]
    samples = [Sample(input="Work.", target="x", files={"gone.txt": "x", "kept.txt": "y"})]
    agent = computeragent_agent(on_tool_call=lambda _: True)
    log = evaluate(tmp_path / "logs", agent, samples=samples, outputs=outputs, sandbox="bwrap", scorer=carried())
    sample = only(log)
    assert sample.error is None, sample.error
    assert sample.scores is not None
    assert sample.scores["carried"].explanation == "kept.txt\nout.txt\nrun.sh\nmade\nran\n"
    seen = next(m.text for m in sample.messages if m.role == "tool")
    assert str(tmp_path) not in seen  # neither this machine's home nor its folders
    assert HOST_KEY not in seen


def test_it_takes_no_runtime_that_leaves_the_sandboxs_isolation_behind(tmp_path: Path) -> None:
    log = evaluate(tmp_path / "logs", computeragent_agent(runtime="local"), sandbox="bwrap")
    error = only(log).error
    assert error is not None
    assert "would run the agent outside of the sample's sandbox" in error.message


def test_a_token_limit_ends_the_agent_at_once(tmp_path: Path) -> None:
    outputs = [calls("Bash", command="true", description="x") for _ in range(9)]
    sample = only(evaluate(tmp_path / "logs", computeragent_agent(), outputs=outputs, token_limit=15))
    assert sample.limit is not None
    assert sample.limit.type == "token"
    assert sample.error is None
    assert len([event for event in sample.events if event.event == "model"]) == 3


def test_a_refusal_is_scored_and_no_error(tmp_path: Path) -> None:
    refusal = says("I will not.")
    refusal.choices[0].stop_reason = "content_filter"
    sample = only(evaluate(tmp_path / "logs", computeragent_agent(), outputs=[refusal] * 4))
    assert sample.error is None, sample.error
    assert sample.scores is not None
    assert sample.scores["includes"].value == "I"


@pytest.mark.soak
@pytest.mark.usefixtures("programs")
def test_agents_of_the_agent_client_protocol_have_inspects_model_and_tools_too(tmp_path: Path) -> None:
    need("gemini_cli")
    outputs = [calls("mcp_sums_add", x=40, y=2), says("It is 42.")]
    agent = computeragent_agent(
        engine="acp", options={"cli": "gemini_cli"}, bridged_tools=[BridgedToolsSpec("sums", [add()])]
    )
    sample = only(evaluate(tmp_path / "logs", agent, outputs=outputs))
    assert sample.error is None, sample.error
    assert sample.output.completion.endswith("It is 42.")
    assert any("42" in message.text for message in sample.messages if message.role == "tool")
