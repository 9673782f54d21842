"""Clicks, drags, the wheel and keys, as a page in Chromium sees them."""

from __future__ import annotations

import asyncio

import pytest

from computeragent.computer.actions import parse_action, perform
from computeragent.computer.types import Point
from computeragent.errors import ComputerActionError

from .chromium_page import ChromiumPage, summary

pytestmark = pytest.mark.anyio


async def test_a_click_lands_on_its_pixel(page: ChromiumPage):
    x, y = await page.at("#target", dx=7, dy=-11)
    await page.computer.click(x, y)
    await page.until("seen.some((event) => event.type == 'click')")
    [click] = await page.seen("click")
    assert (click["target"], click["button"], click["detail"]) == ("target", 0, 1)
    assert (click["x"], click["y"]) == (700 + 60 + 7, 40 + 40 - 11)
    assert await page.computer.cursor_position() == (x, y)


@pytest.mark.parametrize("count", [2, 3])
async def test_multiple_clicks_are_one_gesture(page: ChromiumPage, count: int):
    for _ in range(3):  # each time, and not now and then
        await page.fresh()
        await asyncio.sleep(0.6)  # so that the last round's clicks do not count
        await page.computer.click(*await page.at("#target"), count=count)
        await page.until(f"seen.some((event) => event.type == 'click' && event.detail == {count})")
        assert [event["detail"] for event in await page.seen("click")] == list(range(1, count + 1))
        assert len(await page.seen("dblclick")) == 1


async def test_each_button_is_its_own(page: ChromiumPage):
    x, y = await page.at("#target")
    await page.computer.click(x, y, "right")
    await page.until("seen.some((event) => event.type == 'contextmenu')")
    await page.computer.click(x, y, "middle")
    await page.until("seen.filter((event) => event.type == 'auxclick').length == 2")
    assert [event["button"] for event in await page.seen("mousedown")] == [2, 1]


async def test_a_drag_presses_moves_and_lets_go(page: ChromiumPage):
    x, y = await page.at("#target")
    await page.computer.drag([Point(x, y), Point(x - 40, y + 30), Point(x - 40, y + 90)])
    await page.until("seen.some((event) => event.type == 'mouseup')")
    events = await page.seen("mousedown", "mousemove", "mouseup")
    down = next(place for place, event in enumerate(events) if event["type"] == "mousedown")
    moves = [event for event in events[down:] if event["type"] == "mousemove" and event["buttons"] == 1]
    assert len(moves) >= 3, "programs take a leap for no drag"
    assert (events[-1]["x"], events[-1]["y"]) == (events[down]["x"] - 40, events[down]["y"] + 90)


async def test_a_drag_that_is_cancelled_lets_the_button_go(page: ChromiumPage):
    x, y = await page.at("#target")
    dragging = asyncio.create_task(page.computer.drag([Point(x, y), Point(x, y + 400)]))
    await page.until("seen.some((event) => event.type == 'mousemove' && event.buttons == 1)")
    dragging.cancel()
    await asyncio.gather(dragging, return_exceptions=True)
    await page.until("seen.some((event) => event.type == 'mouseup')")


@pytest.mark.parametrize(
    ("dx", "dy", "scrolled"), [(0, 360, [0, 360]), (0, 100, [0, 120]), (0, 1, [0, 120]), (240, 0, [240, 0])]
)
async def test_the_wheel_turns_by_pixels(page: ChromiumPage, dx: int, dy: int, scrolled: list[int]):
    x, y = await page.at("#list")
    await page.computer.scroll(x, y, dx, dy)
    await page.until(f"list.scrollLeft == {scrolled[0]} && list.scrollTop == {scrolled[1]}")
    await page.computer.scroll(x, y, -dx, -dy)
    await page.until("list.scrollLeft == 0 && list.scrollTop == 0")


async def test_keys_are_held_during_a_click_and_let_go_after_it(page: ChromiumPage):
    await page.computer.click(*await page.at("#target"), keys=["ctrl", "shift"])
    await page.until("seen.filter((event) => event.type == 'keyup').length == 2")
    [click] = await page.seen("click")
    assert (click["ctrl"], click["shift"], click["alt"]) == (True, True, False)


async def test_a_button_is_held_until_it_is_let_go(page: ChromiumPage):
    x, y = await page.at("#target")
    await page.computer.mouse_down(x=x, y=y)
    await page.computer.move(x + 20, y + 10)
    await page.until("seen.some((event) => event.type == 'mousemove' && event.buttons == 1)")
    assert await page.seen("mouseup") == []
    await page.computer.mouse_up()
    await page.until("seen.some((event) => event.type == 'mouseup')")


@pytest.mark.parametrize("combination", [["ctrl", "a"], ["CTRL", "A"], ["Control_L", "a"]])
async def test_a_shortcut_works_however_its_keys_are_spelt(page: ChromiumPage, combination: list[str]):
    await page.computer.type("select me")
    await page.text("select me")
    await page.computer.keypress(combination)
    await page.until("field.selectionStart == 0 && field.selectionEnd == 9")
    assert not any(event["shift"] for event in await page.seen("keydown"))


async def test_a_key_that_needs_shift_gets_it(page: ChromiumPage):
    await page.computer.keypress(["A"])
    await page.computer.keypress(["+"], repeat=3)
    await page.computer.keypress(["ß"])
    assert await page.text("A+++ß") == "A+++ß"


async def test_every_named_key_is_pressed(page: ChromiumPage):
    named = {
        "home": "Home", "end": "End", "pageup": "PageUp", "pagedown": "PageDown", "up": "ArrowUp", "down": "ArrowDown",
        "left": "ArrowLeft", "right": "ArrowRight", "backspace": "Backspace", "delete": "Delete", "escape": "Escape",
        "enter": "Enter", "tab": "Tab", "space": " ", "f2": "F2", "f9": "F9", "shift": "Shift", "ctrl": "Control",
    }  # fmt: skip
    for key in named:
        await page.computer.keypress([key])
    await page.until(f"seen.filter((event) => event.type == 'keyup').length == {len(named)}")
    assert [event["key"] for event in await page.seen("keydown")] == list(named.values())


async def test_a_key_is_held_for_as_long_as_asked(page: ChromiumPage):
    await perform(page.computer, parse_action({"action": "hold_key", "keys": ["shift"], "seconds": 0.3}))
    await page.until("seen.some((event) => event.type == 'keyup')")
    down, up = await page.seen("keydown", "keyup")
    assert (down["key"], up["key"]) == ("Shift", "Shift")
    assert up["at"] - down["at"] >= 250


async def test_what_is_wrong_with_an_action_is_said(page: ChromiumPage):
    computer = page.computer
    with pytest.raises(ComputerActionError, match=r"\(1280, 10\) is outside the screen") as outside:
        await computer.click(1280, 10)
    assert "1280x800" in (outside.value.hint or "")
    with pytest.raises(ComputerActionError, match="no key 'hyper'"):
        await computer.keypress(["hyper"])
    with pytest.raises(ComputerActionError, match="two points"):
        await computer.drag([Point(1, 1)])
    assert summary(await page.seen("mousedown", "keydown"), "type") == "[]"
