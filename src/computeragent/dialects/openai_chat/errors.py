"""Errors of OpenAI Chat Completions: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from computeragent.dialects.fields import Fields, read_body
from computeragent.dialects.model import ErrorKind, ModelError
from computeragent.dialects.retry import kind_of_status, parse_retry_after
from computeragent.errors import ValidationError

_WORDS: dict[ErrorKind, tuple[str, str | None, int]] = {
    "invalid_request": ("invalid_request_error", None, 400),
    "authentication": ("invalid_request_error", "invalid_api_key", 401),
    "billing": ("insufficient_quota", "insufficient_quota", 429),
    "permission": ("permission_error", None, 403),
    "not_found": ("invalid_request_error", "model_not_found", 404),
    "too_large": ("invalid_request_error", "context_length_exceeded", 413),
    "rate_limit": ("requests", "rate_limit_exceeded", 429),
    "timeout": ("timeout_error", None, 504),
    "overloaded": ("server_error", "overloaded", 503),
    "server": ("server_error", None, 500),
    "incomplete": ("server_error", None, 502),
}
_BY_CODE: dict[str, ErrorKind] = {code: kind for kind, (_, code, _) in _WORDS.items() if code is not None}


def parse_error(status: int, body: bytes, headers: Mapping[str, str] = {}) -> ModelError:
    """Read an error response; a body that is no JSON error is taken as the message. Header names are lower case."""
    retry_after, request_id = parse_retry_after(headers), headers.get("x-request-id")
    try:
        error = parse_error_object(read_body(body).object("error") or Fields({}), status)
    except ValidationError:
        text = body[:500].decode("utf-8", "replace").strip()
        error = ModelError(kind=kind_of_status(status), message=text or f"HTTP {status}")
    return ModelError(
        kind=error.kind,
        message=error.message,
        status=status,
        type=error.type,
        code=error.code,
        retry_after=retry_after,
        request_id=request_id,
    )


def parse_error_object(fields: Fields, status: int | None = None) -> ModelError:
    """Read the inner object of an error, of a response or of a stream's chunk."""
    name, raw_code = fields.optional_string("type"), fields.take("code")
    code = None if raw_code is None else str(raw_code)  # some servers send the status as a number
    message = fields.optional_string("message") or name or (f"HTTP {status}" if status else "unknown error")
    kind = _BY_CODE.get(code or "") or kind_of_status(status or 500)
    return ModelError(kind=kind, message=message, status=status, type=name, code=code)


def build_error(error: ModelError) -> dict[str, Any]:
    """Write an error body, or the chunk that reports an error inside a stream."""
    name, code, _ = _WORDS[error.kind]
    return {"error": {"message": error.message, "type": name, "param": None, "code": code}}


def error_status(error: ModelError) -> int:
    """The HTTP status of an error: its own, or the one that this wire gives its kind."""
    return error.status or _WORDS[error.kind][2]
