"""Whole responses of Gemini, token counts and the list of models.

What a candidate says beyond the neutral model is `extra["candidate"]` of the response.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from computeragent.dialects.fields import Fields, absent_if_none, read_body
from computeragent.dialects.gemini.content import NAME, Calls, PartBuilder
from computeragent.dialects.gemini.requests import parse_parts
from computeragent.dialects.gemini.spelling import inner, read, several
from computeragent.dialects.model import ModelResponse, Part, ToolCall, Usage
from computeragent.dialects.protocol import Body
from computeragent.errors import ValidationError
from computeragent.wire.encoding import clean_json, from_json

_REFUSALS = (
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"}
    | {"IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"}
)  # fmt: skip
_FINISH_REASONS = {
    "end_turn": "STOP",
    "tool_use": "STOP",
    "stop_sequence": "STOP",
    "pause_turn": "STOP",
    "max_tokens": "MAX_TOKENS",
    "model_context_window_exceeded": "MAX_TOKENS",
    "refusal": "SAFETY",
}
_COUNTS = (
    "promptTokenCount",
    "candidatesTokenCount",
    "totalTokenCount",
    "cachedContentTokenCount",
    "thoughtsTokenCount",
)
_METHODS = ["generateContent", "countTokens"]


def parse_response(body: Body) -> ModelResponse:
    """Read a response; of several candidates the first, of a list of chunks (a whole stream) all that it spells.

    A prompt that was blocked is a `refusal` without content. Raises `ValidationError`.
    """
    if not isinstance(body, Mapping) and body.lstrip()[:1] == b"[":
        from computeragent.dialects.gemini.streams import read_chunks

        return read_chunks(_list_of(body))
    fields = read(read_body(body).whole())
    answer_id, model = head_of(fields)
    candidate = first_candidate(fields)
    usage, rest = parse_usage(inner(fields, "usageMetadata")) or Usage(), fields.rest()
    if candidate is None and not is_blocked(rest):
        raise ValidationError("candidates.0: field required")
    content: tuple[Part, ...] = ()
    reason: str | None = "refusal"
    if candidate is not None:
        content = parse_parts(inner(candidate, "content") or Fields({}), Calls(answer_id))
        reason = take_reason(candidate, has_calls=any(isinstance(part, ToolCall) for part in content))
    extra = with_candidate(rest, candidate)
    return ModelResponse(
        id=answer_id, model=model, content=content, stop_reason=reason, usage=usage, dialect=NAME, extra=extra
    )


def _list_of(body: bytes) -> list[Any]:
    try:
        return cast("list[Any]", from_json(clean_json(body)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValidationError(f"the body is not valid JSON: {error}") from error


def head_of(fields: Fields) -> tuple[str, str]:
    """The id and the model of a response or chunk."""
    return fields.optional_string("responseId") or "", fields.optional_string("modelVersion") or ""


def first_candidate(fields: Fields) -> Fields | None:
    """The first of the candidates."""
    found = [read(item, path) for path, item in several(fields, "candidates")]
    return next((each for each in found if not each.integer("index")), None)


def is_blocked(rest: Mapping[str, Any]) -> bool:
    """Whether the prompt was blocked, by what else a response says."""
    feedback = rest.get("promptFeedback")
    return isinstance(feedback, dict) and bool(read(feedback).take("blockReason"))


def with_candidate(rest: dict[str, Any], candidate: Fields | None) -> dict[str, Any]:
    """What is left of a response and of its candidate."""
    left = {} if candidate is None else candidate.rest()
    return {**rest, "candidate": left} if left else rest


def take_reason(candidate: Fields, *, has_calls: bool) -> str | None:
    """The neutral stop reason; a `finishReason` that says more than it stays where it is."""
    name = candidate.optional_string("finishReason")
    if name in {None, "FINISH_REASON_UNSPECIFIED"}:
        return None
    if name == "STOP":
        return "tool_use" if has_calls else "end_turn"
    if name in _REFUSALS:
        if name != "SAFETY":
            candidate.rest()["finishReason"] = name
        return "refusal"
    return "max_tokens" if name == "MAX_TOKENS" else name


def finish_reason(reason: str | None, *, own: bool) -> str:
    """The `finishReason` of a neutral stop reason; another wire's own word means no more than that it stopped."""
    return _FINISH_REASONS.get(reason or "") or (reason if own and reason else "STOP")


def build_response(response: ModelResponse) -> dict[str, Any]:
    """Write a response of one candidate."""
    own = response.dialect == NAME
    parts = PartBuilder(own=own, thoughts=True).build(response.content)
    return {
        **build_end(response, parts, own=own),
        "usageMetadata": build_usage(response.usage, own=own),
        **absent_if_none(modelVersion=response.model or None, responseId=response.id or None),
    }


def build_end(response: ModelResponse, parts: list[dict[str, Any]], *, own: bool) -> dict[str, Any]:
    """The candidate that ends an answer, and what else its response says."""
    extra = dict(response.extra) if own else {}
    more: dict[str, Any] = extra.pop("candidate", {})
    if not response.content and is_blocked(extra):
        return extra
    reason = finish_reason(response.stop_reason, own=own)
    if response.stop_reason != "refusal":  # what it was refused for
        more = {name: value for name, value in more.items() if name != "finishReason"}
    content: dict[str, Any] = {"parts": parts} if parts else {}
    candidate = {"content": {**content, "role": "model"}, "finishReason": reason, "index": 0, **more}
    return {"candidates": [candidate], **extra}


def parse_usage(fields: Fields | None) -> Usage | None:
    """Read token counts; None where there are none. What tools of the provider told the model counts as input."""
    if fields is None:
        return None
    prompt, written, _, cached, thoughts = (fields.integer(name) or 0 for name in _COUNTS)
    told = fields.integer("toolUsePromptTokenCount") or 0
    extra = {**fields.rest(), **({"toolUsePromptTokenCount": told} if told else {})}
    return Usage(
        input_tokens=max(prompt - cached, 0) + told,
        output_tokens=written + thoughts,
        cache_read_tokens=cached,
        reasoning_tokens=thoughts,
        extra=extra,
    )


def build_usage(usage: Usage, *, own: bool) -> dict[str, Any]:
    """Write token counts."""
    extra = usage.extra if own else {}
    told = extra.get("toolUsePromptTokenCount", 0)
    counts = {
        "promptTokenCount": max(usage.total_input_tokens - told, 0),
        "candidatesTokenCount": max(usage.output_tokens - usage.reasoning_tokens, 0),
        "totalTokenCount": usage.total_input_tokens + usage.output_tokens,
    }
    rare = {"cachedContentTokenCount": usage.cache_read_tokens, "thoughtsTokenCount": usage.reasoning_tokens}
    return {**counts, **{name: count for name, count in rare.items() if count}, **extra}


def parse_token_count(body: Body) -> int:
    """Read the answer of `countTokens`. Raises `ValidationError`."""
    return read(read_body(body).whole()).integer("totalTokens") or 0


def build_token_count(tokens: int) -> dict[str, Any]:
    """Write the answer of `countTokens`."""
    return {"totalTokens": tokens}


def build_models(names: Iterable[str]) -> dict[str, Any]:
    """Write the answer of `GET /v1beta/models`."""
    return {"models": [build_model(name) for name in names]}


def build_model(name: str) -> dict[str, Any]:
    """Write the answer of `GET /v1beta/models/{name}`."""
    named = {"name": f"models/{name}", "baseModelId": name, "version": "001", "displayName": name}
    return {**named, "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536, "supportedGenerationMethods": _METHODS}
