"""Several servers on one Redis log: whichever is asked answers, and what a dead one leaves is ended honestly."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from computeragent.errors import ValidationError
from computeragent.eventlog import MemoryEventLog, RedisEventLog, SharedEventLog, SharedSqliteEventLog
from computeragent.harness import LocalHarness
from computeragent.server import bearer, create_harness_server
from loopback import listening
from redis_server import RedisServer

from .conftest import TOKEN, Server, serving

pytestmark = pytest.mark.anyio
OTHER = "the-token-of-another"
LEASE = 1.0
ASKED = [{"tool": "Bash", "input": {"command": "ls"}}, {"text": "done"}]
LONG = [{"text": f"line {number}"} for number in range(5)] + [{"delay": 60}]


@asynccontextmanager
async def replica(
    log: SharedEventLog, folder: Path, name: str, advertise: str | None = None, **settings: Any
) -> AsyncIterator[Server]:
    """A server in this process, with folders of its own."""
    listener = listening()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    harness = LocalHarness(log=log, library_mode=False, work=folder / name)
    settings = {"auth": bearer([TOKEN, OTHER])} | settings
    app = create_harness_server(harness=harness, advertise=advertise or url, **settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    headers = {"authorization": f"Bearer {TOKEN}"}
    try:
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            yield Server(client, url, folder / name)
    finally:
        server.should_exit = True
        await running
        listener.close()


@pytest.fixture
def prefix() -> str:
    return secrets.token_hex(8)


@pytest.fixture(params=["redis", "sqlite"])
async def pair(request: pytest.FixtureRequest, prefix: str, tmp_path: Path) -> AsyncIterator[tuple[Server, Server]]:
    """Two servers in this process, on one log."""

    def log() -> SharedEventLog:
        if request.param == "sqlite":
            return SharedSqliteEventLog(tmp_path / "log.db")
        return RedisEventLog(request.getfixturevalue("redis").url, prefix=prefix)

    async with AsyncExitStack() as stack:
        a, b = [await stack.enter_async_context(replica(log(), tmp_path, name)) for name in ("a", "b")]
        yield a, b


@contextmanager
def process(redis: RedisServer, home: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`computeragent serve` in a process of its own: where it is, and itself."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "COMPUTERAGENT_HOME": str(home),
        "COMPUTERAGENT_SERVER_TOKEN": TOKEN,
        "COMPUTERAGENT_REDIS_LEASE": str(LEASE),
    }
    command = [sys.executable, "-m", "computeragent", "serve", "--event-log", redis.url, "--port", str(port)]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as running:
        while True:
            assert running.poll() is None
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        try:
            yield f"http://127.0.0.1:{port}", running
        finally:
            running.send_signal(signal.SIGCONT)
            running.kill()


@pytest.fixture
def processes(redis: RedisServer, tmp_path: Path) -> Iterator[list[tuple[str, subprocess.Popen[bytes]]]]:
    """Two real servers; they use the default prefix."""
    redis.command("flushall")
    with ExitStack() as stack:
        yield [stack.enter_context(process(redis, tmp_path / name)) for name in ("a", "b")]


def client(url: str, token: str = TOKEN) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30)


@pytest.fixture
async def killable(processes: Any, tmp_path: Path) -> AsyncIterator[tuple[Server, Server, subprocess.Popen[bytes]]]:
    """Clients of both real servers, and the process of the first."""
    (url_a, process_a), (url_b, _) = processes
    async with client(url_a) as of_a, client(url_b) as of_b:
        yield Server(of_a, url_a, tmp_path / "a"), Server(of_b, url_b, tmp_path / "b"), process_a


def times(kind: str, count: int) -> Callable[[Any], bool]:
    """Whether an event of a kind has come so often."""
    seen = [0]

    def reached(event: Any) -> bool:
        seen[0] += event["kind"] == kind
        return seen[0] == count

    return reached


async def state_of(server: Server, session: str) -> Any:
    return (await server.client.get(f"/v1/sessions/{session}")).json()


async def eventually(server: Server, session: str, status: str) -> None:
    while (await state_of(server, session))["status"] != status:
        await asyncio.sleep(0.02)


# ── One session, two servers ────────────────────────────────────────────────────────────────────────────────


async def test_a_stream_that_begins_on_one_server_goes_on_at_the_other(pair: tuple[Server, Server]) -> None:
    a, b = pair
    lines = [{"text": f"line {number}"} for number in range(200)]
    session = await a.open([{"delay": 0.05}, *lines[:100], {"delay": 0.1}, *lines[100:]])
    await a.say(session, "go")
    whole = asyncio.create_task(a.events(session))
    first = await a.events(session, times("sdk_message", 40))
    rest = asyncio.create_task(b.events(session, **{"last-event-id": str(first[-1]["id"])}))
    assert (await b.client.post(f"/v1/sessions/{session}/end-input")).json() == {"ok": True}
    assert first + await rest == await whole
    assert [event["id"] for event in await whole] == list(range(len(await whole)))
    assert await b.events(session) == await whole  # also when it is over


async def test_the_bytes_of_an_event_are_the_same_on_both(pair: tuple[Server, Server]) -> None:
    a, b = pair
    session = await a.open([{"text": "grün 🌲 \u2028 \x7f"}], messages=[{"role": "user", "content": "ü"}])
    await a.client.post(f"/v1/sessions/{session}/end-input")
    raw = [(await server.client.get(f"/v1/sessions/{session}/events")).content for server in pair]
    frames = [[line for line in each.split(b"\n") if not line.startswith(b":")] for each in raw]
    assert frames[0] == frames[1]
    assert "🌲".encode() in raw[1]
    await b.client.delete(f"/v1/sessions/{session}")


async def test_every_request_may_go_to_the_server_that_does_not_run_it(pair: tuple[Server, Server]) -> None:
    a, b = pair
    session = await a.open(ASKED, [{"delay": 60}], [{"delay": 60}])
    assert await b.say(session, "one") == 0
    asked = (await b.events(session, lambda event: event["kind"] == "ca_permission_request"))[-1]
    assert (await state_of(b, session))["pendingCalls"] == [asked["callId"]]
    path = f"/v1/sessions/{session}"
    denied = await b.client.post(f"{path}/permission/{asked['callId']}", json={"decision": "deny", "reason": "no"})
    assert denied.json() == {"ok": True}
    events = await b.events(session, lambda event: event.get("endsTurn"))
    decision = next(event for event in events if event["kind"] == "ca_permission_decision")
    assert (decision["decision"], decision["reason"]) == ("deny", "no")
    assert decision["principal" if "principal" in decision else "decidedBy"].startswith("token-")
    assert (await state_of(b, session)).get("pendingCalls", []) == []
    slashed = await b.client.post(f"{path}/permission/a%2Fb", json={"decision": "deny"})
    assert (slashed.status_code, "a/b" in slashed.text) == (400, True)
    assert await b.say(session, "two") == 1
    await b.events(session, times("ca_turn_started", 2))
    assert (await b.client.post(f"{path}/cancel", json={"scope": "turn"})).json() == {"withdrawn": False, "ok": True}
    assert (await state_of(a, session))["status"] == "running"
    assert (await b.client.post(f"{path}/cancel")).json()["ok"]
    assert (await b.events(session))[-1]["reason"] == "cancelled"
    late = await b.client.post(f"{path}/messages", json={"message": {"role": "user", "content": "late"}})
    assert (late.status_code, late.json()["error"]["code"]) == (409, "SESSION_ENDED")
    broken = await b.client.post(f"{path}/messages", json={"message": 1})
    assert broken.status_code == 400
    assert (await b.client.delete(path)).json() == {"ok": True}
    for server in pair:
        assert (await server.client.get(path)).status_code == 404
        assert (await server.client.get("/v1/sessions")).json() == {"sessions": []}


async def test_files_are_those_of_the_server_that_runs_it(pair: tuple[Server, Server]) -> None:
    a, b = pair
    session = await a.open(attachments=[{"path": "notes/ä b.txt", "content": "one two one"}])
    fs = f"/v1/sessions/{session}/fs"
    assert (await b.client.get(f"{fs}/file", params={"path": "notes/ä b.txt"})).content == b"one two one"
    blob = os.urandom(3_000_000)
    written = await b.client.put(f"{fs}/file", params={"path": "b.bin"}, content=blob)
    assert written.json() == {"ok": True, "size": len(blob)}
    read = await b.client.get(f"{fs}/file", params={"path": "b.bin"})
    assert read.content == blob == (await a.client.get(f"{fs}/file", params={"path": "b.bin"})).content
    assert read.headers["content-type"] == "application/octet-stream"
    edit = {"path": "notes/ä b.txt", "oldString": "one", "newString": "1", "replaceAll": True}
    assert (await b.client.post(f"{fs}/edit", json=edit)).json() == {"ok": True, "replacements": 2}
    assert (await b.client.get(f"{fs}/tree")).json() == (await a.client.get(f"{fs}/tree")).json()
    refused = await b.client.get(f"{fs}/file", params={"path": "../../etc/passwd"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "PATH_ESCAPE")
    assert not (b.folder / session).exists()


async def test_lists_and_states_are_the_same_on_both(pair: tuple[Server, Server]) -> None:
    a, b = pair
    sessions = [await (a, b)[number % 2].open(sessionId=f"s{number}") for number in range(5)]
    for session in sessions[:2]:
        await a.client.post(f"/v1/sessions/{session}/end-input")
        await eventually(b, session, "completed")
        await eventually(a, session, "completed")
    lists = [(await server.client.get("/v1/sessions")).json() for server in pair]
    assert lists[0] == lists[1]
    assert [each["sessionId"] for each in lists[0]["sessions"]] == ["s4", "s3", "s2", "s1", "s0"]
    assert [each["status"] for each in lists[0]["sessions"]] == ["running"] * 3 + ["completed"] * 2
    for session in sessions:
        assert await state_of(a, session) == await state_of(b, session)
    page = (await b.client.get("/v1/sessions", params={"limit": 2, "offset": 1})).json()
    assert ([each["sessionId"] for each in page["sessions"]], page["next"]) == (["s3", "s2"], 3)


async def test_resuming_from_what_cannot_be_is_refused_alike(pair: tuple[Server, Server]) -> None:
    session = await pair[0].open()
    for server in pair:
        answers = {
            given: await server.client.get(f"/v1/sessions/{session}/events", headers={"last-event-id": given})
            for given in ("9", "junk")
        }
        assert [answer.status_code for answer in answers.values()] == [409, 400]
        assert answers["9"].json()["error"]["code"] == "EVENT_ID_AHEAD"
    await pair[1].client.post(f"/v1/sessions/{session}/cancel")
    for server in pair:
        while (await state_of(server, session))["status"] == "running":
            await asyncio.sleep(0.01)
        past = await server.client.get(f"/v1/sessions/{session}/events", params={"lastEventId": "9999"})
        assert (past.status_code, past.content.replace(b": ping\n\n", b"")) == (200, b"")


async def test_events_that_are_no_longer_kept_are_410_on_both(redis: RedisServer, prefix: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        pair = [
            await stack.enter_async_context(
                replica(RedisEventLog(redis.url, prefix=prefix, max_events=10), tmp_path, name)
            )
            for name in "ab"
        ]
        session = await pair[0].open(*[[{"text": "x"}] * 9] * 4)
        for number in range(4):
            await pair[0].say(session, "go")
            await pair[0].client.post(f"/v1/sessions/{session}/end-input") if number == 3 else None
        while (await state_of(pair[1], session))["status"] == "running":
            await asyncio.sleep(0.01)
        answers = [await s.client.get(f"/v1/sessions/{session}/events?lastEventId=3") for s in pair]
        assert [answer.status_code for answer in answers] == [410, 410]
        earliest = answers[0].json()["error"]["details"]["earliest"]
        assert answers[1].json() == answers[0].json()
        rest = await pair[1].events(session, **{"last-event-id": str(earliest - 1)})
        assert rest[0]["id"] == earliest
        assert rest[-1]["kind"] == "ca_session_ended"


async def test_a_key_opens_one_session_wherever_it_is_sent(pair: tuple[Server, Server]) -> None:
    a, b = pair
    body = a.body(streamingInput=True)

    async def opened(server: Server, key: str) -> httpx2.Response:
        return await server.client.post("/v1/sessions", json=body, headers={"idempotency-key": key})

    answers = await asyncio.gather(*(opened(server, "same") for server in (a, b, a, b)))
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len({answer.json()["sessionId"] for answer in answers}) == 1
    assert (await opened(b, "other")).json()["sessionId"] != answers[0].json()["sessionId"]
    assert len((await b.client.get("/v1/sessions")).json()["sessions"]) == 2
    bad = [await s.client.post("/v1/sessions", json=body | {"engine": "nope"}, headers={"idempotency-key": "k"})
           for s in pair]  # fmt: skip
    assert [answer.status_code for answer in bad] == [400, 400]
    assert (await opened(b, "k")).status_code == 201  # what failed may be tried again


async def test_the_next_run_may_be_on_the_other_server(pair: tuple[Server, Server]) -> None:
    a, b = pair
    session = await a.open(sessionId="s")
    live = await b.client.post("/v1/sessions", json=b.body(sessionId="s", streamingInput=True))
    assert (live.status_code, live.json()["error"]["code"]) == (409, "SESSION_LIVE")
    await b.client.post("/v1/sessions/s/cancel")
    await eventually(a, session, "cancelled")
    await b.open(sessionId="s")
    assert (await state_of(a, "s"))["status"] == "running"
    assert await a.say("s", "hello") == 0
    await a.client.post("/v1/sessions/s/end-input")
    second, whole = await a.events("s"), await b.events("s", **{"last-event-id": "0"})
    assert second[0]["kind"] == "ca_session_started"
    assert second[0]["id"] > 1
    assert [event["id"] for event in whole] == list(range(1, second[-1]["id"] + 1))


async def test_a_chat_that_ends_leaves_nothing_on_either(pair: tuple[Server, Server]) -> None:
    a, b = pair
    said = a.body([{"text": "hi"}], messages=[{"role": "user", "content": "x"}], sessionId="c")
    events = await a.read("POST", "/v1/chat", json=said)
    assert events[-1]["kind"] == "ca_session_ended"
    while (await a.client.get("/v1/sessions")).json()["sessions"]:
        await asyncio.sleep(0.01)
    assert (await b.client.get("/v1/sessions/c")).status_code == 404


async def test_a_session_that_its_server_has_let_go_of_is_still_read_from_the_log(
    redis: RedisServer, prefix: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        a, b = [
            await stack.enter_async_context(
                replica(RedisEventLog(redis.url, prefix=prefix), tmp_path, name, session_ttl=0.1, auth=None)
            )
            for name in "ab"
        ]
        session = await a.open(sessionId="s")
        await b.client.post("/v1/sessions/s/end-input")
        await eventually(b, session, "completed")
        for server in (a, b):
            while (await server.client.get("/v1/sessions/s/fs/tree")).status_code != 404:
                await asyncio.sleep(0.3)  # each look at it keeps it for another while
            assert (await state_of(server, session))["status"] == "completed"
            assert (await server.events(session))[-1]["kind"] == "ca_session_ended"
            message = {"message": {"role": "user", "content": "x"}}
            late = await server.client.post("/v1/sessions/s/messages", json=message)
            assert late.json()["error"]["code"] == "SESSION_ENDED"
        assert (await b.client.delete("/v1/sessions/s")).json() == {"ok": True}
        assert (await a.client.get("/v1/sessions/s")).status_code == 404


# ── Whose it is ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_of_somebody_else_does_not_exist_on_either(pair: tuple[Server, Server]) -> None:
    a, b = pair
    session = await a.open(sessionId="mine")
    path = f"/v1/sessions/{session}"
    for server in pair:
        async with client(server.url, OTHER) as stranger:
            message = {"message": {"role": "user", "content": "x"}}
            for answer in (
                await stranger.get(path),
                await stranger.get(f"{path}/events"),
                await stranger.post(f"{path}/messages", json=message),
                await stranger.post(f"{path}/cancel"),
                await stranger.post(f"{path}/permission/x", json={"decision": "allow"}),
                await stranger.get(f"{path}/fs/tree"),
                await stranger.delete(path),
                await stranger.post("/v1/sessions", json=b.body(sessionId="mine", streamingInput=True)),
            ):
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND"), answer.request.url
            assert (await stranger.get("/v1/sessions")).json() == {"sessions": []}
    await a.client.post(f"{path}/end-input")
    await eventually(b, session, "completed")
    async with client(b.url, OTHER) as stranger:  # nor when it is over
        taken = await stranger.post("/v1/sessions", json=b.body(sessionId="mine", streamingInput=True))
        assert taken.status_code == 404
    assert (await state_of(b, session))["status"] == "completed"


async def test_who_says_to_be_a_peer_without_the_secret_is_refused(pair: tuple[Server, Server]) -> None:
    a, b = pair
    session = await a.open()
    principal = (await owner_of(a, session)) or ""
    path = f"/v1/sessions/{session}"
    async with httpx2.AsyncClient(base_url=a.url) as nobody:
        claim = {"x-computeragent-principal": principal}
        assert (await nobody.get(path, headers=claim)).status_code == 401
        for signature in ("", "0" * 64, "é"):
            headers = [("x-computeragent-principal", principal), ("x-computeragent-peer", signature.encode())]
            refused = await nobody.get(path, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "UNAUTHORIZED")
    async with client(b.url, OTHER) as stranger:  # a token of one's own does not make one another
        answer = await stranger.get(path, headers={"x-computeragent-principal": principal})
        assert answer.status_code == 404
    async with serving(a.folder) as alone:  # a server without others does not know such headers
        answer = await alone.client.get("/v1/sessions", headers={"x-computeragent-peer": "0" * 64})
        assert answer.status_code == 200


async def owner_of(server: Server, session: str) -> str | None:
    """The principal of the tests' token, which is no secret: it is in the decisions that it makes."""
    listed = (await server.client.get("/v1/sessions")).json()["sessions"]
    assert session in {each["sessionId"] for each in listed}
    known = await bearer([TOKEN])(TOKEN)
    return known.id if known else None


