"""Gemini's wire: golden requests and answers, both spellings, both framings of a stream, errors."""

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
    OutputFormat,
    PartStarted,
    Text,
    TextDelta,
    Thinking,
    ThinkingConfig,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
    anthropic,
    assemble,
    build_stream,
    gemini,
    parse_stream,
    response_events,
)
from computeragent.dialects.gemini.chunks import ListDecoder
from computeragent.errors import ValidationError

# A turn as Gemini CLI 0.61 sends it, shortened.
CLI = {
    "contents": [
        {"role": "user", "parts": [{"text": "<session_context>…</session_context>"}, {"text": "write it"}]},
        {
            "role": "model",
            "parts": [
                {"text": "I must write.", "thought": True},
                {"text": "Writing."},
                {
                    "functionCall": {"id": "c1", "name": "run_shell_command", "args": {"command": "ls"}},
                    "thoughtSignature": "c2ln",
                },
            ],
        },
        {
            "role": "user",
            "parts": [{"functionResponse": {"id": "c1", "name": "run_shell_command", "response": {"output": "a.txt"}}}],
        },
    ],
    "systemInstruction": {"role": "user", "parts": [{"text": "You are an agent."}]},
    "tools": [
        {
            "functionDeclarations": [
                {
                    "name": "run_shell_command",
                    "description": "Runs it.",
                    "parametersJsonSchema": {"type": "object", "properties": {"command": {"type": "string"}}},
                }
            ]
        },
        {"googleSearch": {}},
    ],
    "generationConfig": {
        "temperature": 1,
        "topP": 0.95,
        "topK": 64,
        "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 8192},
    },
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
}


def parse(body, **path):
    return gemini.parse_request(body, **{"model": "gemini-2.5-pro", **path})


def content(*parts, role="user"):
    return {"contents": [{"role": role, "parts": list(parts)}]}


def test_a_request_of_the_cli_is_understood():
    request = parse(json.dumps(CLI).encode(), stream=True)
    assert (request.model, request.stream, request.system_text) == ("gemini-2.5-pro", True, "You are an agent.")
    assert [message.role for message in request.messages] == ["user", "assistant", "user"]
    call = ToolCall(id="c1", name="run_shell_command", input={"command": "ls"}, signature="c2ln")
    assert request.messages[1].content == (Thinking("I must write."), Text("Writing."), call)
    assert request.messages[2].content == (ToolResult(call_id="c1", content=(Text("a.txt"),)),)
    assert [(tool.name, tool.kind) for tool in request.tools] == [
        ("run_shell_command", "function"),
        ("googleSearch", "googleSearch"),
    ]
    assert (request.temperature, request.top_p, request.top_k) == (1, 0.95, 64)
    assert request.thinking == ThinkingConfig(mode="enabled", budget_tokens=8192, extra={"includeThoughts": True})


def test_a_request_of_the_cli_is_written_as_it_was():
    assert gemini.build_request(parse(CLI)) == CLI


