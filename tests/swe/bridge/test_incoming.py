"""What agents say, as Inspect has it: the shapes that only one wire or one agent knows."""

from __future__ import annotations

import base64
import json

import pytest
from inspect_ai.model import ContentAudio, ContentDocument, ContentImage, ContentReasoning, ContentText, ContentVideo

from computeragent.dialects import anthropic, gemini, openai_chat, openai_responses
from computeragent.dialects.model import Media, Message, ModelRequest
from computeragent.errors import ValidationError
from computeragent.swe.bridge.incoming import config_of, messages_of
from computeragent.swe.bridge.tools import declared

FUNCTION = {"type": "function", "name": "add", "description": "adds", "parameters": {"type": "object"}}


def read(request: ModelRequest):
    return messages_of(request, declared(request, None))


def responses(*items, **more):
    return openai_responses.parse_request({"model": "m", "input": list(items), **more})


def test_a_result_that_is_sent_twice_is_there_once():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "3"}
    request = openai_chat.parse_request({"model": "m", "messages": [answer, result, result, answer, result]})
    roles = [(each.role, each.text) for each in read(request)]
    assert roles == [("assistant", ""), ("tool", "3"), ("assistant", ""), ("tool", "3")], "an id may be used again"


def test_a_result_of_gemini_finds_its_call_by_name():
    parts = [{"functionCall": {"name": "look", "args": {"x": 1}}}]
    answer = [{"functionResponse": {"name": "look", "response": {"error": "no light"}}}, {"text": "So?"}]
    contents = [{"role": "model", "parts": parts}, {"role": "user", "parts": answer}]
    assistant, result, user = read(gemini.parse_request({"contents": contents}, model="gemini-x"))
    assert result.tool_call_id == assistant.tool_calls[0].id
    assert (result.function, result.error.message, user.text) == ("look", "no light", "So?")


def test_each_block_of_a_system_prompt_stays_one():
    system = [{"type": "text", "text": "x-anthropic-billing-header: 1"}, {"type": "text", "text": "Be brief."}]
    late = {"role": "system", "content": "Hurry."}
    request = anthropic.parse_request({"model": "m", "system": system, "messages": [late]})
    assert [(each.role, each.text) for each in read(request)] == [
        ("system", "x-anthropic-billing-header: 1"),
        ("system", "Be brief."),
        ("system", "Hurry."),
    ]


def test_arguments_that_are_no_json_object_are_said_to_be_none():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{oops"}}
    request = openai_chat.parse_request({"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]})
    [message] = read(request)
    assert message.tool_calls[0].arguments == {}
    assert "{oops" in message.tool_calls[0].parse_error


def test_tools_that_codex_declares_in_the_conversation():
    item = {"type": "additional_tools", "tools": [FUNCTION, {"type": "custom", "name": "patch", "description": "p"}]}
    request = responses(item, {"role": "user", "content": "hi"})
    assert [tool.name for tool in declared(request, None).tools] == ["add", "patch"]
    assert [(each.role, each.text) for each in read(request)] == [("user", "hi")]
    odd = responses({"type": "additional_tools", "tools": [7]}, {"type": "additional_tools", "tools": "x"})
    assert declared(odd, None).tools == ()


def test_what_another_agent_says_is_a_message_of_its_own():
    item = {"type": "agent_message", "author": "scout", "content": [{"type": "input_text", "text": "found it"}]}
    [message] = read(responses(item))
    assert (message.role, message.text) == ("user", "Agent message from scout:\nfound it")


def test_reasoning_that_nobody_here_remembers():
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "sealed"},
        {"type": "text", "text": "Three."},
    ]
    [message] = read(anthropic.parse_request({"model": "m", "messages": [{"role": "assistant", "content": blocks}]}))
    assert message.content == [
        ContentReasoning(reasoning="sig", summary="hm", redacted=True),
        ContentReasoning(reasoning="sealed", redacted=True),
        ContentText(text="Three."),
    ]


def test_documents_sounds_and_films():
    media = [
        Media(kind="document", text="plain words", title="notes.txt"),
        Media(kind="document", media_type="application/pdf", data="JVBERg==", title="a.pdf"),
        Media(kind="audio", media_type="audio/wav", data="AAAA"),
        Media(kind="video", media_type="video/mp4", data="AAAA"),
        Media(kind="image", data="AAAA", extra={"detail": "low"}),
    ]
    [message] = read(ModelRequest(model="m", messages=(Message("user", tuple(media)),)))
    notes, paper, sound, film, image = message.content
    assert base64.b64decode(notes.document.partition(",")[2]) == b"plain words"
    assert (type(notes), notes.filename) == (ContentDocument, "notes.txt")
    assert (paper.mime_type, paper.document) == ("application/pdf", "data:application/pdf;base64,JVBERg==")
    assert (type(sound), sound.format, type(film), film.format) == (ContentAudio, "wav", ContentVideo, "mp4")
    assert (type(image), image.image, image.detail) == (ContentImage, "data:image/png;base64,AAAA", "low")
    for bad in (
        Media(kind="audio", media_type="audio/ogg", data="AAAA"),
        Media(kind="image", url="file:///etc/passwd"),
        Media(kind="document", file_id="file-1"),
    ):
        with pytest.raises(ValidationError):
            read(ModelRequest(model="m", messages=(Message("user", (bad,)),)))


def test_a_block_that_nobody_knows_is_not_lost():
    block = {"type": "search_result", "title": "Found", "content": []}
    [message] = read(anthropic.parse_request({"model": "m", "messages": [{"role": "user", "content": [block]}]}))
    assert json.loads(message.text) == block


@pytest.mark.parametrize(("effort", "kept"), [("high", "high"), ("unheard-of", None)])
def test_effort_counts_where_inspect_has_the_word(effort, kept):
    request = responses({"role": "user", "content": "hi"}, reasoning={"effort": effort})
    assert config_of(request, forward=True).reasoning_effort == kept
    assert config_of(request, forward=False).reasoning_effort is None
