"""``/tasks``: in the background, with events that stay."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from computeragent.server.sandboxes import MemoryTaskStore

from .conftest import ALICE, ASK, WRITE, Server, agent, eventually, folders, kinds, serving

pytestmark = pytest.mark.anyio
USAGE = {"usage": {"input_tokens": 3, "output_tokens": 2, "cost_usd": 0.5}}


async def ended(server: Server, task: str) -> dict[str, Any]:
    async def check() -> Any:
        state = await server.get(f"/tasks/{task}")
        return state if state["status"] not in {"queued", "running"} else None

    return await eventually(check)


async def running(server: Server, task: str) -> None:
    async def check() -> bool:
        return (await server.get(f"/tasks/{task}"))["status"] == "running"

    await eventually(check)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"taskStore": {"kind": request.param}}


async def test_a_task_runs_behind_and_its_events_stay(
    server: Server, store: dict[str, Any], state_folder: Path
) -> None:
    made = await server.post("/tasks", agent([{"text": "Hello"}, USAGE], message="go", **store), 202)
    assert made["status"] == "queued"
    assert made["sessionId"] == made["taskId"]
    state = await ended(server, made["taskId"])
    assert (state["status"], state["error"], state["usage"]["costUsd"]) == ("complete", None, 0.5)
    assert state["startedAt"] <= state["lastEventAt"] <= state["endedAt"]
    page = await server.get(f"/tasks/{made['taskId']}/events")
    assert [event["id"] for event in page["events"]] == list(range(state["eventCount"]))
    assert page["events"][0]["kind"] == "ca_session_started"
    assert "kind" not in page["events"][0]["payload"]
    assert (page["done"], page["nextSince"], page["status"]) == (True, state["eventCount"] - 1, "complete")
    rest = await server.get(f"/tasks/{made['taskId']}/events", params={"since": 2})
    assert rest["events"] == page["events"][3:]
    late = await server.get(f"/tasks/{made['taskId']}/events", params={"since": 999})
    assert (late["events"], late["done"]) == ([], True)
    streamed = await server.stream(f"/tasks/{made['taskId']}/events", headers={"accept": "text/event-stream"})
    assert [event["id"] for event in streamed[:-1]] == [event["id"] for event in page["events"]]
    assert (streamed[-1]["kind"], streamed[-1]["status"]) == ("ca_done", "complete")
    assert folders(state_folder) == []


async def test_a_stream_follows_a_task_and_resumes_where_it_was_cut(server: Server, store: dict[str, Any]) -> None:
    turn = [{"text": "a"}, {"delay": 0.2}, {"text": "b"}, {"text": "c"}]
    task = (await server.post("/tasks", agent(turn, message="go", **store), 202))["taskId"]
    path, accept = f"/tasks/{task}/events", {"accept": "text/event-stream"}
    first = await server.stream(path, until=lambda event: event["id"] == 3, headers=accept)
    rest = await server.stream(path, headers=accept | {"last-event-id": "3"})
    assert [event["id"] for event in first + rest[:-1]] == list(range(len(first) + len(rest) - 1))
    assert rest[-2]["kind"] == "ca_session_ended"
    assert rest[-1]["kind"] == "ca_done"
    by_query = await server.stream(path, headers=accept, params={"lastEventId": "3"})
    assert by_query == rest


async def test_a_task_that_fails_ends_its_streams_and_says_why(server: Server, store: dict[str, Any]) -> None:
    task = (await server.post("/tasks", agent([{"raise": "broke"}], message="go", **store), 202))["taskId"]
    events = await server.stream(f"/tasks/{task}/events", headers={"accept": "text/event-stream"})
    assert (events[-1]["kind"], events[-1]["status"], events[-1]["code"]) == ("ca_done", "errored", "ENGINE_FAILED")
    assert "broke" in (await server.get(f"/tasks/{task}"))["error"]
    lost = agent(message="go", **store) | {"source": "/nowhere/at/all"}
    task = (await server.post("/tasks", lost, 202))["taskId"]
    events = await server.stream(f"/tasks/{task}/events", headers={"accept": "text/event-stream"})
    assert (kinds(events), events[-1]["code"]) == (["ca_done"], "SOURCE_UNAVAILABLE")


async def test_a_task_is_cancelled_and_then_forgotten(server: Server, store: dict[str, Any]) -> None:
    task = (await server.post("/tasks", agent([WRITE, {"delay": 60}], message="go", **store), 202))["taskId"]

    async def written() -> bool:
        return (await server.client.get(f"/tasks/{task}/artifact", params={"path": "notes.txt"})).content == b"hello"

    await eventually(written)
    assert (await server.error("GET", f"/tasks/{task}/artifact", 400))["code"] == "MISSING_PATH"
    assert await server.delete(f"/tasks/{task}") == {"ok": True, "taskId": task}
    assert (await server.get(f"/tasks/{task}"))["status"] == "cancelled"
    gone = await server.error("GET", f"/tasks/{task}/artifact", 410, params={"path": "notes.txt"})
    assert gone["code"] == "GONE"
    assert (await server.delete(f"/tasks/{task}"))["ok"] is True
    await server.error("GET", f"/tasks/{task}", 404)
    await server.error("DELETE", f"/tasks/{task}", 404)


async def test_tasks_wait_for_a_place_and_the_queue_ends_somewhere() -> None:
    async with serving(limits={"max_tasks": 1, "max_waiting_tasks": 1}) as server:
        first = (await server.post("/tasks", agent([{"delay": 60}], message="go"), 202))["taskId"]
        await running(server, first)
        second = (await server.post("/tasks", agent([{"text": "x"}], message="go"), 202))["taskId"]
        assert (await server.get(f"/tasks/{second}"))["status"] == "queued"
        error = await server.error("POST", "/tasks", 429, json=agent(message="go"))
        assert (error["code"], error["max"]) == ("TOO_MANY_TASKS", 2)
        waiting = asyncio.create_task(server.stream(f"/tasks/{second}/events", headers={"accept": "text/event-stream"}))
        await server.delete(f"/tasks/{first}")
        assert (await waiting)[-1]["status"] == "complete"


async def test_a_queued_task_can_be_cancelled() -> None:
    async with serving(limits={"max_tasks": 1}) as server:
        first = (await server.post("/tasks", agent([{"delay": 60}], message="go"), 202))["taskId"]
        second = (await server.post("/tasks", agent(message="go"), 202))["taskId"]
        await server.delete(f"/tasks/{second}")
        assert (await server.get(f"/tasks/{second}"))["status"] == "cancelled"
        await server.delete(f"/tasks/{first}")


async def test_a_list_of_tasks_by_store_and_status(server: Server) -> None:
    made: list[str] = []
    for kind in ("memory", "sqlite", "memory"):
        body = agent(message="go", taskStore={"kind": kind})
        made.append((await server.post("/tasks", body, 202))["taskId"])
        await ended(server, made[-1])
    listed = (await server.get("/tasks"))["tasks"]
    assert [task["taskId"] for task in listed] == made[::-1]
    assert "events" not in listed[0]
    assert len((await server.get("/tasks", params={"taskStore": "memory"}))["tasks"]) == 2
    assert (await server.get("/tasks", params={"status": "errored"}))["tasks"] == []
    assert len((await server.get("/tasks", params={"limit": 1}))["tasks"]) == 1
    await server.error("GET", "/tasks", 400, params={"limit": "abc"})
    unknown = await server.error("POST", "/tasks", 400, json=agent(message="go", taskStore={"kind": "mongo"}))
    assert (unknown["code"], unknown["available"]) == ("UNKNOWN_TASK_STORE", ["memory", "sqlite"])
    assert (await server.error("GET", "/tasks", 400, params={"taskStore": "x"}))["code"] == "UNKNOWN_TASK_STORE"


async def test_a_pinned_session_goes_on_in_its_next_task(server: Server, store: dict[str, Any]) -> None:
    name = f"pinned-{store['taskStore']['kind']}"
    memory = {"sessionStore": {"kind": "memory"}}
    body = agent([{"text": "one"}], [{"text": "two, after {user}"}], sessionId=name, **memory)
    first = (await server.post("/tasks", body | store | {"message": "first"}, 202))["taskId"]
    await ended(server, first)
    second = (await server.post("/tasks", body | store | {"message": "second"}, 202))["taskId"]
    assert (await ended(server, second))["eventCount"] == (await server.get(f"/tasks/{first}"))["eventCount"]
    events = (await server.get(f"/tasks/{second}/events"))["events"]
    assert events[0]["id"] == 0
    assert events[0]["payload"]["resumed"] is True
    assert "two, after first" in str(events)
    assert "two, after" not in str((await server.get(f"/tasks/{first}/events"))["events"])


async def test_a_task_asks_and_is_answered(server: Server) -> None:
    body = agent([ASK, {"text": "Done."}], message="go", options={"permissionMode": "default"})
    task = (await server.post("/tasks", body, 202))["taskId"]

    async def asked() -> Any:
        return (await server.get(f"/tasks/{task}"))["pendingCalls"]

    (call,) = await eventually(asked)
    await server.post(f"/tasks/{task}/permission/{call}", {"decision": "deny", "reason": "no"})
    assert (await ended(server, task))["status"] == "complete"


async def test_the_memory_store_keeps_a_bounded_number_of_ended_tasks() -> None:
    async with serving(task_stores={"memory": MemoryTaskStore(kept=2)}) as server:
        made: list[str] = []
        for _ in range(4):
            made.append((await server.post("/tasks", agent(message="go"), 202))["taskId"])
            await ended(server, made[-1])
        assert [task["taskId"] for task in (await server.get("/tasks"))["tasks"]] == made[:1:-1]


async def test_a_stopped_server_says_that_its_tasks_were_broken_off(state_folder: Path) -> None:
    async with serving() as server:
        task = (await server.post("/tasks", agent([{"delay": 60}], message="go"), 202))["taskId"]
        await running(server, task)
    async with serving() as server:
        state = await server.get(f"/tasks/{task}")
        assert (state["status"], state["errorCode"]) == ("errored", "INTERRUPTED")
        events = await server.stream(f"/tasks/{task}/events", headers={"accept": "text/event-stream"})
        assert kinds(events)[-2:] == ["ca_session_ended", "ca_done"]
    assert folders(state_folder) == []


SERVER = """
import asyncio, socket, sys
import uvicorn
from computeragent.server import bearer
from computeragent.server.sandboxes import create_sandbox_server
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
app = create_sandbox_server(auth=bearer([sys.argv[1]]))
asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener]))
"""


async def test_after_a_kill_a_task_is_told_as_what_became_of_it(state_folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, ALICE], stdout=subprocess.PIPE, env={**os.environ}, text=True
    )
    try:
        assert process.stdout is not None
        port = int(await asyncio.to_thread(process.stdout.readline))
        headers = {"authorization": f"Bearer {ALICE}"}
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as client:
            server = Server(client, "")

            async def up() -> bool:
                try:
                    return (await client.get("/health")).status_code == 200
                except httpx2.HTTPError:
                    return False

            await eventually(up)
            done = (await server.post("/tasks", agent([{"text": "x"}], message="go"), 202))["taskId"]
            await ended(server, done)
            body = agent([{"text": "so far"}, {"delay": 60}], message="go")
            task = (await server.post("/tasks", body, 202))["taskId"]

            async def said() -> bool:
                return "so far" in str(await server.get(f"/tasks/{task}/events"))

            await eventually(said)
            async with serving() as beside:  # another server on the same state leaves live tasks alone
                assert (await beside.get(f"/tasks/{task}"))["status"] == "running"
        assert len(folders(state_folder)) == 1
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        async with serving() as server:
            assert folders(state_folder) == []
            state = await server.get(f"/tasks/{task}")
            assert (state["status"], state["errorCode"]) == ("errored", "INTERRUPTED")
            page = await server.get(f"/tasks/{task}/events")
            assert page["done"] is True
            assert page["events"][-1]["payload"]["errorCode"] == "INTERRUPTED"
            assert [event["id"] for event in page["events"]] == list(range(state["eventCount"]))
            assert "so far" in str(page["events"])
            assert (await server.get(f"/tasks/{done}"))["status"] == "complete"
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
