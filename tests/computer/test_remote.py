"""Remote computers: the real wire between our client and our server, and servers that misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from computeragent.computer import actions
from computeragent.computer.browser import BrowserComputer
from computeragent.computer.custom import CustomComputer
from computeragent.computer.remote import RemoteComputer
from computeragent.computer.remote.commands import commands_of
from computeragent.computer.types import Computer, HasClipboard, HasFiles, HasShell, HasWindows, Point
from computeragent.computer.x11 import X11Computer
from computeragent.errors import ComputerActionError, ComputerError, ComputerUnsupportedError, ValidationError
from computeragent.server.auth import bearer
from computeragent.server.computers import create_computer_server
from loopback import loopback

pytestmark = pytest.mark.anyio


def png(width: int, height: int) -> bytes:
    """The head of a PNG, which is all that anybody here looks at."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4) + height.to_bytes(4) + bytes(16)


def functions(log: list[Any]) -> dict[str, Any]:
    """A computer that writes down what is asked of it."""

    def note(name: str) -> Callable[..., None]:
        return lambda *arguments: log.append([name, *arguments])

    names = (
        "click",
        "double_click",
        "type",
        "move",
        "keypress",
        "drag",
        "scroll",
        "key_down",
        "key_up",
        "goto",
        "back",
    )
    return {name: note(name) for name in (*names, "left_mouse_down", "left_mouse_up", "reset")} | {
        "screenshot": lambda: png(640, 480),
        "get_current_url": lambda: "https://example.com/",
        "get_cursor_position": lambda: (3, 4),
    }


@asynccontextmanager
async def served(computer: Computer, token: str | None = "right") -> AsyncIterator[str]:
    auth = None if token is None else bearer([token])
    async with loopback(create_computer_server(computer, auth=auth)) as url:
        yield url


@pytest.mark.parametrize("over_socket", [True, False])
async def test_every_action_arrives_as_it_was_meant(over_socket: bool) -> None:
    log: list[Any] = []
    async with served(await CustomComputer.make(functions(log))) as url:
        remote = await RemoteComputer.connect(url, api_key="right", socket=over_socket)
        assert isinstance(remote, Computer)
        assert remote.dimensions == (640, 480)
        assert (await remote.screenshot()).data == png(640, 480)
        await remote.click(1, 2, keys=["Control"])
        await remote.click(1, 2, count=3)
        await remote.click(1, 2, "right")
        await remote.drag([Point(1, 1), Point(5, 6)])
        await remote.scroll(10, 20, -7, 333)
        await remote.type("Grüße 漢字 😀\n")
        await remote.keypress(["ctrl", "c"], repeat=2)
        await remote.settle(1.0)
        await remote.goto("https://example.com/")
        await remote.back()
        await remote.reset()
        assert log == [
            *(["key_down", "ctrl"], ["click", 1, 2], ["key_up", "ctrl"]),
            *([["click", 1, 2]] * 3),
            ["click", 1, 2, "right"],
            ["drag", [{"x": 1, "y": 1}, {"x": 5, "y": 6}]],
            ["scroll", 10, 20, -7, 333],
            ["type", "Grüße 漢字 😀\n"],
            *(["keypress", ["ctrl", "c"]], ["keypress", ["ctrl", "c"]]),
            ["goto", "https://example.com/"],
            ["back"],
            ["reset"],
        ]
        assert await remote.cursor_position() == Point(3, 4)
        assert await remote.current_url() == "https://example.com/"
        with pytest.raises(ComputerUnsupportedError, match="runs no commands"):
            await remote.run_command("ls")
        with pytest.raises(ComputerActionError, match="outside the screen"):
            await remote.click(700, 5)
        await remote.close()
        with pytest.raises(ComputerError, match="closed"):
            await remote.screenshot()


