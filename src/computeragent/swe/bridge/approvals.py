"""Approval of the calls that an agent will run itself: by the evaluation's policies, before the agent gets them.

The agent cannot be kept from running a call that it has. So a call that is rejected is told to the model as rejected,
and the model asked again; the agent gets the answer after that. Tools of the host are approved where they run.

Inspect has no public name for this: what is used of its private modules is used here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from inspect_ai._util.exception import TerminateSampleError  # pyright: ignore[reportPrivateImportUsage]
from inspect_ai.approval import Approval
from inspect_ai.approval._apply import apply_tool_approval, have_tool_approval  # pyright: ignore[reportPrivateImportUsage]
from inspect_ai.model import ChatMessage, ChatMessageTool, ModelOutput
from inspect_ai.tool import ToolCall, ToolCallError

from computeragent.errors import ValidationError
from computeragent.swe.bridge.faults import FatalError

ATTEMPTS = 3
"""Answers in a row that may be rejected."""

_BESIDE = "This call was not run, because another one of the same answer was rejected; it may be made again."


@dataclass(frozen=True)
class Reviewed:
    """The answer that the agent may have, or `rejection`: what the model is told instead."""

    output: ModelOutput
    rejection: list[ChatMessage] = field(default_factory=list[ChatMessage])


async def review(output: ModelOutput, history: list[ChatMessage], *, own: frozenset[str]) -> Reviewed:
    """Have the calls of an answer approved, but for those whose ids are in `own`.

    Raises `FatalError` where an approver wants the sample ended, or changes what it may not.
    """
    calls = () if output.empty else output.message.tool_calls or ()
    if not calls or not have_tool_approval():
        return Reviewed(output)
    modified: dict[str, ToolCall] = {}
    for call in calls:
        if call.id in own:
            continue
        approved, approval = await apply_tool_approval(output.message.text, call, None, [*history, output.message])
        if not approved:
            return Reviewed(output, _rejection(output, calls, call, approval))
        if approval is not None and approval.modified is not None:
            modified[call.id] = _checked(call, approval.modified)
    return Reviewed(_with(output, modified) if modified else output)


def too_often() -> FatalError:
    """So many answers in a row were rejected that another one is not asked for."""
    return FatalError(TerminateSampleError(f"Tool call approver rejected {ATTEMPTS} answers in a row."))


def _checked(call: ToolCall, modified: ToolCall) -> ToolCall:
    if modified.function != call.function:
        message = f"an approver made a call of {modified.function!r} out of one of {call.function!r}"
        raise FatalError(ValidationError(message, hint="An approver may change the arguments of a call alone."))
    return modified


def _rejection(
    output: ModelOutput, calls: Sequence[ToolCall], rejected: ToolCall, approval: Approval | None
) -> list[ChatMessage]:
    said = (approval.explanation if approval else None) or f"The call of {rejected.function} was rejected."
    if approval is not None and approval.decision == "terminate":
        raise FatalError(TerminateSampleError(f"Tool call approver requested termination: {said}"))
    results = [_told(call, said if call.id == rejected.id else f"{_BESIDE} ({said})") for call in calls]
    return [output.message, *results]


def _told(call: ToolCall, said: str) -> ChatMessageTool:
    error = ToolCallError("approval", said)
    return ChatMessageTool(content="", tool_call_id=call.id, function=call.function, error=error)


def _with(output: ModelOutput, modified: dict[str, ToolCall]) -> ModelOutput:
    # A copy: the log holds the answer as the model gave it.
    changed = output.model_copy(deep=True)
    for call in changed.message.tool_calls or ():
        if call.id in modified:
            call.arguments = modified[call.id].arguments
    return changed
