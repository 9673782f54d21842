"""A person answers as the model, on the page, in a real browser."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import httpx2
import pytest
from playwright.async_api import async_playwright

from computeragent.responses import create_responses_server
from computeragent.server.auth import bearer
from loopback import loopback

from .oracle import BUTTON, oracle

pytestmark = pytest.mark.anyio
HEADERS = {"authorization": "Bearer token"}


async def test_a_person_looks_clicks_and_answers(tmp_path: Path) -> None:
    app = create_responses_server(auth=bearer(["token"]))
    async with (
        oracle() as page,
        loopback(app) as url,
        httpx2.AsyncClient(base_url=url, headers=HEADERS, timeout=50) as client,
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        view = await browser.new_page(viewport={"width": 1200, "height": 900})
        await view.goto(f"{url}/human")
        await view.fill("#token", "token")
        await view.click("text=Enter")
        body = {
            "model": "human/human",
            "input": "Please press the button",
            "computer_kwargs": {"provider_type": "browser", "display": "800x600", "page": page.url},
        }
        answering = asyncio.create_task(client.post("/responses", json=body))
        await view.wait_for_selector("#work[data-id]")
        await view.select_option("#kind", "screenshot")
        await view.click("form#answer button")
        await view.wait_for_selector("#shot[src^='data:image']")
        box = await view.locator("#shot").bounding_box()
        assert box is not None
        scale = box["width"] / 800
        await view.mouse.click(box["x"] + BUTTON[0] * scale, box["y"] + BUTTON[1] * scale)
        await view.screenshot(path=tmp_path / "human.png")
        await view.click("form#answer button")
        await page.until(lambda: any(event["target"] == "button" for event in page.of("click")))
        await view.wait_for_function(
            "document.querySelector('#work').dataset.id && !document.querySelector('#text').value"
        )
        await view.fill("#text", "It is pressed.")
        await view.click("form#answer button")
        told = (await answering).json()
        assert told["result"]["output_text"] == "It is pressed."
        await browser.close()


async def test_nobody_else_sees_what_waits() -> None:
    app = create_responses_server(auth=bearer(["token"]))
    async with loopback(app) as url, httpx2.AsyncClient(base_url=url) as client:
        assert (await client.get("/human")).status_code == 200
        assert (await client.get("/human/pending")).status_code == 401
        assert (await client.post("/human/call_1", json={"text": "x"}, headers=HEADERS)).status_code == 404
