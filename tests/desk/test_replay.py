"""Trajectories of a real run, of other tools, half written and broken; the page in a real browser, and one file."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from playwright.async_api import Browser, Page, expect

from computeragent import ComputerAgent
from computeragent.desk.replay import create_replay_server, export
from computeragent.desk.trajectory import Library
from computeragent.errors import NotFoundError, ValidationError
from loopback import loopback

from .conftest import TOKEN
from .drawn import Drawn

pytestmark = pytest.mark.anyio
SCRIPT = """
rules:
  - match: order
    turns:
      - text: I look first.
        thinking: What is there?
        computer: {action: screenshot}
      - text: I click and type.
        computer:
          - {action: click, x: 30, y: 40, count: 2}
          - {action: type, text: "Grüße </script> 漢字"}
      - computer: {action: scroll, x: 50, y: 60, dy: 360}
      - computer: {action: drag, path: [[10, 20], [90, 80]]}
      - computer: {action: hold_key, keys: [shift], seconds: 0.1}
      - text: It is done.
"""


def png(colour: str = "navy") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (320, 200), colour).save(out, "PNG")
    return out.getvalue()


def write(folder: Path, files: dict[str, Any]) -> Path:
    """A trajectory by hand."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


async def recorded(tmp_path: Path) -> Path:
    """The folder of what the real engine wrote of a run."""
    script, workspace = tmp_path / "script.yaml", tmp_path / "workspace"
    script.write_text(SCRIPT)
    workspace.mkdir()
    computer = await Drawn().open()
    options = {"computer": computer, "trajectory_dir": str(tmp_path / "runs"), "screenshot_delay": 0.01}
    agent = ComputerAgent(source=workspace, engine="computer-use", model=f"scripted/{script}", options=options)
    async with agent:
        assert (await agent.chat("Save an order")).text == "It is done."
    await computer.close()
    return tmp_path / "runs"


@asynccontextmanager
async def replaying(folder: Path, browser: Browser) -> AsyncIterator[tuple[Page, str]]:
    """The page of a folder's only trajectory."""
    async with loopback(create_replay_server(folder, token=TOKEN)) as url:
        page = await browser.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        await page.goto(f"{url}/?token={TOKEN}")
        yield page, url
        assert faults == []
        await page.close()


async def test_a_real_run_step_by_step(tmp_path: Path) -> None:
    library = Library(await recorded(tmp_path))
    run = library.read(library.one())
    assert (run.status, run.turns, run.faults) == ("completed", 6, [])
    assert [(step.turn, step.index, (step.action or {}).get("action")) for step in run.steps] == [
        (0, 0, "screenshot"),
        (1, 0, "click"),
        (1, 1, "type"),
        (2, 0, "scroll"),
        (3, 0, "drag"),
        (4, 0, "hold_key"),
        (5, 0, None),
    ]
    assert (run.steps[0].thought, run.steps[0].said) == (["What is there?"], ["I look first."])
    assert run.steps[2].before == run.steps[1].after
    assert run.steps[4].action == {"action": "drag", "path": [[10, 20], [90, 80]]}
    assert (run.steps[5].failed, "key_down" in run.steps[5].told) == (True, True)
    assert run.steps[6].said == ["It is done."]
    assert run.steps[6].before is not None
    assert run.usage["input_tokens"] > 0
    for path in run.pictures():
        assert library.picture(run.name, path).startswith(b"\x89PNG")


async def test_the_page_steps_through_it(tmp_path: Path, browser: Browser) -> None:
    async with replaying(await recorded(tmp_path), browser) as (page, _):
        where, told = page.locator("#where"), page.locator("#told")
        await expect(where).to_have_text("turn 1 · step 1 of 7")
        await expect(told).to_contain_text("I look first.")
        await expect(told).to_contain_text("What is there?")
        await page.keyboard.press("ArrowRight")
        await expect(where).to_have_text("turn 2 · step 2 of 7")
        assert page.url.endswith("#1/0")
        await expect(page.locator("#picture circle.ring")).to_have_count(2)  # a double click
        assert await page.locator("#picture circle.dot").get_attribute("cx") == "30"
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#picture .badge text")).to_have_text("type “Grüße </script> 漢字”")
        await page.locator("#slider").fill("3")
        await expect(page.locator("#picture .badge text")).to_have_text("scroll 360 px down")
        await page.goto(page.url.partition("#")[0] + "#3/0")
        await expect(page.locator("#picture polyline.mark").first).to_have_attribute("points", "10,20 90,80")
        await page.keyboard.press("a")
        await expect(page.locator("#picture polyline")).to_have_count(0)  # after it
        await page.keyboard.press("End")
        await expect(told).to_contain_text("It is done.")
        await page.keyboard.press("ArrowLeft")
        await expect(page.locator("#told .fault")).to_contain_text("key_down")
        await page.keyboard.press("Home")
        await expect(page.locator("#back")).to_be_disabled()


async def test_a_deep_link_survives_the_token(tmp_path: Path, browser: Browser) -> None:
    runs = await recorded(tmp_path)
    name = Library(runs).one()
    async with loopback(create_replay_server(runs, token=TOKEN)) as url:
        page = await browser.new_page()
        await page.goto(f"{url}/run/{name}?token={TOKEN}#2/0")
        await expect(page.locator("#where")).to_have_text("turn 3 · step 4 of 7")
        assert page.url == f"{url}/run/{name}#2/0"
        await page.close()


