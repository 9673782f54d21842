"""Stream torture finds nothing wrong with our own servers, and finds out servers that break a promise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from computeragent.cli.main import main
from computeragent.errors import HarnessProtocolError, UnauthorizedError, UnknownEngineError, ValidationError
from computeragent.eventlog import MemoryEventLog, RedisEventLog, SharedSqliteEventLog
from computeragent.server import bearer, create_harness_server
from computeragent.server.stream import EventStreamResponse
from computeragent.testing import stream_torture
from computeragent.testing.raw_stream import HttpBody
from loopback import loopback
from redis_server import RedisServer

pytestmark = pytest.mark.anyio
TOKEN = "a-token-of-the-tests"
FEW: dict[str, Any] = {"events": 20, "seeds": 1, "slow": 0.1, "heartbeat": None}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that beat often, and cut slow clients soon."""
    defaults: Any = EventStreamResponse.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "heartbeat", 0.2)
    monkeypatch.setitem(defaults, "slowest", 0.5)


@pytest.mark.parametrize("log", ["memory", "sqlite", "redis"])
async def test_nothing_is_lost_doubled_or_changed(
    log: str, impatient: None, tmp_path: Path, redis: RedisServer
) -> None:
    logs: dict[str, Callable[[], Any]] = {
        "memory": MemoryEventLog,
        "sqlite": lambda: SharedSqliteEventLog(tmp_path / "log.db"),
        "redis": lambda: RedisEventLog(redis.url, prefix=f"torture-{tmp_path.name}"),
    }
    async with loopback(create_harness_server(auth=bearer([TOKEN]), log=logs[log]())) as url:
        report = await stream_torture(url, token=TOKEN, events=50, seeds=3, slow=1.0, heartbeat=10.0)
    assert report.ok, report.table()
    found = {check.name: check for check in report.checks}
    assert found["cut inside every event"].tried == 150
    assert report.cuts > 150
    assert found["silence"].tried > 0
    assert found["ids that are gone"].note == ("410, earliest 308" if log == "memory" else "the server keeps them all")
    assert "was cut after" in found["a slow reader beside a fast one"].note


@pytest.mark.soak
async def test_ten_thousand_cuts() -> None:
    async with loopback(create_harness_server()) as url:
        report = await stream_torture(url, progress=print)
    print(report.table())
    assert report.ok, report.table()
    assert report.cuts > 10_000


async def test_what_it_made_is_gone_afterwards(state_folder: Path) -> None:
    async with loopback(create_harness_server()) as url:
        await stream_torture(url, **FEW)
        assert not list((state_folder / "work").glob("sess_*"))


# ── Servers that break a promise ──


class Broken:
    """A harness server, and somebody between it and its readers."""

    def __init__(self, change: Callable[[list[bytes], bool], list[bytes]] | None = None, forgive: bool = False) -> None:
        self._app, self._change, self._forgive = create_harness_server(), change, forgive

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not str(scope.get("path")).endswith("/events"):
            await self._app(scope, receive, send)
            return
        resumed = [value for name, value in scope["headers"] if name == b"last-event-id"]
        if self._forgive:  # an id that is none is taken for "from now", as if it were nothing
            scope["headers"] = [each for each in scope["headers"] if each[0] != b"last-event-id" or each[1].isdigit()]

        async def changed(message: Any) -> None:
            body = message.get("body")
            if body and self._change is not None and body.startswith(b"event:"):
                frames = [each + b"\n\n" for each in body.split(b"\n\n") if each]
                message = message | {"body": b"".join(self._change(frames, bool(resumed)))}
            await send(message)

        await self._app(scope, receive, changed)


def loses(frames: list[bytes], resumed: bool) -> list[bytes]:
    return frames[1:] if resumed else frames


def doubles(frames: list[bytes], resumed: bool) -> list[bytes]:
    return [frames[0], *frames] if resumed else frames


def rewrites(frames: list[bytes], resumed: bool) -> list[bytes]:
    return [each.replace(b"plain words", b"Plain words") if resumed else each for each in frames]


def forgets_the_end(frames: list[bytes], resumed: bool) -> list[bytes]:
    return [each for each in frames if b"event: ca_session_ended" not in each]


def begins_at_one(frames: list[bytes], resumed: bool) -> list[bytes]:
    lines = [each.split(b"\n") for each in frames]
    return [b"\n".join([a, b"id: %d" % (int(b[4:]) + 1), *rest]) for a, b, *rest in lines]


