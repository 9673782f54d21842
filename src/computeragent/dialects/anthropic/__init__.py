"""Anthropic Messages (`POST /v1/messages`), both directions, after the published API reference.

Tolerant on purpose: `system` messages in the conversation, unknown fields and unknown blocks are read and kept.
"""

from computeragent.dialects.anthropic.content import NAME, build_part, parse_part
from computeragent.dialects.anthropic.errors import build_error, error_status, parse_error
from computeragent.dialects.anthropic.requests import (
    build_request,
    build_token_count_request,
    parse_request,
    request_headers,
)
from computeragent.dialects.anthropic.responses import (
    build_models,
    build_response,
    build_token_count,
    parse_response,
    parse_token_count,
)
from computeragent.dialects.anthropic.streams import AnthropicStreamBuilder, EventReader, stream_builder, stream_parser

__all__ = [
    "NAME",
    "AnthropicStreamBuilder",
    "EventReader",
    "build_error",
    "build_models",
    "build_part",
    "build_request",
    "build_response",
    "build_token_count",
    "build_token_count_request",
    "error_status",
    "parse_error",
    "parse_part",
    "parse_request",
    "parse_response",
    "parse_token_count",
    "request_headers",
    "stream_builder",
    "stream_parser",
]
