"""The real JavaScript client, peerjs, in the real Chromium; and the real PeerJS server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright
from starlette.applications import Starlette
from starlette.responses import FileResponse, HTMLResponse
from starlette.routing import Route

from computeragent.errors import PeerError, PeerUnavailableError
from computeragent.p2p import Connection, Peer, PeerOptions, serve
from loopback import loopback

from .conftest import At
from .npm import installed
from .test_processes import run_alone

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

PAGE = """<!doctype html><title>peer</title><script src="/peerjs.js"></script><script>
const late = () => new Promise((_, no) => setTimeout(() => no(Error("late")), 20000));
const wait = what => Promise.race([what, late()]);
async function peer(port, id) {
  const made = new peerjs.Peer(id, {host: "localhost", port, path: "/", config: {iceServers: []}});
  window.faults = []; made.on("error", error => faults.push(error.type));
  await wait(new Promise((ok, no) => { made.on("open", ok); made.on("error", no); }));
  window.it = made; return made.id;
}
function keep(connection) {
  window.link = connection; window.got = []; window.ended = false;
  connection.on("data", data => got.push(data)); connection.on("close", () => { ended = true; });
  return connection;
}
async function open(id, options) {
  const connection = keep(it.connect(id, options));
  await wait(new Promise(ok => connection.on("open", ok)));
}
async function next() {
  const end = Date.now() + 20000;
  while (!got.length) { if (Date.now() > end) throw Error("late"); await new Promise(ok => setTimeout(ok, 2)); }
  return got.shift();
}
async function ask(value) { link.send(value); return await next(); }
</script>"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("npm"))


def chromium() -> str:
    found = shutil.which("chromium")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is missing")
        pytest.skip("chromium is missing")
    return found


@asynccontextmanager
async def browsing(modules: Path, *flags: str) -> AsyncGenerator[Browser]:
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox", *flags])
        try:
            yield browser
        finally:
            await browser.close()


@pytest.fixture
async def page(modules: Path) -> AsyncGenerator[Page]:
    """A page with peerjs in it, in a browser with its ordinary settings: local addresses are hidden."""

    async def page(_: Any) -> HTMLResponse:
        return HTMLResponse(PAGE)

    async def script(_: Any) -> FileResponse:
        return FileResponse(modules / "peerjs" / "dist" / "peerjs.min.js", media_type="text/javascript")

    app = Starlette(routes=[Route("/", page), Route("/peerjs.js", script)])
    async with loopback(app) as url, browsing(modules) as browser:
        page_ = await browser.new_page()
        page_.on("console", lambda message: print("console:", _text(message)))
        await page_.goto(url.replace("127.0.0.1", "localhost"))
        yield page_


def _text(message: ConsoleMessage) -> str:
    return message.text[:300]


@asynccontextmanager
async def serving(at: At, **given: Any) -> AsyncGenerator[Peer]:
    """A peer that answers as the proxy does."""

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "length": len(request["input"]), "text": "é" * request.get("size", 0)}

    async with Peer("computer-agent-proxy", at(**given)) as server:
        task = asyncio.create_task(serve(server, answer))
        yield server
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def echoing(at: At) -> AsyncGenerator[Peer]:
    async def echo(connection: Connection) -> None:
        with contextlib.suppress(PeerError):
            async for message in connection:
                await connection.send(message)

    async with Peer("echo", at()) as server:
        server.on("connection", echo)
        yield server


async def test_a_page_is_served_in_each_serialization(page: Page, at: At) -> None:
    async with serving(at):
        await page.evaluate("port => peer(port)", at.port)
        for serialization in ("binary", "json", "raw"):
            await page.evaluate(
                "name => open('computer-agent-proxy', {serialization: name, reliable: true})", serialization
            )
            told = await page.evaluate(
                """async () => {
                  const read = data => JSON.parse(data instanceof ArrayBuffer ? new TextDecoder().decode(data) : data);
                  const welcome = read(await next());
                  const answer = read(await ask(JSON.stringify({model: "m", input: "hi", request_id: 1})));
                  const large = read(await ask(JSON.stringify({model: "m", input: "hi", size: 50000})));
                  return [welcome.type, answer, large.text.length];
                }"""
            )
            assert told == ["welcome", {"success": True, "length": 2, "text": "", "request_id": 1}, 50_000]


@pytest.mark.parametrize("reliable", [True, False])
async def test_a_megabyte_each_way_in_pieces_of_any_order(page: Page, at: At, reliable: bool) -> None:
    """The client's own default is not reliable: pieces may overtake each other."""
    async with serving(at):
        await page.evaluate("port => peer(port)", at.port)
        await page.evaluate("reliable => open('computer-agent-proxy', {reliable})", reliable)
        told = await page.evaluate(
            """async () => {
              await next();
              const answer = await ask({model: "m", input: "é".repeat(500000), size: 500000});
              return [answer.length, answer.text.length, answer.text === "é".repeat(500000)];
            }"""
        )
        assert told == [500_000, 500_000, True]


