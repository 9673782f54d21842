"""The simulator as HTTP clients see it."""

import contextlib
import json

import anyio
import httpx2
import pytest

from computeragent.dialects import Failed, anthropic, assemble, bedrock, openai_chat, parse_stream
from computeragent.errors import ScriptError
from computeragent.testing.models import ModelSimulator, parse_script, serve

pytestmark = pytest.mark.anyio

SCRIPT = parse_script(
    r"""
require_key: secret
models: [small, large]
rules:
  - match: write (\w+)
    turns:
      - {thinking: Hm., text: Writing., tool: Write, input: {file_path: $1}}
      - {text: "Result:", echo_tool_results: true}
  - match: busy
    reply: {text: better now, error: {status: 529, times: 2, retry_after: 0.5}}
  - match: throttled
    reply: {error: {status: 429, message: slow down}}
  - match: cut
    reply: {text: a long enough answer, chunk_size: 5, drop_after: 4}
  - match: late cut
    reply: {text: x, drop_after: 99}
  - match: fault
    reply: {text: whole, sse_error: {kind: overloaded, after: 3, times: 1}}
  - match: wait
    reply: {text: abcdef, delay: 0.05, chunk_delay: 0.02, chunk_size: 1}
"""
)
KEY = {"x-api-key": "secret", "anthropic-version": "2023-06-01"}
TOOLS = [{"name": "Write", "input_schema": {"type": "object"}}]


@pytest.fixture
async def sim(anyio_backend):
    async with ModelSimulator(SCRIPT) as simulator:
        yield simulator


@pytest.fixture
async def client(sim):
    async with httpx2.AsyncClient(base_url=sim.url, headers=KEY) as http:
        yield http


def messages(text, **more):
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": text}], **more}


async def test_a_message_is_answered(sim, client):
    answer = await client.post("/v1/messages?beta=true", json=messages("write a", tools=TOOLS))
    response = anthropic.parse_response(answer.content)
    assert answer.status_code == 200
    assert response.text == "Writing."
    assert response.content[0].text == "Hm."
    assert response.content[0].signature
    assert response.tool_calls[0].input == {"file_path": "a"}
    assert response.stop_reason == "tool_use"
    assert response.usage.input_tokens > 0


async def test_a_streamed_message_says_the_same(sim, client):
    body = messages("write a", tools=TOOLS)
    whole = anthropic.parse_response((await client.post("/v1/messages", json=body)).content)
    answer = await client.post("/v1/messages", json={**body, "stream": True})
    streamed = assemble(parse_stream(anthropic, [answer.content]))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (streamed.text, streamed.stop_reason) == (whole.text, whole.stop_reason)
    assert streamed.tool_calls[0].input == whole.tool_calls[0].input
    assert streamed.usage == whole.usage
    assert streamed.tool_calls[0].id != whole.tool_calls[0].id  # two answers, even to one conversation
    assert b'"type":"message_delta"' in answer.content
    assert b'"input_tokens"' in answer.content.split(b'"type":"message_delta"')[1]


async def test_a_completion_is_answered_whole_and_streamed(sim, client):
    tools = [{"type": "function", "function": {"name": "Write", "parameters": {"type": "object"}}}]
    body = {"model": "m", "messages": [{"role": "user", "content": "write a"}], "tools": tools}
    bearer = {"authorization": "Bearer secret"}
    answer = await client.post("/v1/chat/completions", json=body, headers=bearer)
    whole = openai_chat.parse_response(answer.content)
    stream = {**body, "stream": True, "stream_options": {"include_usage": True}}
    answer = await client.post("/v1/chat/completions", json=stream, headers=bearer)
    streamed = assemble(parse_stream(openai_chat, [answer.content]))
    assert streamed.tool_calls[0].input == whole.tool_calls[0].input == {"file_path": "a"}
    assert streamed.usage == whole.usage
    assert answer.content.endswith(b"data: [DONE]\n\n")


