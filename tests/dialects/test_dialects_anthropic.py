"""Anthropic Messages as it is on the wire."""

import json

import pytest

from computeragent.dialects import (
    Ended,
    Failed,
    InputDelta,
    Media,
    Message,
    ModelError,
    ModelRequest,
    ModelResponse,
    Opaque,
    OtherDelta,
    OtherEvent,
    PartEnded,
    PartStarted,
    Ping,
    SignatureDelta,
    Started,
    Stopped,
    Text,
    TextDelta,
    Thinking,
    ThinkingConfig,
    ThinkingDelta,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
    anthropic,
    assemble,
    build_stream,
    parse_stream,
    response_events,
)
from computeragent.errors import ValidationError
from computeragent.wire.encoding import to_json

CLI_REQUEST = {
    "model": "claude-opus-5-5",
    "max_tokens": 128000,
    "stream": True,
    "system": [{"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {
            "role": "system",
            "content": [{"type": "text", "text": "# Environment", "cache_control": {"type": "ephemeral"}}],
            "output_config": {"effort": "medium"},
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "enc"},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "a"}},
                {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "is_error": True,
                    "content": [
                        {"type": "text", "text": "no such file"},
                        {"type": "tool_reference", "tool_name": "mcp__a__b"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                    ],
                },
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "plain"},
                    "title": "Notes",
                    "citations": {"enabled": True},
                },
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
            ],
        },
    ],
    "tools": [
        {"name": "Read", "description": "Reads.", "input_schema": {"type": "object"}, "eager_input_streaming": True},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    ],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "metadata": {"user_id": '{"session_id":"s"}'},
    "thinking": {"type": "adaptive", "display": "updates"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "medium", "task_budget": 5},
}


def test_a_request_of_the_cli_is_understood():
    request = anthropic.parse_request(to_json(CLI_REQUEST))
    assert request.model == "claude-opus-5-5"
    assert request.system == (Text("You are an agent.", {"cache_control": {"type": "ephemeral"}}),)
    assert [message.role for message in request.messages] == ["user", "system", "assistant", "user"]
    assert request.messages[1].extra == {"output_config": {"effort": "medium"}}
    assert request.messages[2].content[:3] == (
        Thinking("hm", "c2ln"),
        Thinking("", "enc", True),
        ToolCall(id="toolu_1", name="Read", input={"file_path": "a"}),
    )
    result = request.messages[3].tool_results[0]
    assert (result.call_id, result.is_error, result.text) == ("toolu_1", True, "no such file")
    assert isinstance(result.content[1], Opaque)
    assert result.content[2] == Media(kind="image", media_type="image/png", data="AAAA")
    assert request.tools[1] == Tool(name="web_search", kind="web_search_20250305", extra={"max_uses": 3})
    assert request.tool_choice == ToolChoice("required")
    assert request.parallel_tool_calls is False
    assert request.thinking == ThinkingConfig(mode="adaptive", extra={"display": "updates"})
    assert request.effort == "medium"
    assert request.user == '{"session_id":"s"}'
    assert set(request.extra) == {"context_management", "output_config"}


def test_a_request_of_the_cli_is_written_back_as_it_came():
    assert anthropic.build_request(anthropic.parse_request(CLI_REQUEST)) == CLI_REQUEST


def test_the_short_forms_of_content_are_read():
    request = anthropic.parse_request(
        {"model": "m", "system": "s", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    )
    assert request.system == (Text("s"),)
    assert request.messages == (Message("user", (Text("hi"),)),)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not valid JSON"),
        (b"[]", "body: must be an object, not a list"),
        ({"messages": []}, "model: field required"),
        ({"model": 3}, "model: must be a string, not a number"),
        ({"model": "m", "messages": [{"role": "bot"}]}, "messages.0.role: must be user, assistant or system"),
        ({"model": "m", "messages": [{"role": "user", "content": [{}]}]}, "messages.0.content.0.type: field required"),
        ({"model": "m", "messages": {}}, "messages: must be a list, not an object"),
        ({"model": "m", "max_tokens": "9"}, "max_tokens: must be a number, not a string"),
        (b'{"model": "m", "max_tokens": 1.5}', "max_tokens: must be a whole number"),
        ({"model": "m", "tool_choice": {"type": "maybe"}}, "tool_choice.type: must be one of"),
    ],
)
def test_a_wrong_request_is_refused_with_the_place(body, message):
    with pytest.raises(ValidationError) as caught:
        anthropic.parse_request(body)
    assert str(caught.value).startswith(message)


def test_half_a_surrogate_pair_does_not_make_a_request_unreadable():
    request = anthropic.parse_request(
        rb'{"model": "m", "messages": [{"role": "user", "content": "a \ud83d b \ud83d\ude00"}]}'
    )
    assert request.messages[0].text == "a \ufffd b \U0001f600"