@pytest.mark.parametrize("over_socket", [True, False])
async def test_with_the_commands_of_the_protocol_alone(over_socket: bool) -> None:
    log: list[Any] = []
    async with served(await CustomComputer.make(functions(log)), None) as url:
        remote = await RemoteComputer.connect(url, socket=over_socket)
        remote._features = frozenset()  # as a cua computer-server has none
        await remote.click(1, 2)
        await remote.click(1, 2, count=2)
        await remote.click(1, 2, "right", keys=["shift"])
        await remote.scroll(10, 20, 0, 360)
        await remote.scroll(10, 20, 0, -1)
        await remote.scroll(10, 20, 130, 0)
        await remote.type("plain")
        await remote.keypress(["enter"])
        await remote.keypress(["ctrl", "a"])
        await remote.drag([Point(1, 1), Point(5, 6)])
        await remote.mouse_down(x=1, y=1)
        await remote.mouse_up(x=2, y=2)
        assert log == [
            ["click", 1, 2],
            ["double_click", 1, 2],
            *(["key_down", "shift"], ["click", 1, 2, "right"], ["key_up", "shift"]),
            *(["move", 10, 20], ["scroll", 3, 4, 0, 360]),
            *(["move", 10, 20], ["scroll", 3, 4, 0, -120]),
            *(["move", 10, 20], ["scroll", 3, 4, 120, 0]),
            ["type", "plain"],
            ["keypress", ["enter"]],
            ["keypress", ["ctrl", "a"]],
            ["drag", [{"x": 1, "y": 1}, {"x": 5, "y": 6}]],
            *(["left_mouse_down", 1, 1], ["left_mouse_up", 2, 2]),
        ]
        with pytest.raises(ComputerUnsupportedError):
            await remote.reset()
        assert await remote.current_url() is None
        await remote.close()


def test_text_that_keyboards_lack_is_pasted_and_keys_have_the_system_s_names() -> None:
    assert commands_of(actions.Type(text="ü"), "mac") == [
        ("set_clipboard", {"text": "ü"}),
        ("hotkey", {"keys": ["command", "v"]}),
    ]
    assert commands_of(actions.Keypress(keys=("super", "escape")), "windows") == [("hotkey", {"keys": ["win", "esc"]})]


async def test_nothing_stays_held_when_a_caller_leaves() -> None:
    log: list[Any] = []
    async with served(await CustomComputer.make(functions(log))) as url:
        remote = await RemoteComputer.connect(url, api_key="right")
        await remote.key_down("shift")
        await remote.key_down("ctrl")
        await remote.key_up("shift")
        await remote.mouse_down()
        log.clear()
        await remote.close()
        await remote.close()
    assert log == [["left_mouse_up"], ["key_up", "ctrl"]]


async def test_a_browser_elsewhere() -> None:
    browser = await BrowserComputer.start(800, 600)
    try:
        async with served(browser) as url:
            remote = await RemoteComputer.connect(url, api_key="right")
            assert remote.environment == "browser"
            await remote.goto("data:text/html,<textarea id=t style='width:700px;height:500px'></textarea>")
            await remote.settle()
            await remote.click(100, 100)
            await remote.type("Grüße 漢字 😀 " * 200)
            page = await browser._pages.active()
            assert await page.input_value("#t") == "Grüße 漢字 😀 " * 200
            assert (await remote.screenshot()).size == (800, 600)
            await remote.goto("data:text/html,<button style='width:99px;height:99px' onclick=alert(1)>b</button>")
            await remote.click(50, 50)
            await remote.settle()
            await remote.settle()
            assert remote.take_notices() == ["The page showed a dialog (alert: '1'), which was accepted."]
            assert remote.take_notices() == []
            await remote.close()
    finally:
        await browser.close()


