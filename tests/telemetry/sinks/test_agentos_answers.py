"""The AgentOS sink before servers that answer oddly: byte by byte, without end, with what they were told."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx2
import pytest

from computeragent import discovery
from computeragent.telemetry import TelemetryEvent
from computeragent.telemetry.event import encode
from computeragent.telemetry.protocols import RetryLater
from computeragent.telemetry.sinks import AgentOSHttpSink
from computeragent.telemetry.spool import Spooled

TOKEN = "cak_" + "5ecret" * 8
Script = Callable[[socket.socket, int], None]


@contextmanager
def serving(script: Script) -> Iterator[tuple[str, list[bytes]]]:
    """A server on loopback that reads a request and hands its connection to `script`, with the request's number."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                while request := _request(connection):
                    asked.append(request)
                    script(connection, len(asked))

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=talk, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/ingest/events", asked


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65_536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while len(body) < sum(map(int, lengths)):
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def answer(status: int, body: bytes = b"{}", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Told", f"content-length: {len(body)}", "content-type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def batch(count: int = 1) -> list[Spooled]:
    return [
        Spooled("s", number + 1, 0.0, encode(TelemetryEvent(kind="user_message", session_id="s1")))
        for number in range(count)
    ]


def sink_for(url: str, timeout: float = 5.0) -> AgentOSHttpSink:
    return AgentOSHttpSink(url=url, token=TOKEN, timeout=timeout)


def test_one_connection_serves_many_requests() -> None:
    connections: set[object] = set()

    def reply(connection: socket.socket, _: int) -> None:
        connections.add(connection.getpeername())
        connection.sendall(answer(200))

    with serving(reply) as (url, asked):
        sink = sink_for(url)
        for _ in range(5):
            sink.deliver(batch())
        sink.close()
    assert (len(asked), len(connections)) == (5, 1)


def test_an_answer_that_trickles_in_does_not_hold_up_the_thread() -> None:
    done = threading.Event()

    def trickle(connection: socket.socket, _: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while not done.wait(0.02):
            connection.sendall(b".")

    with serving(trickle) as (url, _):
        sink = sink_for(url, timeout=0.3)
        assert sink.deliver(batch()) is None  # it said that it has them
        done.set()
        sink.close()


def test_an_answer_without_end_does_not_fill_the_memory() -> None:
    sent = 0

    def endless(connection: socket.socket, _: int) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n")
        while sent < 200_000_000:
            sent += connection.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")

    with serving(endless) as (url, _):
        sink = sink_for(url)
        with pytest.raises(RetryLater, match="HTTP 500"):
            sink.deliver(batch())
        sink.close()
    assert sent < 100_000_000


def test_a_server_that_repeats_the_key_does_not_bring_it_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def echo(connection: socket.socket, _: int) -> None:
        empty = asked[-1].endswith(b'{"events":[]}')
        connection.sendall(answer(200 if empty else 422, json.dumps({"you": f"Bearer {TOKEN}"}).encode()))

    with serving(echo) as (url, asked):
        sink = sink_for(url)
        sink.deliver(batch(3))
        sink.close()
    assert sink.refused == 3
    assert "event_refused" in caplog.text
    assert "***" in caplog.text
    assert TOKEN not in caplog.text


def test_what_an_address_carries_is_not_logged_by_the_client_either(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="httpx2")  # libraries of other tests set it

    def reply(connection: socket.socket, _: int) -> None:
        connection.sendall(answer(200, json.dumps({"endpoints": {"ingest": f"{secret}&i=1"}}).encode()))

    with serving(reply) as (url, asked):
        secret = url.replace("http://", "http://user:pa55word@") + "?key=s3cret"
        monkeypatch.setenv("AGENTOS_DISCOVERY_URL", secret)
        discovery.forget()
        sink = AgentOSHttpSink()
        sink.deliver(batch())
        sink.close()
        assert len(asked) == 2
        httpx2.get(url + "?of=the-application")
    discovery.forget()
    assert "of=the-application" in caplog.text  # what others ask for is theirs to log
    for told in (caplog.text, repr(sink), sink.destination):
        assert "pa55word" not in told
        assert "s3cret" not in told


@pytest.mark.parametrize("damage", [b"not json at all", b'{"event_id":5}', b"[12]", b"\xff\xfe", b"x" * 6_000])
def test_a_line_that_is_damaged_costs_no_other(damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    taken: list[bytes] = []

    def strict(connection: socket.socket, _: int) -> None:
        body = asked[-1].partition(b"\r\n\r\n")[2]
        well = damage[:-1] not in body
        taken.append(body) if well else None
        connection.sendall(answer(200 if well else 400))

    with serving(strict) as (url, asked):
        sink = AgentOSHttpSink(url=url, token=TOKEN, max_buffer_bytes=5_000)
        sink._compress = False
        lines = batch(5)
        lines[2] = lines[2]._replace(data=damage)
        sink.deliver(lines)
        sink.close()
    arrived = {event["event_id"] for body in taken for event in json.loads(body)["events"]}
    assert arrived == {json.loads(line.data)["event_id"] for line in lines if line.data != damage}
    assert sink.refused == 1
    assert "kind=damaged" in caplog.text


def test_the_key_does_not_follow_a_redirect_to_another_host() -> None:
    def stranger(connection: socket.socket, _: int) -> None:
        connection.sendall(answer(200))

    with serving(stranger) as (elsewhere, asked_elsewhere):

        def redirect(connection: socket.socket, _: int) -> None:
            connection.sendall(answer(307, location=elsewhere))

        with serving(redirect) as (url, asked):
            sink = sink_for(url)
            with pytest.raises(RetryLater, match="HTTP 307"):
                sink.deliver(batch())
            sink.close()
    assert (len(asked), len(asked_elsewhere)) == (1, 0)


@pytest.mark.parametrize(
    "said",
    [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", b"\x16\x03\x01\x00\x00"],
    ids=["nothing", "another protocol", "cut short", "tls"],
)
def test_what_is_no_answer_is_a_failure_to_try_again(said: bytes) -> None:
    def mumble(connection: socket.socket, _: int) -> None:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_RDWR)

    with serving(mumble) as (url, _):
        sink = sink_for(url)
        with pytest.raises(Exception) as failed:
            sink.deliver(batch())
        sink.close()
    assert TOKEN not in f"{failed.value!r} {failed.value}"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("17", 17.0), ("0", 0.0), ("-5", 0.0), ("nan", None), ("inf", None), ("", None), ("soon", None)],
)
def test_the_pause_that_a_server_asks_for(header: str, seconds: float | None) -> None:
    with serving(lambda connection, _: connection.sendall(answer(503, retry_after=header))) as (url, _):
        sink = sink_for(url)
        with pytest.raises(RetryLater) as later:
            sink.deliver(batch())
        sink.close()
    assert later.value.after == seconds
