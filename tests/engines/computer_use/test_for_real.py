"""The whole way: a provider's wire on loopback, a real Chromium on a real desktop, the page's DOM as the witness."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent
from computeragent.computer.browser import BrowserComputer
from computeragent.computer.pool import ComputerPool, default_pool
from computeragent.computer.x11 import X11Computer
from computeragent.errors import TurnFailedError
from computeragent.models.script.loading import parse_script
from computeragent.protocol_types import PermissionRequest
from computeragent.testing.models import ModelSimulator

from .oracle import Oracle, oracle
from .parts import blocks, ended

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]
TEXT = "Grüße, 漢字 Жλ 😀!"
SCRIPT = f"""
rules:
  - match: Fill in the page
    turns:
      - text: I look first.
        computer: {{action: screenshot}}
      - computer: {{action: click, x: 560, y: 50}}
      - computer:
          - {{action: click, x: 220, y: 50}}
          - {{action: type, text: "{TEXT}"}}
      - computer: {{action: scroll, x: 300, y: 400, dy: 360}}
      - computer: {{action: drag, path: [[130, 230], [330, 330]]}}
      - computer:
          - {{action: click, x: 220, y: 50}}
          - {{action: keypress, keys: [ctrl, a]}}
      - text: The page is filled in.
  - match: Click the button
    turns:
      - computer: {{action: click, x: 560, y: 50}}
      - text: Clicked.
  - match: Wait
    turns:
      - computer: {{action: wait, seconds: 50}}
      - text: Never.
  - match: Hello
    turns: ["Hello yourself."]
  - match: Break
    turns:
      - text: A long answer that never comes to its end.
        drop_after: 3
"""
WIRES = {
    "anthropic": ("anthropic/claude-sonnet-4-5", {}),
    "anthropic-zoom": ("anthropic/claude-opus-4-5", {}),
    "anthropic-toolset": ("anthropic/claude-opus-4-5", {"tool_format": "computer_toolset_20260801"}),
    "openai-preview": ("openai/computer-use-preview", {}),
    "openai": ("openai/gpt-5.4", {}),
    "openai-function": ("openai/gpt-4o", {}),
    "chat": ("openai-compatible/some-vlm", {}),
    "gemini": ("gemini/gemini-2.5-pro", {}),
    "gemini-3": ("gemini/gemini-3-pro-preview", {}),
}


@pytest.fixture
async def page() -> AsyncIterator[Oracle]:
    async with oracle() as made:
        yield made


@pytest.fixture
async def pool() -> AsyncIterator[ComputerPool]:
    """The pool of a test, with nothing left in it afterwards."""
    made = default_pool()
    yield made
    async with asyncio.timeout(20):
        while made.busy:  # computers that are given back are made as good as new
            await asyncio.sleep(0.01)
    await made.aclose()


@asynccontextmanager
async def desktop(page: Oracle) -> AsyncIterator[X11Computer]:
    """A desktop with Chromium on it, which shows the page."""
    computer = await X11Computer.start(1024, 768)
    try:
        await computer.launch("chromium", ["--kiosk", page.url])
        await page.until(lambda seen: seen["ready"])
        await computer.settle()
        yield computer
    finally:
        await computer.close()


@asynccontextmanager
async def simulated(script: str = SCRIPT) -> AsyncIterator[tuple[ModelSimulator, dict[str, str]]]:
    async with ModelSimulator(parse_script(script)) as simulator:
        yield (
            simulator,
            {
                "ANTHROPIC_API_KEY": "sk-ant-test-0000000000",
                "ANTHROPIC_BASE_URL": simulator.url,
                "OPENAI_API_KEY": "sk-test-0000000000",
                "OPENAI_BASE_URL": f"{simulator.url}/v1",
                "OPENAI_COMPATIBLE_BASE_URL": f"{simulator.url}/v1",
                "GEMINI_API_KEY": "AIza-test-0000000000",
                "GOOGLE_GEMINI_BASE_URL": simulator.url,
            },
        )


def agent(folder: Path, computer: Any, envs: dict[str, str], wire: str = "anthropic", **rest: Any) -> ComputerAgent:
    model, options = WIRES[wire]
    options = {"computer": computer, **options, **rest.pop("options", {})}
    return ComputerAgent(source=folder, engine="computer-use", model=model, options=options, envs=envs, **rest)


@pytest.mark.parametrize("wire", WIRES)
async def test_a_model_fills_in_a_page(tmp_path: Path, page: Oracle, wire: str) -> None:
    async with desktop(page) as computer, simulated() as (simulator, envs):
        async with agent(tmp_path, computer, envs, wire) as made:
            result = await made.chat("Fill in the page")
        seen = await page.until(lambda seen: seen["selected"] == TEXT)
    assert result.text == "The page is filled in."
    assert seen["text"] == TEXT
    assert seen["clicks"] == 1
    assert seen["scroll"] == 360
    assert seen["moved"] == [200, 100]
    assert seen["keys"] == ["a"]
    assert seen["selected"] == TEXT
    assert blocks(result, "tool_result")[-1]["screen"] == {"width": 1024, "height": 768}
    assert all(not block["is_error"] for block in blocks(result, "tool_result"))
    assert len(simulator.requests) == 7


async def test_a_denied_click_reaches_no_page(tmp_path: Path, page: Oracle) -> None:
    asked: list[PermissionRequest] = []

    def nobody_clicks(request: PermissionRequest) -> bool:
        asked.append(request)
        return request.input["action"] != "click"

    async with desktop(page) as computer, simulated() as (_, envs):
        async with agent(tmp_path, computer, envs, on_tool_call=nobody_clicks) as made:
            await made.chat("Click the button")
        await computer.keypress(["ctrl", "z"])  # what is done later is seen later
        seen = await page.until(lambda seen: seen["keys"])
    assert seen["clicks"] == 0
    assert [request.input for request in asked] == [{"action": "click", "x": 560, "y": 50}]


async def test_a_changed_click_is_the_one_that_the_page_sees(tmp_path: Path, page: Oracle) -> None:
    twice = {"decision": "modify", "input": {"action": "click", "x": 570, "y": 60, "count": 2}}
    async with desktop(page) as computer, simulated() as (_, envs):
        async with agent(tmp_path, computer, envs, on_tool_call=lambda _: twice) as made:
            await made.chat("Click the button")
        seen = await page.until(lambda seen: seen["doubles"])
    assert (seen["clicks"], seen["doubles"]) == (2, 1)


async def test_a_screen_that_is_shown_smaller_is_clicked_where_the_model_means(tmp_path: Path, page: Oracle) -> None:
    script = """