@pytest.mark.parametrize("pair", ["redis"], indirect=True)
async def test_a_signature_is_good_for_one_request_to_one_server(
    pair: tuple[Server, Server], redis: RedisServer, prefix: str
) -> None:
    from computeragent.server.peers import _signature

    a, b = pair
    session = await a.open()
    principal = (await owner_of(a, session)) or ""
    await b.client.get(f"/v1/sessions/{session}/fs/tree")  # the secret is made by who needs it
    secret = redis.command("get", f"{prefix}:1:peer-secret").encode()
    mark = redis.command("hget", f"{prefix}:1:session:{session}", "ran_on")
    target = f"/v1/sessions/{session}/fs/tree"
    good = _signature(secret, "GET", target.encode(), principal, mark)
    async with httpx2.AsyncClient() as peer:

        async def status(url: str, method: str = "GET", name: str = principal) -> int:
            headers = {"x-computeragent-principal": name, "x-computeragent-peer": good}
            return (await peer.request(method, url, headers=headers)).status_code

        assert await status(f"{a.url}{target}") == 200
        assert await status(f"{a.url}{target}?path=x") == 401
        assert await status(f"{a.url}/v1/sessions/{session}", "DELETE") == 401
        assert await status(f"{a.url}{target}", name="token-of-another") == 401
        assert await status(f"{b.url}{target}") == 401


