"""The simulator as the providers' own clients see it: OpenAI Responses, and computer tools on every wire."""

import warnings

import anthropic
import anyio
import httpx2
import openai
import pytest

from computeragent.testing.models import ModelSimulator, parse_script

pytestmark = pytest.mark.anyio

PNG = "data:image/png;base64,iVBORw0KGgo="
SCRIPT = parse_script(
    r"""
require_key: secret
rules:
  - match: say (\w+)
    turns:
      - computer: {action: screenshot}
      - computer: [{action: click, x: 200, y: 120}, {action: type, text: $1}]
      - computer: {action: keypress, keys: [ctrl, a]}
        safety_checks: [{code: malicious_instructions, message: "Is this wanted?"}]
      - Done, it says $1.
  - match: everything
    reply: {thinking: hm hm, text: Answer, tools: [{name: f, input: {a: 1}}, {name: g, input: {input: 'raw "é"'}}]}
  - match: busy
    reply: {text: better now, error: {status: 503, times: 1}}
  - match: cut
    reply: {text: a long enough answer, chunk_size: 5, drop_after: 4}
"""
)
PREVIEW = {"type": "computer_use_preview", "display_width": 1280, "display_height": 800, "environment": "linux"}


@pytest.fixture
async def sim(anyio_backend):
    async with ModelSimulator(SCRIPT) as simulator:
        yield simulator


@pytest.fixture
async def client(sim):
    async with openai.AsyncOpenAI(base_url=f"{sim.url}/v1", api_key="secret", max_retries=0) as made:
        yield made


async def played(client, tool, *, stream: bool):
    """The actions of a whole conversation, what was said at the end, and the safety checks on the way."""
    items = [{"role": "user", "content": "say hello"}]
    actions, checks = [], []
    while True:
        more = {"model": "computer-use-preview", "input": items, "tools": [tool], "truncation": "auto"}
        if stream:
            async with client.responses.stream(**more) as events:
                response = await events.get_final_response()
        else:
            response = await client.responses.create(**more)
        items += [item.model_dump(exclude_none=True) for item in response.output]
        calls = [item for item in response.output if item.type == "computer_call"]
        if not calls:
            return actions, response.output_text, checks
        for call in calls:
            actions.append(call.actions or [call.action])
            checks += call.pending_safety_checks
            items.append(
                {
                    "type": "computer_call_output",
                    "call_id": call.call_id,
                    "acknowledged_safety_checks": [check.model_dump() for check in call.pending_safety_checks],
                    "output": {"type": "computer_screenshot", "image_url": PNG},
                }
            )


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_s_client_acts_on_a_computer_by_the_preview(sim, client, stream):
    actions, said, checks = await played(client, PREVIEW, stream=stream)
    assert [[type(action).__name__ for action in each] for each in actions] == [
        ["ActionScreenshot"],
        ["ActionClick"],
        ["ActionType"],
        ["ActionKeypress"],
    ]
    assert (actions[1][0].x, actions[1][0].y, actions[1][0].button) == (200, 120, "left")
    assert (actions[2][0].text, actions[3][0].keys) == ("hello", ["CTRL", "A"])
    assert said == "Done, it says hello."
    assert [check.message for check in checks] == ["Is this wanted?"]
    assert len(sim.requests[-1].tool_results) == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_s_client_acts_on_a_computer_in_batches(client, stream):
    actions, said, _ = await played(client, {"type": "computer"}, stream=stream)
    assert [[action.type for action in each] for each in actions] == [["screenshot"], ["click", "type"], ["keypress"]]
    assert said == "Done, it says hello."


async def test_openai_s_client_gets_every_kind_of_item_as_it_streams(client):
    tools = [
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False},
        {"type": "custom", "name": "g"},
    ]
    names = []
    async with client.responses.stream(model="x", input="everything", tools=tools) as events:
        async for event in events:
            assert event.sequence_number == len(names)
            names.append(event.type)
        response = await events.get_final_response()
    assert names[0] == "response.created"
    assert names[-1] == "response.completed"
    assert {"response.reasoning_summary_text.delta", "response.function_call_arguments.delta"} <= set(names)
    reasoning, message, function, custom = response.output
    assert (reasoning.summary[0].text, message.content[0].text) == ("hm hm", "Answer")
    assert (function.name, function.arguments) == ("f", '{"a":1}')
    assert (custom.name, custom.input) == ("g", 'raw "é"')
    assert response.usage.total_tokens > 0


