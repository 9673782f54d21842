"""The HTTP server: correct where clients are, patient where they are slow, closed where they are broken."""

import asyncio
import contextlib
import socket
import stat
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from computeragent.models.serving.http import MAX_HEAD, CutConnection, HttpRequest, HttpResponse, HttpServer

pytestmark = pytest.mark.anyio


async def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(body=f"{request.method} {request.path} {request.query} ".encode() + request.body)


@contextlib.asynccontextmanager
async def serving(handler=echo, **options):
    server = HttpServer(handler, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_a_body_by_length_is_read(exchange):
    async with serving() as server:
        got = await exchange(
            server.port, b"POST /a%20b?c=1 HTTP/1.1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
        )
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 19" in head
    assert body == b"POST /a b c=1 hello"


async def test_a_body_in_chunks_is_read(exchange):
    async with serving() as server:
        got = await exchange(
            server.port,
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\n",
        )
    assert got.endswith(b"POST /  abcde")


async def test_requests_follow_each_other_on_one_connection(exchange):
    async with serving() as server:
        one = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        got = await exchange(server.port, one % 1 + one % 2 + last)
    assert got.count(b"HTTP/1.1 200 OK") == 3
    assert got.index(b"GET /1") < got.index(b"GET /2") < got.index(b"GET /3")


async def test_an_old_client_gets_its_stream_without_chunks(exchange):
    async def pieces():
        yield b"one "
        yield b"two"

    async def handler(request):
        return HttpResponse(body=pieces())

    async with serving(handler) as server:
        got = await exchange(server.port, b"GET / HTTP/1.0\r\n\r\n")
    assert got.endswith(b"\r\n\r\none two")
    assert b"transfer-encoding" not in got


async def test_a_stream_is_sent_in_chunks(exchange):
    async def pieces():
        yield b"one"
        yield b""
        yield b"two"

    async def handler(request):
        return HttpResponse(body=pieces())

    async with serving(handler) as server:
        got = await exchange(server.port, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert got.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_head_has_no_body(exchange):
    async with serving() as server:
        got = await exchange(server.port, b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert got.endswith(b"\r\n\r\n")


async def test_a_client_that_expects_to_continue_is_told_to(exchange):
    async with serving() as server:
        got = await exchange(
            server.port,
            b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
        )
    assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET nowhere HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName : x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n", 413),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * (2 * MAX_HEAD), 431),
    ],
)
async def test_a_malformed_request_is_refused_and_the_connection_closed(exchange, data, status):
    async with serving(max_body=100) as server:
        got = await exchange(server.port, data)
        assert got.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in got


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_bytes_stop_the_server(data):
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        writer.write_eof()
        await reader.read()
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /alive HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert b"GET /alive" in await reader.read()
        writer.close()


async def test_a_failing_handler_is_a_500_and_the_connection_lives(exchange):
    async def handler(request):
        if request.path == "/bad":
            raise RuntimeError("boom")
        return HttpResponse(body=b"fine")

    async with serving(handler) as server:
        got = await exchange(server.port, b"GET /bad HTTP/1.1\r\n\r\nGET /good HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 500 ")
    assert got.endswith(b"fine")


async def test_a_cut_stream_has_no_end(exchange):
    async def pieces():
        yield b"half"
        raise CutConnection

    async def handler(request):
        return HttpResponse(body=pieces())

    async with serving(handler) as server:
        got = await exchange(server.port, b"GET / HTTP/1.1\r\n\r\n")
    assert got.endswith(b"4\r\nhalf\r\n")


async def test_a_client_that_leaves_in_mid_stream_ends_the_stream():
    ended = asyncio.Event()

    async def pieces():
        try:
            while True:
                yield b"more"
                await asyncio.sleep(0.005)
        finally:
            ended.set()

    async def handler(request):
        return HttpResponse(body=pieces())

    async with serving(handler) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"more")
        writer.close()
        async with asyncio.timeout(30):
            await ended.wait()


async def test_many_clients_connect_at_once():
    async with serving() as server:

        async def one(number: int) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /%d HTTP/1.1\r\nConnection: close\r\n\r\n" % number)
            try:
                return await reader.read()
            finally:
                writer.close()

        answers = await asyncio.gather(*(one(number) for number in range(300)))
    assert all(b"GET /%d " % number in answer for number, answer in enumerate(answers))


async def test_stopping_closes_idle_connections():
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"GET /")
    assert (await reader.read()).strip() == b""
    writer.close()


async def test_a_listener_that_somebody_else_made_is_served(exchange):
    listener = socket.create_server(("127.0.0.1", 0))
    async with serving(listener=listener) as server:
        assert server.port == listener.getsockname()[1]
        got = await exchange(server.port, b"GET /here HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert got.endswith(b"GET /here  ")
    assert listener.fileno() == -1, "the listener is the server's, and closed with it"


async def test_a_unix_socket_is_this_users_alone_and_gone_at_the_end(tmp_path):
    place = tmp_path / "model.sock"
    async with serving(path=place):
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        reader, writer = await asyncio.open_unix_connection(place)
        writer.write(b"GET /there HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"GET /there  ")
        writer.close()
    assert not place.exists()


async def test_a_handler_can_know_that_its_client_has_left():
    left = asyncio.Event()

    async def patient(request: HttpRequest) -> HttpResponse:
        while not request.left():
            await asyncio.sleep(0.01)
        left.set()
        return HttpResponse()

    async with serving(patient) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        assert not left.is_set()
        writer.close()
        await asyncio.wait_for(left.wait(), 30)


async def reset(writer: asyncio.StreamWriter) -> None:
    """Go away as a killed client does that has not read everything."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
    await asyncio.sleep(0)


async def test_a_connection_that_is_reset_is_a_client_that_left():
    seen = []

    async def handler(request):
        async with asyncio.timeout(30):
            while not request.left():
                await asyncio.sleep(0.01)
        seen.append("left")
        return HttpResponse()

    async with serving(handler) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.1)
        await reset(writer)
        async with asyncio.timeout(30):
            while not seen:
                await asyncio.sleep(0.01)


async def test_a_stream_is_cleaned_up_whose_client_left_before_it_began():
    asked, ended = asyncio.Event(), asyncio.Event()

    async def pieces():
        try:
            while True:
                yield b"more"
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    async def handler(request):
        asked.set()
        while not request.left():
            await asyncio.sleep(0.01)
        return HttpResponse(body=pieces())

    async with serving(handler) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await asked.wait()
        await reset(writer)
        await asyncio.wait_for(ended.wait(), 30)


async def test_a_client_that_does_not_read_does_not_hold_up_the_end():
    asked = asyncio.Event()

    async def handler(request):
        asked.set()
        return HttpResponse(body=b"x" * 30_000_000)

    async with serving(handler) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1_000)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await asked.wait()
        await asyncio.sleep(0.1)
        await asyncio.wait_for(server.stop(), 30)
        writer.transport.abort()
