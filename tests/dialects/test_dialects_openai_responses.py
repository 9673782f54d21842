"""OpenAI Responses: examples of the wire, read and written."""

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
    OtherEvent,
    OutputFormat,
    PartEnded,
    PartStarted,
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
    openai_chat,
    parse_stream,
)
from computeragent.dialects import openai_responses as responses
from computeragent.errors import ValidationError
from computeragent.wire.encoding import from_json, to_json

PNG = "data:image/png;base64,AAAA"
CHECK = {"id": "sc_1", "code": "malicious_instructions", "message": "Is this wanted?"}
PREVIEW_CALL = {
    "type": "computer_call",
    "id": "cu_1",
    "call_id": "call_1",
    "action": {"type": "click", "button": "left", "x": 10, "y": 20},
    "pending_safety_checks": [CHECK],
    "status": "completed",
}
REQUEST = {
    "model": "computer-use-preview",
    "instructions": "Be careful.",
    "input": [
        {"type": "message", "role": "developer", "content": "Stay on this site."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Press it."},
                {"type": "input_image", "image_url": PNG, "detail": "high"},
                {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"},
                {"type": "input_image", "file_id": "file_1"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "x",
        },
        PREVIEW_CALL,
        {
            "type": "computer_call_output",
            "call_id": "call_1",
            "acknowledged_safety_checks": [CHECK],
            "output": {"type": "computer_screenshot", "image_url": PNG},
        },
        {"type": "function_call", "id": "fc_1", "call_id": "call_2", "name": "ls", "arguments": '{"p":1}'},
        {"type": "function_call", "call_id": "call_3", "name": "ls", "arguments": "{oops"},
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_4", "name": "sql", "input": "select 1"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "function_call_output", "call_id": "call_2", "output": "a.txt"},
        {"type": "function_call_output", "call_id": "call_3", "output": [{"type": "input_image", "image_url": PNG}]},
        {"type": "custom_tool_call_output", "call_id": "call_4", "output": "1"},
        {"type": "item_reference", "id": "msg_9"},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "One.", "annotations": []},
                {"type": "output_text", "text": "Two.", "annotations": [{"type": "url_citation", "url": "u"}]},
                {"type": "refusal", "refusal": "Not three."},
            ],
        },
        {"role": "user", "content": "Go on."},
    ],
    "tools": [
        {"type": "function", "name": "ls", "parameters": {"type": "object"}, "strict": True, "description": "Lists."},
        {"type": "computer_use_preview", "display_width": 1280, "display_height": 800, "environment": "linux"},
        {"type": "custom", "name": "sql", "description": "Asks.", "format": {"type": "text"}},
        {"type": "web_search"},
    ],
    "tool_choice": {"type": "computer_use_preview"},
    "parallel_tool_calls": False,
    "max_output_tokens": 99,
    "reasoning": {"effort": "low", "summary": "concise"},
    "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}, "verbosity": "low"},
    "truncation": "auto",
    "include": ["reasoning.encrypted_content"],
    "store": False,
    "stream": True,
}


def items(*messages: Message, dialect: str = "openai_responses"):
    return responses.build_request(ModelRequest(model="m", messages=messages, dialect=dialect))["input"]


def read(*given):
    return responses.parse_request({"model": "m", "input": list(given)}).messages


def test_a_request_of_every_kind_of_item_is_read():
    request = responses.parse_request(to_json(REQUEST))
    assert request.system == (Text("Be careful."), Text("Stay on this site."))
    user, answer, seen, calls, results, later, more = request.messages
    assert user == Message(
        "user",
        (
            Text("Press it."),
            Media(kind="image", media_type="image/png", data="AAAA", extra={"detail": "high"}),
            Media(kind="image", url="https://example.org/a.png"),
            Media(kind="image", file_id="file_1"),
            Media(kind="document", media_type="application/pdf", data="AAAA", title="a.pdf"),
        ),
    )
    assert answer.content == (
        Thinking("hm", "x", False, {"id": "rs_1"}),
        ToolCall(
            id="call_1",
            name="computer",
            input={"action": {"type": "click", "button": "left", "x": 10, "y": 20}},
            extra={"type": "computer_call", "id": "cu_1", "pending_safety_checks": [CHECK], "status": "completed"},
        ),
    )
    assert seen.content == (
        ToolResult(
            call_id="call_1",
            content=(Media(kind="image", media_type="image/png", data="AAAA"),),
            extra={"type": "computer_call_output", "acknowledged_safety_checks": [CHECK]},
        ),
    )
    assert [type(part) for part in calls.content] == [ToolCall, ToolCall, ToolCall, Opaque]
    assert calls.content[0] == ToolCall(id="call_2", name="ls", input={"p": 1}, extra={"id": "fc_1"})
    assert calls.content[1] == ToolCall(id="call_3", name="ls", malformed="{oops")
    assert calls.content[2].input == {"input": "select 1"}
    assert [result.call_id for result in results.tool_results] == ["call_2", "call_3", "call_4"]
    assert later.content[0] == Opaque("item_reference", {"type": "item_reference", "id": "msg_9"})
    assert [part.text for part in later.content[1:]] == ["One.", "Two.", "Not three."]
    assert more == Message("user", (Text("Go on."),))


