"""OpenAI Chat Completions as it is on the wire."""

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
    OutputFormat,
    PartEnded,
    PartStarted,
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
    assemble,
    build_stream,
    openai_chat,
    parse_stream,
    response_events,
)
from computeragent.errors import ValidationError
from computeragent.wire.encoding import to_json

REQUEST = {
    "model": "gpt-5",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,BBBB", "filename": "a.pdf"}},
                {"type": "input_audio", "input_audio": {"data": "CCCC", "format": "wav"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Looking.",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"it"}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        {"role": "system", "content": "Hurry."},
    ],
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": True}}],
    "tool_choice": {"type": "function", "function": {"name": "look"}},
    "parallel_tool_calls": False,
    "max_completion_tokens": 100,
    "reasoning_effort": "high",
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
    "stop": ["x"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "logit_bias": {"1": 2},
}


def test_a_request_is_understood():
    request = openai_chat.parse_request(to_json(REQUEST))
    assert request.system == (Text("Be brief."),)
    assert request.messages[0].content == (
        Text("What is this?"),
        Media(kind="image", media_type="image/png", data="AAAA", extra={"detail": "low"}),
        Media(kind="document", media_type="application/pdf", data="BBBB", title="a.pdf"),
        Media(kind="audio", media_type="audio/wav", data="CCCC"),
    )
    assert request.messages[1].tool_calls == (ToolCall(id="c1", name="look", input={"at": "it"}),)
    assert request.messages[2] == Message("user", (ToolResult(call_id="c1", content=(Text("a cat"),)),))
    assert request.messages[3] == Message("system", (Text("Hurry."),))
    assert request.tools == (Tool(name="look", input_schema={"type": "object"}, strict=True),)
    assert request.tool_choice == ToolChoice("tool", "look")
    assert request.output_format == OutputFormat(schema={"type": "object"}, name="a")
    assert (request.max_tokens, request.effort, request.stop_sequences) == (100, "high", ("x",))
    assert request.stream_usage
    assert request.extra == {"logit_bias": {"1": 2}}


def test_a_request_is_written_back_as_it_came():
    assert openai_chat.build_request(openai_chat.parse_request(REQUEST)) == REQUEST


def test_the_older_limit_and_a_single_stop_are_read():
    request = openai_chat.parse_request({"model": "m", "max_tokens": 3, "stop": "a", "messages": []})
    assert (request.max_tokens, request.stop_sequences, request.stream_usage) == (3, ("a",), False)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": [], "tool_choice": "maybe"}, "tool_choice: must be auto, none, required or an object"),
        ({"model": "m", "messages": [{"role": "robot"}]}, "messages.0.role: must be system, developer"),
        ({"model": "m", "messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id: field required"),
        ({"model": "m", "stop": [1]}, "stop.0: must be a string, not a number"),
    ],
)
def test_a_wrong_request_is_refused_with_the_place(body, message):
    with pytest.raises(ValidationError) as caught:
        openai_chat.parse_request(body)
    assert str(caught.value).startswith(message)


def test_images_in_tool_results_follow_in_a_user_message():
    image = Media(kind="image", media_type="image/png", data="AAAA")
    request = ModelRequest(
        model="m", messages=(Message("user", (ToolResult(call_id="c", content=(Text("shot"), image)),)),)
    )
    assert openai_chat.build_request(request)["messages"] == [
        {"role": "tool", "tool_call_id": "c", "content": "shot"},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
        },
    ]


@pytest.mark.parametrize(("budget", "effort"), [(1_024, "low"), (8_000, "medium"), (32_000, "high")])
def test_a_thinking_budget_becomes_the_nearest_effort(budget, effort):
    request = ModelRequest(model="m", thinking=ThinkingConfig(mode="enabled", budget_tokens=budget))
    assert openai_chat.build_request(request)["reasoning_effort"] == effort


RESPONSE = ModelResponse(
    id="chatcmpl-1",
    model="m",
    content=(Thinking("hm"), Text("Hello"), ToolCall(id="c1", name="look", input={"at": "it"})),
    stop_reason="tool_use",
    usage=Usage(input_tokens=8, cache_read_tokens=2, output_tokens=5, reasoning_tokens=1),
)