rules:
  - match: Go
    turns:
      - computer: {action: screenshot}
      - computer: {action: click, x: 280, y: 25}
      - text: Clicked.
"""
    async with desktop(page) as computer, simulated(script) as (simulator, envs):
        async with agent(tmp_path, computer, envs, options={"model_screen": [512, 384]}) as made:
            result = await made.chat("Go")
        seen = await page.until(lambda seen: seen["clicks"])
    assert seen["clicks"] == 1
    tool = simulator.requests[0].json["tools"][0]
    assert (tool["display_width_px"], tool["display_height_px"]) == (512, 384)
    assert blocks(result, "tool_use")[1]["input"] == {"action": "click", "x": 561, "y": 51}


async def test_an_interrupt_in_the_midst_of_an_action_leaves_the_computer_usable(tmp_path: Path, page: Oracle) -> None:
    async with desktop(page) as computer, simulated() as (_, envs):
        async with agent(tmp_path, computer, envs) as made:
            handle = made.chat("Wait")
            async with asyncio.timeout(20):
                async for event in handle:
                    if getattr(event, "kind", "") == "ca_permission_decision":
                        await handle.cancel()
            await made.chat("Click the button")
        seen = await page.until(lambda seen: seen["clicks"])
    assert seen["clicks"] == 1


async def test_a_stream_that_breaks_off_is_asked_for_again_and_then_told(tmp_path: Path) -> None:
    async with simulated() as (simulator, envs), agent(tmp_path, None, envs, options={"max_retries": 1}) as made:
        with pytest.raises(TurnFailedError, match="broke off") as failed:
            await made.chat("Break")
        assert ended(failed.value.result)["error"]["code"] == "MODEL_CALL"
        assert (await made.chat("Hello")).text == "Hello yourself."
    assert len(simulator.requests) >= 3


async def test_a_computer_of_the_pool_is_leased_for_the_run_and_given_back(tmp_path: Path, pool: ComputerPool) -> None:
    computer = {"kind": "x11", "width": 1024, "height": 768}
    async with simulated() as (_, envs):
        async with agent(tmp_path, computer, envs) as made:
            assert (await made.chat("Hello")).text == "Hello yourself."
            assert pool.busy == 0  # nobody needed it
            await made.chat("Click the button")
            assert pool.busy == 1
        async with asyncio.timeout(20):
            while pool.busy:
                await asyncio.sleep(0.01)


@pytest.mark.usefixtures("pool")
async def test_a_browser_is_a_computer_as_well(tmp_path: Path, page: Oracle) -> None:
    computer = {"kind": "browser", "width": 1024, "height": 768, "page": page.url}
    async with simulated() as (_, envs), agent(tmp_path, computer, envs, "openai") as made:
        await made.chat("Fill in the page")
        seen = dict(await page.until(lambda seen: seen["selected"] == TEXT))
    assert (seen["clicks"], seen["text"], seen["moved"], seen["selected"]) == (1, TEXT, [200, 100], TEXT)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[X11Computer]:
    """The desktops that are started in a test."""
    made: list[X11Computer] = []
    start = X11Computer.start

    async def remembered(*args: Any, **kwargs: Any) -> X11Computer:
        made.append(await start(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(X11Computer, "start", remembered)
    return made


@pytest.mark.usefixtures("pool")
async def test_a_display_that_dies_ends_the_turn_and_the_next_one_has_another(
    tmp_path: Path, started: list[X11Computer]
) -> None:
    computer = {"kind": "x11", "width": 1024, "height": 768}
    async with simulated() as (_, envs), agent(tmp_path, computer, envs) as made:
        await made.chat("Click the button")
        display = started[0]._managed
        assert display is not None
        display.server.kill()
        with pytest.raises(TurnFailedError) as failed:
            await made.chat("Click the button")
        assert ended(failed.value.result)["error"]["code"] == "COMPUTER_UNAVAILABLE"
        assert (await made.chat("Click the button")).text == "Clicked."
    assert len(started) == 2


async def test_a_browser_that_somebody_closes_ends_the_turn(tmp_path: Path, page: Oracle) -> None:
    browser = await BrowserComputer.start(800, 600)
    try:
        async with simulated() as (_, envs), agent(tmp_path, browser, envs) as made:
            await browser.goto(page.url)
            await made.chat("Click the button")
            await browser.close()
            with pytest.raises(TurnFailedError) as failed:
                await made.chat("Click the button")
            assert ended(failed.value.result)["error"]["code"] == "COMPUTER_UNAVAILABLE"
            assert (await made.chat("Hello")).text == "Hello yourself."
    finally:
        await browser.close()


async def test_four_agents_use_four_desktops_and_nothing_crosses(tmp_path: Path, pool: ComputerPool) -> None:
    script = """
