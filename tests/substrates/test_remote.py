"""An engine host that is reached at an address, as a process of this machine: its token, its end, and its errands."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from tests.loopback import loopback

from computeragent.protocol_types import SubstrateHandle
from computeragent.substrates.process import HostProcess
from computeragent.substrates.remote import RemoteHost, new_token
from computeragent.substrates.shipping import command
from computeragent.substrates.unix_transport import UnixTransport

pytestmark = pytest.mark.anyio
KEY = "sk-canary-21ab09"


class Host:
    """A process that serves on a Unix socket, and its standard input."""

    def __init__(self, process: asyncio.subprocess.Process, socket: Path, token: str) -> None:
        self.body, self.input, self.token = HostProcess(process), process.stdin, token
        transport = UnixTransport(str(socket))
        self.remote = RemoteHost(self.body, base_url="http://engine-host", token=token, transport=transport)


@asynccontextmanager
async def hosted(tmp_path: Path, token: str | None = None) -> AsyncIterator[Host]:
    token = new_token() if token is None else token
    folder = tmp_path / "there"
    folder.mkdir(exist_ok=True)
    pipe = asyncio.subprocess.PIPE
    line = command(sys.executable, str(folder / "host"), token="-", folder=str(folder))
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", line, stdin=pipe, stdout=asyncio.subprocess.DEVNULL, stderr=pipe, start_new_session=True
    )
    host = Host(process, folder / "host", token)
    assert host.input is not None
    host.input.write(f"{token}\n".encode())
    try:
        yield host
    finally:
        host.input.close()
        await host.body.close()


@asynccontextmanager
async def placed(tmp_path: Path, envs: dict[str, str]) -> AsyncIterator[tuple[SubstrateHandle, Host]]:
    for name in ("source", "state"):
        (tmp_path / name).mkdir()
    async with hosted(tmp_path) as host:
        handle = await host.remote.place(tmp_path / "source", tmp_path / "state", envs)
        try:
            yield handle, host
        finally:
            await handle.close()


async def test_it_ends_when_the_outside_hangs_up(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host:
        await host.remote._ready()
        assert host.input is not None
        host.input.close()
        assert await asyncio.wait_for(host.body.ended(), 10) == "it ended with exit code 0"
        await host.remote.discard()


async def test_without_a_token_it_does_not_serve(tmp_path: Path) -> None:
    async with hosted(tmp_path, token="") as host:
        assert "the token is missing or short" in await asyncio.wait_for(host.body.ended(), 20)
        await host.remote.discard()
    assert not (tmp_path / "there" / "host").exists()


async def test_its_socket_is_closed_to_other_users_and_its_token_to_other_programs(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host:
        await host.remote._ready()
        assert (tmp_path / "there" / "host").stat().st_mode & 0o077 == 0
        process = Path(f"/proc/{host.body.pid}")
        for shown in ("cmdline", "environ"):
            assert host.token.encode() not in (process / shown).read_bytes()
        await host.remote.discard()


async def test_answers_come_in_as_they_are_made(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    seen: list[dict[str, str]] = []

    async def upstream(request: Request) -> Response:
        seen.append(dict(request.headers))
        said = await request.body()

        async def parts() -> AsyncIterator[bytes]:
            yield b"first " + said
            await go_on.wait()
            yield b" last"

        return StreamingResponse(parts(), 201, {"x-more": "1"})

    async with loopback(Starlette(routes=[Route("/v1/messages", upstream, methods=["POST"])])) as url:
        envs = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": url}
        async with placed(tmp_path, envs) as (handle, _), httpx2.AsyncClient() as client:
            base = handle.envs["ANTHROPIC_BASE_URL"]
            assert KEY not in str(handle.envs)
            async with client.stream(
                "POST", f"{base}/v1/messages", content=b"body", headers={"x-api-key": "fake"}
            ) as got:
                assert (got.status_code, got.headers["x-more"]) == (201, "1")
                arriving = got.aiter_raw()
                assert await anext(arriving) == b"first body"
                go_on.set()
                assert b"".join([part async for part in arriving]) == b" last"
            assert seen[0]["x-api-key"] == KEY
            assert (await client.get(f"{base}/../v1/x%2f..%2f..")).status_code == 404


async def test_many_errands_at_once_stay_apart(tmp_path: Path) -> None:
    async def upstream(request: Request) -> Response:
        said = await request.body()
        await asyncio.sleep(0.01 * (int(said) % 3))
        return Response(said * 50_000)

    async with (
        loopback(Starlette(routes=[Route("/echo", upstream, methods=["POST"])])) as url,
        placed(tmp_path, {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url}) as (handle, _),
        httpx2.AsyncClient(timeout=30) as client,
    ):
        address = f"{handle.envs['OPENAI_BASE_URL']}/echo"
        asked = [client.post(address, content=str(number).encode()) for number in range(40)]
        answers = await asyncio.gather(*asked)
    assert [each.content == str(number).encode() * 50_000 for number, each in enumerate(answers)] == [True] * 40


async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with (
            placed(tmp_path, {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": url}) as (handle, _),
            httpx2.AsyncClient() as client,
        ):
            with pytest.raises(httpx2.RemoteProtocolError):
                await client.get(f"{handle.envs['ANTHROPIC_BASE_URL']}/v1/models")


async def test_who_hangs_up_stops_the_providers_answer(tmp_path: Path) -> None:
    stopped = asyncio.Event()

    async def upstream(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 1000
                    await asyncio.sleep(0.01)
            finally:
                stopped.set()

        return StreamingResponse(parts())

    async with (
        loopback(Starlette(routes=[Route("/endless", upstream)])) as url,
        placed(tmp_path, {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": url}) as (handle, _),
        httpx2.AsyncClient() as client,
    ):
        async with client.stream("GET", f"{handle.envs['ANTHROPIC_BASE_URL']}/endless") as got:
            await anext(got.aiter_raw())
        await asyncio.wait_for(stopped.wait(), 10)


async def test_a_provider_without_a_key_or_an_address_is_refused_there(tmp_path: Path) -> None:
    async with placed(tmp_path, {"ANTHROPIC_API_KEY": KEY}) as (handle, host):
        assert set(handle.envs) == {"ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"}
        async with httpx2.AsyncClient() as client:
            refused = await client.get(f"http://127.0.0.1:{host.remote._ports[1]}/v1/models")
    assert refused.status_code == 404
    assert "no key or address" in refused.text


async def test_files_are_there_while_it_runs_and_here_afterwards(tmp_path: Path) -> None:
    async with placed(tmp_path, {}) as (handle, _):
        files: Any = handle.files
        data = os.urandom(100_000)
        assert await files.write("a/b", data) == 100_000
        assert await files.read("a/b") == data
        await files.write("text", b"one one")
        assert await files.edit("text", "one", "two", replace_all=True) == 2
        await files.mkdir("c/d", parents=True)
        await files.move("text", "c/d/text")
        await files.delete("a", recursive=True)
        assert sorted(each.path for each in await files.tree(".", depth=3)) == ["c", "c/d", "c/d/text"]
        for outside in ("../state/x", "/etc/passwd"):
            with pytest.raises(Exception, match=r"parent traversal|absolute"):
                await files.read(outside)
        assert list((tmp_path / "source").iterdir()) == []
    assert await files.read("c/d/text") == b"two two"
    assert (tmp_path / "source" / "c" / "d" / "text").read_text() == "two two"
