"""Errors of Gemini: `{"error": {"code", "message", "status", "details"}}`, in a list where a stream was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from computeragent.dialects.fields import Fields, absent_if_none
from computeragent.dialects.gemini.spelling import inner, read
from computeragent.dialects.model import ErrorKind, ModelError
from computeragent.dialects.retry import kind_of_status, parse_retry_after
from computeragent.errors import ValidationError
from computeragent.wire.encoding import clean_json, from_json

_WORDS: dict[ErrorKind, tuple[str, int]] = {
    "invalid_request": ("INVALID_ARGUMENT", 400),
    "too_large": ("INVALID_ARGUMENT", 400),
    "authentication": ("UNAUTHENTICATED", 401),
    "billing": ("FAILED_PRECONDITION", 400),
    "permission": ("PERMISSION_DENIED", 403),
    "not_found": ("NOT_FOUND", 404),
    "rate_limit": ("RESOURCE_EXHAUSTED", 429),
    "timeout": ("DEADLINE_EXCEEDED", 504),
    "overloaded": ("UNAVAILABLE", 503),
    "server": ("INTERNAL", 500),
    "incomplete": ("UNKNOWN", 500),
}
_KINDS: dict[str, ErrorKind] = {
    **{word: kind for kind, (word, _) in reversed(_WORDS.items())},
    "INVALID_ARGUMENT": "invalid_request",
    "OUT_OF_RANGE": "invalid_request",
    "ABORTED": "overloaded",
    "CANCELLED": "timeout",
    "UNKNOWN": "server",
}
_REASONS: dict[str, ErrorKind] = {
    "API_KEY_INVALID": "authentication",
    "API_KEY_EXPIRED": "authentication",
    "ACCESS_TOKEN_EXPIRED": "authentication",
    "BILLING_DISABLED": "billing",
}
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def parse_error(status: int, body: bytes, headers: Mapping[str, str] = {}) -> ModelError:
    """Read an error response; a body that is no JSON error is taken as the message. Header names are lower case."""
    try:
        error = parse_error_object(_error_of(body), status)
    except (ValidationError, ValueError, RecursionError):
        text = body[:500].decode("utf-8", "replace").strip()
        error = ModelError(kind=kind_of_status(status), message=text or f"HTTP {status}", status=status)
    after = parse_retry_after(headers)
    return replace(error, retry_after=after if after is not None else error.retry_after)


def _error_of(body: bytes) -> Fields:
    value: Any = from_json(clean_json(body))
    if isinstance(value, list):
        value = cast("list[Any]", value)[0] if value else {}
    found = inner(read(value), "error")
    if found is None:
        raise ValidationError("error: field required")
    return found


def parse_error_object(fields: Fields, status: int | None = None) -> ModelError:
    """Read the inner object of an error, of a response or of a stream's chunk. Raises `ValidationError`."""
    word, number = fields.optional_string("status"), fields.integer("code")
    message = fields.optional_string("message") or word or (f"HTTP {status}" if status else "unknown error")
    reason, retry_after = _read_details(fields)
    kind = _REASONS.get(reason or "") or _KINDS.get(word or "") or kind_of_status(status or number or 500)
    if kind == "invalid_request" and "maximum number of tokens" in message:
        kind = "too_large"
    return ModelError(kind=kind, message=message, status=status, type=word, code=reason, retry_after=retry_after)


def _read_details(fields: Fields) -> tuple[str | None, float | None]:
    reason: str | None = None
    retry_after: float | None = None
    for path, item in fields.items("details"):
        detail = read(item, path)
        reason = reason or detail.optional_string("reason")
        if (delay := detail.take("retryDelay")) is not None:
            retry_after = _seconds(delay)
    return reason, retry_after


def _seconds(delay: Any) -> float | None:
    """A duration as the wire writes it: `34s`, `0.5s`."""
    try:
        return float(msgspec.convert(delay, str).removesuffix("s"))
    except (ValueError, msgspec.ValidationError):
        return None


def build_error(error: ModelError) -> dict[str, Any]:
    """Write an error body, or the chunk that reports an error inside a stream."""
    word, number = _WORDS[error.kind]
    details = None
    if error.retry_after is not None:
        details = [{"@type": _RETRY_INFO, "retryDelay": f"{error.retry_after:g}s"}]
    status = error.status or number
    known = {"code": status, "message": error.message, "status": word}
    return {"error": {**known, **absent_if_none(details=details)}}


def error_status(error: ModelError) -> int:
    """The HTTP status of an error: its own, or the one that this wire gives its kind."""
    return error.status or _WORDS[error.kind][1]
