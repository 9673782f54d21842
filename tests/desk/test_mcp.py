"""The MCP server as a client has it: the real client, over the standard streams of a real process."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession, StdioServerParameters, stdio_client
from PIL import Image

from computeragent.computer.reaper import MARK
from computeragent.processes import marks

from .oracle import oracle

pytestmark = pytest.mark.anyio
SCRIPT = """
rules:
  - match: Fill in
    turns:
      - text: I look first.
        computer: {action: screenshot}
      - computer:
          - {action: click, x: 200, y: 180}
          - {action: type, text: "Жλ 😀"}
      - text: The page is filled in.
  - match: Wait
    turns:
      - text: I wait.
        computer: {action: wait, seconds: 50}
      - text: Never.
"""


@asynccontextmanager
async def desk(*arguments: str, **env: str) -> AsyncIterator[ClientSession]:
    """A session with `computeragent computer mcp`."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "computeragent", "computer", "mcp", *arguments],
        env={**os.environ, **env},
    )
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        yield session


def picture(answer: Any) -> tuple[int, int]:
    """The size of the screenshot in an answer."""
    assert not answer.is_error, answer.content
    image = next(each for each in answer.content if each.type == "image")
    assert image.mime_type == "image/png"
    with Image.open(io.BytesIO(base64.b64decode(image.data))) as shown:
        return shown.size


def said(answer: Any) -> str:
    return "\n".join(each.text for each in answer.content if each.type == "text")


async def test_tools_of_a_desktop_and_what_a_click_does() -> None:
    async with oracle() as page, desk("--size", "900x700", "--page", page.url) as session:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert {
            "screenshot",
            "click",
            "type",
            "key",
            "scroll",
            "drag",
            "move",
            "wait",
            "windows",
            "get_clipboard",
        } <= set(tools)
        assert not {"run_command", "read_file", "write_file", "launch", "run_task", "goto"} & set(tools)
        assert tools["click"].input_schema["properties"]["button"]["enum"]
        assert "action" not in tools["click"].input_schema["properties"]
        assert picture(await session.call_tool("screenshot", {})) == (900, 700)
        await page.ready()
        assert picture(await session.call_tool("click", {"x": 300, "y": 400})) == (900, 700)
        clicked = await page.until(lambda event: event["type"] == "click")
        assert (clicked["x"], clicked["y"]) == (300, 400)
        await session.call_tool("click", {"x": 200, "y": 180, "look": False})
        answer = await session.call_tool("type", {"text": "Grüße 漢字 😀", "look": False})
        assert [each.type for each in answer.content] == ["text"]
        await page.text("Grüße 漢字 😀")
        await session.call_tool("key", {"keys": "ctrl+a"})
        await page.until(lambda event: event["type"] == "keydown" and event["key"] == "a" and event["ctrl"])
        await session.call_tool("scroll", {"x": 400, "y": 500, "dy": 240})
        await page.until(lambda event: event["type"] == "scroll" and event["y"] > 0)
        await session.call_tool("set_clipboard", {"text": "kept"})
        assert said(await session.call_tool("get_clipboard", {})) == "kept"
        assert "oracle" in said(await session.call_tool("windows", {}))


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("click", {"x": 5_000, "y": 1}, "outside the screen"),
    ("click", {"x": "left"}, "no action"),
    ("key", {"keys": "hyper+nothing"}, "no key"),
    ("key", {}, "not its arguments"),
    ("type", {"text": "x", "extra": 1}, "no action"),
    ("run_command", {"command": "true"}, "no tool"),
    ("run_task", {"task": "x"}, "no model"),
]


async def test_what_is_wrong_is_told_and_the_session_goes_on() -> None:
    async with desk("--size", "400x300") as session:
        for tool, arguments, wrong in WRONG:
            answer = await session.call_tool(tool, arguments)
            assert (answer.is_error, wrong in said(answer)) == (True, True), (tool, said(answer))
            assert picture(await session.call_tool("screenshot", {})) == (400, 300)


