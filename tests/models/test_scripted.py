"""A script as a model, in process."""

import pytest

from computeragent.dialects import Ended, Message, ModelRequest, Text, Tool, assemble
from computeragent.errors import ModelCallError, ScriptError
from computeragent.models import ScriptedModel, open_model

pytestmark = pytest.mark.anyio

SCRIPT = """
- match: count
  turns:
    - computer: [{action: click, x: 1, y: 2}, {action: type, text: "$0"}]
- match: busy
  reply: {text: At last., error: {status: 529, times: 1, retry_after: 2}}
- match: broken
  reply: {text: Hello there., drop_after: 3, chunk_size: 2}
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "script.yaml"
    path.write_text(SCRIPT)
    return open_model(f"scripted/{path}")


def ask(text: str, *tools: Tool) -> ModelRequest:
    return ModelRequest(model="", messages=(Message("user", (Text(text),)),), tools=tools)


async def answer(model, request):
    return [event async for event in model.stream(request)]


async def test_a_script_file_is_a_model(model):
    events = await answer(model, ask("hello"))
    assert isinstance(events[-1], Ended)
    assert assemble(events).text == "You said: hello"
    assert model.dialect == "neutral"


async def test_actions_come_as_they_stand_in_the_script(model):
    response = assemble(await answer(model, ask("count", Tool(name="computer"))))
    assert [(call.name, call.input) for call in response.tool_calls] == [
        ("computer", {"action": "click", "x": 1, "y": 2}),
        ("computer", {"action": "type", "text": "count"}),
    ]


async def test_a_fault_of_the_script_is_a_failed_call(model):
    with pytest.raises(ModelCallError) as caught:
        await answer(model, ask("busy"))
    assert caught.value.details == {"kind": "overloaded", "status": 529, "retry_after": 2.0, "provider": "scripted"}
    assert assemble(await answer(model, ask("busy"))).text == "At last."


async def test_a_broken_stream_fails_after_what_came(model):
    events = []

    async def collect():
        async for event in model.stream(ask("broken")):
            events.append(event)

    with pytest.raises(ModelCallError) as caught:
        await collect()
    assert caught.value.details["kind"] == "incomplete"
    assert len(events) == 3


def test_a_missing_script_is_told_at_once():
    with pytest.raises(ScriptError):
        ScriptedModel("/nowhere/script.yaml")
