"""What a dialect writes it reads back as it was, and what another dialect said survives the translation."""

import contextlib

import dialect_strategies as strategies
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from test_dialects_gemini import ANSWER as GEMINI_ANSWER
from test_dialects_gemini import CLI as GEMINI_REQUEST

from computeragent.dialects import (
    DIALECTS,
    Ended,
    Failed,
    Message,
    ModelRequest,
    PartStarted,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    anthropic,
    assemble,
    bedrock,
    build_stream,
    gemini,
    openai_chat,
    openai_responses,
    parse_stream,
    response_events,
)
from computeragent.errors import ValidationError
from computeragent.wire.encoding import from_json, to_json

quick = settings(max_examples=40, deadline=None)


@given(strategies.anthropic_requests)
@quick
def test_an_anthropic_request_reads_back_as_it_was_written(request):
    assert anthropic.parse_request(to_json(anthropic.build_request(request))) == request


@given(strategies.openai_requests)
@quick
def test_an_openai_request_reads_back_as_it_was_written(request):
    assert openai_chat.parse_request(to_json(openai_chat.build_request(request))) == request


@given(strategies.responses_requests)
@quick
def test_a_responses_request_reads_back_as_it_was_written(request):
    assert openai_responses.parse_request(to_json(openai_responses.build_request(request))) == request


@given(strategies.gemini_requests)
@quick
def test_a_gemini_request_reads_back_as_it_was_written(request):
    body = to_json(gemini.build_request(request))
    assert gemini.parse_request(body, model=request.model, stream=request.stream) == request


@given(strategies.anthropic_requests)
@quick
def test_a_bedrock_request_reads_back_as_it_was_written(request):
    body = to_json(bedrock.build_request(request))
    expected = replace(request, extra={"anthropic_version": bedrock.VERSION})
    assert bedrock.parse_request(request.model, body, stream=request.stream) == expected


@given(strategies.anthropic_responses)
@quick
def test_an_anthropic_response_reads_back_as_it_was_written(response):
    assert anthropic.parse_response(to_json(anthropic.build_response(response))) == response


@given(strategies.openai_responses)
@quick
def test_an_openai_response_reads_back_as_it_was_written(response):
    assert openai_chat.parse_response(to_json(openai_chat.build_response(response))) == response


@given(strategies.responses_responses)
@quick
def test_a_responses_response_reads_back_as_it_was_written(response):
    assert openai_responses.parse_response(to_json(openai_responses.build_response(response))) == response


@given(strategies.responses_responses, st.none() | st.integers(1, 7), st.integers(1, 50))
@quick
def test_a_responses_stream_spells_the_same_response_however_it_is_cut(response, chunk_size, cut):
    data = b"".join(build_stream(openai_responses, response_events(response, chunk_size)))
    pieces = [data[start : start + cut] for start in range(0, len(data), cut)]
    assert assemble(parse_stream(openai_responses, pieces)) == response


@given(strategies.gemini_responses)
@quick
def test_a_gemini_response_reads_back_as_it_was_written(response):
    assert gemini.parse_response(to_json(gemini.build_response(response))) == response


@pytest.mark.parametrize("make", [gemini.stream_builder, gemini.list_builder])
@given(strategies.gemini_responses, st.none() | st.integers(1, 7), st.integers(1, 50))
@quick
def test_a_gemini_stream_spells_the_same_response_however_it_is_cut(make, response, chunk_size, cut):
    builder = make()
    data = b"".join(builder.encode(event) for event in response_events(response, chunk_size))
    pieces = [data[start : start + cut] for start in range(0, len(data), cut)]
    assert assemble(parse_stream(gemini, pieces)) == response


@given(strategies.anthropic_responses, st.none() | st.integers(1, 7), st.integers(1, 50))
@quick
def test_an_anthropic_stream_spells_the_same_response_however_it_is_cut(response, chunk_size, cut):
    data = b"".join(build_stream(anthropic, response_events(response, chunk_size)))
    pieces = [data[start : start + cut] for start in range(0, len(data), cut)]
    assert assemble(parse_stream(anthropic, pieces)) == response