rules:
  - match: You are (\\w+)
    turns:
      - computer: {action: click, x: 220, y: 50}
      - computer: {action: type, text: "$1"}
      - I am $1.
"""

    async def one(name: str) -> tuple[str, Any]:
        async with oracle() as page, simulated(script) as (simulator, envs):
            computer = {"kind": "x11", "width": 640, "height": 480, "page": page.url}
            own = {**envs, "ANTHROPIC_API_KEY": f"sk-ant-{name}-0000000000"}
            async with agent(tmp_path, computer, own) as made:
                result = await made.chat(f"You are {name}")
            assert {request.api_key for request in simulator.calls} == {f"sk-ant-{name}-0000000000"}
            assert pool.busy <= 4
            return result.text, len(simulator.calls)

    names = ["Ada", "Bo", "Cy", "Di"]
    assert await asyncio.gather(*map(one, names)) == [(f"I am {name}.", 3) for name in names]


@pytest.mark.usefixtures("pool")
async def test_a_model_is_told_of_dialogs_that_no_screenshot_shows(tmp_path: Path) -> None:
    asking = "data:text/html,<button style='width:300px;height:200px' onclick=\"alert('Saved twice')\">Save</button>"
    script = """
    rules:
      - match: save
        turns:
          - computer: {action: click, x: 100, y: 100}
          - Saved.
    """
    computer = {"kind": "browser", "width": 400, "height": 300, "page": asking}
    async with simulated(script) as (model, envs), agent(tmp_path, computer, envs) as one:
        await one.chat("Please save")
    assert "alert: 'Saved twice'" in model.calls[-1].text