def test_its_settings_are_read():
    request = responses.parse_request(to_json(REQUEST))
    assert [(tool.name, tool.kind) for tool in request.tools] == [
        ("ls", "function"),
        ("computer", "computer_use_preview"),
        ("sql", "custom"),
        ("web_search", "web_search"),
    ]
    assert request.tool_choice == ToolChoice("tool", "computer")
    assert (request.parallel_tool_calls, request.max_tokens, request.effort) == (False, 99, "low")
    assert request.output_format == OutputFormat(schema={"type": "object"}, name="a")
    assert request.extra == {
        "truncation": "auto",
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "reasoning": {"summary": "concise"},
        "text": {"verbosity": "low"},
    }
    assert request.stream


def test_what_was_read_is_written_again_in_full():
    once = responses.build_request(responses.parse_request(to_json(REQUEST)))
    assert responses.parse_request(to_json(once)) == responses.parse_request(to_json(REQUEST))
    for name in ("tools", "tool_choice", "reasoning", "text", "truncation", "store", "max_output_tokens"):
        assert once[name] == REQUEST[name]
    assert once["input"][2:5] == REQUEST["input"][2:5]


def test_the_preview_of_the_computer_tool_gets_the_truncation_that_it_demands():
    preview, successor = Tool(name="computer", kind="computer_use_preview"), Tool(name="computer", kind="computer")
    request = ModelRequest(model="m", tools=(preview,), dialect="openai_responses")
    assert responses.build_request(request)["truncation"] == "auto"
    stated = ModelRequest(model="m", tools=(preview,), dialect="openai_responses", extra={"truncation": "disabled"})
    assert responses.build_request(stated)["truncation"] == "disabled"
    assert "truncation" not in responses.build_request(
        ModelRequest(model="m", tools=(successor,), dialect=request.dialect)
    )


def test_an_input_may_be_one_text():
    assert responses.parse_request({"model": "m", "input": "Hello"}).messages == (Message("user", (Text("Hello"),)),)


def test_a_batch_of_actions_is_one_call():
    actions = [{"type": "click", "x": 1, "y": 2, "button": "left"}, {"type": "screenshot"}]
    item = {"type": "computer_call", "id": "cu", "call_id": "c", "actions": actions, "pending_safety_checks": []}
    [message] = read({**item, "status": "completed"})
    assert message.tool_calls[0].input == {"actions": actions}
    assert items(message) == [{**item, "status": "completed"}]


@pytest.mark.parametrize("shown", ["computer_screenshot", "input_image"])
def test_a_screenshot_comes_in_two_spellings_and_keeps_its_own(shown):
    item = {
        "type": "computer_call_output",
        "call_id": "c",
        "output": {"type": shown, "image_url": PNG},
        "acknowledged_safety_checks": [],
    }
    assert items(*read(item)) == [item]


def test_an_engine_s_answer_to_a_computer_call_needs_no_more_than_its_id():
    call = ToolCall(id="c", name="computer", input={"action": {"type": "wait"}}, extra={"type": "computer_call"})
    result = ToolResult(call_id="c", content=(Media(kind="image", data="AAAA"), Text("It moved.")))
    built = items(Message("assistant", (call,)), Message("user", (result,)))
    assert built[1:] == [
        {
            "type": "computer_call_output",
            "call_id": "c",
            "output": {"type": "computer_screenshot", "image_url": PNG},
        },
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "It moved."}]},
    ]


