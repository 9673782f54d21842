"""Errors of OpenAI Responses: those of Chat Completions, and what a stream says of a failure."""

from __future__ import annotations

from computeragent.dialects.fields import Fields
from computeragent.dialects.model import ModelError
from computeragent.dialects.openai_chat.errors import build_error, error_status, parse_error, parse_error_object

__all__ = ["build_error", "error_status", "parse_error", "parse_failure"]

_OF_THE_SERVER = frozenset({"server_error", "vector_store_timeout"})


def parse_failure(fields: Fields) -> ModelError:
    """Read the error of a failed response, or of an `error` event: most of them are the request's fault."""
    code = fields.whole().get("code")
    nested = fields.object("error")  # how some servers send it
    if nested is not None:
        return parse_failure(nested)
    inner = {name: fields.whole().get(name) for name in ("message", "code")}
    by_request = isinstance(code, str) and code not in _OF_THE_SERVER
    error = parse_error_object(Fields(inner), 400 if by_request else 500)
    return ModelError(kind=error.kind, message=error.message, code=error.code)
