"""`ComputerAgent(harness_url=…)`: the same agent on the other side of a wire, lost connections included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent, EngineError
from computeragent.client import HarnessClient
from computeragent.engines.scripted import ScriptedEngine
from computeragent.errors import HarnessProtocolError, NotRemotableError, UnknownEngineError, ValidationError
from computeragent.wire.events import CaSessionEnded

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
