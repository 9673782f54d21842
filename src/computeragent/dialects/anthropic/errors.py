"""Errors of Anthropic Messages: `{"type": "error", "error": {"type", "message"}, "request_id"}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from computeragent.dialects.fields import Fields, absent_if_none, read_body
from computeragent.dialects.model import ErrorKind, ModelError
from computeragent.dialects.retry import kind_of_status, parse_retry_after
from computeragent.errors import ValidationError

_TYPES: dict[str, tuple[ErrorKind, int]] = {
    "invalid_request_error": ("invalid_request", 400),
    "authentication_error": ("authentication", 401),
    "billing_error": ("billing", 402),
    "permission_error": ("permission", 403),
    "not_found_error": ("not_found", 404),
    "request_too_large": ("too_large", 413),
    "rate_limit_error": ("rate_limit", 429),
    "api_error": ("server", 500),
    "timeout_error": ("timeout", 504),
    "overloaded_error": ("overloaded", 529),
}
_BY_KIND = {kind: (name, status) for name, (kind, status) in _TYPES.items()}


def parse_error(status: int, body: bytes, headers: Mapping[str, str] = {}) -> ModelError:
    """Read an error response; a body that is no JSON error is taken as the message. Header names are lower case."""
    retry_after = parse_retry_after(headers)
    request_id = headers.get("request-id")
    try:
        fields = read_body(body)
        request_id = fields.optional_string("request_id") or request_id
        error = parse_error_object(fields.object("error") or Fields({}), status)
    except ValidationError:
        text = body[:500].decode("utf-8", "replace").strip()
        error = ModelError(kind=kind_of_status(status), message=text or f"HTTP {status}", status=status)
    return msgspec.structs.replace(error, retry_after=retry_after, request_id=request_id)


def parse_error_object(fields: Fields, status: int | None = None) -> ModelError:
    """Read the inner object of an error, of a response or of an `error` event."""
    name = fields.optional_string("type")
    message = fields.optional_string("message") or name or (f"HTTP {status}" if status else "unknown error")
    kind = _TYPES[name][0] if name in _TYPES else kind_of_status(status or 500)
    return ModelError(kind=kind, message=message, status=status, type=name)


def build_error(error: ModelError) -> dict[str, Any]:
    """Write an error body, or the data of an `error` event."""
    name = error.type if error.type in _TYPES else _BY_KIND.get(error.kind, ("api_error", 500))[0]
    inner = {"type": name, "message": error.message}
    return {"type": "error", "error": inner, **absent_if_none(request_id=error.request_id)}


def error_status(error: ModelError) -> int:
    """The HTTP status of an error: its own, or the one that this wire gives its kind."""
    return error.status or _BY_KIND.get(error.kind, ("api_error", 500))[1]