@given(strategies.openai_responses, st.none() | st.integers(1, 7), st.integers(1, 50))
@quick
def test_an_openai_stream_spells_the_same_response_however_it_is_cut(response, chunk_size, cut):
    data = b"".join(build_stream(openai_chat, response_events(response, chunk_size)))
    pieces = [data[start : start + cut] for start in range(0, len(data), cut)]
    assert assemble(parse_stream(openai_chat, pieces)) == response


@given(strategies.anthropic_responses, st.integers(1, 50))
@quick
def test_a_bedrock_stream_spells_the_same_response_however_it_is_cut(response, cut):
    builder, parser = bedrock.stream_builder(), bedrock.stream_parser()
    data = b"".join(builder.encode(event) for event in response_events(response))
    events = [event for at in range(0, len(data), cut) for event in parser.feed(data[at : at + cut])]
    assert assemble([*events, *parser.finish()]) == response


@given(
    st.randoms(use_true_random=False), st.sampled_from([None, 1, -1, True, "x", [], {}, [1], {"a": 1}, [{}], 10**30])
)
@settings(max_examples=300, deadline=None)
def test_a_damaged_gemini_body_is_understood_or_refused(random, damage):
    for body, read in (
        (GEMINI_REQUEST, lambda data: gemini.parse_request(data, model="m")),
        (GEMINI_ANSWER, gemini.parse_response),
    ):
        damaged = from_json(to_json(body))
        place = damaged
        while True:
            key = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], (dict, list)) or not place[key] or random.random() < 0.3:
                break
            place = place[key]
        place[key] = damage
        with contextlib.suppress(ValidationError):
            read(to_json(damaged))
        *_, last = parse_stream(gemini, [to_json([damaged])])
        assert isinstance(last, (Ended, Failed))


@given(strategies.anthropic_responses)
@quick
def test_events_and_responses_are_two_forms_of_one_thing(response):
    assert assemble(response_events(response, 3)) == response


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@given(data=st.binary(max_size=200))
@quick
def test_a_stream_of_arbitrary_bytes_ends_in_exactly_one_failure(dialect, data):
    events = list(parse_stream(dialect, [data]))
    ends = [event for event in events if isinstance(event, (Ended, Failed))]
    assert len(ends) == 1
    assert events[-1] is ends[0]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_stream_cut_anywhere_is_reported_as_incomplete(dialect):
    response = assemble([])
    response = replace(response, id="a", model="m", content=(Text("hello"),), stop_reason="end_turn")
    frames = list(build_stream(dialect, response_events(response, 2)))
    for count in range(len(frames) - (3 if dialect is openai_chat else 1)):
        last = list(parse_stream(dialect, frames[:count]))[-1]
        assert isinstance(last, Failed)
        assert last.error.kind == "incomplete"
        assert last.error.retryable


def test_a_conversation_crosses_from_anthropic_to_openai():
    request = ModelRequest(
        model="m",
        dialect="anthropic",
        system=(Text("Be brief.", {"cache_control": {"type": "ephemeral"}}),),
        messages=(
            Message("user", (Text("List the files."),)),
            Message("assistant", (Thinking("hm", "sig"), Text("Sure."), ToolCall(id="t1", name="ls", input={"p": 1}))),
            Message("user", (ToolResult(call_id="t1", content=(Text("a.txt"),)), Text("Go on."))),
        ),
    )
    assert openai_chat.build_request(request)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "List the files."},
        {
            "role": "assistant",
            "content": "Sure.",
            "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "ls", "arguments": '{"p":1}'}}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "a.txt"},
        {"role": "user", "content": "Go on."},
    ]


