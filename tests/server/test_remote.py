"""`ComputerAgent(harness_url=…)`: the same agent on the other side of a wire, lost connections included."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Mount

from computeragent import ComputerAgent, EngineError
from computeragent.client import ComputerAgentServerClient, HarnessClient
from computeragent.engines.scripted import ScriptedEngine
from computeragent.errors import (
    ComputerAgentError,
    HarnessProtocolError,
    InsufficientPermissionError,
    NotFoundError,
    NotRemotableError,
    ProtocolVersionError,
    StoreError,
    UnauthorizedError,
    UnknownEngineError,
    ValidationError,
)
from computeragent.server import bearer, create_harness_server
from computeragent.server.auth import basic
from computeragent.telemetry.pipeline import Pipeline
from computeragent.telemetry.trace_context import asked_in
from computeragent.wire.events import CaSessionEnded
from loopback import loopback

from .conftest import TOKEN, Server, serving

pytestmark = pytest.mark.anyio

SOURCE = {"type": "inline", "manifest": {"name": "tester", "version": "1.0.0"}}


def remote(server: Server, *turns: list[dict[str, Any]], **given: Any) -> ComputerAgent:
    options = {"script": list(turns)} if turns else {}
    settings = {"harness_url": server.url, "harness_token": TOKEN, "source": SOURCE, "engine": "scripted"}
    return ComputerAgent(**(settings | {"options": options} | given))


class Wire:
    """A TCP proxy whose connections can be cut, and limited to so many bytes each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.cut_after: list[int] = []

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        for writer in self._open:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._open |= {writer, up_writer}
        await asyncio.gather(self._pass(reader, up_writer, None), self._pass(up_reader, writer, writer))

    async def _pass(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, down: asyncio.StreamWriter | None
    ) -> None:
        passed = 0
        limit: int | None = None
        try:
            while data := await source.read(65536):
                if down is not None and limit is None and b"text/event-stream" in data:
                    limit = self.cut_after.pop(0) if self.cut_after else -1
                if limit is not None and limit >= 0 and passed + len(data) > limit:
                    target.write(data[: max(0, limit - passed)])
                    await target.drain()
                    target.transport.abort()
                    return
                passed += len(data)
                target.write(data)
                await target.drain()
        except (ConnectionError, RuntimeError):
            pass
        finally:
            if not target.is_closing():
                target.close()


@pytest.fixture
async def wire(server: Server) -> AsyncIterator[tuple[Wire, str]]:
    made = Wire(int(server.url.rpartition(":")[2]))
    url = await made.start()
    yield made, url
    await made.stop()


async def test_turns_results_and_memory_are_those_of_the_process_itself(server: Server) -> None:
    usage = {"usage": {"input_tokens": 5, "output_tokens": 2, "cost_usd": 0.25}}
    async with remote(server, [{"text": "One."}, usage], [{"text": "Two."}]) as agent:
        first = await agent.chat("first")
        second = await agent.chat("second")
        assert (first.text, second.text) == ("One.", "Two.")
        assert (first.usage.input_tokens, first.usage.cost_usd) == (5, 0.25)
        listed = (await server.client.get("/v1/sessions")).json()["sessions"]
        assert [one["sessionId"] for one in listed] == [agent.session_id]
    assert (await server.client.get("/v1/sessions")).json() == {"sessions": []}  # disposed: gone from the server


async def test_events_are_the_servers_own(server: Server) -> None:
    async with remote(server, [{"text": "One."}]) as agent:
        kinds = [event.kind async for event in agent.chat("first")]
        assert kinds[0] == "ca_session_started"
        assert kinds[-2:] == ["sdk_message", "ca_session_ended"]  # the turn's end, as of every handle


@pytest.mark.parametrize(("answer", "expected"), [(True, "allow"), (False, "deny")])
async def test_calls_are_answered_by_the_caller(server: Server, answer: bool, expected: str) -> None:
    asked: list[Any] = []

    async def decide(request: Any) -> bool:
        asked.append(request.tool_name)
        return answer

    tool = {"tool": "Bash", "input": {"command": "ls"}, "result": "x"}
    async with remote(server, [tool, {"text": "Done."}], on_tool_call=decide) as agent:
        decisions = [e.decision async for e in agent.chat("go") if e.kind == "ca_permission_decision"]
    assert (asked, decisions) == (["Bash"], [expected])


