"""The live view's page in a real browser, on real desktops."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest
from playwright.async_api import Browser, Page, expect

from computeragent.computer.browser import BrowserComputer
from computeragent.computer.x11 import X11Computer

from .conftest import TOKEN, viewing
from .drawn import Drawn
from .oracle import oracle

pytestmark = pytest.mark.anyio
Display = tuple[str, "subprocess.Popen[bytes]"]
RED, GREEN = (200, 0, 0), (0, 200, 0)
MIDDLE = """() => { const canvas = document.getElementById("screen");
  return [...canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data].slice(0, 3); }"""


async def shows(page: Page, colour: tuple[int, int, int]) -> None:
    """Wait until the middle of the canvas has a colour."""
    near = f"(wanted) => ({MIDDLE})().every((each, index) => Math.abs(each - wanted[index]) < 8)"
    await page.wait_for_function(near, arg=list(colour))


@pytest.fixture
def display() -> Iterator[Display]:
    """A display that is not ours: its name, and the server that can be killed."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "640x480x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read, "rb") as told:
        name = f":{told.readline().decode().strip()}"
    yield name, server
    server.kill()
    server.wait()


async def test_the_page_shows_the_screen_and_follows_it(browser: Browser) -> None:
    drawn = Drawn()
    drawn.colour = RED
    faults: list[str] = []
    async with viewing(drawn.open, title="the desk") as url:
        page = await browser.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        await page.goto(f"{url}/?token={TOKEN}")
        assert page.url == f"{url}/"  # the token is not in the address any more
        await shows(page, RED)
        drawn.colour = GREEN
        await shows(page, GREEN)
        await expect(page.locator("#state")).to_have_text("live · custom · 320 × 200")
        await expect(page.locator("#take")).to_have_count(0)
        assert faults == []
        await page.close()


async def test_pointer_and_keyboard_of_the_page_reach_the_desktop(browser: Browser) -> None:
    async def open_() -> X11Computer:
        computer = await X11Computer.start(800, 600)
        await computer.launch("chromium", ["--kiosk", seen.url])
        return computer

    async with oracle() as seen, viewing(open_, take_over=True) as url:
        page = await browser.new_page(viewport={"width": 700, "height": 600})  # smaller: the page scales
        await page.goto(f"{url}/?token={TOKEN}")
        await seen.ready()
        await page.get_by_role("button", name="Take over").click()
        await expect(page.get_by_role("button", name="Give back")).to_be_visible()
        canvas = page.locator("#screen")
        width = (await canvas.bounding_box() or {})["width"]
        assert width < 700

        def at(x: int, y: int) -> dict[str, float]:
            return {"x": 1 + x * (width - 2) / 800, "y": 1 + y * (width - 2) / 800}

        await canvas.click(position=at(200, 50))
        clicked = await seen.until(lambda event: event["type"] == "click")
        assert abs(clicked["x"] - 200) <= 1
        assert abs(clicked["y"] - 50) <= 1
        await page.keyboard.type("Hi there")
        await page.keyboard.insert_text(" – 漢字 😀")  # as an input method would
        await seen.text("Hi there – 漢字 😀")
        await page.keyboard.press("Control+a")
        await page.keyboard.press("Backspace")
        await seen.text("")
        await canvas.click(position=at(400, 300), button="right")
        await seen.until(lambda event: event["type"] == "contextmenu")
        await canvas.click(position=at(600, 400), modifiers=["Control"])
        await seen.until(lambda event: event["type"] == "click" and event["ctrl"])
        await canvas.dblclick(position=at(500, 400))
        await seen.until(lambda event: event["type"] == "dblclick")
        await page.mouse.wheel(0, 300)
        await seen.until(lambda event: event["type"] == "scroll" and event["y"] > 0)
        await page.keyboard.press("Shift+Escape")
        await expect(page.get_by_role("button", name="Take over")).to_be_focused()
        await page.close()


async def test_a_browser_has_an_address_field(browser: Browser) -> None:
    async def open_() -> BrowserComputer:
        return await BrowserComputer.start(600, 400)

    async with oracle() as seen, viewing(open_, take_over=True) as url:
        page = await browser.new_page()
        await page.goto(f"{url}/?token={TOKEN}")
        await page.get_by_role("button", name="Take over").click()
        await page.get_by_label("Address").fill(seen.url)
        await page.keyboard.press("Enter")
        await seen.ready()
        await page.locator("#screen").click(position={"x": 300, "y": 300})
        await seen.until(lambda event: event["type"] == "click")
        await page.close()


@pytest.mark.filterwarnings("ignore:unclosed <socket")  # python-xlib's, where it cannot connect
async def test_a_dead_display_is_told_on_the_page(browser: Browser, display: Display) -> None:
    name, server = display
    async with viewing(partial(X11Computer.attach, name)) as url:
        page = await browser.new_page()
        await page.goto(f"{url}/?token={TOKEN}")
        await expect(page.locator("#state")).to_have_text("live · x11 · 640 × 480")
        server.kill()
        server.wait()
        await expect(page.get_by_role("alert")).to_be_visible(timeout=20_000)
        await expect(page.locator("#state")).to_have_text("gone")
        await expect(page.locator("#problem")).to_contain_text(name)
        await page.get_by_role("button", name="Try again").click()
        await expect(page.locator("#problem")).to_contain_text(name)
        await expect(page.get_by_role("alert")).to_be_visible()
        await page.close()
    gc.collect()


async def test_a_view_that_ends_is_told_on_the_page(browser: Browser) -> None:
    page = await browser.new_page()
    async with viewing(Drawn().open) as url:
        await page.goto(f"{url}/?token={TOKEN}")
        await expect(page.locator("#state")).to_contain_text("live")
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(page.locator("#state")).to_have_attribute("data-state", "gone")
    await page.close()


async def test_without_websockets_the_page_shows_pictures(browser: Browser) -> None:
    drawn = Drawn()
    drawn.colour = RED
    async with viewing(drawn.open, take_over=True) as url:
        page = await browser.new_page()
        await page.add_init_script(
            "globalThis.WebSocket = class { constructor() { setTimeout(() => this.onclose()); } };"
        )
        await page.goto(f"{url}/?token={TOKEN}")
        await expect(page.locator("#state")).to_have_text("live · pictures only")
        pixel = """() => { const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
          pen.drawImage(document.querySelector("img.motion"), 0, 0); return pen.getImageData(9, 9, 1, 1).data[1]; }"""
        assert await page.evaluate(pixel) < 20
        drawn.colour = GREEN
        await page.wait_for_function(f"() => ({pixel})() > 150")
        await expect(page.locator("#take")).to_be_disabled()
        await page.close()


async def test_the_token_can_be_pasted(browser: Browser) -> None:
    async with viewing(Drawn().open) as url:
        page = await browser.new_page()
        await page.goto(url)
        await page.get_by_label("Token").fill("wrong")
        await page.keyboard.press("Enter")
        await page.get_by_label("Token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.locator("#state")).to_contain_text("live")
        assert page.url == f"{url}/"
        await page.close()
