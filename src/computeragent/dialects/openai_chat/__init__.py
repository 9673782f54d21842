"""OpenAI Chat Completions (`POST /v1/chat/completions`), both directions, after the published API reference.

Also reads `reasoning_content` and `reasoning`, which many compatible servers send.
"""

from computeragent.dialects.openai_chat.content import NAME
from computeragent.dialects.openai_chat.errors import build_error, error_status, parse_error
from computeragent.dialects.openai_chat.requests import build_request, parse_request, request_headers
from computeragent.dialects.openai_chat.responses import build_models, build_response, parse_response
from computeragent.dialects.openai_chat.streams import OpenAIChatStreamBuilder, stream_builder, stream_parser

__all__ = [
    "NAME",
    "OpenAIChatStreamBuilder",
    "build_error",
    "build_models",
    "build_request",
    "build_response",
    "error_status",
    "parse_error",
    "parse_request",
    "parse_response",
    "request_headers",
    "stream_builder",
    "stream_parser",
]
