"""The live view, as a program sees it: frames when something changed, for one and for many, and control for one."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable

import httpx2
import pytest
from PIL import Image

from computeragent.computer.x11 import X11Computer

from .conftest import TOKEN, viewing
from .drawn import Drawn, colour_of
from .oracle import oracle
from .viewer import watching

pytestmark = pytest.mark.anyio
RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_frames_come_only_when_the_screen_changed() -> None:
    drawn = Drawn()
    drawn.colour = RED
    async with viewing(drawn.open) as url, watching(url, token=TOKEN) as viewer:
        await viewer.until(lambda: len(viewer.frames) == 1)
        looked = drawn.shots
        await until(lambda: drawn.shots > looked + 5)
        assert len(viewer.frames) == 1
        drawn.colour = GREEN
        await viewer.until(lambda: len(viewer.frames) == 2)
        assert [colour_of(frame) for frame in viewer.frames] == [RED, GREEN]
        assert viewer.last("status")["size"] == [320, 200]


async def test_many_viewers_share_one_grabber_and_nobody_is_looked_for() -> None:
    drawn = Drawn()
    async with viewing(drawn.open) as url:
        async with watching(url, token=TOKEN) as one, watching(url, token=TOKEN) as two:
            for shade in range(10, 110, 10):
                drawn.colour = (shade, 0, 0)
                await one.until(lambda shade=shade: colour_of(one.frames[-1])[0] == shade if one.frames else False)
                await two.until(lambda shade=shade: colour_of(two.frames[-1])[0] == shade if two.frames else False)
            assert one.frames[-1] == two.frames[-1]
            assert drawn.opened == 1
        await asyncio.sleep(0.2)
        looked = drawn.shots
        await asyncio.sleep(0.3)
        assert drawn.shots == looked  # nobody watches, nothing is taken
    assert drawn.closed == 1


async def test_a_slow_viewer_skips_frames_and_holds_nobody_up() -> None:
    drawn = Drawn()
    async with (
        viewing(drawn.open) as url,
        watching(url, token=TOKEN, draws=False) as slow,
        watching(url, token=TOKEN) as quick,
    ):
        for shade in range(10, 260, 10):
            drawn.colour = (shade, 0, 0)
            await quick.until(lambda shade=shade: bool(quick.frames) and colour_of(quick.frames[-1])[0] == shade)
        assert len(quick.frames) >= 25
        assert len(slow.frames) == 2
        await slow.say(type="drawn")
        await slow.until(lambda: len(slow.frames) == 3)
        assert colour_of(slow.frames[-1])[0] == 250  # the newest one, not the next of a queue


async def test_mjpeg_has_the_same_frames() -> None:
    drawn = Drawn()
    drawn.colour = RED
    async with (
        viewing(drawn.open) as url,
        httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {TOKEN}"}) as client,
        client.stream("GET", "/screen.mjpg") as answer,
    ):
        assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        data = b""
        seen: list[tuple[int, int, int]] = []
        async with asyncio.timeout(20):
            async for chunk in answer.aiter_bytes():
                data += chunk
                parts = data.split(b"--frame\r\n")
                for part in parts[1:-1]:
                    head, _, body = part.partition(b"\r\n\r\n")
                    assert f"Content-Length: {len(body) - 2}".encode() in head
                    if colour_of(body) not in seen[-1:]:  # the last one before a pause comes twice
                        seen.append(colour_of(body))
                data = b"--frame\r\n" + parts[-1]
                if RED in seen:
                    drawn.colour = BLUE
                if BLUE in seen:
                    break
        assert seen == [RED, BLUE]


async def test_screenshot_is_a_png() -> None:
    drawn = Drawn()
    drawn.colour = BLUE
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with viewing(drawn.open) as url, httpx2.AsyncClient(base_url=url, headers=headers) as client:
        answer = await client.get("/screenshot.png")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.size == (320, 200)


async def test_a_computer_that_dies_is_told_and_another_is_opened_when_asked() -> None:
    drawn = Drawn()
    drawn.colour = RED
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with viewing(drawn.open) as url, watching(url, token=TOKEN) as viewer:
        await viewer.until(lambda: len(viewer.frames) == 1)
        drawn.dead = True
        await viewer.until(lambda: viewer.last("status")["state"] == "gone")
        assert (viewer.last("status")["problem"], viewer.last("status")["hint"]) == (
            "the display is gone",
            "Start it again.",
        )
        async with httpx2.AsyncClient(base_url=url, headers=headers) as client:
            answer = await client.get("/screenshot.png")
            assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the display is gone")
        drawn.dead, drawn.colour = False, GREEN
        await viewer.say(type="again")
        await viewer.until(lambda: viewer.last("status")["state"] == "live" and len(viewer.frames) == 2)
        assert colour_of(viewer.frames[-1]) == GREEN
        assert (drawn.opened, drawn.closed) == (2, 1)


async def test_a_computer_that_is_busy_is_waited_for() -> None:
    drawn = Drawn()
    drawn.colour = RED
    async with viewing(drawn.open) as url, watching(url, token=TOKEN) as viewer:
        await viewer.until(lambda: len(viewer.frames) == 1)
        drawn.busy = True
        await viewer.until(lambda: viewer.last("status")["state"] == "waiting")
        assert viewer.last("status")["problem"] == "the page does not answer"
        drawn.busy, drawn.colour = False, GREEN
        await viewer.until(lambda: viewer.last("status")["state"] == "live" and len(viewer.frames) == 2)
        assert drawn.opened == 1


async def test_a_computer_that_does_not_open_is_told() -> None:
    drawn = Drawn()
    drawn.dead = True
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with viewing(drawn.open) as url, watching(url, token=TOKEN) as viewer:
        await viewer.until(lambda: viewer.last("status")["state"] == "gone")
        async with httpx2.AsyncClient(base_url=url, headers=headers) as client:
            assert (await client.get("/screen.mjpg")).status_code == 503


async def test_looking_is_no_touching() -> None:
    drawn = Drawn()
    async with viewing(drawn.open) as url, watching(url, token=TOKEN) as viewer:
        await viewer.say(type="take")
        await viewer.act(action="type", text="x")
        await viewer.until(lambda: len([each for each in viewer.messages if each["type"] == "error"]) == 2)
        assert {each["code"] for each in viewer.messages if each["type"] == "error"} == {"INSUFFICIENT_PERMISSION"}
        assert drawn.done == []


async def test_one_viewer_at_a_time_has_the_computer() -> None:
    drawn = Drawn()
    async with (
        viewing(drawn.open, take_over=True) as url,
        watching(url, token=TOKEN) as one,
        watching(url, token=TOKEN) as two,
    ):
        await two.act(action="type", text="nobody")
        await two.until(lambda: two.last("error").get("code") == "CONFLICT")
        await one.take()
        await two.until(lambda: two.last("control").get("held") is True)
        await one.act(action="mouse_down", x=5, y=6)
        await until(lambda: any(name == "left_mouse_down" for name, _ in drawn.done))
        await two.take()
        await one.until(lambda: not one.last("control")["mine"])
        await until(lambda: any(name == "left_mouse_up" for name, _ in drawn.done))  # what it held is let go
        await one.act(action="type", text="too late")
        await two.act(action="type", text="mine")
        await until(lambda: ("type", ("mine",)) in drawn.done)
        assert ("type", ("too late",)) not in drawn.done


async def test_who_leaves_lets_go() -> None:
    drawn = Drawn()
    async with viewing(drawn.open, take_over=True) as url:
        async with watching(url, token=TOKEN) as viewer:
            await viewer.take()
            await viewer.act(action="mouse_down", x=5, y=6)
            await until(lambda: bool(drawn.done))
        await until(lambda: any(name == "left_mouse_up" for name, _ in drawn.done))
        async with watching(url, token=TOKEN) as other:
            await other.until(lambda: other.last("control").get("held") is False)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("no json", "VALIDATION"),
        ("[1, 2]", "VALIDATION"),
        (b"\xff\xfe", "VALIDATION"),
        ('{"type": "dance"}', "VALIDATION"),
        ('{"type": "act"}', "COMPUTER_ACTION"),
        ('{"type": "act", "do": {"action": "click", "x": 9999, "y": 1}}', "COMPUTER_ACTION"),
        ('{"type": "act", "do": {"action": "keypress", "keys": ["nokey"]}}', "COMPUTER_ACTION"),
        ('{"type": "act", "do": {"action": "wait", "seconds": 60}}', "INSUFFICIENT_PERMISSION"),
    ],
)
async def test_nonsense_is_answered_and_the_viewer_stays(said: str | bytes, code: str) -> None:
    drawn = Drawn()
    async with viewing(drawn.open, take_over=True) as url, watching(url, token=TOKEN) as viewer:
        await viewer.take()
        await viewer.send(said)
        await viewer.until(lambda: viewer.last("error").get("code") == code)
        await viewer.act(action="type", text="still here")
        await until(lambda: ("type", ("still here",)) in drawn.done)


async def test_what_a_viewer_does_reaches_the_page_on_the_desktop() -> None:
    async def open_() -> X11Computer:
        computer = await X11Computer.start(1024, 768)
        await computer.launch("chromium", ["--kiosk", page.url])
        return computer

    async with (
        oracle() as page,
        viewing(open_, take_over=True) as url,
        watching(url, token=TOKEN) as viewer,
    ):
        await page.ready()
        await viewer.take()
        await viewer.act(action="move", x=300, y=300)
        await viewer.act(action="mouse_down", x=300, y=50)
        await viewer.act(action="mouse_up", x=300, y=50)
        clicked = await page.until(lambda event: event["type"] == "click")
        assert (clicked["x"], clicked["y"]) == (300, 50)
        await viewer.act(action="type", text="Grüße 漢字 😀")
        await page.text("Grüße 漢字 😀")
        await viewer.act(action="keypress", keys=["ctrl", "a"])
        await page.until(lambda event: event["type"] == "keydown" and event["key"] == "a" and event["ctrl"])
        await viewer.act(action="scroll", x=500, y=500, dy=360)
        await page.until(lambda event: event["type"] == "scroll" and event["y"] > 0)
        assert viewer.last("error").get("code") is None
