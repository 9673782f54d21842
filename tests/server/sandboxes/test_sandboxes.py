"""``/sandboxes``: warm between turns, whatever clients and engines do, and gone when their time has come."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from computeragent import plugins
from computeragent.identity.sources import fetch
from computeragent.protocol_types import SubstrateHandle
from computeragent.substrates import LocalSubstrate

from .conftest import ASK, WRITE, Server, agent, eventually, folders, kinds, serving

pytestmark = pytest.mark.anyio
USAGE = {"usage": {"input_tokens": 3, "output_tokens": 2, "cost_usd": 0.5}}


async def state(server: Server, sandbox: str) -> dict[str, Any]:
    return await server.get(f"/sandboxes/{sandbox}")


async def test_a_sandbox_keeps_files_and_memory_between_turns(server: Server, state_folder: Path) -> None:
    opened = await server.open([WRITE, USAGE], [{"text": "before: {user}"}, {"usage": {"cost_usd": 0.75}}])
    assert opened["state"] == "booting"
    assert opened["sessionId"] == opened["sandboxId"]
    assert opened["createdAt"] < opened["idleExpiresAt"] <= opened["expiresAt"]
    sandbox = opened["sandboxId"]
    first = await server.chat(sandbox, "one")
    assert first[0]["kind"] == "ca_session_started"
    assert (first[-1]["kind"], first[-1]["turn"], first[-1]["usage"]["costUsd"]) == ("ca_done", 0, 0.5)
    second = await server.chat(sandbox, "two")
    assert "before: one" in str(second)
    assert (second[-1]["turn"], second[-1]["usage"]["costUsd"]) == (1, 0.25)
    ids = [event["id"] for event in first[:-1] + second[:-1]]
    assert ids == list(range(len(ids))), "every event in exactly one chat"
    now = await state(server, sandbox)
    assert (now["state"], now["turnCount"], now["busy"], now["usage"]["costUsd"]) == ("ready", 2, False, 0.75)
    assert await server.get(f"/sandboxes/{sandbox}/artifact", params={"path": "notes.txt"}) == b"hello"
    assert (await server.error("GET", f"/sandboxes/{sandbox}/artifact", 400))["code"] == "MISSING_PATH"
    entries = (await server.get(f"/sandboxes/{sandbox}/workdir", params={"depth": 99}))["entries"]
    assert "notes.txt" in [entry["path"] for entry in entries]
    gone = await server.delete(f"/sandboxes/{sandbox}")
    assert (gone["ok"], gone["turnCount"], gone["autoSaved"], gone["finalUsage"]["costUsd"]) == (True, 2, False, 0.75)
    assert folders(state_folder) == []
    error = await server.error("GET", f"/sandboxes/{sandbox}", 410)
    assert (error["code"], error["state"]) == ("GONE", "disposed")
    error = await server.error("POST", f"/sandboxes/{sandbox}/chat", 410, json={"message": "x"})
    assert error["code"] == "GONE"
    await server.error("GET", "/sandboxes/sbx_nothing", 404)


async def test_a_session_has_one_live_sandbox(server: Server) -> None:
    first = await server.open(sessionId="mine")
    again = await server.post("/sandboxes", agent(sessionId="mine"))
    assert (again["reused"], again["sandboxId"]) == (True, first["sandboxId"])
    assert (await server.get("/sandboxes/by-session/mine"))["sandboxId"] == first["sandboxId"]
    missing = await server.get("/sandboxes/by-session/other", 404)
    assert missing["warm"] is False
    await server.error("POST", "/run", 409, json=agent(message="x", sessionId="mine"))
    await server.delete(f"/sandboxes/{first['sandboxId']}")
    assert (await server.open(sessionId="mine"))["sandboxId"] != first["sandboxId"]


async def test_no_more_sandboxes_than_the_cap() -> None:
    async with serving(limits={"max_sandboxes": 1}) as server:
        await server.open(sessionId="a")
        error = await server.error("POST", "/sandboxes", 429, json=agent())
        assert (error["code"], error["active"], error["max"]) == ("TOO_MANY_SANDBOXES", 1, 1)
        assert (await server.post("/sandboxes", agent(sessionId="a")))["reused"] is True
        assert len((await server.get("/sandboxes"))["sandboxes"]) == 1


async def test_lives_are_clamped_and_must_be_above_zero() -> None:
    async with serving(limits={"max_ttl_ms": 9_000, "max_idle_ttl_ms": 5_000}) as server:
        opened = await server.open(ttlMs=99_000, idleTtlMs=99_000)
        assert (opened["ttlMs"], opened["idleTtlMs"]) == (9_000, 5_000)
        assert (await server.open(ttlMs=1_000))["idleTtlMs"] == 1_000
        for wrong in ({"ttlMs": 0}, {"idleTtlMs": -1}):
            assert (await server.error("POST", "/sandboxes", 400, json=agent(**wrong)))["code"] == "INVALID_TTL"


async def test_one_turn_at_a_time(server: Server) -> None:
    sandbox = (await server.open([{"delay": 60}], [{"text": "second"}]))["sandboxId"]
    first = asyncio.create_task(server.chat(sandbox))

    async def busy() -> bool:
        return (await state(server, sandbox))["busy"]

    await eventually(busy)
    error = await server.error("POST", f"/sandboxes/{sandbox}/chat", 409, json={"message": "x"})
    assert error["code"] == "BUSY"
    assert error["currentTurnStartedAt"]
    assert (await server.error("POST", f"/sandboxes/{sandbox}/snapshot", 409))["code"] == "BUSY"

    async def running() -> bool:
        await server.post(f"/sandboxes/{sandbox}/cancel")
        return first.done()

    await eventually(running)
    assert (await first)[-1]["kind"] == "ca_done"
    assert "second" in str(await server.chat(sandbox))


async def test_wrong_chats_are_refused(server: Server) -> None:
    sandbox = (await server.open())["sandboxId"]
    path = f"/sandboxes/{sandbox}/chat"
    assert (await server.error("POST", path, 400, content=b"nope"))["code"] == "INVALID_JSON"
    assert (await server.error("POST", path, 400, json={}))["code"] == "MISSING_MESSAGE"
    escape = {"message": "x", "attachments": [{"path": "../x", "content": ""}]}
    assert (await server.error("POST", path, 400, json=escape))["code"] == "PATH_ESCAPE"
    onto = {"message": "x", "attachments": [{"path": "a", "content": ""}, {"path": "a/b", "content": ""}]}
    assert (await server.error("POST", path, 500, json=onto))["code"] == "ATTACHMENT_WRITE_FAILED"
    assert (await server.chat(sandbox, attachments=[{"path": "b.txt", "content": "B"}]))[-1]["kind"] == "ca_done"
    assert await server.get(f"/sandboxes/{sandbox}/artifact", params={"path": "b.txt"}) == b"B"


async def test_a_turn_goes_on_when_its_client_leaves_and_can_be_read_again(server: Server) -> None:
    turn = [{"text": "early"}, {"delay": 0.3}, {"text": "late"}]
    sandbox = (await server.open(turn, [{"text": "next"}]))["sandboxId"]
    seen = await server.stream(
        f"/sandboxes/{sandbox}/chat", {"message": "go"}, lambda event: "early" in str(event.get("payload"))
    )
    rest = await server.stream(
        f"/sandboxes/{sandbox}/events",
        until=lambda event: event.get("endsTurn"),
        headers={"last-event-id": str(seen[-1]["id"])},
    )
    assert [event["id"] for event in seen + rest] == list(range(len(seen) + len(rest)))
    assert "late" in str(rest)

    async def done() -> bool:
        return (await state(server, sandbox))["turnCount"] == 1

    await eventually(done)
    after = await server.chat(sandbox)
    assert "next" in str(after)
    assert after[0]["id"] == rest[-1]["id"] + 1


async def test_an_engine_that_dies_leaves_the_sandbox_alive(server: Server) -> None:
    sandbox = (await server.open([WRITE, {"raise": "broke"}], [{"text": "again: {user}"}]))["sandboxId"]
    events = await server.chat(sandbox, "one")
    assert (events[-1]["kind"], events[-1]["code"]) == ("ca_error", "ENGINE_FAILED")
    again = await server.chat(sandbox, "two")
    assert kinds(again)[0] == "ca_session_started"
    assert "again: one" in str(again), "its memory is that of the session"
    assert await server.get(f"/sandboxes/{sandbox}/artifact", params={"path": "notes.txt"}) == b"hello"


async def test_a_source_that_is_not_there_fails_the_chat_and_not_the_sandbox(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    sandbox = (await server.post("/sandboxes", agent() | {"source": str(folder)}, 201))["sandboxId"]
    assert (await server.get(f"/sandboxes/{sandbox}/workdir"))["entries"] == []
    events = await server.chat(sandbox)
    assert (kinds(events), events[0]["code"]) == (["ca_error"], "SOURCE_UNAVAILABLE")
    folder.mkdir()
    assert (await server.chat(sandbox))[-1]["kind"] == "ca_done"


async def test_a_tool_call_in_a_sandbox_is_answered(server: Server) -> None:
    sandbox = (await server.open([ASK, {"text": "ok"}], options={"permissionMode": "default"}))["sandboxId"]
    chat = asyncio.create_task(server.chat(sandbox))

    async def pending() -> Any:
        return (await state(server, sandbox))["pendingCalls"]

    (call,) = await eventually(pending)
    await server.post(f"/sandboxes/{sandbox}/permission/{call}", {"decision": "allow"})
    assert (await chat)[-1]["kind"] == "ca_done"


async def gone(server: Server, sandbox: str) -> str:
    async def check() -> str | None:
        answer = await server.client.get(f"/sandboxes/{sandbox}")
        return answer.json()["error"]["state"] if answer.status_code == 410 else None

    return await eventually(check)


QUICK = {"reaper_interval_ms": 20.0}


async def test_an_idle_sandbox_expires(state_folder: Path) -> None:
    async with serving(limits=QUICK) as server:
        sandbox = (await server.open(idleTtlMs=150))["sandboxId"]
        await server.chat(sandbox)
        assert await gone(server, sandbox) == "expired"
        assert folders(state_folder) == []


async def test_a_sandbox_that_nobody_chats_in_expires_unless_somebody_is_there() -> None:
    async with serving(limits=QUICK | {"boot_deadline_ms": 200}) as server:
        left, kept = (await server.open())["sandboxId"], (await server.open())["sandboxId"]
        alive = await server.post(f"/sandboxes/{kept}/heartbeat")
        assert (alive["sandboxId"], alive["state"]) == (kept, "booting")
        assert await gone(server, left) == "expired"
        assert (await state(server, kept))["state"] == "booting"


async def test_a_turn_may_end_after_its_sandboxes_life_and_one_that_does_not_is_ended() -> None:
    async with serving(limits=QUICK | {"grace_ms": 60_000}) as server:
        sandbox = (await server.open([{"delay": 0.6}, {"text": "still"}], ttlMs=200))["sandboxId"]
        assert "still" in str(await server.chat(sandbox))
        assert await gone(server, sandbox) == "expired"
    async with serving(limits=QUICK | {"grace_ms": 100}) as server:
        sandbox = (await server.open([{"delay": 60}], ttlMs=200))["sandboxId"]
        events = await server.chat(sandbox)
        assert (events[-1]["kind"], events[-1]["code"]) == ("ca_error", "GONE")
        assert await gone(server, sandbox) == "expired"


async def test_deleting_a_busy_sandbox_ends_its_turn(server: Server, state_folder: Path) -> None:
    sandbox = (await server.open([{"delay": 60}]))["sandboxId"]
    chat = asyncio.create_task(server.chat(sandbox))

    async def busy() -> bool:
        return (await state(server, sandbox))["busy"]

    await eventually(busy)
    await asyncio.gather(server.delete(f"/sandboxes/{sandbox}"), server.client.delete(f"/sandboxes/{sandbox}"))
    assert (await chat)[-1]["code"] == "GONE"
    assert folders(state_folder) == []


class SlowPlace(LocalSubstrate):
    """A substrate that boots when it is told to."""

    def __init__(self) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def boot(self, **how: Any) -> SubstrateHandle:
        self.begun.set()
        await self.go_on.wait()
        return await super().boot(**how)


@pytest.mark.parametrize("boots_in_time", [True, False])
async def test_deleting_a_sandbox_in_the_middle_of_its_boot_ends_it(state_folder: Path, boots_in_time: bool) -> None:
    place = SlowPlace()
    plugins.register_substrate("slow", place)
    try:
        async with serving(runtimes=["slow"]) as server:
            sandbox = (await server.open())["sandboxId"]
            chat = asyncio.create_task(server.chat(sandbox))
            await place.begun.wait()
            disposing = asyncio.create_task(server.delete(f"/sandboxes/{sandbox}"))
            await asyncio.sleep(0.05)
            if boots_in_time:
                place.go_on.set()
            await disposing
            assert (await chat)[-1]["code"] == "GONE"
            assert folders(state_folder) == []
    finally:
        plugins.substrates._registered.pop("slow")
        plugins.substrates._made.pop("slow", None)


async def test_deleting_a_sandbox_whose_files_are_being_fetched_leaves_none(
    state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow_fetch(*what: Any, **how: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await fetch(*what, **how)

    monkeypatch.setattr("computeragent.server.sandboxes.sandbox.fetch", slow_fetch)
    async with serving() as server:
        sandbox = (await server.open())["sandboxId"]
        looking = asyncio.create_task(server.get(f"/sandboxes/{sandbox}/workdir"))
        await begun.wait()
        disposing = asyncio.create_task(server.delete(f"/sandboxes/{sandbox}"))
        await asyncio.sleep(0.1)
        go_on.set()
        await disposing
        assert (await looking)["entries"] == []
        assert folders(state_folder) == []


async def test_stopping_the_server_ends_and_saves_what_is_there(state_folder: Path) -> None:
    saved = {"autoSave": {"stateStore": {"kind": "file"}}}
    async with serving() as server:
        sandbox = (await server.open([WRITE], **saved))["sandboxId"]
        await server.chat(sandbox)
    assert folders(state_folder) == []
    async with serving() as server:
        (snapshot,) = (await server.get("/snapshots"))["snapshots"]
        assert snapshot["sourceSandboxId"] == sandbox
        assert snapshot["snapshotId"].startswith(f"snap_{sandbox}_")