async def test_without_an_answer_the_rule_of_the_library_holds(server: Server) -> None:
    tools = [
        {"tool": "Bash", "input": {"command": "ls"}, "result": "x"},
        {"tool": "Bash", "input": {"command": "rm -rf /"}, "result": "x"},
    ]
    async with remote(server, [*tools, {"text": "Done."}]) as agent:
        decisions = [e.decision async for e in agent.chat("go") if e.kind == "ca_permission_decision"]
    assert decisions == ["allow", "deny"]


async def test_cancelling_a_turn_leaves_the_session(server: Server) -> None:
    async with remote(server, [{"delay": 60}], [{"text": "Two."}]) as agent:
        handle = agent.chat("one")
        async for event in handle:
            if event.kind == "ca_turn_started":
                await handle.cancel()
        assert (await agent.chat("two")).text == "Two."


async def test_a_failed_run_raises_here(server: Server) -> None:
    async with remote(server, [{"raise": "it broke"}]) as agent:
        with pytest.raises(EngineError, match="it broke"):
            await agent.chat("go")


async def test_files_travel(server: Server) -> None:
    async with remote(server) as agent:
        assert await agent.write_artifact("a/b.txt", "hello") == 5
        assert await agent.fetch_artifact_text("a/b.txt") == "hello"
        assert await agent.fetch_artifact("nope") is None
        assert {"a", "a/b.txt"} <= {entry.path for entry in await agent.list_workdir()}


async def test_a_stream_that_is_cut_anywhere_arrives_whole_and_once(server: Server, wire: tuple[Wire, str]) -> None:
    proxy, url = wire
    session = await server.open([{"text": f"line {number}"} for number in range(60)])
    await server.say(session, "go")
    await server.client.post(f"/v1/sessions/{session}/end-input")
    whole = [(event["id"], event["kind"]) for event in await server.events(session)]
    for seed in range(20):
        proxy.cut_after = [97 + 211 * seed + 503 * step for step in range(12)]
        async with HarnessClient(base_url=url, token=TOKEN) as client:
            seen = [(one.id, one.event.kind) async for one in client.stream_events(session)]
        assert seen == whole
        assert proxy.cut_after == [] or len(whole) > 0
    assert proxy.connections > 60


async def test_an_agent_does_not_notice_a_lost_connection(server: Server, wire: tuple[Wire, str]) -> None:
    proxy, url = wire
    proxy.cut_after = [600, 900, 400]
    async with remote(server, [{"text": "a"}, {"delay": 0.3}, {"text": "b"}], harness_url=url) as agent:
        assert (await agent.chat("go")).text == "b"
    assert proxy.connections > 3