def test_both_spellings_are_the_same_request():
    snake = {
        "system_instruction": {"parts": {"text": "Be brief."}},
        "contents": {"role": "user", "parts": {"inline_data": {"mime_type": "image/png", "data": "_-8="}}},
        "tools": {"function_declarations": {"name": "f", "parameters_json_schema": {"type": "object"}}},
        "tool_config": {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["f"]}},
        "generation_config": {
            "max_output_tokens": 5,
            "stop_sequences": ["x"],
            "response_mime_type": "application/json",
            "response_json_schema": {"type": "array"},
            "thinking_config": {"thinking_level": "low"},
            "candidate_count": 1,
        },
        "cached_content": "cachedContents/a",
        "safety_settings": [],
    }
    request = parse(snake)
    assert request.system == (Text("Be brief."),)
    assert request.messages[0].content == (Media(kind="image", media_type="image/png", data="/+8="),)
    assert request.tool_choice == ToolChoice("tool", "f")
    assert (request.max_tokens, request.stop_sequences, request.effort) == (5, ("x",), "low")
    assert request.output_format == OutputFormat(schema={"type": "array"})
    assert request.extra == {
        "cachedContent": "cachedContents/a",
        "safetySettings": [],
        "generationConfig": {"candidateCount": 1},
    }
    built = gemini.build_request(request)
    assert built["generationConfig"]["maxOutputTokens"] == 5
    assert built["generationConfig"]["thinkingConfig"] == {"thinkingLevel": "LOW"}
    assert built["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}
    assert parse(built) == request


def test_names_inside_of_arguments_and_schemas_are_left_alone():
    args = {"some_path": 1, "inner_value": {"deep_name": 2}}
    schema = {"type": "object", "properties": {"some_path": {"type": "string"}}}
    body = {
        **content({"function_call": {"name": "f", "args": args}}, role="model"),
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": schema}]}],
    }
    request = parse(body)
    assert request.messages[0].tool_calls[0].input == args
    assert request.tools[0].input_schema == schema


def test_the_model_of_the_path_counts_and_else_that_of_the_body():
    assert parse(content({"text": "a"}), model="models/x").model == "x"
    assert gemini.parse_request({**content({"text": "a"}), "model": "models/y"}).model == "y"
    with pytest.raises(ValidationError, match="model"):
        gemini.parse_request(content({"text": "a"}))


def test_calls_without_ids_are_paired_with_their_answers_by_name_and_order():
    def call(name):
        return {"functionCall": {"name": name, "args": {}}}

    def answer(name, text, **more):
        return {"functionResponse": {"name": name, "response": {"output": text}, **more}}

    body = {
        "contents": [
            {"role": "model", "parts": [call("read"), call("read"), call("list")]},
            {"role": "user", "parts": [answer("list", "l"), answer("read", "1"), answer("read", "2", id="read-17")]},
        ]
    }
    request = parse(body)
    first, second, third = request.messages[0].tool_calls
    assert len({first.id, second.id, third.id}) == 3
    assert [(result.call_id, result.text) for result in request.messages[1].tool_results] == [
        (third.id, "l"),
        (first.id, "1"),
        (second.id, "2"),
    ]
    assert gemini.build_request(request)["contents"] == body["contents"]
    assert parse(body) == request


def test_an_answer_to_no_call_keeps_its_name():
    body = content({"functionResponse": {"name": "gone", "response": {"output": "x"}}})
    assert gemini.build_request(parse(body))["contents"] == body["contents"]


@pytest.mark.parametrize(
    ("response", "text", "is_error"),
    [
        ({"output": "x"}, "x", False),
        ({"result": "x"}, "x", False),
        ({"error": "no"}, "no", True),
        ({"output": {"a": 1}}, '{"a":1}', False),
        ({"temperature": 21, "unit": "C"}, '{"temperature":21,"unit":"C"}', False),
        ({}, "", False),
    ],
)
def test_whatever_a_function_answers_is_read_and_written_back(response, text, is_error):
    body = content({"functionResponse": {"id": "c", "name": "f", "response": response}})
    [result] = parse(body).messages[0].tool_results
    assert (result.text, result.is_error) == (text, is_error)
    assert gemini.build_request(parse(body))["contents"] == body["contents"]


def test_an_answer_that_was_rewritten_on_the_way_goes_out_rewritten():
    body = content({"functionResponse": {"id": "c", "name": "f", "response": {"secret": "s3cret"}}})
    [result] = parse(body).messages[0].tool_results
    hidden = ToolResult(call_id="c", content=(Text("[hidden]"),), extra=result.extra)
    request = ModelRequest(model="m", messages=(Message("user", (hidden,)),), dialect="gemini")
    built = json.dumps(gemini.build_request(request))
    assert "[hidden]" in built
    assert "s3cret" not in built


def test_a_function_can_show_pictures():
    shown = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    body = content({"functionResponse": {"id": "c", "name": "f", "response": {"output": "here"}, "parts": [shown]}})
    request = parse(body, model="gemini-3-pro")
    picture = Media(kind="image", media_type="image/png", data="AAAA")
    assert request.messages[0].tool_results[0].content == (Text("here"), picture)
    assert gemini.build_request(request)["contents"] == body["contents"]


def test_an_older_model_is_shown_pictures_beside_the_answer():
    result = ToolResult(call_id="c", content=(Text("here"), Media(kind="image", media_type="image/png", data="AAAA")))
    request = ModelRequest(model="gemini-2.5-pro", messages=(Message("user", (result, Text("So?"))),))
    [built] = gemini.build_request(request)["contents"]
    assert [next(iter(part)) for part in built["parts"]] == ["functionResponse", "text", "inlineData"]


def test_files_sounds_and_films_are_media():
    body = content(
        {"fileData": {"mimeType": "application/pdf", "fileUri": "https://h/v1beta/files/a", "displayName": "A"}},
        {"inlineData": {"mimeType": "audio/mp3", "data": "AAAA"}},
        {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/c"}, "videoMetadata": {"fps": 1}},
        {"fileData": {"fileUri": "https://youtu.be/x"}},
    )
    request = parse(body)
    assert [part.kind for part in request.messages[0].content] == ["document", "audio", "video", "document"]
    assert request.messages[0].content[0].title == "A"
    assert gemini.build_request(request)["contents"] == body["contents"]


def test_code_that_the_model_ran_is_kept_whole():
    parts = [
        {"executableCode": {"language": "PYTHON", "code": "print(1)"}, "thoughtSignature": "c2ln"},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}},
        {"text": "One.", "thoughtSignature": "c2ln"},
    ]
    request = parse(content(*parts, role="model"))
    assert request.messages[0].content[:2] == (
        Opaque("executableCode", parts[0]),
        Opaque("codeExecutionResult", parts[1]),
    )
    assert gemini.build_request(request)["contents"][0]["parts"] == parts


