"""Real computers in the pool: what is left of one lease in the next, at the end, and after a kill."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from computeragent.computer.browser import BrowserComputer
from computeragent.computer.kinds import ComputerSpec
from computeragent.computer.pool import ComputerPool
from computeragent.computer.reaper import MARK
from computeragent.processes import marks

pytestmark = pytest.mark.anyio
BROWSER = ComputerSpec(kind="browser", width=400, height=300)


def ours(pid: int) -> set[int]:
    """The processes of computers that a process opened."""
    return {each for each, mark in marks(MARK).items() if mark.split(".")[1:2] == [str(pid)]}


async def gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while ours(pid):
            await asyncio.sleep(0.05)


async def test_a_browser_is_leased_again_without_what_was_in_it_and_replaced_when_it_has_died() -> None:
    pool = ComputerPool(1)
    try:
        async with pool.lease(BROWSER) as first:
            assert isinstance(first, BrowserComputer)
            await first.goto("data:text/html,<title>mine</title>")
        async with pool.lease(BROWSER) as again:
            assert again is first
            assert await again.current_url() == "about:blank"
            for pid in ours(os.getpid()):
                os.kill(pid, signal.SIGKILL)
        async with pool.lease(BROWSER) as third:
            assert third is not first
            assert (await third.screenshot()).size == (400, 300)
    finally:
        await pool.aclose()
    await gone(os.getpid())


async def test_a_page_is_open_again_in_each_lease() -> None:
    pool = ComputerPool(1)
    page = "data:text/html,<title>start</title>"
    spec = ComputerSpec(kind="browser", width=400, height=300, page=page)
    try:
        for _ in range(2):
            async with pool.lease(spec) as computer:
                assert await computer.current_url() == page
                await computer.goto("about:blank")  # type: ignore[attr-defined]
    finally:
        await pool.aclose()


PROGRAM = """
import asyncio, sys
from computeragent.computer.kinds import ComputerSpec
from computeragent.computer.pool import default_pool

async def main():
    async with default_pool().lease(ComputerSpec(kind=sys.argv[1], width=400, height=300)) as computer:
        await computer.screenshot()
        print("ready", flush=True)
        if sys.argv[2] == "stay":
            await asyncio.sleep(60)
    if sys.argv[2] == "leave":
        sys.exit(3)

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["browser", "x11"])
@pytest.mark.parametrize("end", ["killed", "left"])
async def test_nothing_outlives_a_program(kind: str, end: str, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    how = "stay" if end == "killed" else "leave"
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, kind, how), env=env, stdout=asyncio.subprocess.PIPE
    )
    assert program.stdout is not None
    assert await program.stdout.readline() == b"ready\n"
    if end == "killed":
        assert ours(program.pid)
        program.kill()
    assert await program.wait() == (-signal.SIGKILL if end == "killed" else 3)
    await gone(program.pid)
    async with asyncio.timeout(20):
        while list((tmp_path / "tmp").iterdir()):
            await asyncio.sleep(0.1)


async def test_four_browsers_side_by_side_do_not_mix() -> None:
    pool = ComputerPool(4)

    async def work(number: int) -> tuple[str | None, Any]:
        async with pool.lease(BROWSER, key=str(number)) as computer:
            assert isinstance(computer, BrowserComputer)
            await computer.goto(f"data:text/html,<title>{number}</title><input id=i autofocus style='width:300px'>")
            await computer.click(100, 18)
            await computer.type(f"I am {number} 漢字")
            await computer.settle()
            page = await computer._pages.active()
            return await computer.current_url(), await page.input_value("#i")

    try:
        answers = await asyncio.gather(*(work(number) for number in range(4)))
    finally:
        await pool.aclose()
    for number, (url, typed) in enumerate(answers):
        assert f"<title>{number}<" in str(url)
        assert typed == f"I am {number} 漢字"
