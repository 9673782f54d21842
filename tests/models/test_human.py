"""A person as a model: what waits is shown, the first answer counts, who gives up waits no more."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from computeragent.dialects.model import Media, Message, ModelRequest, Text, ToolResult
from computeragent.dialects.streams import ResponseAssembler
from computeragent.errors import ModelCallError, NotFoundError, ValidationError
from computeragent.models import open_model
from computeragent.models.human import HumanModel, HumanQueue, queue

pytestmark = pytest.mark.anyio
REQUEST = ModelRequest(model="human", messages=(Message("user", (Text("Hello?"),)),))


async def asked(people: HumanQueue, request: ModelRequest = REQUEST) -> tuple[asyncio.Task[Any], Any]:
    async def ask() -> Any:
        answer = ResponseAssembler()
        async for event in HumanModel(people).stream(request):
            answer.add(event)
        assert answer.ended
        return answer.response

    task = asyncio.create_task(ask())
    while not people.pending():
        await asyncio.sleep(0)
    return task, people.pending()[0]


async def test_what_waits_is_shown_and_answered() -> None:
    people = HumanQueue()
    picture = Media(kind="image", media_type="image/png", data="aGk=")
    result = Message("user", (ToolResult(call_id="c", content=(Text("The screen."), picture)),))
    task, waiting = await asked(people, ModelRequest(model="human", messages=(*REQUEST.messages, result)))
    assert (waiting.text, waiting.screenshot, waiting.media_type) == ("The screen.", "aGk=", "image/png")
    people.answer(
        waiting.id, text="Yes.", actions=[{"action": "screenshot"}], calls=[{"name": "look", "input": {"n": 1}}]
    )
    answer = await task
    assert answer.text == "Yes."
    assert [(call.name, call.input) for call in answer.tool_calls] == [
        ("computer", {"action": "screenshot"}),
        ("look", {"n": 1}),
    ]
    assert answer.stop_reason == "tool_use"


async def test_the_first_answer_counts() -> None:
    people = HumanQueue()
    task, waiting = await asked(people)
    people.answer(waiting.id, text="First.")
    with pytest.raises(NotFoundError):
        people.answer(waiting.id, text="Second.")
    assert (await task).text == "First."


async def test_an_answer_may_come_from_another_thread() -> None:
    people = HumanQueue()
    task, waiting = await asked(people)
    thread = threading.Thread(target=lambda: people.answer(waiting.id, text="From afar."))
    thread.start()
    assert (await task).text == "From afar."
    thread.join()


async def test_an_answer_that_says_nothing_is_refused_and_the_request_still_waits() -> None:
    people = HumanQueue()
    task, waiting = await asked(people)
    with pytest.raises(ValidationError):
        people.answer(waiting.id)
    assert people.pending() == [waiting]
    task.cancel()


async def test_who_gives_up_waits_no_more() -> None:
    people = HumanQueue()
    task, _ = await asked(people)
    task.cancel()
    await asyncio.wait({task})
    assert people.pending() == []


async def test_no_more_than_so_many_wait() -> None:
    people = HumanQueue(most=1)
    task, _ = await asked(people)
    with pytest.raises(ModelCallError):
        await people.ask(REQUEST)
    task.cancel()


async def test_its_name_opens_the_queue_of_this_process() -> None:
    model = open_model("human/human")
    assert isinstance(model, HumanModel)
    assert queue() is queue()
