"""Whole responses of OpenAI Chat Completions, and the list of models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from computeragent.dialects.fields import Fields, read_body
from computeragent.dialects.model import ModelResponse, Thinking, ToolCall, Usage
from computeragent.dialects.openai_chat.content import NAME, build_assistant, parse_assistant
from computeragent.dialects.protocol import Body
from computeragent.errors import ValidationError

_STOP_REASONS = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
}
_FINISH_REASONS = {
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


def parse_response(body: Body) -> ModelResponse:
    """Read a `chat.completion`; of several choices the first. Raises `ValidationError`."""
    fields = read_body(body)
    choice = next((Fields(item, path) for path, item in fields.items("choices")), None)
    message = choice.object("message") if choice is not None else None
    if choice is None or message is None:
        raise ValidationError("choices.0.message: field required")
    refused = bool(message.whole().get("refusal"))
    fields.take("object")
    return ModelResponse(
        id=fields.optional_string("id") or "",
        model=fields.optional_string("model") or "",
        content=parse_assistant(message),
        stop_reason="refusal" if refused else stop_reason(choice.optional_string("finish_reason")),
        usage=parse_usage(fields.object("usage")) or Usage(),
        dialect=NAME,
        extra=fields.rest(),
    )


def build_response(response: ModelResponse) -> dict[str, Any]:
    """Write a `chat.completion` of one choice. Reasoning is in `reasoning_content`, as compatible servers write it."""
    own = response.dialect == NAME
    message = {"role": "assistant", **build_assistant(response.content, own=own)}
    thinking = "".join(part.text for part in response.content if isinstance(part, Thinking))
    if thinking:
        message["reasoning_content"] = thinking
    has_calls = any(isinstance(part, ToolCall) for part in response.content)
    choice = {"index": 0, "message": message, "finish_reason": finish_reason(response.stop_reason, has_calls)}
    return {
        "id": response.id,
        "object": "chat.completion",
        "created": 0,
        "model": response.model,
        "choices": [choice],
        "usage": build_usage(response.usage, own=own),
        **(response.extra if own else {}),
    }


def stop_reason(name: str | None) -> str | None:
    """The neutral stop reason of a `finish_reason`."""
    return None if name is None else _STOP_REASONS.get(name, name)


def finish_reason(reason: str | None, has_calls: bool = False) -> str:
    """The `finish_reason` of a neutral stop reason."""
    return _FINISH_REASONS.get(reason or "", "tool_calls" if has_calls else "stop")


def parse_usage(fields: Fields | None) -> Usage | None:
    """Read token counts; the cached part is taken out of the input. None where there are none."""
    if fields is None:
        return None
    prompt = fields.object("prompt_tokens_details") or Fields({})
    completion = fields.object("completion_tokens_details") or Fields({})
    cached = prompt.integer("cached_tokens") or 0
    fields.take("total_tokens")
    return Usage(
        input_tokens=max((fields.integer("prompt_tokens") or 0) - cached, 0),
        output_tokens=fields.integer("completion_tokens") or 0,
        cache_read_tokens=cached,
        reasoning_tokens=completion.integer("reasoning_tokens") or 0,
        extra=fields.rest(),
    )


def build_usage(usage: Usage, *, own: bool) -> dict[str, Any]:
    """Write token counts."""
    return {
        "prompt_tokens": usage.total_input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        **(usage.extra if own else {}),
    }


def build_models(names: Iterable[str]) -> dict[str, Any]:
    """Write the answer of `GET /v1/models`."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "computeragent"} for name in names]
    return {"object": "list", "data": data}