# ── A server that is gone ───────────────────────────────────────────────────────────────────────────────────


async def test_when_a_server_is_killed_its_readers_elsewhere_get_an_end_and_the_next_run_goes_on(
    killable: tuple[Server, Server, subprocess.Popen[bytes]],
) -> None:
    a, b, process_a = killable
    session = await a.open(LONG, sessionId="s", attachments=[{"path": "x", "content": "x"}])
    await a.say(session, "go")
    await b.events(session, times("sdk_message", 6))
    reader = asyncio.create_task(b.events(session))
    await asyncio.sleep(0.05)
    process_a.kill()
    refused = await b.client.get(f"/v1/sessions/{session}/fs/tree")  # before the lease has run out
    assert (refused.status_code, refused.json()["error"]["code"]) in {(503, "REPLICA_UNREACHABLE"), (404, "NOT_FOUND")}
    events = await reader
    assert (events[-1]["kind"], events[-1]["reason"]) == ("ca_session_ended", "error")
    assert (events[-1]["errorCode"], events[-1]["id"]) == ("INTERRUPTED", len(events) - 1)
    path = f"/v1/sessions/{session}"
    assert (await state_of(b, session))["status"] == "errored"
    message = {"message": {"role": "user", "content": "x"}}
    assert (await b.client.post(f"{path}/messages", json=message)).json()["error"]["code"] == "SESSION_ENDED"
    assert (await b.client.get(f"{path}/fs/tree")).json()["error"]["code"] == "NOT_FOUND"
    answer = await b.client.post(f"{path}/permission/x", json={"decision": "deny"})
    assert answer.json()["error"]["code"] == "UNKNOWN_CALL_ID"
    assert (await b.client.post(f"{path}/cancel")).json()["ok"]
    assert (await b.client.post(f"{path}/end-input")).json()["ok"]
    await b.open(sessionId="s")
    await b.client.post(f"{path}/end-input")
    after = await b.events(session, **{"last-event-id": str(events[-1]["id"])})
    assert [event["id"] for event in after] == list(range(len(events), len(events) + len(after)))
    assert (after[0]["kind"], after[-1]["reason"]) == ("ca_session_started", "complete")


