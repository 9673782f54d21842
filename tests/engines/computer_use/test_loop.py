"""The loop: what a model says is done, in order, asked for, and told; and it ends however it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from computeragent import ComputerAgent
from computeragent.computer.types import Point
from computeragent.dialects.model import Media, ModelRequest, Text, ToolCall
from computeragent.engines.computer_use import ComputerUseEngine
from computeragent.errors import (
    ComputerAgentError,
    EngineError,
    ModelCallError,
    NotRemotableError,
    PathEscapeError,
    TurnFailedError,
    UnknownOptionError,
    UnknownPriceError,
    ValidationError,
)

from .parts import DrawnComputer, SaysModel, act, agent, answered, blocks, ended

pytestmark = pytest.mark.anyio


async def test_a_model_looks_acts_and_answers(tmp_path: Path) -> None:
    computer = DrawnComputer()
    model = SaysModel(
        act("1", action="screenshot"), [Text("I click."), act("2", action="click", x=10, y=20)], "It is done."
    )
    async with agent(tmp_path, model, computer) as made:
        result = await made.chat("Click the corner")
    assert result.text == "It is done."
    assert computer.acts == [("click", 10, 20, "left", 1, ())]
    assert [block["input"]["action"] for block in blocks(result, "tool_use")] == ["screenshot", "click"]
    pictures = [block["content"][-1]["type"] for block in blocks(result, "tool_result")]
    assert pictures == ["image", "image"]
    assert blocks(result, "tool_result")[0]["screen"] == {"width": 800, "height": 600}
    last = answered(model.asked[-1])[-1]
    assert isinstance(last.content[-1], Media)
    assert "800x600" in last.text
    assert model.closed


async def test_an_answer_in_text_needs_no_computer(tmp_path: Path) -> None:
    computer = DrawnComputer()
    async with agent(tmp_path, SaysModel("Four."), computer) as made:
        assert (await made.chat("2 + 2?")).text == "Four."
    assert computer.done == []


async def test_what_the_model_writes_is_told_as_it_comes(tmp_path: Path) -> None:
    async with agent(tmp_path, SaysModel("Hello there."), DrawnComputer()) as made:
        result = await made.chat("Hi")
    events = [message["event"]["type"] for message in result.messages if message["type"] == "stream_event"]
    assert events == ["message_start", "content_block_delta", "content_block_stop"]


async def test_a_denied_action_is_not_done_and_the_model_is_told_why(tmp_path: Path) -> None:
    computer = DrawnComputer()
    model = SaysModel(act("1", action="click", x=1, y=2), "I may not.")
    deny = {"decision": "deny", "reason": "not that button"}
    async with agent(tmp_path, model, computer, on_tool_call=lambda _: deny) as made:
        result = await made.chat("Click")
    assert computer.done == []
    assert "not that button" in answered(model.asked[-1])[0].text
    assert answered(model.asked[-1])[0].is_error
    assert result.text == "I may not."


async def test_a_changed_action_is_what_is_done(tmp_path: Path) -> None:
    computer = DrawnComputer()
    model = SaysModel(act("1", action="type", text="rm -rf"), "ok")
    change = {"decision": "modify", "input": {"action": "type", "text": "ls"}}
    async with agent(tmp_path, model, computer, on_tool_call=lambda _: change) as made:
        await made.chat("Type")
    assert computer.acts == [("type", "ls")]
    assert "changed" in answered(model.asked[-1])[0].text


async def test_an_action_that_is_changed_into_none_is_refused(tmp_path: Path) -> None:
    computer = DrawnComputer()
    model = SaysModel(act("1", action="click", x=1, y=1), "ok")
    change = {"decision": "modify", "input": {"action": "explode"}}
    async with agent(tmp_path, model, computer, on_tool_call=lambda _: change) as made:
        await made.chat("Click")
    assert computer.acts == []
    assert answered(model.asked[-1])[0].is_error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"action": "fly"}, "there is no action 'fly'"),
        ({"action": "click", "x": 5000, "y": 1}, "outside the screen"),
        ({"action": "click", "x": "here", "y": 1}, "must be a number"),
        ({"action": "keypress", "keys": ["hyperdrive"]}, "there is no key"),
        ({"action": "type"}, "text must be a text"),
        ({"action": "goto", "url": "http://x"}, "opens no addresses"),
        ({}, "there is no action"),
    ],
)
async def test_a_call_that_makes_no_sense_is_explained_to_the_model(
    tmp_path: Path, arguments: dict[str, Any], says: str
) -> None:
    computer = DrawnComputer()
    model = SaysModel(act("1", **arguments), "I see.")
    async with agent(tmp_path, model, computer) as made:
        assert (await made.chat("Go")).text == "I see."
    told = answered(model.asked[-1])[0]
    assert told.is_error
    assert says in told.text
    assert computer.acts == []


async def test_a_tool_that_there_is_not_is_explained_to_the_model(tmp_path: Path) -> None:
    model = SaysModel(ToolCall(id="1", name="browse", input={}), "I see.")
    async with agent(tmp_path, model, DrawnComputer()) as made:
        assert (await made.chat("Go")).text == "I see."
    assert "there is no tool 'browse'" in answered(model.asked[-1])[0].text


async def test_a_model_that_loops_for_ever_is_stopped(tmp_path: Path) -> None:
    model = SaysModel(*[act(str(n), action="screenshot") for n in range(50)])
    async with agent(tmp_path, model, DrawnComputer(), options={"max_steps": 4}) as made:
        with pytest.raises(TurnFailedError, match="asked 4 times") as failed:
            await made.chat("Loop")
        assert ended(failed.value.result)["subtype"] == "error_max_turns"
        assert len(model.asked) == 4
        model.answers = ["Enough."]
        assert (await made.chat("Stop")).text == "Enough."  # the session goes on


async def test_a_turn_has_a_time_limit_in_the_midst_of_an_action(tmp_path: Path) -> None:
    computer = DrawnComputer()
    model = SaysModel(act("1", action="wait", seconds=60), "never")
    async with agent(tmp_path, model, computer, options={"deadline": 0.2}) as made:
        with pytest.raises(TurnFailedError, match=r"longer than its 0\.2 seconds") as failed:
            await made.chat("Wait")
    assert ended(failed.value.result)["subtype"] == "error_deadline"


async def test_an_interrupt_stops_a_model_that_thinks(tmp_path: Path) -> None:
    thinking = asyncio.Event()
    stopped = asyncio.Event()

    async def think(_: ModelRequest) -> str:
        thinking.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ""

    model = SaysModel(think, "Back.")
    async with agent(tmp_path, model, DrawnComputer()) as made:
        handle = made.chat("Think")
        waiting = asyncio.ensure_future(handle.result())
        await thinking.wait()
        await handle.cancel()
        await asyncio.wait({waiting})
        waiting.exception()
        assert stopped.is_set()
        assert (await made.chat("And now?")).text == "Back."


async def test_an_interrupt_stops_an_action_and_the_next_turn_knows(tmp_path: Path) -> None:
    computer = DrawnComputer()
    computer.hang = asyncio.Event()
    model = SaysModel([act("1", action="click", x=1, y=1), act("2", action="click", x=2, y=2)], "Back.")
    async with agent(tmp_path, model, computer) as made:
        handle = made.chat("Click")
        waiting = asyncio.ensure_future(handle.result())
        await computer.hanging.wait()
        await handle.cancel()
        await asyncio.wait({waiting})
        waiting.exception()
        computer.hang = None
        assert (await made.chat("And now?")).text == "Back."
    assert computer.acts == []
    results = answered(model.asked[-1])
    assert [result.call_id for result in results] == ["1", "2"]
    assert all("not done" in result.text for result in results)


async def test_a_button_that_the_model_holds_is_let_go_at_the_end(tmp_path: Path) -> None:
    computer = DrawnComputer()
    model = SaysModel(act("1", action="mouse_down", x=1, y=1), "ok")
    async with agent(tmp_path, model, computer) as made:
        await made.chat("Press")
    assert computer.acts[-1] == ("up", "left", None, None)


async def test_a_computer_that_dies_ends_the_turn_with_its_error(tmp_path: Path) -> None:
    computer = DrawnComputer()

    def die(_: ModelRequest) -> ToolCall:
        computer.broken = True
        return act("2", action="click", x=1, y=1)

    model = SaysModel(act("1", action="screenshot"), die, "Better.")
    async with agent(tmp_path, model, computer) as made:
        with pytest.raises(TurnFailedError, match="the display is gone"):
            await made.chat("Go")
        computer.broken = False
        assert (await made.chat("Again")).text == "Better."
    assert "the display is gone" in answered(model.asked[-1])[-1].text


async def test_a_model_that_fails_ends_the_turn_and_not_the_session(tmp_path: Path) -> None:
    def fail(_: ModelRequest) -> str:
        raise ModelCallError("says: no credit", hint="Pay.", details={"kind": "billing"})

    model = SaysModel(fail, "Paid.")
    async with agent(tmp_path, model, DrawnComputer()) as made:
        with pytest.raises(TurnFailedError, match="no credit"):
            await made.chat("Go")
        assert (await made.chat("Again")).text == "Paid."


# ── Cost ──


PRICE = {"input": 1_000.0, "output": 10_000.0}  # an answer costs 0.2 dollars


async def test_what_an_answer_costs_is_told_while_the_run_goes_on(tmp_path: Path) -> None:
    model = SaysModel(act("1", action="screenshot"), "Done.")
    async with agent(tmp_path, model, DrawnComputer(), options={"price": PRICE}) as made:
        result = await made.chat("Go")
    assert result.usage.cost_usd == pytest.approx(0.4)
    assert (result.usage.input_tokens, result.usage.output_tokens) == (200, 20)
    assert ended(result)["total_cost_usd"] == pytest.approx(0.4)


@pytest.mark.parametrize("budget", [{"options": {"max_trajectory_budget": 0.3}}, {"budget_max_usd": 0.3}])
async def test_a_budget_ends_the_run_before_the_next_action(tmp_path: Path, budget: dict[str, Any]) -> None:
    computer = DrawnComputer()
    model = SaysModel(act("1", action="click", x=1, y=1), act("2", action="click", x=2, y=2), "never")
    options = {"price": PRICE, **budget.pop("options", {})}
    async with agent(tmp_path, model, computer, options=options, **budget) as made:
        result = await made.chat("Go")
    assert result.ended.reason == "budget_exceeded"
    assert len(model.asked) == 2
    assert [what[1] for what in computer.acts] == [1]


async def test_a_budget_without_a_price_is_an_error_that_says_so(tmp_path: Path) -> None:
    envs = {"OPENAI_COMPATIBLE_BASE_URL": "http://127.0.0.1:9/v1"}
    made = ComputerAgent(
        source=tmp_path, engine="computer-use", model="openai-compatible/mine", budget_max_usd=1.0, envs=envs
    )
    async with made:
        with pytest.raises(ComputerAgentError, match="the price of openai-compatible/mine is unknown") as failed:
            await made.chat("Go")
    assert failed.value.code == UnknownPriceError.code


async def test_an_unknown_price_without_a_budget_is_told_as_unknown(tmp_path: Path) -> None:
    model = SaysModel("Hi.")
    async with agent(tmp_path, model, DrawnComputer(), options={"model": "openai-compatible/mine"}) as made:
        result = await made.chat("Go")
    assert ended(result)["price"] == "unknown"
    assert "total_cost_usd" not in ended(result)
    assert result.usage.cost_usd is None


# ── Options ──


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"max_step": 3}, UnknownOptionError, "no option 'max_step'"),
        ({"max_steps": 0}, ValidationError, "max_steps"),
        ({"deadline": -1}, ValidationError, "deadline"),
        ({"computer": 17}, ValidationError, "is no computer"),
        ({"tool_format": "telepathy"}, ValidationError, "no tool format"),
        ({"verbosity": "shout"}, ValidationError, "verbosity"),
        ({"tools": [3]}, ValidationError, "a tool is a Python function"),
        ({"model_screen": [1, 1]}, ValidationError, "model_screen"),
        ({"model": ""}, ValidationError, "needs a model"),
    ],
)
async def test_a_wrong_option_is_an_error_that_names_it(
    tmp_path: Path, options: dict[str, Any], error: type[ComputerAgentError], says: str
) -> None:
    async with agent(tmp_path, SaysModel(), DrawnComputer(), options=options) as made:
        with pytest.raises(EngineError, match=says) as failed:
            await made.chat("Go")
    assert failed.value.code == error.code


async def test_the_callers_computer_stays_the_callers(tmp_path: Path) -> None:
    computer = DrawnComputer()
    async with agent(tmp_path, SaysModel(act("1", action="screenshot")), computer) as made:
        await made.chat("Go")
    assert not computer.closed
    assert ("reset",) not in computer.done


async def test_a_dict_of_functions_is_a_computer(tmp_path: Path) -> None:
    drawn = DrawnComputer()
    clicked: list[Point] = []

    async def screenshot() -> bytes:
        return (await drawn.screenshot()).data

    functions = {"screenshot": screenshot, "click": lambda x, y, button="left": clicked.append(Point(x, y))}
    click = act("1", action="click", x=3, y=4)
    model = SaysModel(click, replace(click, id="2"), act("3", action="type", text="a"), "ok")
    async with agent(tmp_path, model, functions) as made:
        await made.chat("Click")
    first, second, _ = answered(model.asked[-1])
    assert "800x600" in first.text  # nobody could have known before
    assert not second.is_error
    assert clicked == [(3, 4)]
    assert answered(model.asked[-1])[-1].is_error  # it cannot type, and the model is told


# ── Functions as tools ──


async def test_python_functions_are_tools_with_schema_and_checks(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def remember(name: str, times: int = 1) -> dict[str, int]:
        """Remember a name."""
        seen.append((name, times))
        return {"known": len(seen)}

    calls = [
        ToolCall(id="1", name="remember", input={"name": "Ada"}),
        ToolCall(id="2", name="remember", input={"name": 5}),
    ]
    model = SaysModel(calls, "ok")
    async with agent(tmp_path, model, DrawnComputer(), options={"tools": [remember]}) as made:
        await made.chat("Go")
    tool = next(tool for tool in model.asked[0].tools if tool.name == "remember")
    assert tool.description == "Remember a name."
    assert tool.input_schema["required"] == ["name"]
    assert seen == [("Ada", 1)]
    good, bad = answered(model.asked[-1])
    assert (good.text, good.is_error) == ('{"known":1}', False)
    assert bad.is_error
    assert "name" in bad.text


async def test_a_function_that_raises_is_told_to_the_model(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("no luck")

    model = SaysModel(ToolCall(id="1", name="fail", input={}), "ok")
    async with agent(tmp_path, model, DrawnComputer(), options={"tools": [fail]}) as made:
        await made.chat("Go")
    assert "no luck" in answered(model.asked[-1])[0].text


# ── What others may not ask for ──


async def test_callers_of_a_server_stay_in_the_workspace(tmp_path: Path) -> None:
    from computeragent.harness import LocalHarness
    from computeragent.protocol_types import InlineSource, SessionRequest
    from puppets import drain

    async def end(**options: Any) -> Any:
        harness = LocalHarness(library_mode=False, work=tmp_path)
        request = SessionRequest(
            source=InlineSource(manifest={"name": "a"}), engine=ComputerUseEngine(), options=options
        )
        session = await harness.open(request)
        try:
            return (await drain(session.events()))[-1].event
        finally:
            await harness.close()

    script = tmp_path / "script.py"
    script.write_text("raise SystemExit(1)")
    assert (await end(model=f"scripted/{script}")).error_code == PathEscapeError.code
    assert (await end(model="human/human", trajectory_dir="/tmp/elsewhere")).error_code == PathEscapeError.code
    assert (await end(model="human/human", tools=[print])).error_code == NotRemotableError.code
    assert (await end(model="human/human", computer={"display": ":0"})).error_code == "COMPUTER_UNSUPPORTED"