def test_schemas_of_the_wire_become_json_schema_and_go_back_as_they_came():
    parameters = {
        "type": "OBJECT",
        "properties": {
            "path": {"type": "STRING", "nullable": True},
            "kinds": {"type": "ARRAY", "items": {"type": "STRING", "enum": ["a", "b"]}, "minItems": "1"},
            "any_of": {"any_of": [{"type": "INTEGER"}, {"type": "NUMBER"}]},
        },
        "required": ["path"],
        "propertyOrdering": ["path", "kinds"],
    }
    body = {
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": parameters, "behavior": "BLOCKING"}]}],
        "generationConfig": {"responseMimeType": "application/json", "responseSchema": parameters},
    }
    request = parse(body)
    meant = {
        "type": "object",
        "properties": {
            "path": {"type": ["string", "null"]},
            "kinds": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "minItems": 1},
            "any_of": {"anyOf": [{"type": "integer"}, {"type": "number"}]},
        },
        "required": ["path"],
    }
    assert request.tools[0].input_schema == meant
    assert request.output_format is not None
    assert request.output_format.schema == meant
    built = gemini.build_request(request)
    assert (built["tools"], built["generationConfig"]) == (body["tools"], body["generationConfig"])


def test_a_schema_that_is_too_deep_is_refused():
    schema = {"type": "STRING"}
    for _ in range(5_000):
        schema = {"type": "ARRAY", "items": schema}
    with pytest.raises(ValidationError, match="deep"):
        parse({"tools": [{"functionDeclarations": [{"name": "f", "parameters": schema}]}]})


def test_tools_of_the_provider_keep_their_settings():
    tools = [
        {"googleSearch": {"excludeDomains": ["a"]}},
        {"codeExecution": {}},
        {"urlContext": {}},
        {"computerUse": {"environment": "ENVIRONMENT_BROWSER"}},
    ]
    request = parse({"tools": tools})
    assert [tool.kind for tool in request.tools] == ["googleSearch", "codeExecution", "urlContext", "computerUse"]
    assert gemini.build_request(request)["tools"] == tools
    assert not anthropic.build_request(request)["tools"]


@pytest.mark.parametrize(
    ("config", "choice"),
    [
        ({"mode": "AUTO"}, ToolChoice("auto")),
        ({"mode": "ANY"}, ToolChoice("required")),
        ({"mode": "NONE"}, ToolChoice("none")),
        ({"mode": "ANY", "allowedFunctionNames": ["f"]}, ToolChoice("tool", "f")),
        ({"mode": "ANY", "allowedFunctionNames": ["f", "g"]}, ToolChoice("required")),
        ({"mode": "VALIDATED"}, None),
    ],
)
def test_the_choice_of_a_tool_goes_back_as_it_came(config, choice):
    body = {"toolConfig": {"functionCallingConfig": config, "retrievalConfig": {"languageCode": "de"}}}
    request = parse(body)
    assert request.tool_choice == choice
    assert gemini.build_request(request)["toolConfig"] == body["toolConfig"]