async def test_one_file_shows_it_all_without_a_server(tmp_path: Path, browser: Browser) -> None:
    target = tmp_path / "run.html"
    assert export(await recorded(tmp_path), target) == target.stat().st_size
    page = await browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{target.as_uri()}#1/1")
    await expect(page.locator("#picture .badge text")).to_have_text("type “Grüße </script> 漢字”")
    assert await page.evaluate("document.querySelector('#picture image').getBBox().width") == 320
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    await page.keyboard.press("ArrowRight")
    await expect(page.locator("#where")).to_have_text("turn 3 · step 4 of 7")
    await page.close()


async def test_what_other_tools_wrote_is_understood(tmp_path: Path) -> None:
    call = {"type": "computer_call", "call_id": "c1"}
    output = {"type": "computer_call_output", "call_id": "c1", "output": {"type": "input_image"}}
    drag = {"type": "drag", "path": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}
    write(
        tmp_path / "run",
        {
            "metadata.json": {"status": "completed", "kwargs": {"model": "some/model"}},
            "turn_000/0002_agent_response.json": {
                "response": {"output": [{**call, "action": {"type": "double_click", "x": 5, "y": 6}}]}
            },
            "turn_000/0003_screenshot_after.png": png(),
            "turn_000/0004_computer_call_result.json": {"item": output},
            "turn_001/0000_agent_response.json": {
                "output": [
                    {**call, "action": drag},
                    {"type": "function_call", "name": "look_up", "arguments": "{}"},
                    {"type": "message", "content": [{"type": "output_text", "text": "Hm."}]},
                ]
            },
            "turn_001/0001_computer_call_result.json": {"item": output},
        },
    )
    run = Library(tmp_path).read("run")
    assert run.model == "some/model"
    assert [step.action for step in run.steps] == [
        {"action": "click", "x": 5, "y": 6, "count": 2},
        {"action": "drag", "path": [[1, 2], [3, 4]]},
        None,
    ]
    assert (run.steps[1].said, run.steps[2].call) == (["Hm."], "look_up {}")


async def test_what_is_half_written_is_shown_as_far_as_it_goes(tmp_path: Path, browser: Browser) -> None:
    click = {"type": "computer_call", "call_id": "c", "action": {"action": "click", "x": 3, "y": 4}}
    write(
        tmp_path / "run",
        {
            "metadata.json": b'{"status": "runn',
            "turn_000/0001_screenshot_after.png": png()[:60],
            "turn_000/0002_computer_call_result.json": {"action": {"action": "click", "x": "3", "y": None}},
            "turn_000/0003_computer_call_result.json": b"[]",
            "turn_001/0000_agent_response.json": {"response": {"output": [click, 7, None], "usage": "none"}},
            "turn_001/.0001_screenshot_after.png.abcd": b"",
            "turn_002/0000_agent_response.json": b"\xff\xfe",
            "turn_2/readme.txt": b"",
            "turn_x/0000_agent_response.json": b"",
        },
    )
    run = Library(tmp_path).read("run")
    assert run.faults == ["metadata.json: it is not JSON, or only half written"]
    assert [step.faults for step in run.steps] == [
        ["turn_000/0003_computer_call_result.json: it is no JSON object"],
        ["what came of it is not told: it was refused, or is not written yet"],
        ["turn_002/0000_agent_response.json: it is not JSON, or only half written"],
        [],  # turn_2 is a turn as well
    ]
    async with replaying(tmp_path, browser) as (page, _):
        for _ in run.steps:
            await page.keyboard.press("ArrowRight")
        await page.keyboard.press("Home")
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#told")).to_contain_text(
            "what came of it is not told: it was refused, or is not written yet"
        )
        await expect(page.locator("#told")).to_contain_text("metadata.json")
        await expect(page.locator("#picture circle.dot")).to_have_attribute("cx", "3")


async def test_nothing_outside_of_the_folder_is_served(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    folder = write(tmp_path / "runs" / "run", {"metadata.json": {}, "turn_000/0000_screenshot_after.png": png()})
    (folder / "turn_000" / "0001_screenshot_after.png").symlink_to(secret)
    (tmp_path / "runs" / "link").symlink_to(tmp_path)
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with (
        loopback(create_replay_server(tmp_path / "runs", token=TOKEN)) as url,
        httpx2.AsyncClient(base_url=url, headers=headers) as client,
    ):
        assert (await client.get("/run/run/turn_000/0000_screenshot_after.png")).status_code == 200
        for path in (
            "/run/run/turn_000/0001_screenshot_after.png",
            "/run/run/metadata.json",
            "/run/run/turn_000/..%2f..%2f..%2fsecret.png",
            "/run/..%2f/secret.png",
            "/run/%2e%2e/turn_000/0000_screenshot_after.png",
            "/run/link",
            "/run/.",
            "/run/none",
            "/run/run/turn_000/0009_screenshot_after.png",
        ):
            answer = await client.get(path)
            assert answer.status_code in {400, 404}, (path, answer.status_code)
        client.headers.pop("authorization")
        assert (await client.get("/run/run")).status_code == 401


async def test_a_folder_of_many_is_a_list(tmp_path: Path, browser: Browser) -> None:
    write(tmp_path / "2026-01-01_first", {"metadata.json": {"status": "completed", "model": "m"}})
    write(tmp_path / "2026-01-02_<b>second", {"metadata.json": {"status": "running"}})
    write(tmp_path / "notes", {"other.txt": b""})
    async with replaying(tmp_path, browser) as (page, _):
        links = page.locator(".list a")
        await expect(links).to_have_count(2)
        await expect(links.first).to_contain_text("2026-01-02_<b>second")
        await links.first.click()
        await expect(page.locator("#told")).to_contain_text("nothing was written yet")
    with pytest.raises(ValidationError, match="2 trajectories"):
        export(tmp_path, tmp_path / "x.html")
    with pytest.raises(NotFoundError):
        Library(tmp_path / "none")