def test_a_computer_call_without_a_screenshot_cannot_be_answered():
    result = ToolResult(call_id="c", content=(Text("No."),), extra={"type": "computer_call_output"})
    with pytest.raises(ValidationError, match="screenshot"):
        items(Message("user", (result,)))


def test_the_plain_text_of_an_assistant_is_a_plain_message():
    assert items(Message("assistant", (Text("Yes."),))) == [{"type": "message", "role": "assistant", "content": "Yes."}]


def test_reasoning_that_the_provider_would_not_know_again_stays_here():
    assert items(Message("assistant", (Thinking("hm"), Text("Yes.")))) == [
        {"type": "message", "role": "assistant", "content": "Yes."}
    ]


def test_several_paragraphs_of_reasoning_stay_apart():
    summary = [{"type": "summary_text", "text": "one"}, {"type": "summary_text", "text": "two"}]
    [message] = read({"type": "reasoning", "id": "rs", "summary": summary})
    assert message.content[0].text == "one\n\ntwo"
    assert items(message)[0]["summary"] == summary


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"model": "m", "input": 3}, "input: must be a list"),
        ({"model": "m", "input": [3]}, "input.0: must be an object"),
        ({"model": "m", "input": [{"role": "robot", "content": "x"}]}, "input.0.role"),
        (
            {"model": "m", "input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input.0.content.0.image_url",
        ),
        ({"model": "m", "input": [{"type": "function_call", "name": "x"}]}, "input.0.call_id: field required"),
        ({"model": "m", "input": [{"type": "computer_call", "call_id": "x", "action": 3}]}, "input.0.action"),
        ({"model": "m", "input": [{"type": "computer_call_output", "call_id": "x"}]}, "input.0.output"),
        ({"model": "m", "input": [], "tools": [{"type": "function"}]}, "tools.0.name"),
        ({"model": "m", "input": [], "tool_choice": "maybe"}, "tool_choice"),
        ({"input": []}, "model: field required"),
    ],
)
def test_a_wrong_request_is_refused_with_its_path(body, path):
    with pytest.raises(ValidationError) as caught:
        responses.parse_request(to_json(body))
    assert caught.value.message.startswith(path)


RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_700_000_000,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "model": "gpt-5.4",
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Clicking.", "annotations": []}],
        },
        PREVIEW_CALL,
    ],
    "parallel_tool_calls": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "usage": {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 120,
    },
}


def test_a_response_is_read_and_written_as_it_came():
    response = responses.parse_response(to_json(RESPONSE))
    assert (response.id, response.model, response.stop_reason, response.text) == (
        "resp_1",
        "gpt-5.4",
        "tool_use",
        "Clicking.",
    )
    assert response.usage == Usage(
        input_tokens=50, output_tokens=20, cache_read_tokens=40, cache_write_tokens=10, reasoning_tokens=5
    )
    assert responses.build_response(response) == RESPONSE


