"""Evaluations in which code of ours leads an interactive agent; `mockllm` answers by what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.agent import Agent, AgentState, agent
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessage, ChatMessageUser, ModelOutput, get_model
from inspect_ai.scorer import Score, accuracy, scorer
from inspect_ai.tool import ToolInfo
from inspect_ai.util import sandbox

from computeragent.swe import ACPAgent
from swe.agents.scenes import Step, say, with_usage

PROOF = "echo simulated-proof > proof.txt && cat proof.txt"
THINK = "take your time"
Lead = Callable[[ACPAgent, AgentState], Awaitable[None]]


class Talk:
    """A model that answers by the user's last words: a step for each text, in the order of its steps.

    "take your time" is thought about for ever; `thinking` is set then.
    """

    def __init__(self, **steps: list[Step]) -> None:
        self._steps = {name.replace("_", " "): list(each) for name, each in steps.items()}
        self.thinking = asyncio.Event()
        self.asked: list[list[ChatMessage]] = []

    async def __call__(self, messages: list[ChatMessage], tools: list[ToolInfo], *_: Any) -> ModelOutput:
        if not tools:
            return with_usage(say("a title")([]))
        self.asked.append(messages)
        texts = [message.text for message in messages if isinstance(message, ChatMessageUser)]
        for text in reversed(texts):  # one may hold several messages: the last one counts
            words = max([THINK, *self._steps], key=text.rfind)
            if words not in text:
                continue
            if words == THINK:
                self.thinking.set()
                await asyncio.sleep(3600)
            steps = self._steps[words]
            return with_usage((steps.pop(0) if len(steps) > 1 else steps[0])(tools))
        raise AssertionError(f"nobody expected {texts[-1:]}")


@scorer(metrics=[accuracy()])
def files():
    """The files of the working folder."""

    async def score(state, target) -> Score:
        return Score(value="C", metadata={"files": (await sandbox().exec(["ls"])).stdout.split()})

    return score


@agent
def led(make: Callable[[], ACPAgent], lead: Lead) -> Agent:
    """Runs an interactive agent in a task of its own, has it led, and cancels it."""

    async def execute(state: AgentState) -> AgentState:
        one = make()
        running = asyncio.create_task(one(state))
        try:
            async with asyncio.timeout(120):
                await lead(one, state)
        except TimeoutError as error:  # which Inspect would take for the end of a good sample
            raise AssertionError("it took too long") from error
        finally:
            running.cancel()
            ended = await asyncio.gather(running, return_exceptions=True)
        if isinstance(ended[0], BaseException):
            raise ended[0]
        return ended[0]

    return execute


def play(
    make: Callable[[], ACPAgent],
    lead: Lead,
    model: Any,
    folder: Path,
    *,
    place: Any = "bwrap",
    given: dict[str, str] | None = None,
    **more: Any,
) -> EvalLog:
    """One evaluation of one sample, which has the files `given`."""
    sample = Sample(input="Lead it.", target="-", files=given)
    task = Task(dataset=[sample], solver=led(make, lead), scorer=files(), sandbox=place)
    served = get_model("mockllm/model", custom_outputs=model, memoize=False)
    (log,) = evaluate(task, model=served, display="none", log_dir=str(folder), fail_on_error=False, **more)
    return log
