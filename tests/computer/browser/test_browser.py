"""A browser as computer, on the real Chromium; the page's own events are the oracle."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from browser_pages import app, ask, until

from computeragent.computer import actions
from computeragent.computer.browser import BrowserComputer
from computeragent.computer.reaper import MARK
from computeragent.computer.types import Computer, HasNotices, HasPages, Killable, Point
from computeragent.computer.x11 import X11Computer
from computeragent.errors import ComputerActionError, ComputerError
from computeragent.processes import marks
from loopback import loopback

pytestmark = pytest.mark.anyio
TORTURE = "Grüße, Ελλάδα, Привет, 漢字かな, 한국어, עברית, ñ é x̂ ị̈ 😀 👩‍👩‍👧‍👦 🇪🇺 ﷽ \u200bend"


@pytest.fixture
async def site() -> AsyncIterator[str]:
    async with loopback(app()) as url:
        yield url


@pytest.fixture
async def browser() -> AsyncIterator[BrowserComputer]:
    computer = await BrowserComputer.start(1000, 600)
    yield computer
    await computer.close()


def processes(computer: BrowserComputer) -> list[int]:
    return [pid for pid, mark in marks(MARK).items() if mark == computer._claim.mark]


def ours() -> list[str]:
    """The marks of all computers that this process has opened."""
    return [mark for mark in marks(MARK).values() if mark.split(".")[1:2] == [str(os.getpid())]]


async def test_the_pointer_does_what_it_is_told(browser: BrowserComputer, site: str) -> None:
    await browser.goto(site)
    assert isinstance(browser, Computer)
    assert isinstance(browser, HasPages)
    assert isinstance(browser, HasNotices)
    assert isinstance(browser, Killable)

    await browser.click(700, 50)
    await browser.click(701, 51, "right")
    await browser.click(702, 52, count=2)
    await browser.click(703, 53, count=3, keys=["shift"])
    await browser.click(704, 54, "middle", keys=["ctrl"])
    events = await ask(browser, "told.events")
    assert [event for event in events if event[0] in {"click", "dblclick", "contextmenu", "auxclick"}] == [
        ["click", 0, 1, 700, 50, False, False],
        ["contextmenu", 2, 0, 701, 51, False, False],
        ["auxclick", 2, 1, 701, 51, False, False],
        ["click", 0, 1, 702, 52, False, False],
        ["click", 0, 2, 702, 52, False, False],
        ["dblclick", 0, 2, 702, 52, False, False],
        *(["click", 0, 1, 703, 53, True, False], ["click", 0, 2, 703, 53, True, False]),
        *(["dblclick", 0, 2, 703, 53, True, False], ["click", 0, 3, 703, 53, True, False]),
        ["auxclick", 1, 1, 704, 54, False, True],
    ]
    assert await browser.cursor_position() == Point(704, 54)

    await ask(browser, "told.events.length = 0")
    await browser.drag([Point(660, 20), Point(700, 100), Point(800, 200)])
    events = await ask(browser, "told.events")
    assert [event[:1] + event[3:5] for event in events if event[0] != "click"] == [
        ["mousedown", 660, 20],
        ["mouseup", 800, 200],
    ]

    await browser.scroll(700, 100, 0, 333)
    assert await until(browser, "scrollY") == 333


async def test_text_is_typed_exactly(browser: BrowserComputer, site: str) -> None:
    await browser.goto(site)
    await browser.click(100, 100)
    await browser.type(TORTURE)
    await browser.type("\nsecond line: 100 % & <b>")
    assert await ask(browser, "text.value") == f"{TORTURE}\nsecond line: 100 % & <b>"
    assert (await ask(browser, "told.key"))[0] == ">", "short texts are typed, and pages see each key"

    await browser.keypress(["CTRL", "A"])
    long = (TORTURE + " ") * 160
    assert len(long) > 10_000
    await browser.type(long)
    assert await ask(browser, "text.value") == long


@pytest.mark.parametrize("ms", [8, 30])
async def test_text_is_exact_on_a_busy_page(browser: BrowserComputer, site: str, ms: int) -> None:
    await browser.goto(f"{site}/busy?ms={ms}")
    await browser.click(100, 100)
    await browser.type(TORTURE[:60])
    await browser.settle()
    assert await ask(browser, "text.value") == TORTURE[:60]


async def test_keys_and_shortcuts(browser: BrowserComputer, site: str) -> None:
    await browser.goto(site)
    await browser.click(100, 100)
    for keys, seen in [
        (["f7"], ["F7", False, False, False]),
        (["ctrl", "shift", "pagedown"], ["PageDown", True, True, False]),
        (["Return"], ["Enter", False, False, False]),
        (["ctrl", "-"], ["-", True, False, False]),
        (["alt", "ArrowUp"], ["ArrowUp", False, False, True]),
        (["space"], [" ", False, False, False]),
        (["A"], ["A", False, False, False]),
    ]:
        await browser.keypress(keys)
        assert await ask(browser, "told.key") == seen
    await browser.keypress(["ctrl", "a"])
    await browser.keypress(["é"], repeat=3)
    await browser.key_down("shift")
    await browser.keypress(["left"])
    await browser.key_up("shift")
    assert await ask(browser, "[text.value, text.selectionStart, text.selectionEnd]") == ["ééé", 2, 3]
    for wrong in (["f13"], ["nokey"], ["ctrl", "é"]):
        with pytest.raises(ComputerActionError):
            await browser.keypress(wrong)


async def test_a_list_that_drops_down_is_in_the_picture_and_can_be_clicked(browser: BrowserComputer, site: str) -> None:
    await browser.goto(site)
    before = (await browser.screenshot()).data
    await browser.click(60, 262)
    await browser.settle()
    assert (await browser.screenshot()).data != before
    place = await ask(browser, "(() => {const r = list.options[1].getBoundingClientRect(); return [r.x, r.y]})()")
    await browser.click(int(place[0]) + 20, int(place[1]) + 8)
    assert await until(browser, "list.value") == "two"


async def test_a_screenshot_is_of_the_size_of_the_screen_also_in_a_small_window(
    browser: BrowserComputer, site: str
) -> None:
    await browser.goto(site)
    assert (await browser.screenshot()).size == browser.dimensions == (1000, 600)
    await browser.click(775, 258)
    await until(browser, "document.title == 'second'")
    shot = await browser.screenshot()
    assert shot.data[16:24] == (1000).to_bytes(4) + (600).to_bytes(4)


async def test_dialogs_are_answered_and_told(browser: BrowserComputer, site: str) -> None:
    await browser.goto(site)
    await browser.click(310, 258)
    assert await until(browser, "told.alerted")
    await browser.click(215, 258)
    assert await until(browser, "'confirm' in told")
    assert await ask(browser, "told.confirm") is False
    assert browser.take_notices() == [
        "The page showed a dialog (alert: 'hi'), which was accepted.",
        "The page showed a dialog (confirm: 'Really?'), which was dismissed.",
    ]
    await browser.click(550, 258)
    async with asyncio.timeout(30):
        while not (notices := browser.take_notices()):
            await asyncio.sleep(0.02)
    assert notices == ["The page asked for a file; no file was chosen."]
    assert browser.take_notices() == []


async def test_a_tab_that_opens_is_followed_and_going_back_closes_it(browser: BrowserComputer, site: str) -> None:
    await browser.goto(site)
    await browser.click(410, 258)
    await browser.settle()
    assert await browser.current_url() == f"{site}/second"
    assert "new tab" in browser.take_notices()[0]
    await browser.back()
    await browser.settle()
    assert await browser.current_url() == f"{site}/"
    assert await ask(browser, "document.title") == "all"

    await browser.goto(f"{site}/second")
    await browser.back()
    await until(browser, "document.title == 'all'")
    await ask(browser, "setTimeout(() => document.body.remove(), 0)")
    await (await browser._pages.active()).close()
    await browser.screenshot()
    assert await browser.current_url() == "about:blank"


async def test_it_settles_when_what_was_asked_for_has_come(browser: BrowserComputer, site: str) -> None:
    await browser.goto(f"{site}/slow")
    await browser.settle(10.0)
    assert await ask(browser, "p.textContent") == "loaded"


async def test_what_never_stands_still_is_waited_for_until_the_time_is_over(browser: BrowserComputer) -> None:
    await browser.goto("data:text/html,<p id=p></p><script>setInterval(()=>p.textContent=Math.random(),5)</script>")
    await browser.settle(0.3)
    assert (await browser.screenshot()).size == browser.dimensions


async def test_a_reset_leaves_nothing_of_the_last_one(browser: BrowserComputer, site: str) -> None:
    await browser.goto(site)
    await browser.click(100, 100)
    await browser.type("secret")
    await browser.keypress(["ctrl", "a"])
    await browser.keypress(["ctrl", "c"])
    await ask(browser, "localStorage.who = 'me'")
    await browser.reset()
    assert await browser.current_url() == "about:blank"
    assert await browser.cursor_position() == Point(0, 0)
    assert browser.take_notices() == []
    await browser.goto(f"{site}/second")
    assert await ask(browser, "[document.body.innerText, localStorage.who]") == ["second: None", None]
    await browser.goto(site)
    await browser.click(100, 100)
    await browser.keypress(["ctrl", "v"])
    assert await ask(browser, "text.value") == ""


async def test_addresses_that_are_not_of_the_web_are_refused(browser: BrowserComputer) -> None:
    with pytest.raises(ComputerActionError, match="go back to"):
        await browser.back()
    for wrong in ("file:///etc/passwd", "FILE:///etc/passwd", "chrome://settings", "javascript:alert(1)", "a b", ""):
        with pytest.raises(ComputerActionError):
            await browser.goto(wrong)
    with pytest.raises(ComputerActionError, match="ERR_") as told:
        await browser.goto("http://user:hunter2@127.0.0.1:9/x")
    assert "hunter2" not in str(told.value)


async def test_a_page_that_hangs_is_told_and_another_one_can_be_opened(
    browser: BrowserComputer, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("computeragent.computer.browser.browser._ANSWER", 1.0)
    await browser.goto(site)
    await ask(browser, "setTimeout(() => { while (true); }, 0)")
    await asyncio.sleep(0.1)
    with pytest.raises(ComputerActionError, match="did not answer"):
        await browser._do("click", lambda: browser._pages._tabs[-1].mouse.click(5, 5), 1.0)
    await browser.goto("data:text/html,<title>well</title>")
    assert await until(browser, "document.title == 'well'")


async def test_a_tab_that_crashes_is_replaced(browser: BrowserComputer) -> None:
    page = await browser._pages.active()
    crash = asyncio.create_task(page.goto("chrome://crash"))
    async with asyncio.timeout(10):
        while browser._pages.count:
            await asyncio.sleep(0.02)
    await asyncio.gather(crash, return_exceptions=True)
    assert (await browser.screenshot()).size == browser.dimensions
    assert "crashed" in browser.take_notices()[0]


async def test_a_browser_that_is_killed_is_an_error_at_once(browser: BrowserComputer) -> None:
    for pid in processes(browser):
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while browser._browser.is_connected():
            await asyncio.sleep(0.02)
    with pytest.raises(ComputerError) as told:
        await browser.click(5, 5)
    assert told.value.code == "COMPUTER_UNAVAILABLE"
    for ask_it in (browser.screenshot, browser.settle, browser.current_url, browser.cursor_position, browser.reset):
        with pytest.raises(ComputerError):
            await ask_it()


async def test_closing_leaves_no_process_and_may_be_done_again() -> None:
    computer = await BrowserComputer.start(400, 300)
    assert processes(computer)
    folder = computer._claim.folder
    await asyncio.gather(computer.close(), computer.close())
    assert processes(computer) == []
    assert not folder.exists()
    with pytest.raises(ComputerError, match="closed"):
        await computer.screenshot()


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    starting = asyncio.create_task(BrowserComputer.start())
    async with asyncio.timeout(40):
        while not ours():
            await asyncio.sleep(0.02)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert starting.cancelled()
        while ours():
            await asyncio.sleep(0.05)


async def test_no_browser_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ComputerError, match="is no program"):
        await BrowserComputer.start(executable="/nowhere/chromium")
    with pytest.raises(ComputerError, match="did not start"):
        await BrowserComputer.start(executable="false")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", "/nowhere")
    with pytest.raises(ComputerError, match="no Chromium") as told:
        await BrowserComputer.start()
    assert "apt-get install chromium" in str(told.value.hint)


async def test_every_action_by_its_name(browser: BrowserComputer, site: str) -> None:
    await browser.goto(site)
    for action in (
        {"action": "goto", "url": f"{site}/second"},
        {"action": "back"},
        {"action": "click", "x": 100, "y": 100},
        {"action": "type", "text": "ab"},
        {"action": "hold_key", "keys": ["shift"], "seconds": 0.01},
        {"action": "mouse_down", "x": 700, "y": 50},
        {"action": "mouse_up", "x": 710, "y": 60},
    ):
        await actions.perform(browser, actions.parse_action(action))
        await browser.settle()
    assert await ask(browser, "text.value") == "ab"
    assert await actions.perform(browser, actions.CursorPosition()) == Point(710, 60)
    with pytest.raises(ComputerActionError, match="outside"):
        await actions.perform(browser, actions.Click(x=1000, y=5))


async def test_a_browser_on_a_display_is_seen_there(site: str) -> None:
    desktop = await X11Computer.start(900, 700)
    try:
        browser = await BrowserComputer.start(600, 400, display=desktop.display)
        try:
            await browser.goto(site)
            await browser.click(100, 100)
            await browser.type("漢字 and more")
            await browser.settle()
            assert await ask(browser, "text.value") == "漢字 and more"
            assert (await browser.screenshot()).size == (600, 400)
            assert any("all" in window.title for window in await desktop.windows())
            await browser.reset()
            assert await browser.current_url() == "about:blank"
        finally:
            await browser.close()
    finally:
        await desktop.close()


async def test_what_our_environment_has_does_not_reach_the_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-hunter2")
    browser = await BrowserComputer.start(400, 300)
    try:
        found = processes(browser)
        assert found
        for pid in found:
            assert b"hunter2" not in Path(f"/proc/{pid}/environ").read_bytes()
    finally:
        await browser.close()