@pytest.mark.parametrize(
    ("config", "thinking", "effort"),
    [
        ({"thinkingBudget": 0}, ThinkingConfig(mode="disabled"), None),
        ({"thinkingBudget": -1}, ThinkingConfig(mode="adaptive", extra={"thinkingBudget": -1}), None),
        ({"thinkingBudget": 9}, ThinkingConfig(mode="enabled", budget_tokens=9), None),
        ({"thinkingLevel": "HIGH"}, None, "high"),
        ({"includeThoughts": True}, ThinkingConfig(mode="adaptive", extra={"includeThoughts": True}), None),
    ],
)
def test_how_to_think_goes_back_as_it_came(config, thinking, effort):
    request = parse({"generationConfig": {"thinkingConfig": config}})
    assert (request.thinking, request.effort) == (thinking, effort)
    assert gemini.build_request(request)["generationConfig"]["thinkingConfig"] == config


@pytest.mark.parametrize(
    ("model", "asked", "config"),
    [
        ("gemini-2.5-pro", {"effort": "low"}, {"thinkingBudget": 1024}),
        ("gemini-2.5-pro", {"effort": "max"}, {"thinkingBudget": 24576}),
        ("gemini-3-pro", {"effort": "medium"}, {"thinkingLevel": "MEDIUM"}),
        ("gemini-3-pro", {"thinking": ThinkingConfig(mode="adaptive")}, {"includeThoughts": True}),
        (
            "gemini-3-pro",
            {"thinking": ThinkingConfig(mode="enabled", budget_tokens=9), "effort": "high"},
            {"thinkingBudget": 9, "includeThoughts": True},
        ),
        ("gemini-2.5-pro", {"thinking": ThinkingConfig(mode="disabled")}, {"thinkingBudget": 0}),
    ],
)
def test_another_wire_s_effort_is_said_in_the_model_s_words(model, asked, config):
    built = gemini.build_request(ModelRequest(model=model, dialect="anthropic", **asked))
    assert built["generationConfig"]["thinkingConfig"] == config


def test_a_conversation_of_another_wire_is_carried():
    request = ModelRequest(
        model="gemini-3-pro",
        dialect="anthropic",
        system=(Text("Be brief.", {"cache_control": {"type": "ephemeral"}}),),
        messages=(
            Message("user", (Text("List."), Text(""))),
            Message("assistant", (Thinking("hm", "theirs"), ToolCall(id="toolu_1", name="ls"))),
            Message("user", (ToolResult(call_id="toolu_1", content=(Text("a"), Text("b")), is_error=True),)),
            Message("assistant", (Thinking("only", "theirs"),)),
            Message("system", (Text("Hurry."),)),
        ),
        tools=(Tool(name="ls", strict=True), Tool(name="web", kind="web_search_20250305")),
        max_tokens=7,
        user="u",
        extra={"betas": ["x"]},
    )
    signature = "skip_thought_signature_validator"
    assert gemini.build_request(request) == {
        "systemInstruction": {"role": "user", "parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "List."}]},
            {
                "role": "model",
                "parts": [{"functionCall": {"id": "toolu_1", "name": "ls", "args": {}}, "thoughtSignature": signature}],
            },
            {
                "role": "user",
                "parts": [{"functionResponse": {"id": "toolu_1", "name": "ls", "response": {"error": "a\nb"}}}],
            },
            {"role": "user", "parts": [{"text": "Hurry."}]},
        ],
        "tools": [{"functionDeclarations": [{"name": "ls"}]}],
        "generationConfig": {"maxOutputTokens": 7},
    }


def test_a_model_that_signs_nothing_is_sent_no_signature():
    request = ModelRequest(model="gemini-2.5-pro", messages=(Message("assistant", (ToolCall(id="a", name="f"),)),))
    assert "thoughtSignature" not in json.dumps(gemini.build_request(request))


