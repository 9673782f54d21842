"""What a model is told again: pictures, earlier runs, other wires; and what it must not read."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from computeragent.dialects import DIALECTS
from computeragent.dialects.model import Media, Message, ModelRequest, Text, Thinking, ToolCall, ToolResult
from computeragent.engines.computer_use.history import BLANK
from computeragent.models.human import HumanModel, HumanQueue

from .parts import DrawnComputer, SaysModel, act, agent, answered, ended

pytestmark = pytest.mark.anyio
SECRET = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz0123456789ABCD"


def pictures(request: ModelRequest) -> list[bool]:
    """Which results still show their picture, oldest first."""
    return [any(isinstance(part, Media) and part != BLANK for part in result.content) for result in answered(request)]


def shots(count: int, **extra: Any) -> list[ToolCall]:
    return [
        ToolCall(id=f"c{n}", name="computer", input={"action": {"type": "screenshot"}}, extra=extra)
        for n in range(count)
    ]


async def test_only_the_newest_pictures_are_shown_again(tmp_path: Path) -> None:
    model = SaysModel(*[act(str(n), action="screenshot") for n in range(5)], "ok")
    async with agent(tmp_path, model, DrawnComputer(), options={"only_n_most_recent_images": 2}) as made:
        await made.chat("Look")
    assert pictures(model.asked[-1]) == [False, False, False, True, True]
    assert "not shown any more" in answered(model.asked[-1])[0].text
    assert [len(message.content) for message in model.asked[-1].messages if message.role == "assistant"] == [1] * 5


async def test_all_pictures_are_shown_where_no_number_is_given(tmp_path: Path) -> None:
    model = SaysModel(*[act(str(n), action="screenshot") for n in range(5)], "ok")
    async with agent(tmp_path, model, DrawnComputer(), options={"only_n_most_recent_images": None}) as made:
        await made.chat("Look")
    assert pictures(model.asked[-1]) == [True] * 5


async def test_a_picture_that_is_the_only_answer_gets_a_blank_in_its_place(tmp_path: Path) -> None:
    model = SaysModel(*shots(5, type="computer_call"), "ok", dialect="openai_responses")
    options = {"tool_format": "computer_use_preview"}
    async with agent(tmp_path, model, DrawnComputer(), options=options) as made:
        await made.chat("Look")
    assert pictures(model.asked[-1]) == [False, False, True, True, True]
    body = DIALECTS["openai_responses"].build_request(model.asked[-1])
    outputs = [item for item in body["input"] if item["type"] == "computer_call_output"]
    assert len(outputs) == 5
    assert all(item["output"]["image_url"].startswith("data:image/png") for item in outputs)


async def test_pictures_of_the_user_are_always_shown(tmp_path: Path) -> None:
    model = SaysModel(*[act(str(n), action="screenshot") for n in range(4)], "ok")
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    async with agent(tmp_path, model, DrawnComputer(), options={"only_n_most_recent_images": 1}) as made:
        await made.chat({"role": "user", "content": [{"type": "text", "text": "Like this?"}, image]})
    first = model.asked[-1].messages[0]
    assert [type(part) for part in first.content] == [Text, Media]


async def test_a_later_run_remembers_without_the_screen(tmp_path: Path) -> None:
    first = SaysModel([Text("I look."), act("1", action="screenshot")], "A white page.")
    again = SaysModel("Yes, white.")
    memory = {"session_id": "s1", "session_store": "sqlite"}
    async with agent(tmp_path, first, DrawnComputer(), **memory) as made:
        await made.chat("What is there?")
    async with agent(tmp_path, again, DrawnComputer(), **memory) as made:
        await made.chat("White?")
    told = again.asked[0].messages
    assert [message.role for message in told] == ["user", "assistant", "user", "assistant", "user"]
    assert told[0].text == "What is there?"
    assert pictures(again.asked[0]) == [False]
    assert told[3].text == "A white page."


async def test_a_run_with_another_models_wire_goes_on_in_words(tmp_path: Path) -> None:
    first = SaysModel([Thinking("hm", "signed"), *shots(1, type="computer_call")], "Seen.", dialect="openai_responses")
    again = SaysModel("Go on.", dialect="anthropic")
    memory = {"session_id": "s2", "session_store": "memory"}
    async with agent(tmp_path, first, DrawnComputer(), options={"tool_format": "computer"}, **memory) as made:
        await made.chat("Look")
    async with agent(tmp_path, again, DrawnComputer(), **memory) as made:
        await made.chat("And?")
    messages = again.asked[0].messages
    assert not any(
        isinstance(part, Thinking | ToolCall | ToolResult) for message in messages for part in message.content
    )
    assert any("Done before" in message.text for message in messages)
    DIALECTS["anthropic"].build_request(again.asked[0])


async def test_a_conversation_can_be_handed_over(tmp_path: Path) -> None:
    before = [
        Message("user", (Text("My name is Ada."),)),
        Message("assistant", (Text("Hello Ada."), *shots(1, type="computer_call"))),
    ]
    model = SaysModel("Ada.")
    options = {"history": [msgspec.to_builtins(message) for message in before]}
    async with agent(tmp_path, model, DrawnComputer(), options=options) as made:
        await made.chat("Who am I?")
    told = model.asked[0].messages
    assert [message.text for message in told] == ["My name is Ada.", "Hello Ada.", "Who am I?"]
    assert not any(message.tool_calls for message in told)  # nothing came of that call


# ── What the model must not read ──


async def test_personal_data_reaches_the_model_as_tokens_and_the_computer_as_it_is(tmp_path: Path) -> None:
    computer = DrawnComputer()

    def repeat(request: ModelRequest) -> list[Any]:
        text = request.messages[0].text
        token = text[text.index("[") : text.index("]") + 1]
        return [Text(f"I type {token}."), act("1", action="type", text=token)]

    model = SaysModel(repeat, "ok")
    async with agent(tmp_path, model, computer, options={"redact_pii": True}) as made:
        result = await made.chat("Sign in as ada.lovelace@example.org")
    assert computer.acts == [("type", "ada.lovelace@example.org")]
    assert all("ada.lovelace" not in str(request.messages) for request in model.asked)
    assert any("I type ada.lovelace@example.org." in json.dumps(message) for message in result.messages)


# ── On disk ──


async def test_a_run_is_kept_as_files(tmp_path: Path) -> None:
    model = SaysModel(act("1", action="screenshot"), act("2", action="click", x=40, y=30), "Done.")
    options = {"trajectory_dir": tmp_path / "runs", "model": "scripted/some/path.yaml"}
    async with agent(tmp_path, model, DrawnComputer(), options=options, envs={"ANTHROPIC_API_KEY": SECRET}) as made:
        result = await made.chat(f"Click, the key is {SECRET}")
    (run,) = (tmp_path / "runs").iterdir()
    assert ended(result)["trajectory"] == str(run)
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    assert names == [
        "metadata.json",
        "turn_000/0000_api_start.json",
        "turn_000/0001_api_result.json",
        "turn_000/0002_agent_response.json",
        "turn_000/0003_screenshot_after.png",
        "turn_000/0004_computer_call_result.json",
        "turn_001/0000_api_start.json",
        "turn_001/0001_api_result.json",
        "turn_001/0002_agent_response.json",
        "turn_001/0003_screenshot_after.png",
        "turn_001/0004_computer_call_result.json",
        "turn_001/0005_screenshot_action.png",
        "turn_002/0000_api_start.json",
        "turn_002/0001_api_result.json",
        "turn_002/0002_agent_response.json",
    ]
    metadata = json.loads((run / "metadata.json").read_text())
    assert (metadata["status"], metadata["total_turns"]) == ("completed", 3)
    acted = json.loads((run / "turn_001/0004_computer_call_result.json").read_text())
    assert acted["action"] == {"action": "click", "x": 40, "y": 30}
    assert acted["screen"] == {"width": 800, "height": 600}
    everything = "".join((run / name).read_text() for name in names if name.endswith(".json"))
    assert SECRET not in everything
    assert "iVBOR" not in everything  # pictures are files of their own
    assert run.stat().st_mode & 0o077 == 0


async def test_a_folder_that_cannot_be_written_breaks_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    model = SaysModel(act("1", action="click", x=1, y=1), "Done.")
    async with agent(tmp_path, model, DrawnComputer(), options={"trajectory_dir": tmp_path / "file"}) as made:
        assert (await made.chat("Go")).text == "Done."


# ── A person as the model ──


async def test_a_person_answers_as_the_model(tmp_path: Path) -> None:
    people = HumanQueue()
    computer = DrawnComputer()
    async with agent(tmp_path, HumanModel(people), computer) as made:
        turn = asyncio.ensure_future(made.chat("Click somewhere").result())
        (first,) = await _waits(people)
        assert first.text == "Click somewhere"
        assert "computer" in first.tools
        people.answer(first.id, text="I click.", action={"action": "click", "x": 5, "y": 6})
        (second,) = await _waits(people, other_than=first.id)
        assert second.screenshot is not None
        people.answer(second.id, text="There.")
        assert (await turn).text == "There."
    assert computer.acts == [("click", 5, 6, "left", 1, ())]
    assert people.pending() == []


async def _waits(people: HumanQueue, other_than: str = "") -> list[Any]:
    while not (found := [each for each in people.pending() if each.id != other_than]):
        await asyncio.sleep(0.001)
    return found