async def test_shell_and_files_where_they_are_allowed() -> None:
    async with desk("--size", "400x300", "--allow-shell") as session:
        answer = await session.call_tool("run_command", {"command": "echo out; echo err >&2; exit 3"})
        assert said(answer) == "exit status 3\nout\n\nstderr:\nerr\n"
        await session.call_tool("write_file", {"path": "notes/a.txt", "text": "Grüße"})
        assert said(await session.call_tool("read_file", {"path": "notes/a.txt"})) == "Grüße"
        assert said(await session.call_tool("list_dir", {"path": "notes"})) == "a.txt 7"
        slow = await session.call_tool("run_command", {"command": "sleep 50", "timeout": 0.5})
        assert slow.is_error


async def test_a_browser_has_addresses_and_no_windows() -> None:
    async with oracle() as page, desk("--kind", "browser", "--size", "500x400") as session:
        tools = {tool.name for tool in (await session.list_tools()).tools}
        assert {"goto", "back", "current_url"} <= tools
        assert "windows" not in tools
        assert picture(await session.call_tool("goto", {"url": page.url})) == (500, 400)
        await page.ready()
        assert said(await session.call_tool("current_url", {})).startswith(page.url)


async def test_a_session_has_bounds() -> None:
    async with desk("--size", "400x300", "--max-calls", "3", "--idle", "0.3") as session:
        await session.call_tool("set_clipboard", {"text": "of the first desktop"})
        await asyncio.sleep(2)  # it is let go; the next call has a new one
        assert said(await session.call_tool("get_clipboard", {})) == "The clipboard is empty."
        assert picture(await session.call_tool("screenshot", {})) == (400, 300)
        over = await session.call_tool("screenshot", {})
        assert (over.is_error, "3 calls" in said(over)) == (True, True)


async def test_a_task_is_done_on_the_same_computer(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    told: list[str | None] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with (
        oracle() as page,
        desk(
            "--size", "900x700", "--page", page.url, CUA_MODEL_NAME=f"scripted/{script}", CUA_MAX_IMAGES="2"
        ) as session,
    ):
        await session.call_tool("screenshot", {})
        await page.ready()
        answer = await session.call_tool("run_task", {"task": "Fill in the page"}, progress_callback=progress)
        assert (answer.is_error, said(answer)) == (False, "The page is filled in.")
        await page.text("Жλ 😀")
        assert told[0] == "I look first."
        assert any("click" in (line or "") and "200" in (line or "") for line in told)
        assert picture(await session.call_tool("screenshot", {})) == (900, 700)


async def test_a_cancelled_task_stops_and_gives_the_computer_back(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    waits = asyncio.Event()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        if message and message.startswith("wait"):
            waits.set()

    async with desk("--size", "400x300", "--model", f"scripted/{script}") as session:
        task = asyncio.create_task(session.call_tool("run_task", {"task": "Wait"}, progress_callback=progress))
        async with asyncio.timeout(30):
            await waits.wait()
            busy = await session.call_tool("screenshot", {})
            assert (busy.is_error, "has the computer" in said(busy)) == (True, True)
            task.cancel()
            while (await session.call_tool("screenshot", {})).is_error:
                await asyncio.sleep(0.05)


async def test_a_task_that_fails_says_why(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    async with desk("--size", "400x300", "--model", f"scripted/{script}", "--max-steps", "1") as session:
        answer = await session.call_tool("run_task", {"task": "Fill in the page"})
        assert answer.is_error
        assert said(answer).startswith("TURN_FAILED: the model was asked 1 times")


def test_standard_output_carries_the_protocol_alone_and_nothing_is_left() -> None:
    hello = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
        '"clientInfo":{"name":"t","version":"1"}}}\n'
        '{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
        "this is no JSON\n"
        '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"cursor_position","arguments":{}}}\n'
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "computeragent", "computer", "mcp", "--size", "400x300"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "COMPUTERAGENT_LOG": "debug"},
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(hello)
    server.stdin.flush()
    lines = [server.stdout.readline()]
    while '"id":2' not in lines[-1].replace(" ", ""):
        lines.append(server.stdout.readline())
    server.stdin.close()
    rest = server.stdout.read()
    server.stdout.close()
    assert all(line.startswith('{"jsonrpc":"2.0"') for line in [*lines, *rest.splitlines()])
    assert server.wait(30) == 0
    assert not any(mark.split(".")[1] == str(server.pid) for mark in marks(MARK).values())
