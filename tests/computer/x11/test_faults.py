"""Displays that die, hang or are not there; processes that are killed; several desktops at once."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from computeragent.computer.reaper import MARK, Claim, sweep
from computeragent.computer.types import Point
from computeragent.computer.x11 import X11Computer
from computeragent.computer.x11 import connection as connections
from computeragent.errors import ComputerError, ComputerUnsupportedError
from computeragent.processes import marks

from .chromium_page import chromium_on

pytestmark = pytest.mark.anyio


def server_of(computer: X11Computer) -> int:
    """The process id of a computer's X server."""
    assert computer._managed is not None
    return computer._managed.server.pid


def of_computer(mark: str) -> list[int]:
    return [pid for pid, found in marks(MARK).items() if found == mark]


async def gone(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while condition():
            await asyncio.sleep(0.05)


async def test_nothing_is_left_after_closing():
    computer = await X11Computer.start(640, 480)
    await computer.launch("xterm")
    mark = (await computer.run_command(f"echo ${MARK}")).stdout.strip()
    home = computer.home
    assert of_computer(mark)
    await computer.close()
    await computer.close()
    assert not of_computer(mark)
    assert not home.parent.exists()
    with pytest.raises(ComputerError):
        await computer.screenshot()


async def test_a_dead_display_is_an_error_and_no_wait():
    async with await X11Computer.start(640, 480) as computer:
        os.kill(server_of(computer), signal.SIGKILL)
        for doing in (
            lambda: computer.click(1, 1),
            computer.screenshot,
            lambda: computer.type("text"),
            lambda: computer.type("x" * 1000),
            computer.settle,
            computer.windows,
            computer.get_clipboard,
            computer.cursor_position,
            lambda: computer.drag([Point(1, 1), Point(2, 2)]),
        ):
            with pytest.raises(ComputerError, match="display"):
                async with asyncio.timeout(30):
                    await doing()
        await computer.reset()  # which mends it
        await computer.click(1, 1)


async def test_a_display_that_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "_PATIENCE", 0.3)
    computer = await X11Computer.start(640, 480)
    server = server_of(computer)
    os.kill(server, signal.SIGSTOP)
    try:
        with pytest.raises(ComputerError, match="does not answer"):
            await computer.cursor_position()
        with pytest.raises(ComputerError, match="gone"):
            await computer.cursor_position()
    finally:
        os.kill(server, signal.SIGCONT)
        await computer.close()


async def test_there_is_no_such_display():
    with pytest.raises(ComputerError, match="display :9876 is gone, or was never there"):
        await X11Computer.attach(":9876")
    with pytest.raises(ComputerError):
        await X11Computer.attach("nonsense")


async def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ComputerError, match="Xvfb is not installed"):
        await X11Computer.start()


async def test_an_impossible_size_is_refused():
    with pytest.raises(ComputerError, match="cannot be 0x100000"):
        await X11Computer.start(0, 100_000)


async def test_attaching_leaves_a_display_as_it_was(tmp_path: Path):
    async with await X11Computer.start(640, 480) as owner:
        guest = await X11Computer.attach(owner.display, home=tmp_path)
        assert guest.dimensions == (640, 480)
        await guest.move(12, 34)
        assert await owner.cursor_position() == (12, 34)
        await guest.launch("xterm", ["-T", "guest", "-e", "cat > typed.txt"])
        await gone(lambda: not (tmp_path / "typed.txt").exists())
        await guest.settle()
        await guest.type("漢ж\n")
        await guest.keypress(["ctrl", "d"])
        await gone(lambda: (tmp_path / "typed.txt").read_text() != "漢ж\n")
        with pytest.raises(ComputerUnsupportedError, match="not ours to reset"):
            await guest.reset()
        await guest.key_down("shift")
        await guest.close()
        assert await owner.cursor_position() == (12, 34)
        await owner.launch("xterm", ["-e", "cat > after.txt"])
        await gone(lambda: not (owner.home / "after.txt").exists())
        await owner.settle()
        await owner.type("low\n")
        await gone(lambda: (owner.home / "after.txt").read_text() != "low\n")