def test_a_file_that_another_provider_keeps_cannot_be_sent():
    request = ModelRequest(model="m", messages=(Message("user", (Media(kind="image", file_id="f"),)),))
    with pytest.raises(ValidationError, match="file id"):
        gemini.build_request(request)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"contents": [{"role": "system", "parts": []}]}, "contents.0.role"),
        ({"contents": "hello"}, "contents"),
        ({"contents": ["hello"]}, "contents.0"),
        (content({"text": 1}), "contents.0.parts.0.text"),
        (content({"functionCall": {"args": {}}}), "contents.0.parts.0.functionCall.name"),
        (content({"functionCall": {"name": "f", "args": []}}), "functionCall.args"),
        (content({"functionResponse": {"name": "f", "response": "x"}}), "functionResponse.response"),
        (content({"inlineData": {"mimeType": "image/png"}}), "inlineData.data"),
        (content({"fileData": 1}), "fileData"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools.0.functionDeclarations.0.name"),
        ({"tools": [{"functionDeclarations": [{"name": "f", "parameters": 1}]}]}, "parameters"),
        ({"tools": [{"googleSearch": 1}]}, "tools.0.googleSearch"),
        ({"generationConfig": {"maxOutputTokens": "many"}}, "generationConfig.maxOutputTokens"),
        ({"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": 1}}, "schema"),
        ({"toolConfig": {"functionCallingConfig": {"mode": 1}}}, "toolConfig.functionCallingConfig.mode"),
        (b"{", "JSON"),
        (b"[]", "body"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_its_place(body, place):
    with pytest.raises(ValidationError, match=place.replace(".", r"\.")):
        parse(body)


ANSWER = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "Let me see.", "thought": True},
                    {"text": "Reading."},
                    {"functionCall": {"name": "read", "args": {"path": "a"}}, "thoughtSignature": "c2ln"},
                ],
            },
            "finishReason": "STOP",
            "index": 0,
            "safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}],
        }
    ],
    "usageMetadata": {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 30,
        "candidatesTokenCount": 7,
        "thoughtsTokenCount": 5,
        "toolUsePromptTokenCount": 2,
        "totalTokenCount": 114,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}],
    },
    "modelVersion": "gemini-2.5-pro",
    "responseId": "r1",
}


def test_an_answer_is_understood():
    answer = gemini.parse_response(json.dumps(ANSWER).encode())
    assert (answer.id, answer.model, answer.stop_reason) == ("r1", "gemini-2.5-pro", "tool_use")
    [call] = answer.tool_calls
    assert (call.name, call.input, call.signature) == ("read", {"path": "a"}, "c2ln")
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.total_input_tokens) == (72, 30, 102)
    assert (usage.output_tokens, usage.reasoning_tokens) == (12, 5)


def test_an_answer_is_written_as_it_was():
    assert gemini.build_response(gemini.parse_response(ANSWER)) == ANSWER


def test_a_call_without_an_id_gets_one_that_no_other_answer_has():
    other = {**ANSWER, "responseId": "r2"}
    nameless = {name: value for name, value in ANSWER.items() if name != "responseId"}
    ids = [gemini.parse_response(body).tool_calls[0].id for body in (ANSWER, other, nameless, nameless)]
    assert len(set(ids)) == 4
    assert gemini.parse_response(ANSWER).tool_calls[0].id == ids[0]


def test_what_such_a_call_is_answered_goes_back_without_an_id_and_with_its_name():
    answers = [gemini.parse_response({**ANSWER, "responseId": name}) for name in ("r1", "r2")]
    messages = []
    for answer in answers:
        result = ToolResult(call_id=answer.tool_calls[0].id, content=(Text(answer.id),))
        messages += [Message("assistant", answer.content), Message("user", (result,))]
    built = gemini.build_request(ModelRequest(model="gemini-3-pro", messages=tuple(messages), dialect="gemini"))
    called = [
        part["functionCall"] for content in built["contents"] for part in content["parts"] if "functionCall" in part
    ]
    assert called == [{"name": "read", "args": {"path": "a"}}] * 2
    assert [content["parts"] for content in built["contents"] if content["role"] == "user"] == [
        [{"functionResponse": {"name": "read", "response": {"output": name}}}] for name in ("r1", "r2")
    ]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "end_turn"),
        ("MAX_TOKENS", "max_tokens"),
        ("SAFETY", "refusal"),
        ("PROHIBITED_CONTENT", "refusal"),
        ("MALFORMED_FUNCTION_CALL", "MALFORMED_FUNCTION_CALL"),
        ("OTHER", "OTHER"),
    ],
)
def test_why_it_stopped_goes_back_as_it_came(word, reason):
    body = {"candidates": [{"content": {"role": "model"}, "finishReason": word, "index": 0}]}
    answer = gemini.parse_response(body)
    assert answer.stop_reason == reason
    assert gemini.build_response(answer)["candidates"][0]["finishReason"] == word


def test_a_prompt_that_was_blocked_is_a_refusal():
    body = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 0, "totalTokenCount": 4},
        "modelVersion": "m",
        "responseId": "r",
    }
    answer = gemini.parse_response(body)
    assert (answer.stop_reason, answer.content, answer.usage.input_tokens) == ("refusal", (), 4)
    assert gemini.build_response(answer) == body
    data = b"".join(build_stream(gemini, response_events(answer)))
    assert assemble(parse_stream(gemini, [data])) == answer


