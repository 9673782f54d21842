"""A model behind HTTP: every wire, what is tried again, and what goes wrong."""

import asyncio
import gc
import logging
from contextlib import aclosing, asynccontextmanager

import pytest

from computeragent.dialects import Ended, Media, Message, ModelRequest, Text, TextDelta, Tool, ToolResult, assemble
from computeragent.errors import ModelCallError
from computeragent.models import HttpModel, find, open_model
from computeragent.models.serving.http import HttpRequest, HttpResponse, HttpServer
from computeragent.testing.models import Break, ErrorReply, ModelSimulator, Reply, Rule, Script, ToolUse

pytestmark = pytest.mark.anyio

KEY = "sk-secret-0123456789"
WIRES = ["anthropic/claude-x", "openai/gpt-x", "openai-compatible/x", "gemini/gemini-x", "openrouter/a/x"]


def envs(url: str, key: str = KEY) -> dict[str, str]:
    names = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_COMPATIBLE_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY")
    bases = ("OPENAI_BASE_URL", "OPENAI_COMPATIBLE_BASE_URL", "OPENROUTER_BASE_URL")
    own = {"ANTHROPIC_BASE_URL": url, "GOOGLE_GEMINI_BASE_URL": url}
    return {**dict.fromkeys(names, key), **dict.fromkeys(bases, f"{url}/v1"), **own}


def ask(model, text: str = "hello", **more) -> ModelRequest:
    messages = (Message("user", (Text(text),)),)
    return ModelRequest(model="", messages=messages, dialect=model.dialect, max_tokens=100, **more)


async def answer(model, request: ModelRequest | None = None):
    return [event async for event in model.stream(request or ask(model))]


@asynccontextmanager
async def simulated(script: Script, name: str, **settings):
    async with ModelSimulator(script) as sim:
        model = open_model(name, envs(sim.url), **{"first_pause": 0.001, **settings})
        try:
            yield model, sim
        finally:
            await model.aclose()


@asynccontextmanager
async def served(respond, name: str = "claude-x", **settings):
    """A model behind a server whose every answer is given."""
    asked: list[HttpRequest] = []

    async def handle(request: HttpRequest) -> HttpResponse:
        asked.append(request)
        return respond(len(asked))

    server = HttpServer(handle)
    await server.start()
    model = open_model(name, envs(f"http://127.0.0.1:{server.port}"), **{"first_pause": 0.001, **settings})
    try:
        yield model, asked
    finally:
        await model.aclose()
        await server.stop()


async def failure(model, request: ModelRequest | None = None) -> ModelCallError:
    with pytest.raises(ModelCallError) as caught:
        await answer(model, request)
    assert KEY not in f"{caught.value.to_wire()} {caught.value!r}"
    return caught.value


def events(*data: str):
    async def body():
        for each in data:
            yield each.encode()

    return HttpResponse(headers={"content-type": "text/event-stream"}, body=body())


@pytest.mark.parametrize("name", WIRES)
async def test_every_provider_s_wire_answers(name):
    async with simulated(Script(require_key=KEY), name) as (model, sim):
        got = await answer(model)
        assert assemble(got).text == "You said: hello"
        assert isinstance(got[-1], Ended)
        assert (sim.requests[0].model, sim.requests[0].stream) == (model.name, True)


@pytest.mark.parametrize("name", WIRES[:4])
async def test_what_a_tool_showed_reaches_the_model(name):
    picture = Media(kind="image", media_type="image/png", data="iVBORw0KGgo=")
    turns = (Reply(tools=(ToolUse(name="look", input={"at": "é"}),)), Reply(text="A picture."))
    async with simulated(Script(rules=(Rule(match="look", turns=turns),)), name) as (model, sim):
        look = Tool(name="look", input_schema={"type": "object", "properties": {"at": {"type": "string"}}})
        request = ask(model, "look", tools=(look,))
        first = assemble(await answer(model, request))
        [call] = first.tool_calls
        assert call.input == {"at": "é"}
        result = ToolResult(call_id=call.id, content=(Text("Here:"), picture))
        messages = (*request.messages, Message("assistant", first.content), Message("user", (result,)))
        again = ModelRequest(model="", messages=messages, tools=(look,), dialect=model.dialect, max_tokens=100)
        assert assemble(await answer(model, again)).text == "A picture."
        assert picture.data in sim.requests[-1].http.body.decode()


async def test_the_computer_tool_s_beta_is_asked_for():
    async with simulated(Script(), "claude-x") as (model, sim):
        tool = Tool(name="computer", kind="computer_20250124", extra={"display_width_px": 8, "display_height_px": 8})
        await answer(model, ask(model, tools=(tool,), extra={"betas": ["context-1m-2025-08-07"]}))
        headers = sim.requests[0].headers
        assert headers["anthropic-beta"] == "computer-use-2025-01-24,context-1m-2025-08-07"
        assert headers["anthropic-version"] == "2023-06-01"
        assert "betas" not in sim.requests[0].json