@pytest.mark.parametrize(
    ("reason", "stop_reason"),
    [("max_output_tokens", "max_tokens"), ("content_filter", "refusal"), ("steered", "steered")],
)
def test_an_incomplete_response_says_why(reason, stop_reason):
    body = {**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": reason}}
    response = responses.parse_response(body)
    assert response.stop_reason == stop_reason
    assert responses.build_response(response)["incomplete_details"] == {"reason": reason}


def test_a_refusal_is_a_reason_to_stop():
    output = [{"type": "message", "id": "m", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}]
    response = responses.parse_response({**RESPONSE, "output": output})
    assert (response.stop_reason, response.text) == ("refusal", "No.")


def test_ids_are_made_for_what_has_none_and_stay_the_same():
    response = ModelResponse(
        id="msg_7", model="m", content=(Text("Hi."), ToolCall(id="c", name="ls")), stop_reason="tool_use"
    )
    first, second = responses.build_response(response)["output"]
    assert (first["id"], second["id"]) == ("msg_701", "fc_702")
    assert responses.build_response(response)["output"] == [first, second]


# Abridged from the events of the published reference.
STREAM = [
    {"type": "response.created", "response": {"id": "resp_1", "model": "gpt", "status": "in_progress", "output": []}},
    {"type": "response.in_progress", "response": {"id": "resp_1", "model": "gpt", "output": []}},
    {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {"type": "reasoning", "id": "rs_1", "summary": []},
    },
    {
        "type": "response.reasoning_summary_part.added",
        "item_id": "rs_1",
        "output_index": 0,
        "summary_index": 0,
        "part": {"type": "summary_text", "text": ""},
    },
    {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "hm"},
    {"type": "response.reasoning_summary_text.done", "output_index": 0, "summary_index": 0, "text": "hm"},
    {
        "type": "response.output_item.done",
        "output_index": 0,
        "item": {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "proof",
        },
    },
    {"type": "response.web_search_call.searching", "output_index": 1, "item_id": "ws_1"},
    {
        "type": "response.output_item.added",
        "output_index": 2,
        "item": {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []},
    },
    {
        "type": "response.content_part.added",
        "output_index": 2,
        "content_index": 0,
        "part": {"type": "output_text", "text": "", "annotations": []},
    },
    {"type": "response.output_text.delta", "output_index": 2, "content_index": 0, "delta": "He", "logprobs": []},
    {"type": "response.output_text.delta", "output_index": 2, "content_index": 0, "delta": "llo", "logprobs": []},
    {"type": "response.output_text.done", "output_index": 2, "content_index": 0, "text": "Hello"},
    {
        "type": "response.content_part.done",
        "output_index": 2,
        "content_index": 0,
        "part": {"type": "output_text", "text": "Hello", "annotations": [{"type": "url_citation", "url": "u"}]},
    },
    {
        "type": "response.output_item.done",
        "output_index": 2,
        "item": {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "Hello", "annotations": [{"type": "url_citation", "url": "u"}]}
            ],
        },
    },
    {
        "type": "response.output_item.added",
        "output_index": 3,
        "item": {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "ls", "arguments": ""},
    },
    {"type": "response.function_call_arguments.delta", "output_index": 3, "item_id": "fc_1", "delta": '{"p":'},
    {"type": "response.function_call_arguments.delta", "output_index": 3, "item_id": "fc_1", "delta": "1}"},
    {"type": "response.function_call_arguments.done", "output_index": 3, "item_id": "fc_1", "arguments": '{"p":1}'},
    {
        "type": "response.output_item.done",
        "output_index": 3,
        "item": {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "ls", "arguments": '{"p":1}'},
    },
    {"type": "response.output_item.added", "output_index": 4, "item": {**PREVIEW_CALL, "status": "in_progress"}},
    {"type": "response.output_item.done", "output_index": 4, "item": PREVIEW_CALL},
    {
        "type": "response.completed",
        "response": {
            "id": "resp_1",
            "model": "gpt",
            "status": "completed",
            "usage": {"input_tokens": 3, "output_tokens": 4},
        },
    },
]


def frames(*objects):
    return [
        b"event: %b\ndata: %b\n\n" % (each["type"].encode(), to_json({**each, "sequence_number": n}))
        for n, each in enumerate(objects)
    ]


def test_a_stream_is_read_event_by_event():
    events = list(parse_stream(responses, frames(*STREAM)))
    assert events[:6] == [
        Started(id="resp_1", model="gpt", dialect="openai_responses"),
        PartStarted(0, Thinking("", extra={"id": "rs_1"})),
        ThinkingDelta(0, "hm"),
        SignatureDelta(0, "proof"),
        PartEnded(0),
        OtherEvent("response.web_search_call.searching", {**STREAM[7], "sequence_number": 7}),
    ]
    assert [event for event in events if isinstance(event, TextDelta)] == [TextDelta(1, "He"), TextDelta(1, "llo")]
    assert [event.json for event in events if isinstance(event, InputDelta)][:2] == ['{"p":', "1}"]
    assert events[-2:] == [Stopped(stop_reason="tool_use", usage=Usage(input_tokens=3, output_tokens=4)), Ended()]


def test_a_stream_spells_the_response():
    response = assemble(parse_stream(responses, frames(*STREAM)))
    assert response.content == (
        Thinking("hm", "proof", False, {"id": "rs_1"}),
        Text("Hello", {"message": {"id": "msg_1"}, "annotations": [{"type": "url_citation", "url": "u"}]}),
        ToolCall(id="c1", name="ls", input={"p": 1}, extra={"id": "fc_1"}),
        ToolCall(
            id="call_1",
            name="computer",
            input={"action": PREVIEW_CALL["action"]},
            extra={"type": "computer_call", "id": "cu_1", "pending_safety_checks": [CHECK], "status": "completed"},
        ),
    )


