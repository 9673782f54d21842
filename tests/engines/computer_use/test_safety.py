"""Safety checks of the provider: a person is asked, and nothing else acknowledges them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from computeragent.dialects.model import ModelRequest, Text, Thinking, ToolCall
from computeragent.errors import TurnFailedError
from computeragent.protocol_types import PermissionRequest, PolicyVerdict

from .parts import DrawnComputer, SaysModel, agent, answered, blocks, ended

pytestmark = pytest.mark.anyio
CHECK = {"id": "sc_1", "code": "malicious_instructions", "message": "The page gives orders."}
OPENAI = {"tool_format": "computer_use_preview"}


def checked(call_id: str = "c1") -> ToolCall:
    return ToolCall(
        id=call_id,
        name="computer",
        input={"action": {"type": "click", "x": 5, "y": 6, "button": "left"}},
        extra={"type": "computer_call", "id": f"cu_{call_id}", "pending_safety_checks": [CHECK]},
    )


def model(*more: Any) -> SaysModel:
    return SaysModel([Thinking("I click."), checked()], *more, dialect="openai_responses")


async def test_a_check_that_nobody_acknowledges_stops_the_turn(tmp_path: Path) -> None:
    computer, says = DrawnComputer(), model("What now?")
    async with agent(tmp_path, says, computer, options=OPENAI) as made:
        with pytest.raises(TurnFailedError, match="nobody acknowledged a safety check") as failed:
            await made.chat("Click")
        assert ended(failed.value.result)["subtype"] == "error_safety_check"
        assert computer.acts == []
        assert (await made.chat("Go on")).text == "What now?"
    # Neither the call nor the thought that led to it is sent again: nothing answers them.
    assert all(not message.tool_calls for message in says.asked[-1].messages)
    assert not any(isinstance(part, Thinking) for message in says.asked[-1].messages for part in message.content)
    assert "was not done" in says.asked[-1].messages[1].text


async def test_a_policy_that_allows_everything_does_not_acknowledge(tmp_path: Path) -> None:
    async def policy(_: PermissionRequest) -> PolicyVerdict:
        return PolicyVerdict("allow")

    computer = DrawnComputer()
    async with agent(tmp_path, model(), computer, options=OPENAI, policy=policy) as made:
        with pytest.raises(TurnFailedError, match="safety check"):
            await made.chat("Click")
    assert computer.acts == []


async def test_a_person_is_told_why_and_may_acknowledge(tmp_path: Path) -> None:
    asked: list[PermissionRequest] = []

    def person(request: PermissionRequest) -> bool:
        asked.append(request)
        return True

    computer, says = DrawnComputer(), model("Clicked.")
    async with agent(tmp_path, says, computer, options=OPENAI, on_tool_call=person) as made:
        result = await made.chat("Click")
    assert result.text == "Clicked."
    assert computer.acts == [("click", 5, 6, "left", 1, ())]
    (request,) = asked
    assert (request.policy, request.reason) == ("safety-check", "The page gives orders.")
    assert request.input["pending_safety_checks"] == [CHECK]
    (answer,) = answered(says.asked[-1])
    assert answer.extra["acknowledged_safety_checks"] == [CHECK]
    assert blocks(result, "tool_use")[0]["input"]["pending_safety_checks"] == [CHECK]


async def test_a_person_may_say_no(tmp_path: Path) -> None:
    computer = DrawnComputer()
    deny = {"decision": "deny", "reason": "that page is a trap"}
    async with agent(tmp_path, model(), computer, options=OPENAI, on_tool_call=lambda _: deny) as made:
        with pytest.raises(TurnFailedError, match="that page is a trap"):
            await made.chat("Click")
    assert computer.acts == []


async def test_a_denied_call_without_checks_is_taken_back_and_the_turn_goes_on(tmp_path: Path) -> None:
    call = ToolCall(id="c1", name="computer", input={"action": {"type": "screenshot"}}, extra={"type": "computer_call"})
    computer, says = DrawnComputer(), SaysModel(call, "I may not look.", dialect="openai_responses")
    deny = {"decision": "deny", "reason": "private"}
    async with agent(tmp_path, says, computer, options=OPENAI, on_tool_call=lambda _: deny) as made:
        assert (await made.chat("Look")).text == "I may not look."
    assert computer.done == []  # not even a picture to answer with
    assert "private" in says.asked[-1].messages[-1].text


async def test_a_batch_stops_where_it_is_denied(tmp_path: Path) -> None:
    actions = [{"type": "click", "x": n, "y": n, "button": "left"} for n in (1, 2, 3)]
    call = ToolCall(id="c1", name="computer", input={"actions": actions}, extra={"type": "computer_call"})
    computer, says = DrawnComputer(), SaysModel(call, "ok", dialect="openai_responses")
    async with agent(
        tmp_path, says, computer, options={"tool_format": "computer"}, on_tool_call=lambda r: r.input["x"] != 2
    ) as made:
        result = await made.chat("Click")
    assert [what[1] for what in computer.acts] == [1]
    assert [block["id"] for block in blocks(result, "tool_use")] == ["c1.0", "c1.1"]
    (answer,) = answered(says.asked[-1])
    assert answer.content  # a picture of what the first one did
    assert "1 actions after it were not done" in says.asked[-1].messages[-1].text


async def test_a_batch_is_answered_by_one_picture(tmp_path: Path) -> None:
    actions = [{"type": "click", "x": 1, "y": 1, "button": "left"}, {"type": "type", "text": "a"}]
    call = ToolCall(id="c1", name="computer", input={"actions": actions}, extra={"type": "computer_call"})
    computer, says = DrawnComputer(), SaysModel(call, "ok", dialect="openai_responses")
    async with agent(tmp_path, says, computer, options={"tool_format": "computer"}) as made:
        await made.chat("Go")
    assert [what[0] for what in computer.done] == ["click", "type", "screenshot"]
    assert len(answered(says.asked[-1])) == 1


async def test_what_the_model_got_wrong_is_said_beside_a_picture(tmp_path: Path) -> None:
    def call(_: ModelRequest) -> ToolCall:
        return ToolCall(
            id="c1",
            name="computer",
            input={"action": {"type": "click", "x": 9_999, "y": 1}},
            extra={"type": "computer_call"},
        )

    says = SaysModel(call, "ok", dialect="openai_responses")
    async with agent(tmp_path, says, DrawnComputer(), options=OPENAI) as made:
        await made.chat("Go")
    last = says.asked[-1].messages[-1]
    assert any(isinstance(part, Text) and "outside the screen" in part.text for part in last.content)