async def test_bedrock_is_answered_whole_and_streamed(sim, client):
    body = {"anthropic_version": bedrock.VERSION, "max_tokens": 9, "messages": messages("hello")["messages"]}
    bearer = {"authorization": "Bearer secret"}
    answer = await client.post("/model/us.anthropic.claude-opus-5-5-v1%3A0/invoke", json=body, headers=bearer)
    assert anthropic.parse_response(answer.content).text == "You said: hello"
    answer = await client.post("/model/a%2Fb/invoke-with-response-stream", json=body, headers=bearer)
    parser = bedrock.stream_parser()
    assert assemble([*parser.feed(answer.content), *parser.finish()]).text == "You said: hello"
    assert [request.model for request in sim.calls] == ["us.anthropic.claude-opus-5-5-v1:0", "a/b"]
    assert (await client.get("/inference-profiles")).status_code == 404


async def test_a_tool_result_reaches_the_model_and_the_record(sim, client):
    first = (await client.post("/v1/messages", json=messages("write a", tools=TOOLS))).json()
    call = next(block for block in first["content"] if block["type"] == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "42 bytes"}
    body = messages("write a", tools=TOOLS, system="Be kind.")
    body["messages"] += [{"role": "assistant", "content": first["content"]}, {"role": "user", "content": [result]}]
    second = await client.post("/v1/messages", json=body)
    assert anthropic.parse_response(second.content).text == "Result:\n42 bytes"
    recorded = sim.requests[1]
    assert recorded.tool_results[0].text == "42 bytes"
    assert (recorded.model, recorded.api_key, recorded.status) == ("m", "secret", 200)
    assert (recorded.user_text, recorded.system_text, recorded.tool_names) == ("write a", "Be kind.", ["Write"])
    assert recorded.json == body
    assert "42 bytes" in recorded.text
    assert "secret" not in repr(recorded)


async def test_an_error_comes_as_often_as_the_script_says(sim, client):
    statuses = []
    for _ in range(3):
        answer = await client.post("/v1/messages", json=messages("busy"))
        statuses.append(answer.status_code)
    assert statuses == [529, 529, 200]
    other = await client.post("/v1/messages", json=messages("busy, another conversation"))
    assert other.status_code == 529
    assert other.headers["retry-after"] == "0.5"
    assert other.json()["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/messages", {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}),
        (
            "/v1/chat/completions",
            {"error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}},
        ),
        ("/model/m/invoke", {"message": "slow down"}),
    ],
)
async def test_errors_have_the_shape_of_the_dialect(client, path, error):
    answer = await client.post(path, json=messages("throttled"), headers={"authorization": "Bearer secret"})
    assert (answer.status_code, answer.json()) == (429, error)


@pytest.mark.parametrize("text", ["cut", "late cut"])
async def test_a_cut_stream_breaks_off_and_a_whole_answer_does_not(client, text):
    with pytest.raises(httpx2.RemoteProtocolError):
        await client.post("/v1/messages", json=messages(text, stream=True))
    assert (await client.post("/v1/messages", json=messages(text))).status_code == 200


async def test_what_was_sent_before_the_cut_arrives(client):
    received = b""
    async with client.stream("POST", "/v1/messages", json=messages("cut", stream=True)) as answer:
        with contextlib.suppress(httpx2.RemoteProtocolError):
            async for piece in answer.aiter_bytes():
                received += piece
    assert received.count(b"event: ") == 4


async def test_an_error_event_breaks_a_stream_once(client):
    body = messages("fault", stream=True)
    events = list(parse_stream(anthropic, [(await client.post("/v1/messages", json=body)).content]))
    assert isinstance(events[-1], Failed)
    assert (len(events), events[-1].error.kind) == (4, "overloaded")
    again = assemble(parse_stream(anthropic, [(await client.post("/v1/messages", json=body)).content]))
    assert again.text == "whole"


async def test_answers_take_the_time_that_the_script_says(client):
    before = anyio.current_time()
    await client.post("/v1/messages", json=messages("wait", stream=True))
    assert anyio.current_time() - before > 0.2


async def test_a_wrong_key_is_refused(client, sim):
    answer = await client.post("/v1/messages", json=messages("hello"), headers={"x-api-key": "other"})
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert sim.requests[0].parsed is None