def test_a_stream_that_tells_everything_at_the_end_is_understood():
    told = [STREAM[0], {"type": "response.completed", "response": RESPONSE}]
    assert assemble(parse_stream(responses, frames(*told))).content == responses.parse_response(RESPONSE).content


def test_a_stream_without_announcements_is_understood():
    bare = [STREAM[0], STREAM[10], STREAM[11], STREAM[14], STREAM[-1]]
    assert assemble(parse_stream(responses, frames(*bare))).text == "Hello"


@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "broken"}}},
            "server",
            "broken",
        ),
        (
            {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "slow"}}},
            "rate_limit",
            "slow",
        ),
        (
            {"type": "response.failed", "response": {"error": {"code": "invalid_image", "message": "no image"}}},
            "invalid_request",
            "no image",
        ),
        ({"type": "error", "code": "server_error", "message": "broken", "param": None}, "server", "broken"),
        ({"type": "error", "error": {"code": None, "message": "nested"}}, "server", "nested"),
        ({"type": "response.failed", "response": {}}, "server", "HTTP 500"),
    ],
)
def test_a_failure_in_a_stream_ends_it(event, kind, message):
    last = list(parse_stream(responses, frames(STREAM[0], event, STREAM[10])))[-1]
    assert isinstance(last, Failed)
    assert (last.error.kind, last.error.message) == (kind, message)


@pytest.mark.parametrize("kind", ["overloaded", "rate_limit", "server", "too_large", "billing"])
def test_a_failure_keeps_its_kind_over_the_wire(kind):
    written = build_stream(responses, [Started(id="a", model="m"), Failed(ModelError(kind=kind, message="no"))])
    assert list(parse_stream(responses, written))[-1].error.kind == kind


def test_what_is_written_is_numbered_without_a_gap():
    events = parse_stream(responses, frames(*STREAM))
    data = b"".join(build_stream(responses, events)).decode()
    written = [from_json(line[6:]) for line in data.splitlines() if line.startswith("data: ")]
    assert [each["sequence_number"] for each in written] == list(range(len(written)))
    names = [line[7:] for line in data.splitlines() if line.startswith("event: ")]
    assert names == [each["type"] for each in written]
    assert written[-1]["response"]["output"] == [
        each["item"] for each in written if each["type"] == "response.output_item.done"
    ]


def test_a_conversation_crosses_from_anthropic():
    request = ModelRequest(
        model="m",
        dialect="anthropic",
        system=(Text("Be brief.", {"cache_control": {"type": "ephemeral"}}),),
        messages=(
            Message("user", (Text("Look."),)),
            Message(
                "assistant", (Thinking("hm", "sig"), Text("Sure."), ToolCall(id="t1", name="look", input={"p": 1}))
            ),
            Message("user", (ToolResult(call_id="t1", content=(Text("here"), Media(kind="image", data="AAAA"))),)),
        ),
        tools=(Tool(name="look"), Tool(name="computer", kind="computer_20250124")),
        thinking=ThinkingConfig(mode="enabled", budget_tokens=5_000),
        stop_sequences=("x",),
        max_tokens=9,
    )
    assert responses.build_request(request) == {
        "model": "m",
        "instructions": "Be brief.",
        "input": [
            {"type": "message", "role": "user", "content": "Look."},
            {"type": "message", "role": "assistant", "content": "Sure."},
            {"type": "function_call", "call_id": "t1", "name": "look", "arguments": '{"p":1}'},
            {
                "type": "function_call_output",
                "call_id": "t1",
                "output": [
                    {"type": "input_text", "text": "here"},
                    {"type": "input_image", "detail": "auto", "image_url": PNG},
                ],
            },
        ],
        "tools": [
            {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}
        ],
        "max_output_tokens": 9,
        "reasoning": {"effort": "medium"},
    }


@pytest.mark.parametrize("other", [anthropic, openai_chat])
def test_a_conversation_crosses_to_the_others_without_what_only_this_wire_knows(other):
    request = responses.parse_request(
        to_json({**REQUEST, "input": [item for item in REQUEST["input"] if "x" not in item]})
    )
    plain = [
        Message(message.role, tuple(part for part in message.content if not isinstance(part, Media)))
        for message in request.messages
    ]
    built = to_json(
        other.build_request(ModelRequest(model="m", messages=tuple(plain), dialect=request.dialect))
    ).decode()
    assert "call_2" in built
    for word in ("item_reference", "web_search", "pending_safety_checks", "msg_1", "rs_1"):
        assert word not in built
