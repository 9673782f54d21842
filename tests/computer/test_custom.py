"""Functions as a computer: with the names that users of cua have, and no silent gaps."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from typing import Any

import pytest
from PIL import Image

from computeragent.computer import actions
from computeragent.computer.custom import CustomComputer, are_functions
from computeragent.computer.images import screenshot_of
from computeragent.computer.types import Computer, Point, Size
from computeragent.errors import ComputerActionError, ComputerError, ComputerUnsupportedError, ValidationError

pytestmark = pytest.mark.anyio


def png(width: int = 640, height: int = 480) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4) + height.to_bytes(4) + bytes(16)


async def test_a_screenshot_is_enough() -> None:
    computer = await CustomComputer.make({"screenshot": png})
    assert isinstance(computer, Computer)
    assert (computer.kind, computer.environment, computer.dimensions) == ("custom", "linux", (640, 480))
    assert (await computer.screenshot()).data == png()
    assert await computer.current_url() is None
    for action in (
        {"action": "click", "x": 1, "y": 1},
        {"action": "type", "text": "x"},
        {"action": "scroll", "x": 1, "y": 1, "dy": 100},
        {"action": "drag", "path": [[1, 1], [2, 2]]},
        {"action": "keypress", "keys": ["a"]},
        {"action": "move", "x": 1, "y": 1},
        {"action": "mouse_down"},
        {"action": "goto", "url": "x"},
    ):
        with pytest.raises(ComputerUnsupportedError, match="has no `"):
            await actions.perform(computer, actions.parse_action(action))
    with pytest.raises(ComputerUnsupportedError):
        await computer.reset()
    await computer.close()
    with pytest.raises(ComputerError, match="closed"):
        await computer.screenshot()


async def test_functions_are_called_as_users_of_cua_write_them() -> None:
    log: list[Any] = []

    async def click(x: int, y: int, button: str = "left") -> None:
        log.append(("click", x, y, button))

    def scroll(x: int, y: int, scroll_x: int, scroll_y: int) -> None:
        log.append(("scroll", x, y, scroll_x, scroll_y))

    computer = await CustomComputer.make(
        {
            "screenshot": lambda: base64.b64encode(png()).decode(),
            "environment": "browser",
            "get_dimensions": lambda: (640, 480),
            "click": click,
            "scroll": scroll,
            "drag": lambda path: log.append(("drag", path)),
            "keypress": lambda keys: log.append(("keypress", keys)),
            "left_mouse_down": lambda x=None, y=None: log.append(("down", x, y)),
            "get_current_url": lambda: "https://example.com",
        }
    )
    assert computer.environment == "browser"
    await computer.click(1, 2)
    await computer.click(1, 2, "right")
    await computer.click(1, 2, count=2)
    await computer.scroll(1, 2, 0, -30)
    await computer.drag([Point(1, 2), Point(3, 4)])
    await computer.keypress(["Control", "c"])
    await computer.mouse_down(x=5, y=6)
    await computer.mouse_down()
    assert await computer.current_url() == "https://example.com"
    assert log == [
        ("click", 1, 2, "left"),
        ("click", 1, 2, "right"),
        *([("click", 1, 2, "left")] * 2),
        ("scroll", 1, 2, 0, -30),
        ("drag", [{"x": 1, "y": 2}, {"x": 3, "y": 4}]),
        ("keypress", ["ctrl", "c"]),
        *(("down", 5, 6), ("down", None, None)),
    ]
    assert await computer.cursor_position() == Point(5, 6)


async def test_what_a_function_cannot_take_is_not_left_out() -> None:
    clicks: list[Any] = []
    computer = await CustomComputer.make({"screenshot": png, "click": lambda x, y: clicks.append((x, y))})
    await computer.click(1, 2)
    with pytest.raises(ComputerUnsupportedError, match="cannot be called"):
        await computer.click(1, 2, "right")
    with pytest.raises(ComputerUnsupportedError, match="key_down"):
        await computer.click(1, 2, keys=["shift"])
    with pytest.raises(ComputerUnsupportedError):
        await computer.mouse_down("right")
    assert clicks == [(1, 2)]


async def test_functions_that_block_run_on_one_thread_of_their_own() -> None:
    threads: set[int] = set()

    def shot() -> bytes:
        threads.add(threading.get_ident())
        return png()

    computer = await CustomComputer.make({"screenshot": shot})
    await asyncio.gather(*(computer.screenshot() for _ in range(8)))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_a_function_that_fails_is_told() -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no mouse")

    computer = await CustomComputer.make({"screenshot": png, "click": broken})
    with pytest.raises(ComputerActionError, match="`click` of the computer failed: RuntimeError: no mouse"):
        await computer.click(1, 1)
    with pytest.raises(ComputerError):
        await CustomComputer.make({"screenshot": broken})


@pytest.mark.parametrize(
    "functions",
    [{}, {"screenshot": "x"}, {"screenshot": png, "clik": png}, {"screenshot": png, "environment": "amiga"}],
    ids=["none", "no function", "a typo", "an environment"],
)
async def test_what_is_no_computer_is_refused(functions: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        await CustomComputer.make(functions)


async def test_a_screenshot_of_another_size_than_the_screen_is_an_error() -> None:
    computer = await CustomComputer.make({"screenshot": png, "dimensions": (1280, 960)})
    with pytest.raises(ComputerError, match="640x480"):
        await computer.screenshot()


async def test_it_settles_when_two_pictures_are_the_same_or_the_time_is_over() -> None:
    taken = 0

    def moving() -> bytes:
        nonlocal taken
        taken += 1
        return png() + bytes([min(taken, 4)])

    computer = await CustomComputer.make({"screenshot": moving, "dimensions": (640, 480)})
    await computer.settle()
    assert taken == 5
    slow = await CustomComputer.make({"screenshot": lambda: png() + taken.to_bytes(4), "dimensions": (640, 480)})
    await slow.settle(0.01)


def test_pictures_are_measured_without_decoding_them() -> None:
    for form, quality in (("png", {}), ("jpeg", {}), ("jpeg", {"progressive": True})):
        out = io.BytesIO()
        Image.new("RGB", (321, 123)).save(out, form, **quality)
        for shape in (out.getvalue(), base64.b64encode(out.getvalue()).decode()):
            assert screenshot_of(shape).size == Size(321, 123)
            assert screenshot_of(shape).format == form
    assert screenshot_of(f"data:image/png;base64,{base64.b64encode(png()).decode()}").size == Size(640, 480)


JUNK = [b"", b"GIF89a", "no base64!", None, 3, png(0, 5), b"\xff\xd8\xff\xe0\x00\x00", png()[:20]]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_junk_is_no_picture(junk: Any) -> None:
    with pytest.raises(ComputerError):
        screenshot_of(junk)


def test_functions_are_told_from_data() -> None:
    assert are_functions({"screenshot": png})
    assert not are_functions({"kind": "browser"})
    assert not are_functions(None)