def test_a_request_without_a_limit_gets_one_only_where_the_other_wire_had_none():
    assert "max_tokens" not in anthropic.build_request(ModelRequest(model="m", dialect="anthropic"))
    assert anthropic.build_request(ModelRequest(model="m"))["max_tokens"] == 32_000


def test_a_token_count_request_leaves_out_what_only_steers_the_answer():
    body = anthropic.build_token_count_request(anthropic.parse_request(CLI_REQUEST))
    assert not {"max_tokens", "stream", "metadata"} & set(body)
    assert body["tools"] == CLI_REQUEST["tools"]
    assert anthropic.parse_token_count(to_json(anthropic.build_token_count(17))) == 17


def test_sound_cannot_be_carried():
    request = ModelRequest(model="m", messages=(Message("user", (Media(kind="audio", data="AA"),)),))
    with pytest.raises(ValidationError, match="cannot carry audio"):
        anthropic.build_request(request)


RESPONSE = ModelResponse(
    id="msg_1",
    model="m",
    content=(
        Thinking("Let me see.", "c2ln"),
        Text("Reading."),
        ToolCall(id="toolu_1", name="Read", input={"file_path": "a"}),
    ),
    stop_reason="tool_use",
    usage=Usage(input_tokens=10, output_tokens=20, cache_read_tokens=3, cache_write_tokens=4),
)


def test_a_response_is_the_message_object():
    assert anthropic.build_response(RESPONSE) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
            {"type": "text", "text": "Reading."},
            {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "a"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 4,
            "cache_read_input_tokens": 3,
            "output_tokens": 20,
        },
    }


def test_a_stream_is_written_event_by_event():
    frames = b"".join(build_stream(anthropic, response_events(RESPONSE))).decode().split("\n\n")[:-1]
    names = [frame.split("\n")[0].removeprefix("event: ") for frame in frames]
    objects = [json.loads(frame.split("\n")[1].removeprefix("data: ")) for frame in frames]
    assert names == [data["type"] for data in objects]
    assert objects[0]["message"]["usage"]["input_tokens"] == 10
    assert objects[0]["message"]["content"] == []
    assert objects[1:5] == [
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "thinking_delta", "thinking": "Let me see."},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"type": "content_block_stop", "index": 0},
    ]
    assert objects[8:11] == [
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": '{"file_path":"a"}'},
        },
        {"type": "content_block_stop", "index": 2},
    ]
    assert objects[11] == {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 4,
            "cache_read_input_tokens": 3,
            "output_tokens": 20,
        },
    }
    assert objects[12] == {"type": "message_stop"}


def frame(**data) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), to_json(data))


def test_every_event_of_a_stream_is_understood():
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {}}
    chunks = [
        frame(type="message_start", message=start),
        frame(type="ping"),
        frame(type="content_block_start", index=0, content_block={"type": "text", "text": ""}),
        frame(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "a"}),
        frame(type="content_block_delta", index=0, delta={"type": "citations_delta", "citation": {"cited_text": "b"}}),
        frame(type="content_block_stop", index=0),
        frame(type="content_block_start", index=1, content_block={"type": "thinking", "thinking": ""}),
        frame(type="content_block_delta", index=1, delta={"type": "thinking_delta", "thinking": "t"}),
        frame(type="content_block_delta", index=1, delta={"type": "signature_delta", "signature": "s"}),
        frame(type="content_block_start", index=2, content_block={"type": "tool_use", "id": "t", "name": "n"}),
        frame(type="content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": '{"a"'}),
        frame(type="content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": ":1}"}),
        frame(type="new_thing", value=1),
        frame(
            type="message_delta",
            delta={"stop_reason": "tool_use", "container": {"id": "c"}},
            usage={"output_tokens": 9},
            context_management={"applied_edits": []},
        ),
        frame(type="message_stop"),
    ]
    events = list(parse_stream(anthropic, chunks))
    extra = {"container": {"id": "c"}, "context_management": {"applied_edits": []}}
    assert events == [
        Started(id="msg_1", model="m", dialect="anthropic"),
        Ping(),
        PartStarted(0, Text("")),
        TextDelta(0, "a"),
        OtherDelta(0, {"type": "citations_delta", "citation": {"cited_text": "b"}}),
        PartEnded(0),
        PartStarted(1, Thinking("")),
        ThinkingDelta(1, "t"),
        SignatureDelta(1, "s"),
        PartStarted(2, ToolCall(id="t", name="n")),
        InputDelta(2, '{"a"'),
        InputDelta(2, ":1}"),
        OtherEvent("new_thing", {"type": "new_thing", "value": 1}),
        Stopped(stop_reason="tool_use", usage=Usage(output_tokens=9), extra=extra),
        Ended(),
    ]
    response = assemble(events)
    assert response.content == (
        Text("a", {"citations": [{"cited_text": "b"}]}),
        Thinking("t", "s"),
        ToolCall(id="t", name="n", input={"a": 1}),
    )
    again = b"".join(build_stream(anthropic, events))
    assert json.loads(again.split(b"data: ")[-2].split(b"\n")[0])["context_management"] == {"applied_edits": []}