async def test_a_desktop_elsewhere_with_shell_files_clipboard_and_windows() -> None:
    desktop = await X11Computer.start(640, 480)
    try:
        async with served(desktop) as url:
            remote = await RemoteComputer.connect(url, api_key="right")
            assert isinstance(remote, HasShell | HasFiles | HasClipboard | HasWindows)
            ended = await remote.run_command("echo out; echo err >&2; exit 3")
            assert (ended.stdout, ended.stderr, ended.returncode) == ("out\n", "err\n", 3)
            with pytest.raises(ComputerActionError):
                await remote.run_command("sleep 30", timeout=0.3)

            data = bytes(range(256)) * 40_000  # more than one message holds
            await remote.write_file("new/file.bin", data)
            assert await remote.read_file("new/file.bin") == data
            assert await remote.read_file("new/file.bin", offset=255, length=3) == b"\xff\0\1"
            assert [(entry.name, entry.is_dir, entry.size) for entry in await remote.list_dir("new")] == [
                ("file.bin", False, len(data))
            ]
            await remote.set_clipboard("größer")
            assert await remote.get_clipboard() == "größer"
            await remote.launch("xterm", ["-T", "a terminal"])
            async with asyncio.timeout(15):
                while not (found := [each for each in await remote.windows() if each.title == "a terminal"]):
                    await asyncio.sleep(0.05)
            await remote.settle()
            await remote.place_window(found[0].id, width=300, height=200)

            features, remote._features = remote._features, frozenset()  # as a cua computer-server tells it
            assert [(each.name, each.size) for each in await remote.list_dir("new")] == [("file.bin", len(data))]
            assert [each.is_dir for each in await remote.list_dir(".") if each.name == "new"] == [True]
            assert (await remote.run_command("exit 7")).returncode == 7
            ask = remote._wire.ask

            async def forgetful(command: str, params: Any, **options: Any) -> Any:
                return await ask(command, {key: params[key] for key in params if key != "timeout"}, **options)

            remote._wire.ask = forgetful  # type: ignore[method-assign]
            with pytest.raises(ComputerActionError, match="did not end"):
                await remote.run_command("sleep 30", timeout=0.5)
            assert [each.title for each in await remote.windows()] == ["a terminal"]
            remote._features = features

            await remote.delete_file("new/file.bin")
            with pytest.raises(ComputerActionError):
                await remote.read_file("new/file.bin")
            await remote.close()
    finally:
        await desktop.close()


async def test_who_has_no_key_or_a_wrong_one_gets_nothing() -> None:
    log: list[Any] = []
    async with served(await CustomComputer.make(functions(log))) as url:
        for key in (None, "hunter2"):
            for over_socket in (True, False):
                with pytest.raises(ComputerError, match=r"refused the key|key is missing or wrong") as told:
                    await RemoteComputer.connect(url, api_key=key, socket=over_socket)
                assert "hunter2" not in repr(told.value)
        with pytest.raises(ValidationError):
            await RemoteComputer.connect(url, api_key="hünter2")
        click = {"command": "left_click", "params": {"x": 1, "y": 1}}
        async with httpx2.AsyncClient() as http:
            assert (await http.post(f"{url}/cmd", json=click)).status_code == 401
            as_page = {"origin": "https://evil.example"}
            assert (await http.post(f"{url}/cmd", json=click, headers=as_page)).status_code == 403
            assert (await http.get(f"{url}/status", headers={"host": "evil.example"})).status_code == 403
        async with connect(f"ws{url[4:]}/ws") as first_words:
            await first_words.send(json.dumps(click))
            assert json.loads(await first_words.recv())["success"] is False
            with pytest.raises(Exception, match="1008"):
                await first_words.recv()
        with pytest.raises(InvalidStatus):
            await connect(f"ws{url[4:]}/ws", origin="https://evil.example")  # type: ignore[arg-type]
    assert log == []