async def test_four_desktops_at_once_do_not_cross():
    """Each with its own size, keys, clipboard, environment and files, all busy at the same time."""

    async def work(number: int) -> tuple[str, str, str, tuple[int, int], str]:
        async with await X11Computer.start(600 + number * 10, 480, env={"NUMBER": str(number)}) as computer:
            await computer.launch("xterm", ["-T", f"d{number}", "-e", "cat > typed.txt"])
            await gone(lambda: not (computer.home / "typed.txt").exists())
            await computer.settle()
            text = "".join(f"{number}{chr(0x410 + number * 8 + place)}" for place in range(8))
            await computer.set_clipboard(text)
            for _ in range(5):
                await computer.type(text + "\n")
                await computer.move(number * 10, number)
                await computer.screenshot()
            await gone(lambda: (computer.home / "typed.txt").read_text() != f"{text}\n" * 5)
            assert await computer.get_clipboard() == text
            assert [window.title for window in await computer.windows()] == [f"d{number}"]
            assert await computer.cursor_position() == (number * 10, number)
            assert (await computer.run_command("echo $NUMBER")).stdout == f"{number}\n"
            return computer.display, str(computer.home), text, computer.dimensions, str(number)

    told = await asyncio.gather(*(work(number) for number in range(4)))
    for values in zip(*told, strict=True):
        assert len(set(values)) == 4


HOLD = """
import asyncio, sys
from computeragent.computer.x11 import X11Computer
async def main():
    computer = await X11Computer.start(800, 600)
    await computer.launch("chromium", ["about:blank"])
    while not await computer.windows():
        await asyncio.sleep(0.05)
    print((await computer.run_command("echo $COMPUTERAGENT_COMPUTER")).stdout.strip(), computer.home, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_a_killed_process_leaves_no_server_browser_or_files():
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        mark, home = (await asyncio.to_thread(holder.stdout.readline)).split()
        running = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in of_computer(mark)}
        assert {"Xvfb", "openbox", "chromium"} <= running
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    await gone(lambda: bool(of_computer(mark)) or Path(home).parent.exists())
    assert str(Path(home)) not in subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout


async def test_what_a_killed_keeper_leaves_is_swept_up_by_the_next():
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        mark, home = (await asyncio.to_thread(holder.stdout.readline)).split()
        keepers = subprocess.run(
            ["pgrep", "-f", f"processes.py {MARK} {mark}"], capture_output=True, text=True, check=True
        )
        for pid in keepers.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        sweep()
        assert of_computer(mark), "its owner lives"
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert of_computer(mark)
    claim = await Claim.make()
    assert not of_computer(mark)
    assert not Path(home).parent.exists()
    await claim.release()


async def test_a_closed_browser_is_no_fault_of_the_desktop(desktop: X11Computer):
    async with chromium_on(desktop) as page:
        await page.computer.keypress(["ctrl", "w"])
        await gone(lambda: page.page.context.browser is not None and page.page.context.browser.is_connected())
    assert await desktop.windows() == []
    assert (await desktop.screenshot()).size == (1280, 800)


CLOSED_MEANWHILE = """
import asyncio, gc, sys
from computeragent.computer.pool import ComputerPool
from computeragent.computer.spec import ComputerSpec

async def main(moment):
    pool = ComputerPool(1)
    async with pool.lease(ComputerSpec(kind="x11", width=320, height=240)):
        pass
    await asyncio.sleep(moment)  # into the reset
    await pool.aclose()

for moment in map(float, sys.argv[1:]):
    asyncio.run(main(moment))
    gc.collect()
"""


async def test_a_pool_that_is_closed_during_a_reset_leaves_nothing(tmp_path: Path):
    """No process that nobody waits for (Python warns of those), no folder; whatever the reset is at."""
    moments = [str(step * 0.05) for step in range(10)]
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "always::ResourceWarning", "-c", CLOSED_MEANWHILE, *moments),
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await running.communicate()
    assert (running.returncode, said.decode()) == (0, "")
    assert list(tmp_path.iterdir()) == []
    assert not [mark for mark in marks(MARK).values() if mark.split(".")[1] == str(running.pid)]