@pytest.mark.parametrize("body", [{}, {"candidates": []}, {"candidates": [1]}, b"[", b"[1]", b"[]", b"[{}]"])
def test_what_is_no_answer_is_refused(body):
    with pytest.raises(ValidationError):
        gemini.parse_response(body)


STREAM = [
    {"candidates": [{"content": {"parts": [{"text": "Hm", "thought": True}]}}], "responseId": "r", "modelVersion": "m"},
    {"candidates": [{"content": {"parts": [{"text": "m.", "thought": True, "thoughtSignature": "c2ln"}]}}]},
    {"candidates": [{"content": {"parts": [{"text": "Hel"}]}, "index": 0}], "usageMetadata": {"promptTokenCount": 3}},
    {"candidates": [{"content": {"parts": [{"text": "lo"}, {"functionCall": {"id": "c", "name": "f"}}]}}]},
    {"candidates": [{"content": {"parts": [{"text": ""}]}, "finishReason": "STOP", "groundingMetadata": {"a": 1}}]},
    {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "thoughtsTokenCount": 1}},
]
SPELT = ModelResponse(
    id="r",
    model="m",
    content=(Thinking("Hmm.", "c2ln"), Text("Hello"), ToolCall(id="c", name="f")),
    stop_reason="tool_use",
    usage=Usage(input_tokens=3, output_tokens=3, reasoning_tokens=1),
    dialect="gemini",
    extra={"candidate": {"groundingMetadata": {"a": 1}}},
)


def sse(chunks):
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks)


@pytest.mark.parametrize("data", [sse(STREAM), json.dumps(STREAM, indent=2).encode()], ids=["sse", "list"])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_stream_of_chunks_is_one_answer_in_either_framing(data, size):
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert assemble(parse_stream(gemini, pieces)) == SPELT


def test_a_whole_list_is_an_answer_too():
    assert gemini.parse_response(json.dumps(STREAM).encode()) == SPELT


def test_text_comes_as_it_is_written():
    events = list(parse_stream(gemini, [sse(STREAM)]))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo"]
    assert [event.json for event in events if isinstance(event, InputDelta)] == ["{}"]


def test_a_signed_text_is_a_part_of_its_own():
    parts = [{"text": "a", "thoughtSignature": "c2ln"}, {"text": "b"}]
    body = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    answer = assemble(parse_stream(gemini, [sse([body])]))
    assert answer.content == (Text("a", {"thoughtSignature": "c2ln"}), Text("b"))