async def test_what_a_killed_server_leaves_is_ended_without_being_asked_for(
    killable: tuple[Server, Server, subprocess.Popen[bytes]], redis: RedisServer
) -> None:
    a, _, process_a = killable
    for number in range(3):
        await a.open(sessionId=f"s{number}")
    process_a.kill()
    for number in range(3):
        while redis.command("hget", f"computeragent:1:session:s{number}", "live") != "0":
            await asyncio.sleep(0.05)
        assert "INTERRUPTED" in redis.command("xrevrange", f"computeragent:1:events:s{number}", "+", "-", "count", "1")


async def test_a_server_that_slept_past_its_lease_adds_nothing_to_what_was_taken_over(
    killable: tuple[Server, Server, subprocess.Popen[bytes]],
) -> None:
    a, b, process_a = killable
    session = await a.open([{"text": "before"}, {"delay": 2.0}, {"text": "after"}], sessionId="s")
    await a.say(session, "go")
    reader = asyncio.create_task(b.events(session))
    await b.events(session, times("sdk_message", 2))
    process_a.send_signal(signal.SIGSTOP)
    events = await reader
    assert events[-1]["errorCode"] == "INTERRUPTED"
    await b.open([{"text": "anew"}], sessionId="s")
    process_a.send_signal(signal.SIGCONT)
    await b.say("s", "again")
    await b.client.post("/v1/sessions/s/end-input")
    second = await b.events("s")
    while (await state_of(a, "s")).get("newest") != second[-1]["id"]:  # it has noticed, and answers from the log
        await asyncio.sleep(0.05)
    whole = await a.events("s", **{"last-event-id": "0"})
    assert [event["id"] for event in whole] == list(range(1, second[-1]["id"] + 1))
    assert "after" not in json.dumps(whole)


