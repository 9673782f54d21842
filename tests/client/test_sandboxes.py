"""`ComputerAgent(harness_url=…, harness_kind="server")` against the real sandbox server, and against older ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent, ComputerAgentServerClient, EngineError, run_task
from computeragent.client import SandboxHarness
from computeragent.errors import (
    ComputerAgentError,
    HarnessProtocolError,
    NotRemotableError,
    UnauthorizedError,
    UnknownEngineError,
)
from computeragent.server import bearer
from computeragent.server.sandboxes import create_sandbox_server
from loopback import loopback
from puppets import until
from server.test_remote import Wire

from .conftest import TOKEN, scripted
from .older_sandboxes import OlderServer

pytestmark = pytest.mark.anyio


def boxed(url: str, *turns: list[dict[str, Any]], **given: Any) -> ComputerAgent:
    where = {"harness_url": url, "harness_kind": "server", "harness_token": TOKEN}
    return ComputerAgent(**scripted(*turns, **(where | given)))


@pytest.fixture
async def client(sandbox_server: str) -> AsyncIterator[ComputerAgentServerClient]:
    async with ComputerAgentServerClient(base_url=sandbox_server, token=TOKEN) as made:
        yield made


USAGE = {"usage": {"input_tokens": 5, "output_tokens": 2, "cost_usd": 0.25}}


async def test_a_session_is_one_sandbox_and_a_chat_one_turn(
    sandbox_server: str, client: ComputerAgentServerClient
) -> None:
    async with boxed(sandbox_server, [{"text": "One."}, USAGE], [{"text": "Two."}], runtime="local") as agent:
        first, second = await agent.chat("first"), await agent.chat("second")
        assert (first.text, second.text) == ("One.", "Two.")
        assert (first.usage.input_tokens, first.usage.cost_usd) == (5, 0.25)
        (box,) = await client.sandboxes()
        assert (box["sessionId"], box["turnCount"]) == (agent.session_id, 2)
    assert await client.sandboxes() == []


async def test_events_are_those_of_every_other_placement(sandbox_server: str, harness_server: str) -> None:
    turn = [{"tool": "Bash", "input": {"command": "ls"}, "result": "x"}, USAGE, {"text": "One."}]
    told: list[list[Any]] = []
    for where in ({}, {"harness_url": harness_server, "harness_token": TOKEN}, {"harness_url": sandbox_server}):
        async with ComputerAgent(**scripted(turn, turn, **({"harness_token": TOKEN} | where))) as agent:
            runs = [[(e.kind, getattr(e, "turn_index", None)) async for e in agent.chat("go")] for _ in range(2)]
        told.append(runs)
    assert told[0] == told[1] == told[2]


async def test_chats_at_once_share_one_sandbox_and_take_turns(
    sandbox_server: str, client: ComputerAgentServerClient
) -> None:
    async with boxed(sandbox_server) as agent:
        results = await asyncio.gather(*(agent.chat(f"say {number}") for number in range(5)))
        assert sorted(result.text for result in results) == sorted(f"You said: say {number}" for number in range(5))
        assert len(await client.sandboxes()) == 1


async def test_a_turn_that_is_broken_off_is_ended_there_and_leaks_nothing(
    sandbox_server: str, client: ComputerAgentServerClient
) -> None:
    async with boxed(sandbox_server, [{"text": "One."}, {"delay": 60}, {"text": "late"}], [{"text": "Two."}]) as agent:
        async for event in agent.chat("one"):
            if event.kind == "sdk_message":
                break
        said = b"".join([bytes(event.raw) async for event in agent.chat("two") if event.kind == "sdk_message"])
        assert b"Two." in said
        assert b"One." not in said
        assert b"late" not in said
        assert len(await client.sandboxes()) == 1


async def test_cancelling_a_turn_leaves_the_sandbox(sandbox_server: str) -> None:
    async with boxed(sandbox_server, [{"delay": 60}], [{"text": "Two."}]) as agent:
        handle = agent.chat("one")
        async for event in handle:
            if event.kind == "ca_turn_started":
                await handle.cancel()
        assert (await handle.result()).ended.reason == "cancelled"
        assert (await agent.chat("two")).text == "Two."


async def test_a_run_that_fails_is_told_and_the_sandbox_goes_on(
    sandbox_server: str, client: ComputerAgentServerClient
) -> None:
    async with boxed(sandbox_server, [{"raise": "it broke"}], [{"text": "Two."}]) as agent:
        with pytest.raises(EngineError, match="it broke"):
            await agent.chat("go")
        (box,) = await client.sandboxes()
        await agent.chat("again")
        (same,) = await client.sandboxes()
        assert box["sandboxId"] == same["sandboxId"]


async def test_files_are_read_and_attached(sandbox_server: str) -> None:
    files = [{"path": "notes/a.txt", "content": "hello"}]
    async with boxed(sandbox_server, attachments=files) as agent:
        await agent.chat("hi")
        assert await agent.fetch_artifact_text("notes/a.txt") == "hello"
        assert await agent.fetch_artifact("nope") is None
        assert {"notes", "notes/a.txt"} <= {entry.path for entry in await agent.list_workdir()}
        assert [entry.path for entry in await agent.list_workdir("notes")] == ["a.txt"]
        assert "notes/a.txt" not in {entry.path for entry in await agent.list_workdir(depth=0)}
        with pytest.raises(NotRemotableError, match="only be read"):
            await agent.write_artifact("b.txt", "x")


async def test_what_the_server_refuses_is_the_librarys_own_error(sandbox_server: str) -> None:
    for given, error in (
        ({"engine": "nope"}, UnknownEngineError),
        ({"harness_token": "wrong"}, UnauthorizedError),
        ({"runtime": "nope"}, ComputerAgentError),
    ):
        async with boxed(sandbox_server, **given) as agent:
            with pytest.raises(error) as caught:
                await agent.chat("x")
            assert caught.value.hint


async def test_what_that_wire_does_not_carry_is_told_at_once() -> None:
    async def judge(_: Any) -> Any: ...

    for given in ({"policy": judge}, {"git_credentials": lambda _: None}, {"identity_loader": "gap"}):
        with pytest.raises(NotRemotableError):
            boxed("http://127.0.0.1:1", **given)


async def test_the_id_and_name_of_the_agent_go_along(sandbox_server: str, client: ComputerAgentServerClient) -> None:
    async with boxed(sandbox_server, agent_id="triage-1", agent_name="Triage") as agent:
        await agent.chat("hi")
        (box,) = await client.sandboxes()
    assert box["config"]["identity"] == {"agentId": "triage-1"}
    assert box["config"]["agentName"] == "Triage"


async def test_run_task_in_a_sandbox(sandbox_server: str, client: ComputerAgentServerClient) -> None:
    where = {"harness_url": sandbox_server, "harness_token": TOKEN}
    result = await run_task(message="hi", **scripted([{"text": "Done."}], **where))
    assert result.text == "Done."
    assert await client.sandboxes() == []


async def test_an_idle_sandbox_is_kept_while_its_agent_is_open() -> None:
    older = OlderServer(idle_ttl=0.15)
    async with loopback(older.app()) as url, boxed(url) as agent:
        await agent.chat("hi")
        beats = older.heartbeats
        await asyncio.wait_for(_beats(older, beats + 2), 20)


async def _beats(older: OlderServer, count: int) -> None:
    await until(lambda: older.heartbeats >= count)


async def test_a_sandbox_that_is_gone_is_replaced_at_the_next_turn(
    sandbox_server: str, client: ComputerAgentServerClient
) -> None:
    async with boxed(sandbox_server) as agent:
        await agent.chat("hi")
        (box,) = await client.sandboxes()
        await client.delete_sandbox(box["sandboxId"])
        with pytest.raises(ComputerAgentError) as caught:
            await agent.chat("again")
        assert caught.value.code in {"GONE", "NOT_FOUND"}
        assert (await agent.chat("once more")).text == "You said: once more"


async def test_a_cancelled_opening_leaves_no_sandbox_behind() -> None:
    older = OlderServer()
    older.opening.clear()
    async with loopback(older.app()) as url:
        agent = boxed(url)
        task = asyncio.ensure_future(agent.chat("hi").result())
        await until(lambda: older.asked_to_open > 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        older.opening.set()
        await agent.dispose()
        assert (older.opened, older.deleted) == (1, ["sbx_1"])


# ── Servers that have the documented wire and nothing more ──


@pytest.fixture
async def older() -> AsyncIterator[tuple[OlderServer, str]]:
    made = OlderServer()
    async with loopback(made.app()) as url:
        yield made, url


async def test_frames_that_name_their_kind_beside_the_data_alone(older: tuple[OlderServer, str]) -> None:
    made, url = older
    async with boxed(url) as agent:
        events = [event async for event in agent.chat("hi")]
        result = await agent.chat("again")
    assert [event.kind for event in events] == [
        "ca_session_started",
        "ca_turn_started",
        "sdk_message",
        "ca_usage_snapshot",
        "sdk_message",
        "ca_session_ended",
    ]
    assert (result.text, result.usage.input_tokens) == ("You said: again", 3)
    assert made.deleted == ["sbx_1"]


async def test_an_error_frame_fails_the_turn_and_the_sandbox_stays(older: tuple[OlderServer, str]) -> None:
    made, url = older
    async with boxed(url) as agent:
        with pytest.raises(EngineError, match="no such luck"):
            await agent.chat("fail")
        assert (await agent.chat("again")).text == "You said: again"
    assert made.opened == 1


async def test_a_lost_stream_is_an_error_not_a_hang(older: tuple[OlderServer, str]) -> None:
    _, url = older
    async with boxed(url) as agent:
        with pytest.raises(EngineError, match="was lost") as caught:
            await agent.chat("cut")
        assert caught.value.code == "PROTOCOL"
        assert (await agent.chat("again")).text == "You said: again"


async def test_a_busy_sandbox_is_waited_for(older: tuple[OlderServer, str]) -> None:
    made, url = older
    made.busy = 2
    async with boxed(url) as agent:
        assert (await agent.chat("hi")).text == "You said: hi"
    assert made.busy == 0


async def test_a_callback_is_refused_where_it_would_not_be_asked(older: tuple[OlderServer, str]) -> None:
    made, url = older
    async with boxed(url, on_tool_call=lambda _: False) as agent:
        with pytest.raises(NotRemotableError, match="on_tool_call"):
            await agent.chat("hi")
    assert made.opened == 0


async def test_a_turn_that_the_server_cannot_end_is_left_there(older: tuple[OlderServer, str]) -> None:
    made, url = older
    async with boxed(url) as agent:
        handle = agent.chat("hang")
        async for event in handle:
            if event.kind == "ca_turn_started":
                await handle.cancel()
        assert (await agent.chat("again")).text == "You said: again"
    assert made.opened == 1


# ── The client by itself ──


async def test_the_rest_of_the_wire(tmp_path: Path) -> None:
    app = create_sandbox_server(auth=bearer([TOKEN]), runtimes=["local"])
    write = {"tool": "Write", "input": {"file_path": "a.txt", "content": "kept"}}
    body: dict[str, Any] = {
        "source": {"type": "inline", "manifest": {"name": "tester"}},
        "harness": "scripted",
        "options": {"permissionMode": "bypassPermissions", "script": [[write, {"text": "Done."}]]},
    }
    async with loopback(app) as url, ComputerAgentServerClient(base_url=url, token=TOKEN) as client:
        assert (await client.health())["runtimes"] == ["local"]
        kinds = [event["kind"] async for event in client.run({**body, "message": "go"})]
        assert (kinds[0], kinds[-1]) == ("ca_session_started", "ca_done")
        task = (await client.create_task({**body, "message": "go"}))["taskId"]
        streamed = [event async for event in client.stream_task(task)]
        assert streamed[-1]["kind"] == "ca_done"
        assert (await client.task(task))["status"] == "complete"
        assert (await client.task_events(task))["done"] is True
        assert [one["taskId"] for one in await client.tasks()] == [task]
        await client.delete_task(task)
        box = (await client.create_sandbox({**body, "sessionId": "s1"}))["sandboxId"]
        async for _ in client.chat(box, "go"):
            pass
        assert await client.artifact(box, "a.txt") == b"kept"
        taken = await client.snapshot(box, {"stateStore": {"kind": "memory"}})
        assert [one["snapshotId"] for one in await client.snapshots(stateStore="memory")] == [taken["snapshotId"]]
        await client.delete_sandbox(box)
        again = await client.restore({"snapshotId": taken["snapshotId"], "stateStore": {"kind": "memory"}})
        assert await client.artifact(again["sandboxId"], "a.txt") == b"kept"
        assert (await client.heartbeat(again["sandboxId"]))["sandboxId"] == again["sandboxId"]
        await client.delete_snapshot(taken["snapshotId"], stateStore="memory")
        with pytest.raises(HarnessProtocolError):
            [event async for event in ComputerAgentServerClient(base_url="http://127.0.0.1:1").run(body)]


def test_both_clients_are_at_hand() -> None:
    import computeragent

    assert computeragent.ComputerAgentServerClient.__name__ == "ComputerAgentServerClient"
    assert computeragent.HarnessClient.__name__ == "HarnessClient"
    assert "secret" not in repr(ComputerAgentServerClient(base_url="http://h", token="secret"))
    assert SandboxHarness is not None


async def test_a_lost_stream_is_read_on_where_the_server_has_one_for_it(sandbox_server: str) -> None:
    turn = [*({"text": f"line {number}"} for number in range(30)), {"delay": 0.2}, {"text": "the end"}]
    for cut in (900, 1500, 2600, 4000):
        wire = Wire(int(sandbox_server.rpartition(":")[2]))
        wire.cut_after = [cut]
        url = await wire.start()
        async with boxed(url, turn) as agent:
            said = [event.payload async for event in agent.chat("go") if event.kind == "sdk_message"]
        await wire.stop()
        assert wire.cut_after == []
        lines = [block["text"] for each in said if each["type"] == "assistant" for block in each["message"]["content"]]
        assert lines == [*(f"line {number}" for number in range(30)), "the end"]