@pytest.mark.parametrize("name", WIRES[:4])
@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_a_busy_provider_is_asked_again(name, status):
    reply = Reply(text="At last.", error=ErrorReply(status=status, times=2))
    async with simulated(Script(rules=(Rule(match="", turns=(reply,)),)), name) as (model, sim):
        assert assemble(await answer(model)).text == "At last."
        assert len(sim.requests) == 3


async def test_it_waits_as_long_as_it_is_told(monkeypatch):
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    reply = Reply(text="At last.", error=ErrorReply(status=429, times=1, retry_after=7))
    async with simulated(Script(rules=(Rule(match="", turns=(reply,)),)), "claude-x") as (model, _):
        monkeypatch.setattr("computeragent.models.http.asyncio.sleep", sleep)
        assert assemble(await answer(model)).text == "At last."
    assert 7 in pauses


async def test_it_does_not_wait_longer_than_it_may():
    reply = Reply(error=ErrorReply(status=429, retry_after=3600))
    async with simulated(Script(rules=(Rule(match="", turns=(reply,)),)), "claude-x") as (model, sim):
        error = await failure(model)
        assert len(sim.requests) == 1
        assert (error.details["kind"], error.details["retry_after"]) == ("rate_limit", 3600)


async def test_in_the_end_it_gives_up():
    reply = Reply(error=ErrorReply(status=503, message="still starting"))
    async with simulated(Script(rules=(Rule(match="", turns=(reply,)),)), "gpt-5", retries=2) as (model, sim):
        error = await failure(model)
        assert len(sim.requests) == 3
        assert "still starting" in error.message
        assert (error.details["status"], error.details["provider"]) == (503, "openai")


@pytest.mark.parametrize("name", WIRES[:4])
async def test_a_wrong_key_is_told_at_once_with_its_variable(name):
    async with ModelSimulator(Script(require_key="another")) as sim:
        model = open_model(name, envs(sim.url))
        error = await failure(model)
        assert len(sim.requests) == 1
        assert error.details["kind"] == "authentication"
        assert "_API_KEY" in error.hint
        await model.aclose()


async def test_a_key_that_the_provider_repeats_is_not_passed_on():
    body = b'{"error":{"message":"Incorrect API key provided: sk-secret-0123456789","code":"invalid_api_key"}}'
    async with served(lambda _: HttpResponse(status=401, body=body), "gpt-5") as (model, _):
        assert "***" in (await failure(model)).message


@pytest.mark.parametrize("name", WIRES[:4])
async def test_a_stream_that_breaks_before_it_said_anything_is_asked_for_again(name):
    reply = Reply(text="All of it.", broken=Break(how="cut", after=1, times=1))
    async with simulated(Script(rules=(Rule(match="", turns=(reply,)),)), name) as (model, sim):
        assert assemble(await answer(model)).text == "All of it."
        assert len(sim.requests) == 2


@pytest.mark.parametrize("name", WIRES[:4])
@pytest.mark.parametrize("how", ["cut", "error"])
async def test_a_stream_that_breaks_in_the_midst_fails_with_what_came_before(name, how):
    reply = Reply(text="All of it. " * 20, chunk_size=8, broken=Break(how=how, after=8, kind="overloaded"))
    async with simulated(Script(rules=(Rule(match="", turns=(reply,)),)), name) as (model, sim):
        came = []

        async def collect():
            async for event in model.stream(ask(model)):
                came.append(event)

        with pytest.raises(ModelCallError) as caught:
            await collect()
        assert any(isinstance(event, TextDelta) for event in came)
        assert not any(isinstance(event, Ended) for event in came)
        assert caught.value.details["kind"] == ("incomplete" if how == "cut" else "overloaded")
        assert len(sim.requests) == 1


@pytest.mark.parametrize(
    "response",
    [
        lambda _: HttpResponse(headers={"content-type": "text/event-stream"}, body=b"data: {\xff\xfe\n\n"),
        lambda _: HttpResponse(headers={"content-type": "text/event-stream"}, body=b"data: [1]\n\n"),
        lambda _: HttpResponse(headers={"content-type": "text/event-stream"}, body=b""),
        lambda _: HttpResponse(headers={"content-type": "text/html"}, body=b"<html>It works!</html>"),
        lambda _: HttpResponse(headers={"content-type": "application/json"}, body=b"{"),
        lambda _: HttpResponse(headers={"content-type": "application/json"}, body=b"[]"),
        lambda _: HttpResponse(status=302, headers={"location": "http://127.0.0.1:1/"}),
        lambda _: HttpResponse(status=204),
        lambda _: HttpResponse(status=500, body=b"\xff" * 100),
        lambda _: HttpResponse(status=404, body=b"x" * 1_000_000),
    ],
)
@pytest.mark.parametrize("name", WIRES[:4])
async def test_what_is_no_answer_is_a_clear_and_short_error(response, name):
    async with served(response, name, retries=1) as (model, _):
        error = await failure(model)
        assert error.details["kind"]
        assert len(error.message) < 1_200


