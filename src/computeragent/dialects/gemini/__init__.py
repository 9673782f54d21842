"""Google's Gemini API (`POST /v1beta/models/{model}:generateContent`), both directions, after the published reference.

Model and streaming stand in the path: `parse_request` is given them. Fields are read as `camelCase` and `snake_case`
and written as the first. Calls may have no id here; the ids made up for those (`UNNAMED`) never go out.
"""

from computeragent.dialects.gemini.content import NAME, UNNAMED
from computeragent.dialects.gemini.errors import build_error, error_status, parse_error
from computeragent.dialects.gemini.requests import (
    build_request,
    build_token_count_request,
    parse_request,
    parse_token_count_request,
    request_headers,
)
from computeragent.dialects.gemini.responses import (
    build_model,
    build_models,
    build_response,
    build_token_count,
    parse_response,
    parse_token_count,
)
from computeragent.dialects.gemini.stream_builder import (
    LIST_TYPE,
    GeminiListBuilder,
    GeminiStreamBuilder,
    list_builder,
    stream_builder,
)
from computeragent.dialects.gemini.streams import stream_parser

__all__ = [
    "LIST_TYPE",
    "NAME",
    "UNNAMED",
    "GeminiListBuilder",
    "GeminiStreamBuilder",
    "build_error",
    "build_model",
    "build_models",
    "build_request",
    "build_response",
    "build_token_count",
    "build_token_count_request",
    "error_status",
    "list_builder",
    "parse_error",
    "parse_request",
    "parse_response",
    "parse_token_count",
    "parse_token_count_request",
    "request_headers",
    "stream_builder",
    "stream_parser",
]
