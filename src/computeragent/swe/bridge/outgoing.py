"""What the model answered, as the agent's wire has it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from inspect_ai.model import ChatMessageAssistant, ContentReasoning, ContentText, ModelOutput, ModelUsage
from inspect_ai.tool import ToolCall as InspectCall

from computeragent.dialects.model import ModelResponse, Part, Text, Thinking, ToolCall, Usage
from computeragent.models.serving.fronts import Front
from computeragent.swe.bridge.tools import Declared

_REASONS = {
    "stop": "end_turn",
    "max_tokens": "max_tokens",
    "model_length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "unknown": "end_turn",
}


def new_answer_id(front: Front) -> str:
    """An id for an answer, as the wire has them."""
    return f"{front.id_prefix}{secrets.token_hex(12)}"


def response_of(output: ModelOutput, front: Front, answer_id: str, model: str, tools: Declared) -> ModelResponse:
    """The answer; `model` is the name that the agent asked for."""
    content: tuple[Part, ...] = () if output.empty else tuple(_parts(output.message, tools))
    called = any(isinstance(part, ToolCall) for part in content)
    reason = "end_turn" if output.empty else _REASONS.get(output.stop_reason, "end_turn")
    if called and reason == "end_turn":
        reason = "tool_use"
    return ModelResponse(
        id=answer_id,
        model=model,
        content=content,
        stop_reason=reason,
        usage=_usage(output.usage),
        dialect=front.name,
    )


def _parts(message: ChatMessageAssistant, tools: Declared) -> Iterator[Part]:
    content = [ContentText(text=message.content)] if isinstance(message.content, str) else message.content
    for each in content:
        match each:
            case ContentText() if each.text:
                yield Text(each.text)
            case ContentReasoning():
                yield _thinking(each)
            case _:
                pass  # what a provider's own tools did is not the agent's to see
    for call in message.tool_calls or ():
        yield _call(call, tools)


def _thinking(content: ContentReasoning) -> Thinking:
    if not content.redacted:
        return Thinking(content.reasoning, content.signature)
    if content.summary:
        return Thinking(content.summary, content.reasoning)
    return Thinking("", content.reasoning, True)


def _call(call: InspectCall, tools: Declared) -> ToolCall:
    known = tools.wire.get(call.function)
    name = call.function if known is None else known.tool.name
    extra: dict[str, Any] = {} if known is None else dict(known.extra)
    return ToolCall(id=call.id, name=name, input=call.arguments, extra=extra)


def _usage(usage: ModelUsage | None) -> Usage:
    if usage is None:
        return Usage()
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.input_tokens_cache_read or 0,
        cache_write_tokens=usage.input_tokens_cache_write or 0,
        reasoning_tokens=usage.reasoning_tokens or 0,
    )
