"""The simulator as Google's Gemini API: Google's own client, both framings of a stream, models, tokens, faults."""

import base64
import json

import httpx2
import pytest
from google import genai
from google.genai import errors, types

from computeragent.dialects import Text, assemble, gemini, parse_stream
from computeragent.testing.models import ModelSimulator, parse_script

pytestmark = pytest.mark.anyio

MODEL = "gemini-2.5-pro"
PATH = f"/v1beta/models/{MODEL}"
SCRIPT = parse_script(
    r"""
models: [gemini-2.5-pro, gemini-3-pro-preview]
rules:
  - match: weather in (\w+)
    turns:
      - {thinking: I must look., text: Looking., tool: get_weather, input: {city: $1, some_days: 2}}
      - {text: "It says:", echo_tool_results: true}
  - match: look at this
    reply: A picture.
  - match: when busy
    reply: {error: {status: 429, message: Slow down., retry_after: 7}}
  - match: refuse
    reply: {text: No., stop_reason: refusal}
  - match: on a bad line
    reply: {text: All of the answer arrived., chunk_size: 4, drop_after: 4}
  - match: with a hiccup
    reply: {text: It went well., chunk_size: 4, sse_error: {after: 4, kind: overloaded, message: Busy.}}
"""
)
WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="get_weather",
            description="The weather.",
            parameters=types.Schema(
                type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}, required=["city"]
            ),
        )
    ]
)


@pytest.fixture
async def sim(anyio_backend):
    async with ModelSimulator(SCRIPT) as simulator:
        yield simulator


@pytest.fixture(params=["v1beta", "v1"])  # its clients of version 2 and 3
async def client(sim, request):
    async with httpx2.AsyncClient() as http:
        once = types.HttpRetryOptions(attempts=1)
        options = types.HttpOptions(
            base_url=sim.url, api_version=request.param, retry_options=once, httpx_async_client=http
        )
        made = genai.Client(api_key=sim.api_key, http_options=options)
        yield made.aio
        await made.aio.aclose()
        made.close()


def config(**more):
    disabled = types.AutomaticFunctionCallingConfig(disable=True)
    return types.GenerateContentConfig(automatic_function_calling=disabled, **more)


def body(text="hello"):
    return {"contents": [{"parts": [{"text": text}]}]}


async def test_google_s_client_gets_an_answer(client, sim):
    answer = await client.models.generate_content(model=MODEL, contents="hello", config=config(temperature=0.5))
    assert answer.text == "You said: hello"
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    assert answer.usage_metadata.total_token_count > 0
    assert (answer.model_version, bool(answer.response_id)) == (MODEL, True)
    [request] = sim.calls
    assert (request.dialect, request.model, request.parsed.temperature) == ("gemini", MODEL, 0.5)