def test_a_conversation_crosses_from_openai_to_anthropic():
    body = {
        "model": "m",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "List"},
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "ls", "arguments": "{}"}},
                    {"id": "b", "type": "function", "function": {"name": "ls", "arguments": "{oops"}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "one"},
            {"role": "tool", "tool_call_id": "b", "content": "two"},
        ],
        "max_tokens": 5,
        "logit_bias": {"1": 2},
    }
    built = anthropic.build_request(openai_chat.parse_request(body))
    assert built == {
        "model": "m",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "List"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "a", "name": "ls", "input": {}},
                    {"type": "tool_use", "id": "b", "name": "ls", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "one"}]},
                    {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "two"}]},
                ],
            },
        ],
    }


@given(strategies.openai_responses, st.integers(1, 9))
@quick
def test_an_answer_streamed_from_openai_reaches_an_anthropic_client_whole(response, chunk_size):
    upstream = build_stream(openai_chat, response_events(response, chunk_size))
    client_bytes = build_stream(anthropic, parse_stream(openai_chat, upstream))
    got = assemble(parse_stream(anthropic, client_bytes))
    assert (got.id, got.text, got.stop_reason) == (response.id, response.text, response.stop_reason)
    assert [(call.id, call.input) for call in got.tool_calls] == [(c.id, c.input) for c in response.tool_calls]
    assert got.usage.total_input_tokens == response.usage.total_input_tokens
    assert got.usage.output_tokens == response.usage.output_tokens


@given(strategies.gemini_responses, st.integers(1, 9))
@quick
def test_an_answer_streamed_from_gemini_reaches_an_anthropic_client_whole(response, chunk_size):
    spoken = replace(response, content=tuple(part for part in response.content if isinstance(part, (Text, ToolCall))))
    upstream = build_stream(gemini, response_events(spoken, chunk_size))
    got = assemble(parse_stream(anthropic, build_stream(anthropic, parse_stream(gemini, upstream))))
    assert "".join(part.text for part in got.content if isinstance(part, Text)) == "".join(
        part.text for part in spoken.content if isinstance(part, Text)
    )
    assert [(call.id, call.input) for call in got.tool_calls] == [(c.id, c.input) for c in spoken.tool_calls]
    assert got.usage.total_input_tokens == response.usage.total_input_tokens


@given(strategies.anthropic_responses, st.integers(1, 9))
@quick
def test_an_answer_streamed_from_anthropic_reaches_a_gemini_client_whole(response, chunk_size):
    upstream = build_stream(anthropic, response_events(response, chunk_size))
    got = assemble(parse_stream(gemini, build_stream(gemini, parse_stream(anthropic, upstream))))
    assert got.text.replace("\n", "") == response.text.replace("\n", "")
    assert [(call.id, call.input) for call in got.tool_calls] == [(c.id, c.input) for c in response.tool_calls]
    assert got.usage.total_input_tokens == response.usage.total_input_tokens


def test_parts_without_a_word_in_the_other_wire_leave_no_gap_in_the_indexes():
    source = [
        b'data: {"type":"message_start","message":{"id":"m","model":"x","content":[],"usage":{}}}\n\n',
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"s"}}\n\n',
        b'data: {"type":"content_block_stop","index":0}\n\n',
        b'data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":"hi"}}\n\n',
        b'data: {"type":"content_block_stop","index":1}\n\n',
        b'data: {"type":"message_stop"}\n\n',
    ]
    events = [replace(e, dialect="") if hasattr(e, "dialect") else e for e in parse_stream(anthropic, source)]
    got = list(parse_stream(anthropic, build_stream(anthropic, events)))
    assert [event for event in got if isinstance(event, PartStarted)] == [PartStarted(0, Text("hi"))]


def test_usage_only_grows_as_reports_come_in():
    merged = Usage(input_tokens=10, output_tokens=1).merge(Usage(output_tokens=7))
    assert merged == Usage(input_tokens=10, output_tokens=7)