async def test_the_key_is_in_no_log_of_the_client(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with served(await CustomComputer.make(functions([])), "hunter2") as url:
        await (await RemoteComputer.connect(url, api_key="hunter2")).close()
    told = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    assert not [line for line in told if "hunter2" in line]


async def test_a_page_of_another_host_reaches_no_server_without_keys() -> None:
    async with served(await CustomComputer.make(functions([])), None) as url:
        with pytest.raises(InvalidStatus):
            await connect(f"ws{url[4:]}/ws", origin="https://evil.example")  # type: ignore[arg-type]
        async with connect(f"ws{url[4:]}/ws") as ours:
            await ours.send('{"command": "version"}')
            assert json.loads(await ours.recv())["success"] is True


@pytest.mark.parametrize(
    "message", ["", "[]", "{", "null", '{"command": 3}', '{"command": "x", "params": []}', "[" * 9999]
)
async def test_messages_that_make_no_sense_are_answered(message: str) -> None:
    async with served(await CustomComputer.make(functions([])), None) as url:
        async with connect(f"ws{url[4:]}/ws") as socket_:
            await socket_.send(message)
            assert json.loads(await socket_.recv())["success"] is False
            await socket_.send('{"command": "get_screen_size"}')
            assert json.loads(await socket_.recv())["size"] == {"width": 640, "height": 480}
        async with httpx2.AsyncClient() as http:
            answer = (await http.post(f"{url}/cmd", content=message.encode())).text
        assert answer.startswith("data: ")
        assert json.loads(answer[6:])["success"] is False


# ── Servers that misbehave: a stand-in of the wire that answers as a test says ──


class Odd:
    """A computer-server whose answers are the test's."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {}
        self.drop = 0
        self.has_socket = True

    def answer(self, name: str) -> Any:
        self.asked.append(name)
        known = {
            "get_screen_size": {"success": True, "size": {"width": 640, "height": 480}},
            "screenshot": {"success": True, "image_data": base64.b64encode(png(640, 480)).decode()},
        }
        return self.answers.get(name, known.get(name, {"success": True}))

    def app(self) -> Starlette:
        async def cmd(request: Request) -> Response:
            answer = self.answer((await request.json())["command"])
            if isinstance(answer, float):
                await asyncio.sleep(answer)
            if isinstance(answer, int):
                return Response(status_code=answer)
            return PlainTextResponse(answer if isinstance(answer, str) else f"data: {json.dumps(answer)}\n\n")

        async def ws(socket_: WebSocket) -> None:
            await socket_.accept()
            while True:
                answer = self.answer((await socket_.receive_json())["command"])
                if self.drop:
                    self.drop -= 1
                    await socket_.close(1011)
                    return
                if isinstance(answer, float):
                    await asyncio.sleep(answer)
                await socket_.send_text(answer if isinstance(answer, str) else json.dumps(answer))

        return Starlette(
            routes=[Route("/cmd", cmd, methods=["POST"]), *([WebSocketRoute("/ws", ws)] if self.has_socket else [])]
        )


@pytest.fixture
def odd() -> Odd:
    return Odd()


@pytest.mark.parametrize("over_socket", [True, False])
@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        ("data: nonsense", ComputerError, "no answer"),
        ("data: [1]", ComputerError, "no answer"),
        ({}, ComputerActionError, "does not say why"),
        ({"success": False, "error": "Unknown command: left_click"}, ComputerUnsupportedError, "cannot do that"),
        ({"success": False, "error": "no such thing" + "!" * 9999}, ComputerActionError, "no such thing"),
    ],
)
async def test_answers_that_are_none(odd: Odd, over_socket: bool, answer: Any, error: type, says: str) -> None:
    async with loopback(odd.app()) as url:
        remote = await RemoteComputer.connect(url, socket=over_socket)
        odd.answers["left_click"] = answer
        with pytest.raises(error, match=says) as told:
            await remote.click(1, 1)
        assert len(str(told.value)) < 500
        assert (await remote.screenshot()).size == (640, 480), "it goes on"
        await remote.close()


@pytest.mark.parametrize(
    "answers",
    [
        {"get_screen_size": {"success": True}},
        {"get_screen_size": {"success": True, "size": {"width": "x", "height": None}}},
        {"get_screen_size": {"success": True, "size": {"width": 0, "height": 0}}},
        {"screenshot": {"success": True, "image_data": "!!"}},
        {"screenshot": {"success": True, "image_data": None}},
        {"screenshot": {"success": True, "image_data": base64.b64encode(b"GIF89a").decode()}},
    ],
)
async def test_a_server_that_shows_no_screen_is_not_connected_to(odd: Odd, answers: dict[str, Any]) -> None:
    odd.answers |= answers
    async with loopback(odd.app()) as url:
        with pytest.raises(ComputerError):
            await RemoteComputer.connect(url)


@pytest.mark.parametrize("over_socket", [True, False])
async def test_a_slow_server_is_given_up_and_its_late_answer_is_nobody_else_s(odd: Odd, over_socket: bool) -> None:
    async with loopback(odd.app()) as url:
        remote = await RemoteComputer.connect(url, socket=over_socket, timeout=2.0)
        remote._timeout = 0.2
        odd.answers["get_cursor_position"] = 0.6
        with pytest.raises(ComputerError, match="did not answer 'get_cursor_position'"):
            await remote.cursor_position()
        remote._timeout = 2.0
        assert (await remote.screenshot()).size == (640, 480)
        await remote.close()


async def test_a_broken_connection_is_made_again_and_nothing_is_done_twice(odd: Odd) -> None:
    async with loopback(odd.app()) as url:
        remote = await RemoteComputer.connect(url)
        odd.asked.clear()
        odd.drop = 1
        assert (await remote.screenshot()).size == (640, 480)  # looking twice does no harm
        assert odd.asked == ["screenshot", "screenshot"]
        odd.asked.clear()
        odd.drop = 1
        with pytest.raises(ComputerError, match="broke") as told:
            await remote.click(1, 1)
        assert "look before" in str(told.value.hint)
        assert odd.asked == ["left_click"]
        await remote.click(1, 1)
        await remote.close()


async def test_a_cancelled_question_spoils_no_later_answer(odd: Odd) -> None:
    async with loopback(odd.app()) as url:
        remote = await RemoteComputer.connect(url)
        odd.answers["type_text"] = 0.3
        typing = asyncio.create_task(remote.type("x"))
        await asyncio.sleep(0.1)
        typing.cancel()
        assert (await remote.screenshot()).size == (640, 480)
        await remote.close()


async def test_without_a_socket_commands_are_requests(odd: Odd) -> None:
    odd.has_socket = False
    async with loopback(odd.app()) as url:
        remote = await RemoteComputer.connect(f"{url}/cmd")
        await remote.click(1, 1)
        assert odd.asked[-1] == "left_click"
        odd.answers["left_click"] = 503
        with pytest.raises(ComputerError, match="503"):
            await remote.click(1, 1)
        await remote.close()


async def test_points_are_pixels_of_the_screenshot_where_the_screen_has_others(odd: Odd) -> None:
    odd.answers["get_screen_size"] = {"success": True, "size": {"width": 320, "height": 240}}
    odd.answers["get_cursor_position"] = {"success": True, "position": {"x": 160, "y": 60}}
    sent: list[Any] = []
    async with loopback(odd.app()) as url:
        remote = await RemoteComputer.connect(url)
        ask = remote._wire.ask

        async def spy(command: str, params: Any, **options: Any) -> Any:
            sent.append((command, params))
            return await ask(command, params, **options)

        remote._wire.ask = spy  # type: ignore[method-assign]
        assert remote.dimensions == (640, 480)
        await remote.click(100, 50)
        await remote.drag([Point(0, 0), Point(639, 479)])
        assert sent[0] == ("left_click", {"x": 50, "y": 25})
        assert sent[1][1]["path"] == [[0, 0], [320, 240]]
        assert await remote.cursor_position() == Point(320, 120)
        odd.answers["screenshot"] = {"success": True, "image_data": base64.b64encode(png(800, 600)).decode()}
        with pytest.raises(ComputerError, match="changed its size"):
            await remote.screenshot()
        await remote.close()


async def test_nobody_there_and_a_server_that_goes_away(odd: Odd) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ComputerError, match=f"no computer-server answers at 127.0.0.1:{port}"):
        await RemoteComputer.connect(f"http://127.0.0.1:{port}")
    for over_socket in (True, False):
        async with loopback(odd.app()) as url:
            remote = await RemoteComputer.connect(url, socket=over_socket)
        async with asyncio.timeout(10):
            with pytest.raises(ComputerError):
                await remote.screenshot()
        await remote.close()
    for wrong in ("", "ftp://x", "http://", "http://user:pw@host:1", "http://[::1", "http://x:99999"):
        with pytest.raises(ValidationError):
            await RemoteComputer.connect(wrong)