async def test_a_server_that_is_gone_for_good_is_an_error_not_a_hang(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        client = HarnessClient(base_url=server.url, token=TOKEN, patience=0.5)
        session = await server.open([{"delay": 60}])
        await server.say(session, "go")
        stream = client.stream_events(session)
        assert (await anext(stream)).event.kind == "ca_session_started"
        await server.client.delete(f"/v1/sessions/{session}")
        rest = [one.event async for one in stream]
        assert isinstance(rest[-1], CaSessionEnded)
    with pytest.raises(HarnessProtocolError, match="cannot be reached"):
        await client.create_session({})
    with pytest.raises(HarnessProtocolError, match="was lost"):
        async for _ in client.stream_events(session, 0):
            pass
    await client.aclose()


async def test_what_the_server_refuses_is_the_librarys_own_error(server: Server) -> None:
    client = HarnessClient(base_url=server.url, token=TOKEN)
    with pytest.raises(UnknownEngineError) as caught:
        await client.create_session({"engine": "nope", "identity": {"source": SOURCE}, "streamingInput": True})
    assert "nope" in caught.value.message
    await client.aclose()
    wrong = remote(server, harness_token="wrong")
    with pytest.raises(Exception, match="authentication required"):
        await wrong.chat("x")
    await wrong.dispose()


async def test_what_cannot_travel_is_told_at_once(server: Server) -> None:
    async def judge(_: Any) -> Any: ...

    for given in ({"engine": ScriptedEngine()}, {"policy": judge}, {"git_credentials": lambda _: None}):
        with pytest.raises(NotRemotableError):
            remote(server, **given)
    with pytest.raises(ValidationError):
        remote(server, harness_url="localhost:7700")


async def test_the_environment_names_the_server_unless_the_caller_does(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COMPUTERAGENT_HARNESS_URL", server.url)
    monkeypatch.setenv("COMPUTERAGENT_HARNESS_TOKEN", TOKEN)
    async with ComputerAgent(source=SOURCE, engine="scripted") as agent:
        await agent.chat("hi")
        assert len((await server.client.get("/v1/sessions")).json()["sessions"]) == 1
    for given in ({"engine": ScriptedEngine()}, {"engine": "scripted", "runtime": "local"}):
        async with ComputerAgent(source=tmp_path, **given) as agent:
            await agent.chat("hi")
            assert (await server.client.get("/v1/sessions")).json()["sessions"] == []


# ── What goes wrong on the way ──


class Losing:
    """A proxy that takes requests on, and loses the answers to some: the server has done it, the client cannot know."""

    def __init__(self, port: int, lose: bytes, times: int) -> None:
        self._port, self._lose, self.left = port, lose, times
        self.seen = 0

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        losing = asyncio.Event()

        async def up() -> None:
            while data := await reader.read(65536):
                if data.startswith(self._lose):
                    self.seen += 1
                    if self.left > 0:
                        self.left -= 1
                        losing.set()
                up_writer.write(data)
            up_writer.close()

        async def down() -> None:
            while data := await up_reader.read(65536):
                if losing.is_set():
                    writer.transport.abort()
                    return
                writer.write(data)
            writer.close()

        with suppress(ConnectionError):
            await asyncio.gather(up(), down())


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def test_a_session_whose_answer_was_lost_is_opened_once(server: Server) -> None:
    losing = Losing(port_of(server.url), b"POST /v1/sessions HTTP", 2)
    async with losing as url, remote(server, [{"text": "One."}], harness_url=url) as agent:
        assert (await agent.chat("first")).text == "One."
        assert len((await server.client.get("/v1/sessions")).json()["sessions"]) == 1
    assert losing.seen == 3


async def test_a_message_whose_answer_was_lost_is_said_once(server: Server) -> None:
    losing = Losing(port_of(server.url), b"POST /v1/sessions/", 2)
    async with losing as url, remote(server, [{"text": "One."}], [{"text": "Two."}], harness_url=url) as agent:
        assert (await agent.chat("first")).text == "One."
        assert (await agent.chat("second")).text == "Two."  # the script's second turn: the first was said once
    assert losing.seen == 4


async def test_a_send_that_fails_raises_and_the_session_goes_on() -> None:
    served = create_harness_server(auth=bearer([TOKEN]))
    refusing = False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if refusing and scope["type"] == "http" and scope["path"].endswith("/messages"):
            answer = JSONResponse({"error": {"code": "STORE_FAILED", "message": "the disk is full"}}, 500)
            await answer(scope, receive, send)
        else:
            await served(scope, receive, send)

    where = {"harness_token": TOKEN, "harness_kind": "protocol", "engine": "scripted", "source": SOURCE}
    async with loopback(app) as url, ComputerAgent(harness_url=url, **where) as agent:
        first = await agent.chat("first")
        refusing = True
        handle = agent.chat("second")
        for _ in range(2):  # a failed handle fails every time
            with pytest.raises(StoreError, match="the disk is full"):
                await handle
        refusing = False
        third = await agent.chat("third")
        assert (third.text, third.session_id) == ("You said: third", first.session_id)


async def test_breaking_out_of_a_turn_leaks_nothing_into_the_next(server: Server) -> None:
    turns = [[{"text": "One."}, {"delay": 60}, {"text": "late"}], [{"text": "Two."}]]
    async with remote(server, *turns) as agent:
        async for event in agent.chat("one"):
            if event.kind == "sdk_message":
                break
        said = b"".join([bytes(event.raw) async for event in agent.chat("two") if event.kind == "sdk_message"])
    assert b"Two." in said
    assert b"One." not in said
    assert b"late" not in said


async def test_first_chats_at_once_share_one_session(server: Server) -> None:
    async with remote(server) as agent:
        results = await asyncio.gather(*(agent.chat(f"say {number}") for number in range(8)))
        assert sorted(result.text for result in results) == [f"You said: say {number}" for number in range(8)]
        assert len({result.session_id for result in results}) == 1
        assert len((await server.client.get("/v1/sessions")).json()["sessions"]) == 1


async def test_an_opening_that_is_cancelled_leaves_no_session_behind(server: Server) -> None:
    for wait in (0.0, 0.001, 0.005, 0.02, 0.05):
        agent = remote(server, [{"delay": 60}])
        task = asyncio.ensure_future(agent.chat("go").result())
        await asyncio.sleep(wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await agent.dispose()
        assert (await server.client.get("/v1/sessions")).json()["sessions"] == [], wait


async def test_a_turn_that_is_cancelled_while_it_streams_leaves_no_session_behind(server: Server) -> None:
    async def talk() -> None:
        async with remote(server, [{"delay": 60}]) as agent:
            async for event in agent.chat("go"):
                if event.kind == "ca_turn_started":
                    streaming.set()

    streaming = asyncio.Event()
    task = asyncio.create_task(talk())
    await streaming.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await server.client.get("/v1/sessions")).json()["sessions"] == []


@contextmanager
def a_process_that_serves(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`computeragent serve` on a port, ready; killed at the end if it still runs."""
    command = [sys.executable, "-m", "computeragent", "serve", "--port", str(port), "--event-log", "memory"]
    environment = {**os.environ, "COMPUTERAGENT_HOME": str(folder), "COMPUTERAGENT_SERVER_TOKEN": TOKEN}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_server_that_is_killed_and_started_anew_in_the_middle_of_a_turn_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = {"harness_url": f"http://127.0.0.1:{port}", "harness_token": TOKEN, "harness_kind": "protocol"}
    with a_process_that_serves(port, tmp_path) as process:
        agent = ComputerAgent(source=SOURCE, engine="scripted", options={"script": [[{"delay": 60}]]}, **where)
        handle = agent.chat("go")
        reading = aiter(handle)
        while (await anext(reading)).kind != "ca_turn_started":
            pass
        process.kill()
    with a_process_that_serves(port, tmp_path):
        async with asyncio.timeout(30):
            with pytest.raises(HarnessProtocolError, match="was started anew"):
                await handle
        await agent.dispose()


async def test_a_session_that_the_server_does_not_know_any_more_is_told_in_plain_words(server: Server) -> None:
    client = HarnessClient(base_url=server.url, token=TOKEN)
    with pytest.raises(HarnessProtocolError, match=r"is not at .* any more"):
        async for _ in client.stream_events("sess_gone", 5):
            pass
    with pytest.raises(NotFoundError):
        await client.session("sess_gone")
    await client.aclose()


async def test_an_agent_is_disposed_of_though_its_server_is_gone(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        agent = remote(server, [{"text": "One."}])
        await agent.chat("first")
    async with asyncio.timeout(30):
        await agent.dispose()


async def test_a_server_of_another_version_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from computeragent.client import harness_client

    client = HarnessClient(base_url=server.url, token=TOKEN)
    monkeypatch.setattr(harness_client, "PROTOCOL_VERSION", "2")
    with pytest.raises(ProtocolVersionError, match="speaks protocol version 2, the server '1'"):
        await client.create_session(server.body(streamingInput=True))
    assert (await server.client.get("/v1/sessions")).json()["sessions"] == []  # what it opened is closed
    newer = HarnessClient(base_url=server.url, token=TOKEN)
    with pytest.raises(ProtocolVersionError) as caught:
        await newer.create_session(server.body(streamingInput=True))
    assert isinstance(caught.value, HarnessProtocolError)
    await client.aclose()
    await newer.aclose()


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (PlainTextResponse("no", 401), UnauthorizedError, "HTTP 401"),
        (JSONResponse({"error": {"code": "UNAUTHORIZED"}}, 401), UnauthorizedError, "UNAUTHORIZED"),
        (PlainTextResponse("no", 403), InsufficientPermissionError, "HTTP 403"),
        (JSONResponse({"error": {"code": "NEW_CODE", "message": "m"}}, 418), HarnessProtocolError, "m"),
        (RedirectResponse("http://127.0.0.1:1/elsewhere", 307), HarnessProtocolError, "HTTP 307"),
        (PlainTextResponse("<html>", 200), HarnessProtocolError, "not JSON"),
        (JSONResponse({}, 200), HarnessProtocolError, "did not say which session"),
    ],
)
async def test_answers_of_others_are_clear_errors(answer: Any, error: Any, told: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await answer(scope, receive, send)

    async with loopback(Starlette(routes=[Mount("/", app)])) as url:
        agent = ComputerAgent(
            source=SOURCE, engine="scripted", harness_url=url, harness_kind="protocol", harness_token=TOKEN
        )
        with pytest.raises(error, match=told) as caught:
            await agent.chat("x")
        assert caught.value.hint or caught.value.code == "NEW_CODE"
        assert TOKEN not in f"{caught.value.message} {caught.value.hint}"
        await agent.dispose()


async def test_a_run_there_joins_the_trace_of_its_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []

    class Sink:
        async def emit(self, event: Any) -> None:
            heard.append(event)

        async def flush(self, timeout: float = 5.0) -> None: ...
        async def aclose(self) -> None: ...

    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    pipeline = Pipeline(sinks=[Sink()])
    async with serving(tmp_path, telemetry=pipeline) as server, remote(server, [{"text": "One."}]) as agent:
        with asked_in(f"00-{trace}-00f067aa0ba902b7-01"):
            await agent.chat("go")
    await pipeline.aclose()
    started = next(event for event in heard if event.kind == "turn_started")
    assert trace in str(started.to_dict() if hasattr(started, "to_dict") else started)


async def test_a_run_there_is_told_here_as_well_when_a_pipeline_is_given(server: Server) -> None:
    heard: list[Any] = []

    class Sink:
        def emit(self, event: Any) -> None:
            heard.append(event)

    async with remote(server, [{"text": "One."}], audit_sinks=[Sink()], agent_id="triage") as agent:
        await agent.chat("go")
    assert {"turn_started", "session_ended"} <= {getattr(event, "kind", None) for event in heard}


@pytest.mark.parametrize("token", ["hid\nden", "hïdden", "hidden\r", "\0hidden"])
async def test_a_token_that_no_header_can_carry_is_said_and_not_told(token: str) -> None:
    for make in (HarnessClient, ComputerAgentServerClient):
        with pytest.raises(ValidationError) as caught:
            make(base_url="http://127.0.0.1:1", token=token)
        assert "the token has characters" in caught.value.message
        assert token not in str(caught.value)


async def test_a_password_in_the_address_is_sent_and_never_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with serving(tmp_path, auth=basic("me", "hid:den/")) as server:
        address = server.url.replace("://", "://me:hid%3Aden%2F@")
        async with ComputerAgent(
            source=SOURCE, engine="scripted", harness_url=address, harness_kind="protocol"
        ) as agent:
            assert (await agent.chat("x")).text == "You said: x"
        wrong = server.url.replace("://", "://me:hidden@")
        for bad in (wrong, "http://me:hidden@127.0.0.1:1", "ftp://me:hidden@127.0.0.1:1", "me:hidden@host:1"):
            with pytest.raises(ComputerAgentError) as caught:
                async with ComputerAgent(source=SOURCE, engine="scripted", harness_url=bad) as agent:
                    await agent.chat("x")
            assert "hidden" not in f"{caught.value!r} {caught.value} {caught.value.hint} {caught.value.details}"
        client = HarnessClient(base_url=wrong)
        assert "hidden" not in f"{client!r} {client.base_url}"
    assert "hid" not in caplog.text
