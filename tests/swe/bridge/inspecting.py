"""Runs real Inspect evaluations whose agent is a test's own: it gets an open bridge, and does with it what it likes."""

from __future__ import annotations

import gc
import logging
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.agent import Agent, AgentState, agent
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessageAssistant, ContentReasoning, ContentText, ModelOutput, ModelUsage, get_model
from inspect_ai.tool import Tool, ToolCall, ToolError, tool

from computeragent.swe.bridge import Bridge, agent_bridge

USAGE = ModelUsage(input_tokens=11, output_tokens=5, total_tokens=16)
Body = Callable[[Bridge], Awaitable[Any]]


def said(output: ModelOutput | str, usage: ModelUsage = USAGE) -> ModelOutput:
    """An answer with its usage, without which Inspect would want to count tokens."""
    output = ModelOutput.from_content("mockllm/model", output) if isinstance(output, str) else output
    output.usage = usage
    return output


def called(*calls: tuple[str, dict[str, Any]], text: str = "") -> ModelOutput:
    """An answer that calls tools; the ids are call_1, call_2, …"""
    made = [ToolCall(id=f"call_{n}", function=name, arguments=given) for n, (name, given) in enumerate(calls, 1)]
    message = ChatMessageAssistant(content=text, tool_calls=made, model="mockllm/model", source="generate")
    return said(ModelOutput.from_message(message, stop_reason="tool_calls"))


def reasoned(thought: str, text: str, signature: str) -> ModelOutput:
    """An answer with reasoning as Inspect has it from Anthropic: what can be read, and what proves it."""
    content = [ContentReasoning(reasoning=signature, summary=thought, redacted=True), ContentText(text=text)]
    return said(ModelOutput.from_message(ChatMessageAssistant(content=content, source="generate")))


class Model:
    """A model of Inspect's that answers `outputs` in turn (the last one for ever), and remembers what it was asked."""

    def __init__(self, *outputs: ModelOutput | str | Exception | Callable[..., Any]) -> None:
        self.asked: list[Any] = []
        self._outputs = list(outputs) or ["hello"]

    def __call__(self, messages, tools, choice, config):
        self.asked.append(Asked(list(messages), list(tools), choice, config))
        output = self._outputs.pop(0) if len(self._outputs) > 1 else self._outputs[0]
        if isinstance(output, Exception):
            raise output
        if callable(output):
            return output(messages, tools, choice, config)
        return said(output.model_copy(deep=True) if isinstance(output, ModelOutput) else output)


class Asked:
    def __init__(self, messages, tools, choice, config) -> None:
        self.messages, self.tools, self.choice, self.config = messages, tools, choice, config

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [(message.role, message.text) for message in self.messages]


def evaluate(
    body: Body | None,
    model: Model | None = None,
    *,
    prompt: str | list[Any] = "Please add the numbers",
    bridge: dict[str, Any] | None = None,
    task: dict[str, Any] | None = None,
    solver: Agent | None = None,
    **options: Any,
) -> EvalLog:
    """One sample of a real evaluation; `bridge` are words of `agent_bridge`, `task` those of `Task`."""

    @agent
    def probe() -> Agent:
        async def run(state: AgentState) -> AgentState:
            async with agent_bridge(state, **(bridge or {})) as opened:
                assert body is not None
                await body(opened)
            return opened.state

        return run

    gc.freeze()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        [log] = inspect_eval(
            Task(dataset=[Sample(input=prompt)], solver=solver or probe(), **(task or {})),
            model=get_model("mockllm/model", custom_outputs=model or Model(), memoize=False),
            display="none",
            log_dir=tempfile.mkdtemp(),
            log_realtime=False,
            **options,
        )
        gc.collect()  # Inspect leaves streams behind, which would be complained of in somebody else's test
    gc.unfreeze()
    logging.getLogger().handlers.clear()
    return log


def finished(log: EvalLog) -> Any:
    """The sample of an evaluation that must have gone well."""
    assert log.status == "success", log.error and log.error.traceback
    return log.samples[0]


def texts(messages: Sequence[Any]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


def events(sample: Any, kind: str) -> list[Any]:
    return [event for event in sample.events if event.event == kind]


@tool
def add() -> Tool:
    async def execute(x: int, y: int) -> str:
        """Add two numbers of the host's.

        Args:
            x: The first.
            y: The second.
        """
        return str(x + y)

    return execute


@tool
def refuse() -> Tool:
    async def execute(why: str) -> str:
        """Fail as tools may.

        Args:
            why: The reason.
        """
        raise ToolError(f"not today: {why}")

    return execute
