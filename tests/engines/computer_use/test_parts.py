"""The desk, two models as one, the log, the cache: what the loop is made of, seen from outside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent
from computeragent.computer.types import Computer, Environment, Size
from computeragent.dialects.model import Usage
from computeragent.engines.computer_use.budget import Tariff
from computeragent.engines.computer_use.desk import Desk
from computeragent.engines.computer_use.options import Price
from computeragent.engines.computer_use.screen import Limit
from computeragent.errors import ComputerError
from computeragent.models.script.loading import parse_script
from computeragent.testing.models import ModelSimulator

from .parts import DrawnComputer, SaysModel, act, agent, blocks

pytestmark = pytest.mark.anyio


class Shelf:
    """A source of computers that counts."""

    environment: Environment | None = None

    def __init__(self, size: Size | None = None) -> None:
        self.size = size
        self.out = 0
        self.leases = 0
        self.fails = False

    def lease(self) -> AbstractAsyncContextManager[Computer]:
        return self._lease()

    @asynccontextmanager
    async def _lease(self) -> AsyncIterator[Computer]:
        if self.fails:
            raise ComputerError("none is there")
        self.leases += 1
        self.out += 1
        try:
            yield DrawnComputer()
        finally:
            self.out -= 1


async def test_a_computer_is_leased_once_and_kept_between_turns() -> None:
    shelf = Shelf()
    desk = Desk(shelf, keep=60)
    first = await desk.computer()
    await desk.rest()
    await desk.resume()
    assert await desk.computer() is first
    await desk.close()
    assert (shelf.leases, shelf.out) == (1, 0)
    await desk.close()


async def test_a_computer_that_nobody_needs_is_given_back_after_a_while() -> None:
    shelf = Shelf()
    desk = Desk(shelf, keep=0.01)
    await desk.computer()
    await desk.rest()
    while shelf.out:
        await asyncio.sleep(0.001)
    await desk.resume()
    await desk.computer()
    assert shelf.leases == 2
    await desk.close()


async def test_without_keeping_it_is_given_back_after_each_turn() -> None:
    shelf = Shelf()
    desk = Desk(shelf, keep=0)
    await desk.computer()
    await desk.rest()
    assert shelf.out == 0


async def test_what_cannot_be_leased_is_told_and_may_be_tried_again() -> None:
    shelf = Shelf()
    shelf.fails = True
    desk = Desk(shelf, keep=0)
    with pytest.raises(ComputerError):
        await desk.computer()
    shelf.fails = False
    await desk.computer()
    await desk.close()
    assert shelf.out == 0


async def test_the_model_is_told_the_size_that_the_screen_will_have() -> None:
    desk = Desk(Shelf(Size(2560, 1600)), keep=0, limit=Limit(1280, 800, 1280 * 800))
    assert desk.screen.shown == (1280, 800)
    await desk.computer()
    assert desk.screen.shown == (800, 600)
    await desk.close()


async def test_two_models_as_one_fill_in_a_page(tmp_path: Path) -> None:
    script = """
rules:
  - match: Where is this element. the Save button
    reply: (40, 30)
  - match: Press Save
    turns:
      - computer: {action: screenshot}
      - tool: computer
        input: {action: click, element: the Save button}
      - Saved.
"""
    computer = DrawnComputer()
    async with ModelSimulator(parse_script(script)) as simulator:
        envs = {
            "ANTHROPIC_API_KEY": "sk-ant-test-0000000000",
            "ANTHROPIC_BASE_URL": simulator.url,
            "OPENAI_COMPATIBLE_BASE_URL": f"{simulator.url}/v1",
        }
        model = "openai-compatible/finder+anthropic/claude-sonnet-4-5"
        options = {"computer": computer, "price": {"input": 1.0, "output": 1.0}}
        made = ComputerAgent(source=tmp_path, engine="computer-use", model=model, options=options, envs=envs)
        async with made:
            result = await made.chat("Press Save")
        models = [request.model for request in simulator.calls]
    assert result.text == "Saved."
    assert computer.acts == [("click", 40, 30, "left", 1, ())]
    assert models == ["claude-sonnet-4-5", "claude-sonnet-4-5", "finder", "claude-sonnet-4-5"]
    assert blocks(result, "tool_use")[-1]["input"] == {"action": "click", "x": 40, "y": 30}


async def test_a_run_has_a_log_of_its_own_loudness(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="computeragent")  # whatever other tests left
    caplog.handler.setLevel(logging.NOTSET)

    async def said(verbosity: Any) -> list[str]:
        caplog.clear()
        model = SaysModel(act("1", action="type", text="a secret word"), "ok")
        async with agent(tmp_path, model, DrawnComputer(), options={"verbosity": verbosity}) as made:
            await made.chat("Go")
        return [record.getMessage() for record in caplog.records if record.name.endswith("computer_use")]

    assert await said(None) == []
    loud = await said("info")
    assert any(line.startswith("call ") for line in loud)
    assert "secret" not in str(await said(logging.DEBUG))


async def test_anthropics_cache_is_asked_for_where_that_is_wanted(tmp_path: Path) -> None:
    model = SaysModel("ok", dialect="anthropic")
    async with agent(tmp_path, model, DrawnComputer(), options={"use_prompt_caching": True}) as made:
        await made.chat("Go")
    assert model.asked[0].messages[-1].content[-1].extra == {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("model", "source"),
    [
        ("anthropic/claude-sonnet-4-5", "table"),
        ("claude-sonnet-4-5", "table"),
        ("openai/gpt-4o", "table"),
        ("openai/no-such-model", "unknown"),
        ("openai-compatible/gpt-4o", "unknown"),
        ("scripted/x.yaml", "free"),
        ("human/human", "free"),
    ],
)
def test_whose_word_a_price_is(model: str, source: str) -> None:
    assert Tariff(model).source == source


def test_a_price_that_is_given_wins() -> None:
    tariff = Tariff("openai/gpt-4o", Price(input=2.0, output=10.0, cache_read=0.5))
    usage = Usage(
        input_tokens=1_000_000, output_tokens=100_000, cache_read_tokens=2_000_000, cache_write_tokens=500_000
    )
    assert tariff.source == "given"
    assert tariff.cost(usage) == pytest.approx(2.0 + 1.0 + 1.0 + 1.0)