async def test_a_server_that_does_not_stream_is_understood():
    body = (
        b'{"id":"r","object":"response","status":"completed","model":"x","output":[{"type":"message","id":"m",'
        b'"role":"assistant","status":"completed","content":[{"type":"output_text","text":"whole","annotations":[]}]}]}'
    )
    response = HttpResponse(headers={"content-type": "application/json; charset=utf-8"}, body=body)
    async with served(lambda _: response, "gpt-5") as (model, _):
        assert assemble(await answer(model)).text == "whole"


async def test_a_response_that_failed_is_no_answer():
    body = b'{"id":"r","status":"failed","error":{"code":"server_error","message":"out of order"},"output":[]}'
    response = HttpResponse(headers={"content-type": "application/json"}, body=body)
    async with served(lambda _: response, "gpt-5", retries=0) as (model, _):
        assert "out of order" in (await failure(model)).message


async def test_an_answer_without_end_is_cut_off():
    async def endless():
        while True:
            yield b": nothing yet\n\n" * 100

    def respond(_):
        return HttpResponse(headers={"content-type": "text/event-stream"}, body=endless())

    async with served(respond, largest=100_000) as (model, asked):
        assert "100000 bytes" in (await failure(model)).message
        assert len(asked) == 1


async def test_a_server_that_says_nothing_is_not_waited_for_for_ever():
    async def silent():
        yield b": here\n\n"
        await asyncio.sleep(30)

    def respond(_):
        return HttpResponse(headers={"content-type": "text/event-stream"}, body=silent())

    async with served(respond, silence=0.05) as (model, asked):
        assert (await failure(model)).details["kind"] == "timeout"
        assert len(asked) == 1


async def test_a_server_that_is_not_there_is_told():
    model = open_model("claude-x", envs("http://127.0.0.1:9"), retries=1, first_pause=0.001)
    error = await failure(model)
    assert "http://127.0.0.1:9/v1/messages cannot be reached" in error.message
    await model.aclose()


async def test_closing_the_iterator_ends_the_call():
    left = asyncio.Event()

    async def slow():
        try:
            yield b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
            while True:
                await asyncio.sleep(0.01)
                yield b": still here\n\n"
        finally:
            left.set()

    def respond(_):
        return HttpResponse(headers={"content-type": "text/event-stream"}, body=slow())

    async with served(respond, "openai-compatible/x") as (model, _):
        async with aclosing(model.stream(ask(model))) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    break
        gc.collect()
        async with asyncio.timeout(10):
            await left.wait()


async def test_cancelling_the_caller_ends_the_call():
    async with simulated(Script(rules=(Rule(match="", turns=(Reply(delay=30),)),)), "claude-x") as (model, sim):
        task = asyncio.create_task(answer(model))
        while not sim.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_many_requests_at_once_do_not_mix():
    async with simulated(Script(), "gpt-5") as (model, _):
        got = await asyncio.gather(*(answer(model, ask(model, f"number {n}")) for n in range(40)))
        assert [assemble(each).text for each in got] == [f"You said: number {n}" for n in range(40)]


async def test_a_request_that_the_wire_cannot_carry_is_refused_before_it_is_sent():
    async with simulated(Script(), "gpt-5") as (model, sim):
        film = Message("user", (Media(kind="video", data="AAAA"),))
        error = await failure(model, ModelRequest(model="", messages=(film,), dialect=model.dialect))
        assert error.details["kind"] == "invalid_request"
        assert sim.requests == []


async def test_nothing_of_a_call_is_logged(caplog):
    with caplog.at_level(logging.DEBUG):
        async with simulated(Script(), "claude-x") as (model, _):
            await answer(model)
    assert KEY not in caplog.text
    assert "HTTP Request" not in caplog.text


async def test_a_model_can_be_used_again_after_it_was_closed():
    async with simulated(Script(), "claude-x") as (model, _):
        await model.aclose()
        assert isinstance(model, HttpModel)
        assert assemble(await answer(model)).text == "You said: hello"


def test_a_model_s_endpoint_is_plain_data():
    assert find("gpt-5", envs("http://h")) == find("openai/gpt-5", envs("http://h"))


async def test_events_may_come_in_any_pieces():
    whole = (
        'event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"x","content":[]}}\n\n'
        'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
        'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Grüße"}}\n\n'
        'data: {"type":"content_block_stop","index":0}\n\ndata: {"type":"message_stop"}\n\n'
    )
    async with served(lambda _: events(*whole)) as (model, _):
        assert assemble(await answer(model)).text == "Grüße"