def test_a_stream_is_written_as_chunks_that_look_like_answers():
    response = ModelResponse(
        id="r",
        model="m",
        content=(Text("Hi"), ToolCall(id="c", name="f", input={"a": 1})),
        stop_reason="tool_use",
        usage=Usage(input_tokens=1, output_tokens=2),
    )
    data = b"".join(build_stream(gemini, response_events(response)))
    chunks = [json.loads(line[6:]) for line in data.decode().split("\n\n") if line]
    assert [chunk["candidates"][0]["content"].get("parts") for chunk in chunks] == [
        [{"text": "Hi"}],
        [{"functionCall": {"id": "c", "name": "f", "args": {"a": 1}}}],
        None,
    ]
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    assert chunks[-1]["usageMetadata"] == {"promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3}
    assert {chunk["responseId"] for chunk in chunks} == {"r"}


def test_a_list_is_valid_json_whatever_is_in_it():
    response = ModelResponse(id="r", model="m", content=(Text('a "]}{\\'),), stop_reason="end_turn")
    for events in (response_events(response, 1), [Failed(ModelError(kind="server", message="x"))], [Ended()]):
        builder = gemini.list_builder()
        data = b"".join(builder.encode(event) for event in events)
        assert isinstance(json.loads(data), list)


def test_a_list_is_cut_apart_wherever_it_breaks():
    chunks = [{"a": '"]}{[\\'}, {"b": [{"c": "é"}]}, {}]
    data = json.dumps(chunks, ensure_ascii=False, indent=1).encode()
    for size in (1, 2, 3, 50):
        decoder = ListDecoder()
        frames = [frame for at in range(0, len(data), size) for frame in decoder.feed(data[at : at + size])]
        assert [json.loads(frame.data) for frame in frames] == chunks


def test_an_item_without_end_is_not_kept_for_ever():
    decoder = ListDecoder(largest=100)
    with pytest.raises(ValueError, match="100 bytes"):
        decoder.feed(b'[{"a":"' + b"x" * 200)


def test_a_stream_that_ends_without_a_reason_is_incomplete():
    *_, last = parse_stream(gemini, [sse(STREAM[:3])])
    assert isinstance(last, Failed)
    assert last.error.kind == "incomplete"


@pytest.mark.parametrize("framing", ["sse", "list"])
def test_an_error_inside_a_stream_ends_it(framing):
    error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
    data = sse([STREAM[2], error]) if framing == "sse" else json.dumps([STREAM[2], error]).encode()
    *_, last = parse_stream(gemini, [data])
    assert isinstance(last, Failed)
    assert (last.error.kind, last.error.message, last.error.type) == (
        "overloaded",
        "The model is overloaded.",
        "UNAVAILABLE",
    )


def test_only_the_first_of_several_candidates_is_read():
    second = {"content": {"parts": [{"text": "no"}]}, "index": 1, "finishReason": "STOP"}
    first = {"content": {"parts": [{"text": "yes"}]}, "finishReason": "STOP"}
    assert gemini.parse_response({"candidates": [second, first]}).text == "yes"
    events = parse_stream(gemini, [sse([{"candidates": [first, second]}])])
    assert [event.part for event in events if isinstance(event, PartStarted)] == [Text("")]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"status": "INVALID_ARGUMENT", "message": "bad"}, "invalid_request"),
        (
            400,
            {"status": "INVALID_ARGUMENT", "message": "API key not valid.", "reason": "API_KEY_INVALID"},
            "authentication",
        ),
        (400, {"status": "INVALID_ARGUMENT", "message": "exceeds the maximum number of tokens allowed"}, "too_large"),
        (403, {"status": "PERMISSION_DENIED", "message": "no"}, "permission"),
        (404, {"status": "NOT_FOUND", "message": "no"}, "not_found"),
        (429, {"status": "RESOURCE_EXHAUSTED", "message": "slow"}, "rate_limit"),
        (500, {"status": "INTERNAL", "message": "oh"}, "server"),
        (503, {"status": "UNAVAILABLE", "message": "busy"}, "overloaded"),
        (504, {"status": "DEADLINE_EXCEEDED", "message": "late"}, "timeout"),
    ],
)
@pytest.mark.parametrize("in_list", [False, True])
def test_errors_are_understood(status, body, kind, in_list):
    reason = body.get("reason")
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}] if reason else []
    inner = {"code": status, "message": body["message"], "status": body["status"], "details": details}
    whole = {"error": inner}
    error = gemini.parse_error(status, json.dumps([whole] if in_list else whole).encode())
    assert (error.kind, error.message, error.status, error.type, error.code) == (
        kind,
        body["message"],
        status,
        body["status"],
        reason,
    )


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"error":"x"}', b'{"error":{"details":[1]}}', b"\xff"]
)
def test_a_body_that_is_no_error_still_is_one(body):
    error = gemini.parse_error(503, body, {"retry-after": "2"})
    assert (error.kind, error.status, error.retry_after) == ("overloaded", 503, 2)
    assert error.message


def test_how_long_to_wait_is_read_and_written():
    error = ModelError(kind="rate_limit", message="slow", retry_after=34.5)
    body = gemini.build_error(error)
    assert body["error"]["status"] == "RESOURCE_EXHAUSTED"
    read = gemini.parse_error(gemini.error_status(error), json.dumps(body).encode())
    assert (read.kind, read.retry_after, read.status) == ("rate_limit", 34.5, 429)


def test_tokens_are_counted_of_contents_or_of_a_whole_request():
    request = gemini.parse_token_count_request(content({"text": "hi"}), model="m")
    assert (request.model, request.messages[0].text) == ("m", "hi")
    whole = gemini.build_token_count_request(request)
    assert whole["generateContentRequest"]["model"] == "models/m"
    assert gemini.parse_token_count_request(whole) == request
    assert gemini.parse_token_count(gemini.build_token_count(31)) == 31


def test_the_list_of_models():
    [model] = gemini.build_models(["gemini-3-pro"])["models"]
    assert model["name"] == "models/gemini-3-pro"
    assert "generateContent" in model["supportedGenerationMethods"]
