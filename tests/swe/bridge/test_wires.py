"""Every wire, spoken by its provider's own client, to a bridge inside of a real evaluation."""

from __future__ import annotations

import pytest
from inspect_ai.model import ContentImage, ContentReasoning, ModelUsage
from inspect_ai.tool import ToolFunction

from .clients import PIXEL, WIRES, Asking, ask, client_of, post, results, user
from .inspecting import Model, called, evaluate, events, finished, reasoned, said, texts

wires = pytest.mark.parametrize("wire", WIRES)
STOPS = {"anthropic": "end_turn", "chat": "stop", "responses": "completed", "gemini": "STOP"}
CALL_STOPS = {"anthropic": "tool_use", "chat": "tool_calls", "responses": "completed", "gemini": "STOP"}


@wires
def test_a_text_comes_whole_and_as_a_stream(wire):
    model, came = Model("Grüße, *world*\n"), []

    async def body(bridge):
        came.extend([await ask(wire, bridge, Asking(system="Be brief.", stream=stream)) for stream in (False, True)])

    sample = finished(evaluate(body, model))
    for each in came:
        assert (each.text, each.stop, each.tokens) == ("Grüße, *world*\n", STOPS[wire], (11, 5))
    assert model.asked[0].texts == model.asked[1].texts == [("system", "Be brief."), ("user", "hi")]
    assert sample.model_usage["mockllm/model"].input_tokens == 22
    assert len(events(sample, "model")) == 2


@wires
def test_calls_in_one_answer_their_results_and_what_follows(wire):
    model = Model(called(("add", {"x": 1, "y": 2}), ("look", {}), text="Two things."), "Done.")

    async def body(bridge):
        for stream in (False, True):
            model._outputs[:] = [called(("add", {"x": 1, "y": 2}), ("look", {}), text="Two things."), "Done."]
            first = await ask(wire, bridge, Asking("add", tools=("add", "look"), must=True, stream=stream))
            assert [(name, given) for _, name, given in first.calls] == [("add", {"x": 1, "y": 2}), ("look", {})]
            assert (first.text, first.stop) == ("Two things.", CALL_STOPS[wire])
            answered = results(wire, (first.calls[0][0], "add", "3"), (first.calls[1][0], "look", "nothing"))
            turns = [*user(wire, "add"), *first.answer, *answered]
            last = await ask(wire, bridge, Asking("and?", tools=("add", "look"), turns=turns, stream=stream))
            assert last.text == "Done."
        assert texts(bridge.state.messages) == [
            ("user", "add"),
            ("assistant", "Two things."),
            ("tool", "3"),
            ("tool", "nothing"),
            ("user", "and?"),
            ("assistant", "Done."),
        ]
        assert bridge.state.output.completion == "Done."

    finished(evaluate(body, model, prompt="add"))
    first, second = model.asked[:2]
    assert first.choice == "any"
    assert [tool.name for tool in first.tools] == ["add", "look"]
    assert first.tools[0].description == "do add"
    assert list(first.tools[0].parameters.properties) == ["x", "y"]
    call, other = second.messages[1].tool_calls
    assert (call.function, call.arguments, other.function) == ("add", {"x": 1, "y": 2}, "look")
    results_of = [message for message in second.messages if message.role == "tool"]
    assert [(each.tool_call_id, each.function) for each in results_of] == [(call.id, "add"), (other.id, "look")]


@wires
def test_an_image_reaches_the_model(wire):
    model = Model("a pixel")

    async def body(bridge):
        assert (await ask(wire, bridge, Asking("What is it?", image=True))).text == "a pixel"

    finished(evaluate(body, model))
    [message] = model.asked[0].messages
    [image] = [each for each in message.content if isinstance(each, ContentImage)]
    assert image.image == f"data:image/png;base64,{PIXEL}"


