"""Real evaluations of Inspect, with one model that answers from a list."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import inspect_ai
from inspect_ai import Task
from inspect_ai.agent import Agent
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, Scorer, Target, accuracy, includes, scorer
from inspect_ai.solver import Solver, TaskState
from inspect_ai.util import sandbox

Turn = list[dict[str, Any]]


def says(text: str) -> ModelOutput:
    return _counted(ModelOutput.from_content("mockllm/model", text))


def calls(tool: str, **arguments: Any) -> ModelOutput:
    return _counted(ModelOutput.for_tool_call("mockllm/model", tool, arguments))


def _counted(output: ModelOutput) -> ModelOutput:
    output.usage = ModelUsage(input_tokens=5, output_tokens=2, total_tokens=7)  # else Inspect counts, with a download
    return output


def evaluate(
    logs: Path,
    agent: Agent | Solver | list[Solver],
    *,
    samples: Sequence[Sample] | None = None,
    sandbox: Any = "local",
    scorer: Scorer | None = None,
    outputs: Sequence[ModelOutput] = (),
    log_format: Literal["eval", "json"] = "eval",
    **limits: Any,
) -> EvalLog:
    """The log of an evaluation; one sample, which asks "hi" and wants 42, unless others are given."""
    task = Task(
        dataset=list(samples or [Sample(input="hi", target="42")]),
        scorer=scorer or includes(),
        sandbox=sandbox,
        **limits,
    )
    model = get_model("mockllm/model", custom_outputs=list(outputs))
    with quiet():
        return inspect_ai.eval(
            task, solver=agent, model=model, log_dir=str(logs), log_format=log_format, display="none"
        )[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Inspect leaves some streams of its own unclosed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unclosed <MemoryObject", ResourceWarning)
        yield
        gc.collect()


def only(log: EvalLog) -> EvalSample:
    """The log's one sample."""
    assert log.samples is not None
    assert len(log.samples) == 1
    return log.samples[0]


@scorer(metrics=[accuracy()])
def has_file(path: str, text: str) -> Scorer:
    """Looks in the sandbox, as scorers of agents do."""

    async def score(state: TaskState, target: Target) -> Score:
        del state, target
        try:
            found = await sandbox().read_file(path)
        except FileNotFoundError:
            found = "no such file"
        return Score(value="C" if text in found else "I", explanation=found)

    return score
