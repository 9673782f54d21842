"""OpenAI Responses (`POST /v1/responses`), both directions, after the published API reference.

Computer calls are tool calls named `computer` whose input holds one `action` or a batch of `actions`; their
`extra` says that they are a `computer_call`, and which safety checks are pending. Items that only this wire knows
(web search, item references) are kept whole.
"""

from computeragent.dialects.openai_responses.errors import build_error, error_status, parse_error
from computeragent.dialects.openai_responses.items import NAME, build_items, parse_items
from computeragent.dialects.openai_responses.requests import build_request, parse_request, request_headers
from computeragent.dialects.openai_responses.responses import build_models, build_response, parse_response
from computeragent.dialects.openai_responses.stream_builder import OpenAIResponsesStreamBuilder, stream_builder
from computeragent.dialects.openai_responses.streams import stream_parser

__all__ = [
    "NAME",
    "OpenAIResponsesStreamBuilder",
    "build_error",
    "build_items",
    "build_models",
    "build_request",
    "build_response",
    "error_status",
    "parse_error",
    "parse_items",
    "parse_request",
    "parse_response",
    "request_headers",
    "stream_builder",
    "stream_parser",
]