async def test_tokens_are_counted(client, sim):
    count = await client.post("/v1/messages/count_tokens?beta=true", json=messages("x" * 388))
    answer = await client.post("/v1/messages", json=messages("x" * 388))
    assert count.json() == {"input_tokens": 100}
    assert answer.json()["usage"]["input_tokens"] == 100
    assert (len(sim.requests), len(sim.calls)) == (2, 1)


async def test_models_are_listed_in_the_callers_dialect(client, sim):
    assert [model["type"] for model in (await client.get("/v1/models")).json()["data"]] == ["model", "model"]
    async with httpx2.AsyncClient(headers={"authorization": "Bearer x"}) as other:
        listed = (await other.get(f"{sim.url}/v1/models")).json()
    assert [(model["id"], model["object"]) for model in listed["data"]] == [("small", "model"), ("large", "model")]


async def test_signs_of_life(client):
    assert (await client.head("/api/hello")).status_code == 200
    assert (await client.get("/health")).json()["status"] == "ok"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/nothing", b"{}", 404),
        ("GET", "/v1/nothing", b"", 404),
        ("GET", "/v1/messages", b"", 405),
        ("POST", "/v1/messages", b"{", 400),
        ("POST", "/v1/messages", b'{"model": 1}', 400),
        ("POST", "/v1/messages/count_tokens", b"[]", 400),
        ("POST", "/v1/chat/completions", b"\xff", 400),
    ],
)
async def test_a_wrong_request_gets_a_json_error(client, method, path, body, status):
    answer = await client.request(method, path, content=body, headers={"authorization": "Bearer secret"})
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


async def test_a_prefix_before_the_path_does_not_matter(client):
    answer = await client.post("/proxy/anthropic/v1/messages", json=messages("hello"))
    assert answer.status_code == 200


async def test_a_hundred_conversations_at_once_get_their_own_answers(sim):
    answers = {}
    async with httpx2.AsyncClient(base_url=sim.url, headers=KEY, limits=httpx2.Limits(max_connections=100)) as http:

        async def talk(number):
            answer = await http.post("/v1/messages", json=messages(f"write n{number}", tools=TOOLS, stream=True))
            answers[number] = assemble(parse_stream(anthropic, [answer.content]))

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(talk, number)
    assert all(answers[n].tool_calls[0].input == {"file_path": f"n{n}"} for n in range(100))
    assert len({answer.tool_calls[0].id for answer in answers.values()}) == 100


async def test_only_the_newest_requests_are_kept_when_bounded():
    async with ModelSimulator(keep=2) as sim, httpx2.AsyncClient(base_url=sim.url) as http:
        for text in "abc":
            await http.post("/v1/messages", json=messages(text))
    assert [request.user_text for request in sim.requests] == ["b", "c"]


async def test_a_script_file_is_read_on_entry(tmp_path):
    path = tmp_path / "script.yaml"
    path.write_text("rulez: []")
    with pytest.raises(ScriptError, match=r"script.yaml:1: unknown key `rulez`"):
        async with ModelSimulator(path):
            pass


def test_it_runs_in_a_thread_for_code_that_is_not_asynchronous():
    with ModelSimulator.start_in_thread(SCRIPT) as sim:
        answer = httpx2.post(f"{sim.url}/v1/messages", json=messages("hello"), headers={"x-api-key": sim.api_key})
    assert answer.json()["content"][0]["text"] == "You said: hello"
    assert sim.requests[0].user_text == "hello"


async def test_serve_runs_until_it_is_cancelled():
    seen = []
    async with anyio.create_task_group() as group:
        ready = anyio.Event()
        urls = []

        def started(sim):
            urls.append(sim.url)
            ready.set()

        group.start_soon(lambda: serve(port=0, on_ready=started, on_request=lambda record: seen.append(record.status)))
        await ready.wait()
        async with httpx2.AsyncClient() as http:
            answer = await http.post(f"{urls[0]}/v1/messages", json=messages("hello"))
        group.cancel_scope.cancel()
    assert json.loads(answer.content)["content"][0]["text"] == "You said: hello"
    assert seen == [200]