async def test_a_server_that_is_stopped_ends_its_runs_itself(
    killable: tuple[Server, Server, subprocess.Popen[bytes]],
) -> None:
    a, b, process_a = killable
    session = await a.open(LONG)
    await a.say(session, "go")
    reader = asyncio.create_task(b.events(session))
    await b.events(session, times("sdk_message", 6))
    process_a.send_signal(signal.SIGTERM)
    assert (await reader)[-1]["reason"] == "cancelled"
    assert (await state_of(b, session))["status"] == "cancelled"
    await asyncio.to_thread(process_a.wait)
    assert (await b.client.delete(f"/v1/sessions/{session}")).json() == {"ok": True}
    assert (await b.client.get(f"/v1/sessions/{session}")).status_code == 404


async def test_a_server_that_lives_and_cannot_be_reached_is_said(
    redis: RedisServer, prefix: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        wrong = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with (
        replica(RedisEventLog(redis.url, prefix=prefix), tmp_path, "a", advertise=wrong) as a,
        replica(RedisEventLog(redis.url, prefix=prefix), tmp_path, "b") as b,
    ):
        session = await a.open()
        message = {"message": {"role": "user", "content": "x"}}
        refused = await b.client.post(f"/v1/sessions/{session}/messages", json=message)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "REPLICA_UNREACHABLE")
        assert (await state_of(b, session))["status"] == "running"
        assert (await b.events(session, lambda _: True))[0]["kind"] == "ca_session_started"


