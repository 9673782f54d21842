"""Agents in real evaluations of Inspect, offline: the model is `mockllm`, which plays a scene."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.agent import Agent, AgentState, agent
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, accuracy, scorer
from inspect_ai.tool import MCPServerConfigStdio, Tool, ToolInfo, tool
from inspect_ai.util import sandbox

from computeragent.clis import cli
from computeragent.swe import agents

CLIS = ("claude_code", "codex_cli", "gemini_cli", "opencode", "mini_swe_agent")
WITH_TOOLS = CLIS[:-1]
MCP_SERVER = Path(__file__).resolve().parents[2] / "e2e" / "mcp_server.py"
PROMPT = "Please write the proof"
_EXTRA = {
    "claude_code": {"description": "writes"},
    "gemini_cli": {"description": "writes"},
    "opencode": {"description": "writes"},
}

Step = Callable[[list[ToolInfo]], ModelOutput]


def say(text: str, stop: Any = "stop") -> Step:
    return lambda _tools: ModelOutput.from_content("mockllm/model", text, stop_reason=stop)


def call(ending: str, **arguments: Any) -> Step:
    """A call of the tool that the agent offers under a name with this ending."""

    def step(tools: list[ToolInfo]) -> ModelOutput:
        names = [each.name for each in tools if each.name.lower().endswith(ending.lower())]
        assert names, f"no tool ends with {ending}: {[each.name for each in tools]}"
        return ModelOutput.for_tool_call("mockllm/model", names[0], arguments)

    return step


def shell(name: str, command: str) -> Step:
    """A call of the agent's shell."""
    row = cli(name)
    return call(row.shell_tool, **{row.shell_argument: command}, **_EXTRA.get(name, {}))


def done(name: str, text: str) -> Step:
    """The agent's last word."""
    if name != "mini_swe_agent":
        return say(text)
    return shell(name, f"echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && echo {text}")


@dataclass
class Scene:
    """What the model does, step by step, and what it was asked. Requests without tools, for titles, are no step."""

    steps: Sequence[Step]
    asked: list[tuple[list[ChatMessage], list[ToolInfo]]] = field(default_factory=list)
    waiting: asyncio.Event | None = None
    """Set when the steps are used up and the model thinks for ever; None: that is an error."""
    tokens: int = 10
    """What each request is said to have."""

    async def __call__(self, messages: list[ChatMessage], tools: list[ToolInfo], *_: Any) -> ModelOutput:
        if not tools:
            return with_usage(say("a title")([]))
        self.asked.append((messages, tools))
        if len(self.asked) > len(self.steps):
            assert self.waiting is not None, f"one request too many: {messages[-1].text[:500]}"
            self.waiting.set()
            await asyncio.sleep(3600)
        return with_usage(self.steps[len(self.asked) - 1](tools), self.tokens)

    def text(self, index: int) -> str:
        """All that one request says."""
        return "\n".join(message.text for message in self.asked[index][0])


def with_usage(output: ModelOutput, tokens: int = 10) -> ModelOutput:
    # Without it Inspect counts tokens with tables that it would download.
    output.usage = ModelUsage(input_tokens=tokens, output_tokens=5, total_tokens=tokens + 5)
    return output


@scorer(metrics=[accuracy()])
def right():
    """Whether the target is in the answer; with the files of the working folder."""

    async def score(state, target) -> Score:
        files = (await sandbox().exec(["ls"])).stdout.split()
        value = "C" if target.text in state.output.completion else "I"
        return Score(value=value, answer=state.output.completion, metadata={"files": files})

    return score


@tool
def secret_word() -> Tool:
    async def execute(key: str) -> str:
        """Tells the secret word.

        Args:
            key: The key.
        """
        return f"otter-{key}"

    return execute


def stdio_server() -> MCPServerConfigStdio:
    """A tool server in the sandbox, from a file of the sample."""
    return MCPServerConfigStdio(name="proof", command=sys.executable, args=["mcp_server.py", "touched.txt"])


@agent
def cancelled(of: Agent, scene: Scene) -> Agent:
    """An agent that is cancelled while the model thinks."""

    async def execute(state: AgentState) -> AgentState:
        scene.waiting = asyncio.Event()
        task = asyncio.create_task(of(state))
        await asyncio.wait(
            [task, asyncio.create_task(scene.waiting.wait())], return_when="FIRST_COMPLETED", timeout=100
        )
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return state

    return execute


def sample(text: str = PROMPT, target: str = "bowline", system: str = "", **files: str) -> Sample:
    messages: list[ChatMessage] = [ChatMessageSystem(content=system)] if system else []
    return Sample(input=[*messages, ChatMessageUser(content=text)], target=target, files=files or None)


def play(scene: Scene, solver: Agent, folder: Path, *samples: Sample, place: Any = "bwrap", **more: Any) -> EvalLog:
    """One evaluation."""
    task = Task(dataset=list(samples) or [sample()], solver=solver, scorer=right(), sandbox=place)
    model = get_model("mockllm/model", custom_outputs=scene, memoize=False)
    (log,) = evaluate(task, model=model, display="none", log_dir=str(folder), fail_on_error=False, **more)
    return log


def only(log: EvalLog) -> EvalSample:
    assert log.samples is not None
    (one,) = log.samples
    return one


def agent_of(name: str, **options: Any) -> Agent:
    return getattr(agents, name)(**options)