async def test_what_openai_s_client_sends_back_goes_on_with_the_conversation(sim, client):
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}]
    first = await client.responses.create(model="x", input="everything", tools=tools)
    call = next(item for item in first.output if item.type == "function_call")
    items = [{"role": "user", "content": "everything"}, *(item.model_dump(exclude_none=True) for item in first.output)]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "42"})
    second = await client.responses.create(model="x", input=items, tools=tools)
    assert second.output_text == "Done."
    assert sim.requests[-1].tool_results[0].text == "42"


async def test_openai_s_client_understands_refusals_of_the_server(sim, client):
    with pytest.raises(openai.InternalServerError):
        await client.responses.create(model="x", input="busy")
    assert (await client.responses.create(model="x", input="busy")).output_text == "better now"
    with pytest.raises(openai.BadRequestError, match="send the whole conversation"):
        await client.responses.create(model="x", input="hello", previous_response_id="resp_1")
    with pytest.raises(openai.BadRequestError, match="must be a list"):
        await client.responses.create(model="x", input=3)
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="wrong").responses.create(model="x", input="hello")
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve("resp_1")


async def test_a_cut_stream_is_a_broken_one_to_openai_s_client(client):
    stream = await client.responses.create(model="x", input="cut", stream=True)

    async def read():
        return [event.type async for event in stream]

    with pytest.raises((httpx2.TransportError, openai.APIError)):
        await read()


@pytest.mark.parametrize("kind", ["computer_20250124", "computer_20251124", "computer_toolset_20260801"])
async def test_anthropic_s_client_acts_on_a_computer(sim, kind):
    tool = {"type": kind}
    if "toolset" not in kind:
        tool |= {"name": "computer", "display_width_px": 1280, "display_height_px": 800}
    betas = [] if "toolset" in kind else [f"computer-use-{kind[9:13]}-{kind[13:15]}-{kind[15:]}"]
    messages = [{"role": "user", "content": "say hello"}]
    called = []
    async with anthropic.AsyncAnthropic(base_url=sim.url, api_key="secret") as client:
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                answer = await client.beta.messages.create(
                    model="claude-opus-5-5", max_tokens=99, messages=messages, tools=[tool], betas=betas
                )
            calls = [block for block in answer.content if block.type == "tool_use"]
            if not calls:
                break
            called += [(call.name, dict(call.to_dict()["input"])) for call in calls]
            image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
            results = [{"type": "tool_result", "tool_use_id": call.id, "content": [image]} for call in calls]
            messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    if "toolset" in kind:
        assert called == [
            ("screenshot", {}),
            ("left_click", {"coordinate": [200, 120]}),
            ("type", {"text": "hello"}),
            ("key", {"text": "ctrl+a"}),
        ]
    else:
        assert [(name, given["action"]) for name, given in called] == [
            ("computer", "screenshot"),
            ("computer", "left_click"),
            ("computer", "type"),
            ("computer", "key"),
        ]
    assert answer.content[0].text == "Done, it says hello."


async def test_a_function_acts_on_a_computer_over_chat_completions(sim, client):
    tools = [{"type": "function", "function": {"name": "computer", "parameters": {"type": "object"}}}]
    messages = [{"role": "user", "content": "say hello"}]
    called = []
    while True:
        answer = await client.chat.completions.create(model="x", messages=messages, tools=tools)
        message = answer.choices[0].message
        if not message.tool_calls:
            break
        called += [call.function.arguments for call in message.tool_calls]
        messages.append(message.model_dump(exclude_none=True))
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls]
        messages.append({"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]})
    assert called == [
        '{"action":"screenshot"}',
        '{"action":"click","x":200,"y":120}',
        '{"action":"type","text":"hello"}',
        '{"action":"keypress","keys":["ctrl","a"]}',
    ]
    assert message.content == "Done, it says hello."


async def test_many_conversations_at_once_do_not_mix(client):
    said = {}

    async def one(number: int):
        text = f"word{number}"
        said[number] = (await client.responses.create(model="x", input=f"hello {text}")).output_text

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(one, number)
    assert said == {number: f"You said: hello word{number}" for number in range(20)}
