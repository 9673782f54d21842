"""Text typed into a page in Chromium, idle and busy: exactly what was asked, whatever its script and length."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from computeragent.computer.reaper import MARK
from computeragent.computer.x11 import X11Computer
from computeragent.errors import ComputerActionError
from computeragent.processes import marks

from .chromium_page import ChromiumPage

pytestmark = pytest.mark.anyio

TEXTS = {
    "ascii": "The quick (brown) fox_jumps {over} [the] lazy dog: 0123456789 !\"#$%&'*+,-./;<=>?@\\^`|~",
    "latin": "Grüße, señor! Naïve façade, Øresund, Żółć, €5 … „quoted“",
    "cyrillic": "Съешь ещё этих мягких французских булок, да выпей чаю",
    "greek": "Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία",
    "cjk": "漢字かな交じり文。안녕하세요 你好世界",
    "many": "".join(chr(0x4E00 + number * 7) for number in range(120)),
    "emoji": "😀🎉 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪",
    "combining": "e\u0301 a\u0308o\u0302 n\u0303 q\u0307\u0323",
    "right to left": "שלום עולם",
    "keys": "line one\n\tindented\r\nline three\n\n",
}
PARAGRAPH = "Grüße, Привет 漢字 😀 — e\u0301 — the quick brown fox. " * 11
LONG = "".join(f"{number:03} {PARAGRAPH}\n" for number in range(20))[:10_000]


@pytest.mark.parametrize("busy", [0, 8, 30])
@pytest.mark.parametrize("name", TEXTS)
async def test_text_arrives_as_it_is(page: ChromiumPage, name: str, busy: int):
    await page.fresh(busy=busy)
    await page.computer.type(TEXTS[name])
    wanted = TEXTS[name].replace("\r\n", "\n")
    assert await page.text(wanted) == wanted


@pytest.mark.parametrize("busy", [0, 8, 30])
async def test_ten_thousand_characters_arrive(page: ChromiumPage, busy: int):
    assert len(LONG) == 10_000
    await page.fresh(busy=busy)
    await page.computer.type(LONG)
    assert await page.text(LONG) == LONG


async def test_short_texts_are_keys_that_a_page_hears(page: ChromiumPage):
    await page.computer.type("aB漢\n")
    await page.text("aB漢\n")
    heard = [event["key"] for event in await page.seen("keydown")]
    # Chromium does not always have a name for a key that was given its character just now; it has its text.
    assert (heard[:3], heard[4:]) == (["a", "Shift", "B"], ["Enter"])


async def test_many_texts_with_other_characters_each_time(page: ChromiumPage):
    """More than there are spare keys, which are used again."""
    for number in range(5):
        await page.fresh(busy=8)
        text = "".join(chr(0x0400 + number * 12 + place) for place in range(12))
        await page.computer.type(text)
        assert await page.text(text) == text


async def test_the_clipboard_has_its_text_again_after_a_long_text(page: ChromiumPage):
    await page.computer.set_clipboard("the caller's own")
    await page.computer.type("x" * 500)
    assert await page.text("x" * 500) == "x" * 500
    assert await page.computer.get_clipboard() == "the caller's own"


async def test_capitals_are_capitals_with_caps_lock_on(page: ChromiumPage):
    await page.computer.keypress(["capslock"])
    try:
        await page.computer.type("Caps Lock?")
        assert await page.text("Caps Lock?") == "Caps Lock?"
    finally:
        await page.computer.keypress(["capslock"])


async def test_what_no_key_types_is_refused_before_anything_is_typed(page: ChromiumPage):
    for text in ("bell\a", "nul\0", "half\ud83d"):
        with pytest.raises(ComputerActionError, match=r"no key types the character U\+"):
            await page.computer.type(text)
    assert await page.text("") == ""


async def browser_of(computer: X11Computer) -> int:
    """The process that reads what is sent to Chromium."""
    mark = (await computer.run_command(f"echo ${MARK}")).stdout.strip()
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid, found in marks(MARK).items() if found == mark}
    [pid] = [pid for pid, line in commands.items() if "/chromium\0" in line and "\0--type=" not in line]
    return pid


async def test_settling_waits_for_a_program_that_lags(page: ChromiumPage):
    """Its window stands still, as it has not even read what was sent."""
    browser, lagging = await browser_of(page.computer), True

    def go_on() -> None:
        nonlocal lagging
        lagging = False
        os.kill(browser, signal.SIGCONT)

    await page.computer.settle()
    os.kill(browser, signal.SIGSTOP)
    asyncio.get_running_loop().call_later(1.0, go_on)
    await page.computer.type("late")
    await page.computer.settle()
    assert not lagging
    assert await page.text("late") == "late"


async def test_settling_does_not_wait_for_a_program_that_hangs(page: ChromiumPage):
    browser = await browser_of(page.computer)
    os.kill(browser, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            await page.computer.type("much later")
            for _ in range(3):
                await page.computer.settle()
    finally:
        os.kill(browser, signal.SIGCONT)
    await page.until("field.value == 'much later'")


async def test_who_cancels_is_heard(page: ChromiumPage):
    typing = asyncio.create_task(page.computer.type("0123456789" * 40))
    await asyncio.sleep(0)
    typing.cancel()
    await asyncio.gather(typing, return_exceptions=True)
    await page.computer.type("end")
    await page.until("field.value.endsWith('end')")
    assert len(await page.text("")) < 400


async def test_a_terminal_gets_it_too(desktop: X11Computer):
    """By keys and pasted: terminals paste with the same keys as Chromium does."""
    await desktop.launch("xterm", ["-T", "terminal", "-e", "cat > typed.txt"])
    await _window(desktop, "terminal")
    long = "ж" + "0123456789" * 50
    await desktop.type(f"Grüße 漢字 😀\n{long}\nend\n")
    await desktop.keypress(["ctrl", "d"])
    async with asyncio.timeout(20):
        while any(window.title == "terminal" for window in await desktop.windows()):
            await asyncio.sleep(0.05)
    assert (await desktop.read_file("typed.txt")).decode() == f"Grüße 漢字 😀\n{long}\nend\n"


async def _window(desktop: X11Computer, title: str) -> None:
    async with asyncio.timeout(20):
        while not any(window.title == title and window.active for window in await desktop.windows()):
            await asyncio.sleep(0.05)
    await desktop.settle()
