"""Whole responses of OpenAI Responses, and the list of models."""

from __future__ import annotations

from typing import Any

from computeragent.dialects.fields import Fields, read_body
from computeragent.dialects.model import ModelResponse, Part, Text, ToolCall, Usage
from computeragent.dialects.openai_chat.responses import build_models
from computeragent.dialects.openai_responses.content import REFUSAL
from computeragent.dialects.openai_responses.errors import parse_failure
from computeragent.dialects.openai_responses.items import NAME, MakeId, build_answer, parse_output_item
from computeragent.dialects.protocol import Body
from computeragent.errors import ValidationError

__all__ = ["build_models", "build_response", "parse_response"]

_REASONS = {"max_output_tokens": "max_tokens", "content_filter": "refusal"}
_INCOMPLETE = {"max_tokens": "max_output_tokens", "model_context_window_exceeded": "max_output_tokens"}
_USUAL: dict[str, Any] = {
    "created_at": 0,
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
}
"""Fields that every response has on this wire, with the values that say nothing."""


def parse_response(body: Body) -> ModelResponse:
    """Read a response object. Raises `ValidationError`, also for a response that failed."""
    fields = read_body(body)
    if fields.whole().get("status") == "failed":
        error = parse_failure(fields.object("error") or Fields({}))
        raise ValidationError(f"the response failed: {error.message}")
    content: list[Part] = []
    for path, item in fields.items("output"):
        output = Fields(item, path)
        content.extend(parse_output_item(output.string("type"), output))
    reason = stop_reason(fields, content)
    return ModelResponse(
        id=fields.optional_string("id") or "",
        model=fields.optional_string("model") or "",
        content=tuple(content),
        stop_reason=reason,
        usage=parse_usage(fields.object("usage")) or Usage(),
        dialect=NAME,
        extra=response_extra(fields),
    )


def response_extra(fields: Fields) -> dict[str, Any]:
    """What a response object says beyond its content; fields that say nothing are left out."""
    for known in ("object", "status", "output", "incomplete_details", "error", "id", "model", "usage"):
        fields.take(known)
    return {name: value for name, value in fields.rest().items() if name not in _USUAL or value != _USUAL[name]}


def stop_reason(fields: Fields, content: list[Part]) -> str | None:
    """Why the model stopped, from the status of a response object and what it has written."""
    status = fields.whole().get("status")
    details = fields.whole().get("incomplete_details")
    if status == "incomplete":
        reason = Fields(details or {}, "incomplete_details").optional_string("reason")
        return _REASONS.get(reason or "", reason)
    if status not in {None, "completed"}:
        return None
    if any(isinstance(part, Text) and part.extra.get("type") == REFUSAL for part in content):
        return "refusal"
    return "tool_use" if any(isinstance(part, ToolCall) for part in content) else "end_turn"


def build_response(response: ModelResponse) -> dict[str, Any]:
    """Write a response object. Items without an id get one that follows from the response's."""
    own = response.dialect == NAME
    output = list(build_answer(response.content, own=own, make_id=id_maker(response.id)))
    return response_object(response, output)


def response_object(response: ModelResponse, output: list[dict[str, Any]]) -> dict[str, Any]:
    """The object of a finished response with these items."""
    own = response.dialect == NAME
    status, details = finished(response.stop_reason)
    return {
        **_USUAL,
        "id": response.id,
        "object": "response",
        "model": response.model,
        "status": status,
        "incomplete_details": details,
        "output": output,
        "usage": build_usage(response.usage, own=own),
        **(response.extra if own else {}),
    }


def finished(reason: str | None) -> tuple[str, dict[str, Any] | None]:
    """The status of a response that ended for this reason, and its details."""
    if reason in {None, "end_turn", "tool_use", "stop_sequence", "pause_turn"}:
        return "completed", None
    if reason == "refusal":
        return "incomplete", {"reason": "content_filter"}
    return "incomplete", {"reason": _INCOMPLETE.get(reason or "", reason)}


def id_maker(response_id: str) -> MakeId:
    """Makes ids of items out of a response's id, so that the same answer always has the same."""
    stem = response_id.rpartition("_")[2] or "0"
    count = 0

    def make_id(prefix: str) -> str:
        nonlocal count
        count += 1
        return f"{prefix}{stem}{count:02}"

    return make_id


def parse_usage(fields: Fields | None) -> Usage | None:
    """Read token counts; what the cache gave or took is taken out of the input. None where there are none."""
    if fields is None:
        return None
    given = fields.object("input_tokens_details") or Fields({})
    written = fields.object("output_tokens_details") or Fields({})
    read, stored = given.integer("cached_tokens") or 0, given.integer("cache_write_tokens") or 0
    fields.take("total_tokens")
    return Usage(
        input_tokens=max((fields.integer("input_tokens") or 0) - read - stored, 0),
        output_tokens=fields.integer("output_tokens") or 0,
        cache_read_tokens=read,
        cache_write_tokens=stored,
        reasoning_tokens=written.integer("reasoning_tokens") or 0,
        extra=fields.rest(),
    )


def build_usage(usage: Usage, *, own: bool) -> dict[str, Any]:
    """Write token counts."""
    return {
        "input_tokens": usage.total_input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_input_tokens + usage.output_tokens,
        **(usage.extra if own else {}),
    }
