"""Whole responses of Anthropic Messages, token counts and the list of models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from computeragent.dialects.anthropic.content import NAME, build_content, parse_content
from computeragent.dialects.fields import Fields, read_body
from computeragent.dialects.model import ModelResponse, Usage
from computeragent.dialects.protocol import Body


def parse_response(body: Body) -> ModelResponse:
    """Read a message object. Raises `ValidationError`."""
    return parse_message(read_body(body))


def parse_message(fields: Fields) -> ModelResponse:
    """Read a message object; also the one inside `message_start`."""
    for constant in ("type", "role"):
        fields.take(constant)
    return ModelResponse(
        id=fields.optional_string("id") or "",
        model=fields.optional_string("model") or "",
        content=parse_content(fields.take("content"), fields.at("content")),
        stop_reason=fields.optional_string("stop_reason"),
        stop_sequence=fields.optional_string("stop_sequence"),
        usage=parse_usage(fields.object("usage")) or Usage(),
        dialect=NAME,
        extra=fields.rest(),
    )


def build_response(response: ModelResponse) -> dict[str, Any]:
    """Write a message object."""
    own = response.dialect == NAME
    return {
        "id": response.id,
        "type": "message",
        "role": "assistant",
        "model": response.model,
        "content": build_content(response.content, own=own),
        "stop_reason": response.stop_reason,
        "stop_sequence": response.stop_sequence,
        "usage": build_usage(response.usage, own=own),
        **(response.extra if own else {}),
    }


def parse_usage(fields: Fields | None) -> Usage | None:
    """Read token counts; None where there are none."""
    if fields is None:
        return None
    return Usage(
        input_tokens=fields.integer("input_tokens") or 0,
        output_tokens=fields.integer("output_tokens") or 0,
        cache_read_tokens=fields.integer("cache_read_input_tokens") or 0,
        cache_write_tokens=fields.integer("cache_creation_input_tokens") or 0,
        extra=fields.rest(),
    )


def build_usage(usage: Usage, *, own: bool) -> dict[str, Any]:
    """Write token counts."""
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
        **(usage.extra if own else {}),
    }


def parse_token_count(body: Body) -> int:
    """Read the answer of `count_tokens`. Raises `ValidationError`."""
    return read_body(body).integer("input_tokens") or 0


def build_token_count(tokens: int) -> dict[str, Any]:
    """Write the answer of `count_tokens`."""
    return {"input_tokens": tokens}


def build_models(names: Iterable[str]) -> dict[str, Any]:
    """Write the answer of `GET /v1/models`."""
    data = [{"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"} for name in names]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": first, "last_id": last}