@wires
def test_reasoning_and_its_signature_reach_the_model_again(wire):
    model = Model(reasoned("I count.", "Three.", "c2lnbmVk"), "Sure.")
    came = []

    async def body(bridge):
        for stream in (False, True):
            model._outputs[:] = [reasoned("I count.", "Three.", "c2lnbmVk"), "Sure."]
            first = await ask(wire, bridge, Asking("How many?", stream=stream))
            came.append(first)
            turns = [*user(wire, "How many?"), *first.answer]
            await ask(wire, bridge, Asking("Sure?", turns=turns, stream=stream))

    finished(evaluate(body, model))
    assert [each.text for each in came] == ["Three.", "Three."]
    if wire != "chat":  # which has no word for it
        assert all("I count." in "".join(each.thoughts) for each in came)
    if wire in {"anthropic", "responses"}:
        assert came[0].thoughts == came[1].thoughts == ["I count.|c2lnbmVk"]
    for asked in (model.asked[1], model.asked[3]):
        [reasoning] = [each for each in asked.messages[1].content if isinstance(each, ContentReasoning)]
        assert (reasoning.summary, reasoning.reasoning, reasoning.redacted) == ("I count.", "c2lnbmVk", True)


@wires
def test_why_an_answer_ended_and_what_it_cost(wire):
    cut = said("half")
    cut.choices[0].stop_reason = "max_tokens"
    refused = said("")
    refused.choices[0].stop_reason = "content_filter"
    usage = ModelUsage(
        input_tokens=7, output_tokens=9, total_tokens=26, input_tokens_cache_read=6, input_tokens_cache_write=4
    )
    model = Model(cut, refused, lambda *_: said("cached", usage))
    came = []

    async def body(bridge):
        came.append(await ask(wire, bridge, Asking()))
        assert bridge.last_stop_reason == "max_tokens"
        came.append(await ask(wire, bridge, Asking()))
        assert bridge.refused
        came.append(await ask(wire, bridge, Asking()))
        assert not bridge.refused

    finished(evaluate(body, model))
    reasons = {
        "anthropic": ["max_tokens", "refusal"],
        "chat": ["length", "content_filter"],
        "responses": ["incomplete", "incomplete"],
        "gemini": ["MAX_TOKENS", "SAFETY"],
    }
    assert [each.stop for each in came[:2]] == reasons[wire]
    assert came[2].tokens == ((7 if wire == "anthropic" else 17), 9)


def test_one_tool_may_be_demanded_but_never_one_that_is_withheld():
    model = Model("ok")

    async def body(bridge):
        tools = [
            {"type": "web_search_20250305", "name": "web_search"},
            {"name": "add", "description": "adds", "input_schema": {"type": "object"}},
        ]
        async with client_of("anthropic", bridge) as client:
            for name in ("add", "web_search"):
                await client.messages.create(
                    model="inspect",
                    max_tokens=9,
                    messages=[{"role": "user", "content": "hi"}],
                    tools=tools,
                    tool_choice={"type": "tool", "name": name, "disable_parallel_tool_use": True},
                )

    finished(evaluate(body, model))
    assert [asked.choice for asked in model.asked] == [ToolFunction(name="add"), "auto"]
    assert [[tool.name for tool in asked.tools] for asked in model.asked] == [["add"], ["add"]]
    assert model.asked[0].config.parallel_tool_calls is False


def test_web_search_reaches_the_model_where_it_is_granted():
    offered = []

    async def look(model, messages, tools, choice, config):
        offered.append([(tool.name, sorted(tool.options or {})) for tool in tools])
        return said("found")

    async def body(bridge):
        async with client_of("responses", bridge) as client:
            await client.responses.create(model="inspect", input="hi", tools=[{"type": "web_search"}])

    finished(evaluate(body, bridge={"web_search": True, "filter": look}))
    finished(evaluate(body, bridge={"filter": look}))
    [[(name, options)], withheld] = offered
    assert name == "web_search"
    assert {"anthropic", "openai"} <= set(options)
    assert withheld == []