def test_an_error_event_ends_the_stream():
    error = {"type": "overloaded_error", "message": "Overloaded"}
    events = list(parse_stream(anthropic, [frame(type="error", error=error), frame(type="message_stop")]))
    assert events == [Failed(ModelError(kind="overloaded", message="Overloaded", type="overloaded_error"))]
    assert b"".join(build_stream(anthropic, events)) == frame(type="error", error=error)


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (400, "invalid_request_error", "invalid_request"),
        (401, "authentication_error", "authentication"),
        (402, "billing_error", "billing"),
        (403, "permission_error", "permission"),
        (404, "not_found_error", "not_found"),
        (413, "request_too_large", "too_large"),
        (429, "rate_limit_error", "rate_limit"),
        (500, "api_error", "server"),
        (504, "timeout_error", "timeout"),
        (529, "overloaded_error", "overloaded"),
    ],
)
def test_each_error_type_has_its_kind_and_status(status, name, kind):
    body = {"type": "error", "error": {"type": name, "message": "no"}, "request_id": "req_1"}
    error = anthropic.parse_error(status, to_json(body), {"retry-after": "7"})
    assert error == ModelError(kind=kind, message="no", status=status, type=name, retry_after=7.0, request_id="req_1")
    assert anthropic.build_error(error) == body
    assert anthropic.error_status(ModelError(kind=kind, message="no")) == status
    assert anthropic.build_error(ModelError(kind=kind, message="no"))["error"]["type"] == name


def test_an_error_that_is_no_json_keeps_its_text():
    error = anthropic.parse_error(502, b"<h1>Bad gateway</h1>")
    assert (error.kind, error.message, error.retryable) == ("server", "<h1>Bad gateway</h1>", True)


def test_models_are_listed():
    listed = anthropic.build_models(["a", "b"])
    assert [model["id"] for model in listed["data"]] == ["a", "b"]
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("a", "b", False)


def test_a_tool_result_without_content_stays_without():
    block = {"type": "tool_result", "tool_use_id": "t"}
    assert anthropic.parse_part(block) == ToolResult(call_id="t")
    assert anthropic.build_part(ToolResult(call_id="t"), own=True) == block


@pytest.mark.parametrize(
    ("kind", "extra", "beta"),
    [
        ("computer_20241022", {"display_width_px": 8, "display_height_px": 9}, "computer-use-2024-10-22"),
        ("computer_20250124", {"display_width_px": 8, "display_height_px": 9}, "computer-use-2025-01-24"),
        (
            "computer_20251124",
            {"display_width_px": 8, "display_height_px": 9, "enable_zoom": True},
            "computer-use-2025-11-24",
        ),
        ("computer_toolset_20260801", {"configs": {"zoom": {"enabled": False}}}, None),
    ],
)
def test_every_computer_tool_reads_back_and_asks_for_its_beta(kind, extra, beta):
    named = {} if "toolset" in kind else {"name": "computer"}
    body = {"model": "m", "max_tokens": 9, "messages": [], "tools": [{"type": kind, **named, **extra}]}
    request = anthropic.parse_request(body)
    assert [(tool.name, tool.kind, tool.extra) for tool in request.tools] == [("computer", kind, extra)]
    assert anthropic.build_request(request) == body
    assert anthropic.request_headers(request).get("anthropic-beta") == beta


def test_betas_travel_in_a_header_and_each_once():
    tool = Tool(name="computer", kind="computer_20250124")
    extra = {"betas": ["context-1m-2025-08-07", "computer-use-2025-01-24"]}
    request = ModelRequest(model="m", tools=(tool,), dialect="anthropic", extra=extra)
    assert anthropic.request_headers(request) == {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "computer-use-2025-01-24,context-1m-2025-08-07",
    }
    assert "betas" not in anthropic.build_request(request)


def test_the_result_of_a_toolset_s_call_names_the_toolset():
    call = ToolCall(id="t", name="left_click", input={"coordinate": [1, 2]}, extra={"toolset_name": "computer"})
    messages = (Message("assistant", (call,)), Message("user", (ToolResult(call_id="t", content=(Text("done"),)),)))
    built = anthropic.build_request(ModelRequest(model="m", messages=messages, dialect="anthropic", max_tokens=9))
    assert built["messages"][0]["content"][0]["toolset_name"] == "computer"
    assert built["messages"][1]["content"][0]["toolset_name"] == "computer"
