"""The wires that a model server speaks: which path belongs to which dialect, and how it is read and written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from computeragent.dialects import anthropic, bedrock, gemini, openai_chat, openai_responses
from computeragent.dialects.model import ModelError, ModelRequest, ModelResponse
from computeragent.dialects.protocol import StreamBuilder
from computeragent.errors import ValidationError


@dataclass(frozen=True, kw_only=True)
class Front:
    """How one wire is spoken. `parse` gets the match of the path and the body."""

    name: str
    parse: Callable[[re.Match[str], bytes], ModelRequest]
    build_response: Callable[[ModelResponse], dict[str, Any]]
    stream_builder: Callable[[ModelRequest], StreamBuilder]
    build_error: Callable[[ModelError], dict[str, Any]]
    error_status: Callable[[ModelError], int]
    error_headers: Callable[[ModelError], Mapping[str, str]]
    stream_type: str = "text/event-stream; charset=utf-8"
    id_prefix: str = "msg_"
    call_prefix: str = "toolu_"


def _no_headers(_error: ModelError) -> dict[str, str]:
    return {}


def _whole(request: ModelRequest) -> ModelRequest:
    for kept in ("previous_response_id", "conversation"):
        if request.extra.get(kept):
            raise ValidationError(f"{kept}: nothing is kept here; send the whole conversation as `input`")
    return request


ANTHROPIC = Front(
    name=anthropic.NAME,
    parse=lambda _path, body: anthropic.parse_request(body),
    build_response=anthropic.build_response,
    stream_builder=anthropic.stream_builder,
    build_error=anthropic.build_error,
    error_status=anthropic.error_status,
    error_headers=_no_headers,
)
OPENAI_CHAT = Front(
    name=openai_chat.NAME,
    parse=lambda _path, body: openai_chat.parse_request(body),
    build_response=openai_chat.build_response,
    stream_builder=openai_chat.stream_builder,
    build_error=openai_chat.build_error,
    error_status=openai_chat.error_status,
    error_headers=_no_headers,
    id_prefix="chatcmpl-",
    call_prefix="call_",
)
OPENAI_RESPONSES = Front(
    name=openai_responses.NAME,
    parse=lambda _path, body: _whole(openai_responses.parse_request(body)),
    build_response=openai_responses.build_response,
    stream_builder=openai_responses.stream_builder,
    build_error=openai_responses.build_error,
    error_status=openai_responses.error_status,
    error_headers=_no_headers,
    id_prefix="resp_",
    call_prefix="call_",
)
BEDROCK = Front(
    name=bedrock.NAME,
    parse=lambda path, body: bedrock.parse_request(path["model"], body, stream=path["stream"] is not None),
    build_response=anthropic.build_response,
    stream_builder=bedrock.stream_builder,
    build_error=bedrock.build_error,
    error_status=bedrock.error_status,
    error_headers=lambda error: {"x-amzn-errortype": bedrock.error_type(error)},
    stream_type=bedrock.STREAM_TYPE,
    id_prefix="msg_bdrk_",
    call_prefix="toolu_bdrk_",
)
GEMINI = Front(
    name=gemini.NAME,
    parse=lambda path, body: gemini.parse_request(body, model=path["model"], stream=path["stream"] is not None),
    build_response=gemini.build_response,
    stream_builder=gemini.stream_builder,
    build_error=gemini.build_error,
    error_status=gemini.error_status,
    error_headers=_no_headers,
    id_prefix="",
    call_prefix="call_",
)
GEMINI_LIST = replace(GEMINI, stream_builder=gemini.list_builder, stream_type=gemini.LIST_TYPE)
"""What a stream is without `alt=sse`."""

# Anything may stand before these paths, so that a base URL with a prefix works as well.
COUNT_TOKENS = re.compile(r".*/v1/messages/count_tokens|.*/models/(?P<model>[^/:]+):countTokens")
GEMINI_MODELS = re.compile(r".*/(?P<version>v1\w*)/models(/(?P<model>[^/:]+))?")
ANSWERS: tuple[tuple[re.Pattern[str], Front], ...] = (
    (re.compile(r".*/v1/messages"), ANTHROPIC),
    (re.compile(r".*/chat/completions"), OPENAI_CHAT),
    (re.compile(r".*/responses"), OPENAI_RESPONSES),
    (re.compile(r".*?/model/(?P<model>.+)/invoke(?P<stream>-with-response-stream)?"), BEDROCK),
    (re.compile(r".*/models/(?P<model>[^/:]+):(generateContent|(?P<stream>streamGenerateContent))"), GEMINI),
)


def front_for(path: str, query: str = "") -> tuple[Front, re.Match[str]] | None:
    """The wire that answers on this path, and the match of the path."""
    for pattern, front in ANSWERS:
        if (match := pattern.fullmatch(path)) is not None:
            return GEMINI_LIST if front is GEMINI and "alt=sse" not in query.split("&") else front, match
    return None


def error_front(path: str) -> Front:
    """The wire whose errors fit a path that nothing answers on."""
    if "/chat/" in path or "/responses" in path:
        return OPENAI_CHAT
    if "/v1beta" in path or re.search(r"/models/[^/]+:", path):
        return GEMINI
    return BEDROCK if "/model/" in path or "/inference-profiles" in path else ANTHROPIC