def says_crlf(frames: list[bytes], resumed: bool) -> list[bytes]:
    return [each.replace(b"\ndata", b"\r\ndata") for each in frames]


@pytest.mark.parametrize(
    ("change", "where", "told"),
    [
        (loses, "cut inside every event", "not [1"),
        (doubles, "cut inside every event", "came ["),
        (rewrites, "cut inside every event", "the same ids came with other bytes"),
        (forgets_the_end, "a reading that is left alone", "the last event is ['sdk_message']"),
        (begins_at_one, "a reading that is left alone", "ids are not 0 to"),
        (says_crlf, "a reading that is left alone", "line feeds alone"),
    ],
)
async def test_a_server_that_breaks_a_promise_is_found_out(change: Any, where: str, told: str) -> None:
    async with loopback(Broken(change)) as url:
        report = await stream_torture(url, **FEW)
    assert not report.ok
    violations = {check.name: str(check.violations) for check in report.checks}
    assert told in violations[where]


async def test_a_server_that_takes_junk_for_an_id_is_found_out() -> None:
    async with loopback(Broken(forgive=True)) as url:
        report = await stream_torture(url, **FEW)
    (check,) = [check for check in report.checks if check.violations]
    assert check.name == "ids that cannot be"
    assert any("was answered 200, not 400" in each for each in check.violations)
    assert "✗ ids that cannot be" in report.table()


async def test_a_silent_server_is_found_out() -> None:
    async with loopback(create_harness_server()) as url:  # its heart beats every 15 s
        report = await stream_torture(url, **(FEW | {"heartbeat": 0.3}))
    assert [check.violations for check in report.checks if check.violations] == [["nothing came in 0.3 s of silence"]]


async def test_what_is_no_harness_server_or_lets_nobody_in_is_told() -> None:
    with pytest.raises(HarnessProtocolError, match="cannot be reached"):
        await stream_torture("http://127.0.0.1:9", **FEW)
    for wrong in ("127.0.0.1:7700", "ftp://127.0.0.1"):
        with pytest.raises(ValidationError, match="no address"):
            await stream_torture(wrong, **FEW)
    with pytest.raises(ValidationError, match="at least"):
        await stream_torture("http://127.0.0.1:9", events=3)
    async with loopback(create_harness_server(auth=bearer([TOKEN]))) as url:
        with pytest.raises(UnauthorizedError):
            await stream_torture(url, token="wrong", **FEW)
    async with loopback(create_harness_server(engines=["claude-agent-sdk"])) as url:
        with pytest.raises(UnknownEngineError):
            await stream_torture(url, **FEW)


async def test_the_command_prints_a_table_and_fails_with_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    async with loopback(create_harness_server()) as url:
        assert await asyncio.to_thread(main, ["torture", url, "--quick"]) == 0
        printed = capsys.readouterr().out
        assert "✓ cut inside every event" in printed
        assert "every promise kept" in printed
    async with loopback(Broken(forgets_the_end)) as url:
        assert await asyncio.to_thread(main, ["torture", url, "--quick", "--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        assert report["ok"] is False
        assert report["checks"][0]["violations"]
    assert await asyncio.to_thread(main, ["torture", "http://127.0.0.1:9"]) == 1
    assert "error[" in capsys.readouterr().err


# ── Its reader of HTTP ──


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_chunks_are_taken_apart_wherever_they_are_split(size: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw = head + b"5\r\nhello\r\n1;x=y\r\n \r\nA\r\n0123456789\r\n0\r\n\r\n"
    body, got = HttpBody(), b""
    for start in range(0, len(raw), size):
        piece = raw[start : start + size]
        got += b"".join(piece[begin:end] for begin, end in body.feed(piece))
    assert got == b"hello 0123456789"
    assert (body.status, body.complete) == (200, True)


def test_a_length_ends_a_body_and_no_length_does_not() -> None:
    body = HttpBody()
    assert body.feed(b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno") == [(42, 44)] or body.complete
    assert body.complete
    endless = HttpBody()
    endless.feed(b"HTTP/1.0 200 OK\r\n\r\nabc")
    assert not endless.complete
    with pytest.raises(ValueError, match=r"no HTTP/1\.1"):
        HttpBody().feed(b"SSH-2.0-OpenSSH\r\n\r\n")
