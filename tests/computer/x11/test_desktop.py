"""A desktop's pictures, windows, clipboard, files, commands and programs."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from computeragent.computer.types import Computer, HasClipboard, HasFiles, HasShell, HasWindows, Window
from computeragent.computer.x11 import X11Computer
from computeragent.errors import ComputerActionError

pytestmark = pytest.mark.anyio


async def opened(desktop: X11Computer, title: str, *arguments: str) -> Window:
    """A terminal with a title that is its own."""
    await desktop.launch("xterm", ["-T", title, *arguments])
    async with asyncio.timeout(20):
        while True:
            for window in await desktop.windows():
                if window.title == title and window.active:
                    return window
            await asyncio.sleep(0.02)


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


def pixels(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return image.convert("RGB")


async def test_it_is_a_computer_with_everything(desktop: X11Computer):
    for protocol in (Computer, HasShell, HasClipboard, HasFiles, HasWindows):
        assert isinstance(desktop, protocol)
    assert (desktop.kind, desktop.environment, desktop.dimensions) == ("x11", "linux", (1280, 800))
    assert await desktop.current_url() is None


async def test_a_picture_shows_the_screen_as_it_is(desktop: X11Computer):
    window = await opened(desktop, "colours", "-bg", "#123456", "-b", "0", "-e", "sleep 60")
    await desktop.settle()
    shot = await desktop.screenshot()
    image = pixels(shot.data)
    assert (shot.size, shot.format, image.size) == ((1280, 800), "png", (1280, 800))
    assert image.getpixel((window.x + window.width - 40, window.y + window.height - 40)) == (0x12, 0x34, 0x56)
    await desktop.window_act(window.id, "close")


async def test_settling_waits_for_the_screen_to_have_answered(desktop: X11Computer):
    window = await opened(
        desktop, "slow", "-e", "read x; for i in 1 2 3 4 5; do sleep 0.1; echo step $i; done; sleep 60"
    )
    await desktop.settle()
    await desktop.keypress(["enter"])
    await desktop.settle()
    settled = await desktop.screenshot()
    await asyncio.sleep(0.4)
    assert (await desktop.screenshot()).data == settled.data
    await desktop.window_act(window.id, "close")


async def test_settling_ends_though_the_screen_never_stands_still(desktop: X11Computer):
    window = await opened(desktop, "clock", "-e", "while :; do date +%N; sleep 0.03; done")
    await desktop.settle(0.5)
    await desktop.window_act(window.id, "close")


async def test_windows_are_listed_moved_and_closed(desktop: X11Computer):
    one = await opened(desktop, "one", "-e", "sleep 60")
    two = await opened(desktop, "two", "-e", "sleep 60")

    async def titles() -> list[str]:
        return [window.title for window in await desktop.windows() if window.program == "XTerm"]

    async def named(title: str) -> Window:
        return next(window for window in await desktop.windows() if window.title == title)

    assert (await titles())[:2] == ["two", "one"]
    await desktop.window_act(one.id, "activate")
    await until(lambda: _is(named("one"), lambda window: window.active))
    assert (await titles())[0] == "one"
    await desktop.place_window(one.id, x=100, y=120, width=500)
    await until(lambda: _is(named("one"), lambda window: abs(window.x - 100) + abs(window.y - 120) < 4))
    placed = await named("one")
    assert abs(placed.width - 500) < 12  # terminals have whole columns
    assert placed.height == one.height
    await desktop.window_act(two.id, "maximize")
    await until(lambda: _is(named("two"), lambda window: window.width > 1200))
    await desktop.window_act(two.id, "restore")
    await until(lambda: _is(named("two"), lambda window: window.width == two.width))
    for window in (one, two):
        await desktop.window_act(window.id, "close")
    await until(lambda: _is(titles(), lambda found: found == []))
    with pytest.raises(ComputerActionError, match="no window"):
        await desktop.window_act(one.id, "activate")
    with pytest.raises(ComputerActionError, match="no window"):
        await desktop.place_window("nonsense", x=1)


async def _is(found, what) -> bool:
    return what(await found)


async def test_the_clipboard_is_shared_with_programs(desktop: X11Computer):
    for text in ("Grüße 漢字 😀\n", "", "long " * 60_000):  # the last in parts
        await desktop.set_clipboard(text)
        assert await desktop.get_clipboard() == text
        pasted = await desktop.run_command("xclip -o -selection clipboard -t UTF8_STRING | sha256sum")
        expected = await desktop.run_command(f"sha256sum {await _file(desktop, text)}")
        assert pasted.stdout.split()[0] == expected.stdout.split()[0]
        await _file(desktop, f"copied {text}")
        await desktop.run_command("xclip -i -selection clipboard copied.txt >/dev/null 2>&1")
        await until(lambda: _is(desktop.get_clipboard(), lambda found: found == f"copied {text}"))  # noqa: B023


async def _file(desktop: X11Computer, text: str) -> str:
    await desktop.write_file("copied.txt", text.encode())
    return "copied.txt"


async def test_files_are_read_and_written(desktop: X11Computer):
    await desktop.write_file("folder/notes.txt", b"one")
    await desktop.write_file("~/folder/notes.txt", b" two", append=True)
    assert await desktop.read_file(str(desktop.home / "folder/notes.txt")) == b"one two"
    assert await desktop.read_file("folder/notes.txt", offset=4, length=2) == b"tw"
    [entry] = await desktop.list_dir("folder")
    assert (entry.name, entry.is_dir, entry.size) == ("notes.txt", False, 7)
    await desktop.delete_file("folder/notes.txt")
    assert await desktop.list_dir("folder") == []


async def test_files_that_are_none_are_said_to_be_none(desktop: X11Computer):
    await desktop.run_command("mkfifo pipe; mkdir -p folder")
    for path in ("missing", "folder", "pipe", "/dev/zero", "nul\0"):
        with pytest.raises(ComputerActionError):
            await desktop.read_file(path)
    for path in ("pipe", "folder", "/proc/nothing/here"):
        with pytest.raises(ComputerActionError):
            await desktop.write_file(path, b"x")


async def test_a_command_is_run(desktop: X11Computer):
    done = await desktop.run_command("pwd; echo told >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == (f"{desktop.home}\n", "told\n", 3)


async def test_a_command_leaves_programs_in_the_background(desktop: X11Computer):
    done = await desktop.run_command("sleep 31.7 & echo started", timeout=10)
    assert done.stdout == "started\n"
    assert (await desktop.run_command("pkill -f '^sleep 31.7'")).returncode == 0


async def test_nothing_of_a_command_is_left_at_the_time_limit(desktop: X11Computer):
    with pytest.raises(ComputerActionError, match=r"ended after 0\.5 seconds"):
        await desktop.run_command("setsid sleep 32.7 & sleep 33.7", timeout=0.5)
    assert (await desktop.run_command("pgrep -f '^sleep 3[23].7'")).stdout == ""


async def test_endless_output_is_cut(desktop: X11Computer):
    done = await desktop.run_command("yes | head -c 5000000")
    assert len(done.stdout) < 1_000_100
    assert done.stdout.endswith("[4000000 more bytes]")


async def test_programs_see_nothing_of_our_environment(desktop: X11Computer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    async with await X11Computer.start(640, 480, env={"GREETING": "hello"}) as computer:
        told = (await computer.run_command("env")).stdout
    assert "GREETING=hello" in told
    names = {line.partition("=")[0] for line in told.splitlines()}
    assert names - {"USER", "LOGNAME", "TZ"} == {
        "PATH", "SHELL", "LANG", "HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "TMPDIR", "NO_AT_BRIDGE", "DISPLAY",
        "GREETING", "COMPUTERAGENT_COMPUTER", "COMPUTERAGENT_COMMAND", "PWD",
    }  # fmt: skip
    assert "sk-secret" not in told


async def test_a_program_that_is_not_there_is_said_not_to_be(desktop: X11Computer):
    with pytest.raises(ComputerActionError, match="no program 'photoshop'"):
        await desktop.launch("photoshop")


async def test_a_reset_leaves_nothing():
    async with await X11Computer.start(640, 480) as desktop:
        await opened(desktop, "left", "-e", "sleep 60")
        await desktop.set_clipboard("left")
        await desktop.write_file("left.txt", b"left")
        await desktop.key_down("shift")
        await desktop.move(5, 5)
        home = desktop.home
        await desktop.reset()
        assert await desktop.windows() == []
        assert await desktop.get_clipboard() == ""
        assert await desktop.list_dir(".") == []
        assert await desktop.cursor_position() == (320, 240)
        assert desktop.dimensions == (640, 480)
        assert not Path(home, "left.txt").exists()
        await opened(desktop, "typed", "-e", "cat > typed.txt")
        await desktop.type("lower\n")
        await desktop.keypress(["ctrl", "d"])
        await until(lambda: _is(desktop.windows(), lambda found: found == []))
        assert await desktop.read_file("typed.txt") == b"lower\n"


async def test_no_other_user_of_the_machine_sees_the_screen(desktop: X11Computer):
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    look = f"DISPLAY={desktop.display} xclip -o -selection clipboard"
    asked = await desktop.run_command(f"su nobody -s /bin/sh -c '{look}'")
    assert "open display" in asked.stderr