async def test_only_servers_that_share_a_log_have_an_address_for_each_other() -> None:
    with pytest.raises(ValidationError, match="only servers that share a log"):
        create_harness_server(log=MemoryEventLog(), advertise="http://127.0.0.1:1")
    with pytest.raises(ValidationError, match="is no address of a server"):
        create_harness_server(log=RedisEventLog("redis://127.0.0.1:1"), advertise="127.0.0.1:7700")


async def test_without_redis_requests_are_refused_and_tried_again_later(tmp_path: Path) -> None:
    async with replica(RedisEventLog("redis://127.0.0.1:1", patience=0.1), tmp_path, "a") as a:
        for answer in (
            await a.client.get("/v1/sessions"),
            await a.client.get("/v1/sessions/s"),
            await a.client.post("/v1/sessions", json=a.body(streamingInput=True)),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "EVENT_LOG_UNAVAILABLE")
        assert (await a.client.get("/health")).status_code == 200


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["--event-log", "redis://:hidden@127.0.0.1:1/0"], "EVENT_LOG_UNAVAILABLE", "Redis at 127.0.0.1:1 cannot be"),
        (["--event-log", "nope"], "VALIDATION", "there is no event log 'nope'"),
        (["--event-log", "http://x:hidden@y"], "VALIDATION", "http://… is no address of a Redis server"),
        (["--event-log", "REDIS", "--host", "0.0.0.0"], "VALIDATION", "other servers cannot reach this one at 0.0.0.0"),
        (["--event-log", "REDIS", "--advertise", "there"], "VALIDATION", "'there' is no address of a server"),
        (
            ["--event-log", "memory", "--advertise", "http://x:1"],
            "VALIDATION",
            "only servers that share a log reach each other",
        ),
    ],
)
def test_what_cannot_be_served_is_an_error_with_a_hint(
    args: list[str], code: str, told: str, redis: RedisServer, state_folder: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "computeragent",
        "serve",
        *(redis.url if each == "REDIS" else each for each in args),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    error, hint = done.stderr.splitlines()
    assert (done.returncode, error.partition(":")[0]) == (1, f"error[{code}]")
    assert told in error
    assert hint.startswith("hint: ")
    assert "hidden" not in done.stderr


def test_a_setting_that_is_no_number_is_refused(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPUTERAGENT_REDIS_LEASE", "soon")
    command = [sys.executable, "-m", "computeragent", "serve", "--event-log", redis.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr.splitlines() == [
        "error[VALIDATION]: redis_lease is a number above zero, not 'soon'",
        "hint: Set COMPUTERAGENT_REDIS_LEASE.",
    ]


async def test_who_reads_elsewhere_what_is_deleted_is_not_left_waiting(pair: tuple[Server, Server]) -> None:
    for number in range(5):  # the end is not seen there each time before all is gone
        session = await pair[0].open(sessionId=f"gone-{number}")
        reading = asyncio.Event()
        elsewhere = asyncio.create_task(pair[1].events(session, lambda _, seen=reading: bool(seen.set())))
        await reading.wait()
        assert (await pair[0].client.delete(f"/v1/sessions/{session}")).status_code == 200
        async with asyncio.timeout(10):
            assert await elsewhere