async def test_values_are_the_same_on_both_sides(page: Page, at: At) -> None:
    async with echoing(at):
        await page.evaluate("port => peer(port)", at.port)
        await page.evaluate("open('echo')")
        wrong = await page.evaluate(
            """async () => {
              const values = [true, false, 0, 1, -1, 127, 128, 255, 256, -32, -33, -128, -129, 65535, 65536, -32768,
                -32769, 2 ** 31, -(2 ** 31), 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 1, -(2 ** 40), 2 ** 52, 0.1, -1.5, 1e-300,
                "", "é𝕏漢🐌", "x".repeat(15), "x".repeat(16), "x".repeat(70000), [], [1, [2, [null]]],
                Array(20).fill("a"), Array(3000).fill(7), {}, {a: {b: [1, 2, {c: "d"}]}, "": 1},
                Object.fromEntries([...Array(40).keys()].map(n => ["k" + n, n]))];
              const wrong = [];
              for (const value of values) {
                const back = await ask({value});
                if (JSON.stringify(back.value) !== JSON.stringify(value)) wrong.push([value, back.value]);
              }
              for (const size of [0, 15, 16, 70000]) {
                const bytes = Uint8Array.from({length: size}, (_, n) => n % 256);
                const back = new Uint8Array((await ask({bytes})).bytes);
                if (back.join() !== bytes.join()) wrong.push(size);
              }
              const nothing = await ask({gone: undefined, nothing: null});
              if (nothing.nothing !== null) wrong.push(nothing);
              return wrong;
            }"""
        )
        assert wrong == []


async def test_a_page_is_called_by_python(page: Page, at: At) -> None:
    await page.evaluate("port => peer(port, 'page').then(() => { it.on('connection', keep); })", at.port)
    async with Peer(options=at()) as client:
        for serialization, message in (
            ("binary", {"text": "é" * 100_000, "n": -1.5}),
            ("json", {"text": "é" * 1000}),
            ("raw", "é" * 1000),
        ):
            async with client.connect("page", serialization=serialization, metadata={"a": 1}) as connection:
                await connection.send(message)
                back = await page.evaluate(
                    "async () => { link.send(await next()); return [link.metadata, link.serialization]; }"
                )
                assert back == [{"a": 1}, serialization]
                assert await asyncio.wait_for(connection.receive(), 20) == message


async def test_both_sides_notice_when_the_other_closes(page: Page, at: At) -> None:
    async with Peer("desk", at()) as server:
        incoming = server.connections()
        await page.evaluate("port => peer(port)", at.port)
        await page.evaluate("open('desk')")
        first = await anext(incoming)
        await page.evaluate("link.close()")
        await asyncio.wait_for(first.wait_closed(), 10)
        await page.evaluate("open('desk', {reliable: true})")
        second = await anext(incoming)
        await page.evaluate("link.send('x'.repeat(100000)); link.close({flush: true})")
        assert len(await second.receive()) == 100_000
        await asyncio.wait_for(second.wait_closed(), 10)
        await page.evaluate("open('desk')")
        await (await anext(incoming)).close()
        await page.wait_for_function("ended", timeout=20_000)


async def test_a_page_that_goes_away_is_noticed(page: Page, at: At) -> None:
    async with Peer("desk", at(heartbeat=0.2, dead_after=2.0)) as server:
        await page.evaluate("port => peer(port)", at.port)
        await page.evaluate("open('desk')")
        connection = await anext(server.connections())
        await asyncio.sleep(2.5)
        assert connection.open  # a browser answers for signs of life, although the client knows nothing of them
        await page.close()
        await asyncio.wait_for(connection.wait_closed(), 10)


async def test_a_wrong_secret_and_an_unknown_id_are_unavailable(page: Page, at: At) -> None:
    async with serving(at, secret="open sesame"):
        await page.evaluate("port => peer(port)", at.port)
        for peer_id, metadata in (("computer-agent-proxy", {"secret": "wrong"}), ("nobody", None)):
            await page.evaluate("([id, metadata]) => { faults = []; it.connect(id, {metadata}); }", [peer_id, metadata])
            await page.wait_for_function("faults.length", timeout=20_000)
            assert await page.evaluate("faults") == ["peer-unavailable"]
        await page.evaluate("open('computer-agent-proxy', {metadata: {secret: 'open sesame'}})")
        assert "welcome" in await page.evaluate("next()")


async def test_an_id_that_is_taken_is_told_to_a_page(page: Page, at: At) -> None:
    async with Peer("desk", at()):
        fault = await page.evaluate("port => peer(port, 'desk').catch(error => error.type)", at.port)
        assert fault == "unavailable-id"


async def test_a_page_meets_a_peer_on_a_machine_with_nothing_but_loopback(modules: Path) -> None:
    told, error = await run_alone(chromium(), str(modules / "peerjs" / "dist" / "peerjs.min.js"))
    assert told == "ok\n", error


@asynccontextmanager
async def peerjs_server(modules: Path) -> AsyncGenerator[int]:
    """The PeerJS server of npm, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = ["node", str(modules / "peer" / "dist" / "bin" / "peerjs.js"), "--host", "127.0.0.1", "--port", str(port)]
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert b"Started PeerServer" in await asyncio.wait_for(process.stdout.readline(), 20)
        yield port
    finally:
        process.terminate()
        await process.communicate()


async def test_peers_meet_at_the_real_peerjs_server(modules: Path) -> None:
    async with peerjs_server(modules) as port:
        options = PeerOptions(host="127.0.0.1", port=port)
        async with (
            Peer("desk", PeerOptions(host="127.0.0.1", port=port, secret="s")) as server,
            Peer(options=options) as client,
        ):
            with pytest.raises(PeerError, match="taken"):
                await Peer("desk", options).start()
            connection = client.connect("desk", metadata={"secret": "s"})
            await connection.send("x" * 100_000)
            assert len(await (await anext(server.connections())).receive()) == 100_000
            for peer_id, metadata in (("desk", {"secret": "wrong"}), ("nobody", None)):
                with pytest.raises(PeerUnavailableError):
                    await client.connect(peer_id, metadata=metadata).opened()