def test_a_response_is_a_completion():
    assert openai_chat.build_response(RESPONSE) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello",
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"it"}'}}
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    }


def test_a_refusal_is_text_and_a_stop_reason():
    body = {"choices": [{"message": {"content": None, "refusal": "I will not."}, "finish_reason": "stop"}]}
    response = openai_chat.parse_response(body)
    assert (response.text, response.stop_reason) == ("I will not.", "refusal")


def chunk(delta=None, **more) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": more.pop("finish", None)}]
    return b"data: %b\n\n" % to_json({"id": "x", "model": "m", "choices": choices, **more})


def call(index, arguments, **more):
    function = {"arguments": arguments, **({"name": more.pop("name")} if "name" in more else {})}
    return {"tool_calls": [{"index": index, "function": function, **more}]}


def test_parts_are_told_apart_by_what_the_chunks_hold():
    chunks = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk(call(0, "", id="a", name="ls")),
        chunk(call(0, '{"p":')),
        chunk(call(0, "1}")),
        chunk(call(1, "{}", id="b", name="ls")),
        chunk({}, finish="tool_calls"),
        chunk(usage={"prompt_tokens": 9, "completion_tokens": 4}),
        b"data: [DONE]\n\n",
    ]
    events = list(parse_stream(openai_chat, chunks))
    assert events == [
        Started(id="x", model="m", dialect="openai_chat"),
        PartStarted(0, Thinking("")),
        ThinkingDelta(0, "hm"),
        PartEnded(0),
        PartStarted(1, Text("")),
        TextDelta(1, "Hel"),
        TextDelta(1, "lo"),
        PartEnded(1),
        PartStarted(2, ToolCall(id="a", name="ls")),
        InputDelta(2, '{"p":'),
        InputDelta(2, "1}"),
        PartEnded(2),
        PartStarted(3, ToolCall(id="b", name="ls")),
        InputDelta(3, "{}"),
        PartEnded(3),
        Stopped(stop_reason="tool_use", usage=Usage(input_tokens=9, output_tokens=4)),
        Ended(),
    ]


def test_calls_that_share_an_index_are_told_apart_by_their_ids():
    chunks = [
        chunk(call(0, "{}", id="a", name="ls")),
        chunk(call(0, "{}", id="b", name="ls")),
        chunk({}, finish="tool_calls"),
    ]
    response = assemble(parse_stream(openai_chat, chunks))
    assert [made.id for made in response.tool_calls] == ["a", "b"]


def test_a_stream_with_a_reason_and_no_done_is_complete():
    events = list(parse_stream(openai_chat, [chunk({"content": "a"}), chunk({}, finish="length")]))
    assert events[-2:] == [Stopped(stop_reason="max_tokens"), Ended()]


def test_usage_is_streamed_only_to_those_who_ask():
    def usages(request):
        data = b"".join(build_stream(openai_chat, response_events(RESPONSE), request))
        objects = [json.loads(line[6:]) for line in data.decode().split("\n\n")[:-2]]
        return [item["usage"]["total_tokens"] for item in objects if "usage" in item]

    assert usages(ModelRequest(model="m", stream=True, stream_usage=True)) == [15]
    assert usages(ModelRequest(model="m", stream=True, stream_usage=False)) == []


def test_an_error_chunk_ends_the_stream():
    error = ModelError(kind="rate_limit", message="slow down", code="rate_limit_exceeded", type="requests")
    data = b"".join(build_stream(openai_chat, [Failed(error)]))
    assert list(parse_stream(openai_chat, [data])) == [Failed(error)]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, None, "invalid_request"),
        (401, "invalid_api_key", "authentication"),
        (404, "model_not_found", "not_found"),
        (429, "rate_limit_exceeded", "rate_limit"),
        (429, "insufficient_quota", "billing"),
        (500, None, "server"),
        (503, None, "overloaded"),
    ],
)
def test_errors_have_their_kind(status, code, kind):
    body = to_json({"error": {"message": "no", "type": "t", "param": None, "code": code}})
    error = openai_chat.parse_error(status, body, {"retry-after-ms": "1500"})
    assert error == ModelError(kind=kind, message="no", status=status, type="t", code=code, retry_after=1.5)
    assert openai_chat.build_error(error)["error"]["message"] == "no"
    assert openai_chat.error_status(error) == status