async def test_google_s_client_reads_the_stream(client, sim):
    stream = await client.models.generate_content_stream(model=MODEL, contents="hello, out there, all of you")
    pieces = [chunk.text async for chunk in stream]
    assert len(pieces) > 2
    assert "".join(piece or "" for piece in pieces) == "You said: hello, out there, all of you"
    assert sim.calls[0].query == "alt=sse"
    assert sim.calls[0].stream


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_turn_with_a_tool(client, sim, streamed):
    contents = [types.Content(role="user", parts=[types.Part(text="weather in Rome?")])]
    chosen = config(tools=[WEATHER], thinking_config=types.ThinkingConfig(include_thoughts=True))
    if streamed:
        stream = await client.models.generate_content_stream(model=MODEL, contents=contents, config=chosen)
        parts = [part async for chunk in stream for part in chunk.candidates[0].content.parts or ()]
    else:
        answer = await client.models.generate_content(model=MODEL, contents=contents, config=chosen)
        parts = answer.candidates[0].content.parts
    assert [part.text for part in parts if part.thought and part.text] == ["I must look."]
    assert any(part.thought_signature for part in parts)
    [call] = [part.function_call for part in parts if part.function_call]
    assert (call.name, call.args) == ("get_weather", {"city": "Rome", "some_days": 2})
    result = types.FunctionResponse(id=call.id, name=call.name, response={"output": "rain"})
    contents += [
        types.Content(role="model", parts=parts),
        types.Content(role="user", parts=[types.Part(function_response=result)]),
    ]
    answer = await client.models.generate_content(model=MODEL, contents=contents, config=chosen)
    assert answer.text == "It says:\nrain"
    [received] = sim.calls[-1].tool_results
    assert (received.call_id, received.text) == (call.id, "rain")
    schema = sim.calls[-1].parsed.tools[0].input_schema
    assert schema == {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


async def test_google_s_client_calls_python_functions_by_itself(client):
    def get_weather(city: str, some_days: int) -> str:
        """The weather."""
        return f"sun for {some_days} days in {city}"

    answer = await client.models.generate_content(
        model=MODEL, contents="weather in Oslo?", config=types.GenerateContentConfig(tools=[get_weather])
    )
    assert answer.text == "It says:\nsun for 2 days in Oslo"


async def test_bytes_reach_the_model_as_they_are(client, sim):
    data = bytes(range(256))
    contents = [types.Part.from_bytes(data=data, mime_type="image/png"), "look at this"]
    answer = await client.models.generate_content(model=MODEL, contents=contents)
    assert answer.text == "A picture."
    picture = sim.calls[0].messages[0].content[0]
    assert base64.b64decode(picture.data, validate=True) == data


async def test_settings_and_system_instruction_reach_the_model(client, sim):
    chosen = config(
        system_instruction="Be brief.",
        max_output_tokens=9,
        stop_sequences=["x"],
        top_k=3,
        response_mime_type="application/json",
        response_schema={"type": "OBJECT", "properties": {"a": {"type": "STRING"}}},
        thinking_config=types.ThinkingConfig(thinking_level=types.ThinkingLevel.LOW),
        safety_settings=[types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_NONE")],
    )
    await client.models.generate_content(model=MODEL, contents="hello", config=chosen)
    parsed = sim.calls[0].parsed
    assert (sim.calls[0].system_text, parsed.max_tokens, parsed.top_k, parsed.effort) == ("Be brief.", 9, 3, "low")
    assert parsed.stop_sequences == ("x",)
    assert parsed.output_format.schema == {"type": "object", "properties": {"a": {"type": "string"}}}
    assert "safetySettings" in parsed.extra


async def test_a_refusal_is_told(client):
    answer = await client.models.generate_content(model=MODEL, contents="refuse")
    assert answer.candidates[0].finish_reason == types.FinishReason.SAFETY


async def test_models_are_listed_and_described(client):
    listed = [model.name async for model in await client.models.list()]
    assert listed == ["models/gemini-2.5-pro", "models/gemini-3-pro-preview"]
    assert (await client.models.get(model=MODEL)).name == f"models/{MODEL}"
    with pytest.raises(errors.ClientError) as caught:
        await client.models.get(model="gemini-9")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


async def test_tokens_are_counted(client, sim):
    few = await client.models.count_tokens(model=MODEL, contents="hello")
    many = await client.models.count_tokens(model=MODEL, contents="hello " * 100)
    assert 0 < few.total_tokens < many.total_tokens
    assert sim.calls == []


async def test_a_busy_provider_s_error_is_google_s(client):
    with pytest.raises(errors.ClientError) as caught:
        await client.models.generate_content(model=MODEL, contents="when busy")
    assert (caught.value.code, caught.value.status, caught.value.message) == (429, "RESOURCE_EXHAUSTED", "Slow down.")


async def test_a_stream_that_breaks_is_noticed_by_google_s_client(client):
    stream = await client.models.generate_content_stream(model=MODEL, contents="with a hiccup")
    with pytest.raises(errors.APIError, match="Busy"):
        _ = [chunk async for chunk in stream]
    stream = await client.models.generate_content_stream(model=MODEL, contents="on a bad line")
    with pytest.raises(httpx2.HTTPError):
        _ = [chunk async for chunk in stream]


@pytest.mark.parametrize("place", ["header", "query", "bearer"])
async def test_a_key_is_found_wherever_it_stands(place):
    headers = {"header": {"x-goog-api-key": "right"}, "query": {}, "bearer": {"authorization": "Bearer right"}}[place]
    query = "?key=right" if place == "query" else ""
    async with ModelSimulator(SCRIPT, require_key="right") as sim, httpx2.AsyncClient(base_url=sim.url) as http:
        good = await http.post(f"{PATH}:generateContent{query}", json=body(), headers=headers)
        bad = await http.post(f"{PATH}:generateContent?key=wrong", json=body())
    assert good.status_code == 200
    assert (bad.status_code, bad.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


async def test_without_alt_sse_a_stream_is_a_list(sim):
    async with httpx2.AsyncClient(base_url=sim.url) as http:
        answer = await http.post(f"{PATH}:streamGenerateContent?key=x", json=body("hello, out there, all of you"))
    assert answer.headers["content-type"].startswith("application/json")
    assert len(answer.json()) > 2
    assert assemble(parse_stream(gemini, [answer.content])).content == (Text("You said: hello, out there, all of you"),)
    assert gemini.parse_response(answer.content).stop_reason == "end_turn"


@pytest.mark.parametrize("prefix", ["", "/proxy", "/v1/projects/p/locations/l/publishers/google"])
async def test_anything_may_stand_before_the_path(sim, prefix):
    async with httpx2.AsyncClient(base_url=sim.url) as http:
        answer = await http.post(f"{prefix}/models/{MODEL}:generateContent", json=body())
    assert gemini.parse_response(answer.content).text == "You said: hello"


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "word"),
    [
        ("POST", f"{PATH}:generateContent", b"{", 400, "INVALID_ARGUMENT"),
        ("POST", f"{PATH}:streamGenerateContent?alt=sse", b"[]", 400, "INVALID_ARGUMENT"),
        ("POST", f"{PATH}:generateContent", b'{"contents":[{"role":"robot"}]}', 400, "INVALID_ARGUMENT"),
        ("POST", f"{PATH}:countTokens", b'{"contents":1}', 400, "INVALID_ARGUMENT"),
        ("POST", f"{PATH}:embedContent", b"{}", 404, "NOT_FOUND"),
        ("POST", "/v1beta/cachedContents", b"{}", 404, "NOT_FOUND"),
        ("PUT", f"{PATH}:generateContent", b"{}", 405, "INVALID_ARGUMENT"),
    ],
)
async def test_bad_requests_are_refused_in_google_s_words(sim, method, path, content, status, word):
    async with httpx2.AsyncClient(base_url=sim.url) as http:
        answer = await http.request(method, path, content=content)
    assert (answer.status_code, answer.json()["error"]["status"]) == (status, word)
    assert answer.json()["error"]["message"]


async def test_openai_s_form_of_google_s_api_is_still_there(sim):
    async with httpx2.AsyncClient(base_url=sim.url) as http:
        chat = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
        answer = await http.post("/v1beta/openai/chat/completions", content=json.dumps(chat))
    assert answer.json()["choices"][0]["message"]["content"] == "You said: hello"