def test_what_an_agent_says_about_sampling_counts_only_where_that_is_wanted():
    model = Model("ok")

    async def body(bridge):
        sampling = {"temperature": 0.3, "top_p": 0.4}
        await ask("anthropic", bridge, Asking(), extra_body=sampling, stop_sequences=["END"])

    finished(evaluate(body, model))
    finished(evaluate(body, model, bridge={"forward_generation_config": True}))
    dropped, forwarded = (asked.config for asked in model.asked)
    assert (dropped.temperature, dropped.top_p, dropped.max_tokens) == (None, None, None)
    assert dropped.stop_seqs == forwarded.stop_seqs == ["END"]
    assert (forwarded.temperature, forwarded.top_p, forwarded.max_tokens) == (0.3, 0.4, 100)


def test_an_answer_may_be_asked_for_as_json_of_a_schema():
    model = Model('{"x": 1}')
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}

    async def body(bridge):
        shape = {"type": "json_schema", "json_schema": {"name": "point", "schema": schema, "strict": True}}
        await ask("chat", bridge, Asking(), response_format=shape)

    finished(evaluate(body, model))
    shape = model.asked[0].config.response_schema
    assert (shape.name, shape.strict) == ("point", True)
    assert shape.json_schema.properties["x"].type == "integer"


def test_a_tool_that_takes_free_text_is_called_as_it_was_declared():
    model = Model(called(("apply_patch", {"input": "*** Begin"})), called(("mcp__calc__add", {"x": 1})), "ok")
    came = []
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: PATCH"}
    inner = {"type": "function", "name": "add", "description": "adds", "parameters": {"type": "object"}}
    spaces = [{"type": "namespace", "name": f"mcp__{n}", "description": n, "tools": [inner]} for n in ("calc", "other")]

    async def body(bridge):
        async with client_of("responses", bridge) as client:
            patch = {"type": "custom", "name": "apply_patch", "description": "Patch.", "format": grammar}
            for _ in range(2):
                response = await client.responses.create(model="x", input="hi", tools=[patch, *spaces])
                came.append(response.output[0])
            told = [{"role": "user", "content": "hi"}, came[1].model_dump(exclude_none=True)]
            output = {"type": "function_call_output", "call_id": came[1].call_id, "output": "3"}
            await client.responses.create(model="x", input=[*told, output], tools=[patch, *spaces])

    finished(evaluate(body, model))
    patch, add = came
    assert (patch.type, patch.name, patch.input) == ("custom_tool_call", "apply_patch", "*** Begin")
    assert (add.type, add.name, add.namespace) == ("function_call", "add", "mcp__calc")
    assert [tool.name for tool in model.asked[0].tools] == ["apply_patch", "mcp__calc__add", "mcp__other__add"]
    assert "start: PATCH" in model.asked[0].tools[0].description
    assert model.asked[2].messages[1].tool_calls[0].function == "mcp__calc__add"


def test_tokens_are_counted_and_models_listed_without_a_call_of_the_model():
    model = Model("never")

    async def body(bridge):
        async with client_of("anthropic", bridge) as client:
            counted = await client.messages.count_tokens(
                model="inspect", messages=[{"role": "user", "content": "a" * 400}]
            )
            assert 90 < counted.input_tokens < 130
            assert [each.id async for each in client.models.list()] == ["inspect", "model", "haiku"]
        async with client_of("gemini", bridge) as client:
            counted = await client.models.count_tokens(model="gemini-x", contents="a" * 400)
            assert 90 < counted.total_tokens < 130
        async with client_of("chat", bridge) as client:
            assert "inspect" in [each.id async for each in client.models.list()]
        assert bridge.requests == 0

    finished(evaluate(body, model, bridge={"model_aliases": {"haiku": "mockllm/other"}}))
    assert model.asked == []


def test_media_that_are_not_sent_along_are_refused_and_never_fetched():
    model = Model("never")

    async def body(bridge):
        image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/secret.png"}}
        message = {"role": "user", "content": [image]}
        got = await post(bridge, "/v1/chat/completions", {"model": "inspect", "messages": [message]})
        assert got.status_code == 400
        assert "must be sent along" in got.json()["error"]["message"]

    finished(evaluate(body, model))
    assert model.asked == []
