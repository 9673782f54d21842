"""How many sessions a server takes, how long it keeps them, and what is left of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from computeragent import plugins
from computeragent.engines.scripted import ScriptedEngine
from computeragent.errors import EngineError, TooManySessionsError
from computeragent.eventlog import MemoryEventLog, SharedSqliteEventLog
from computeragent.protocol_types import EngineContext, EngineEvent
from computeragent.server import bearer

from .conftest import TOKEN, Server, folders, serving

pytestmark = pytest.mark.anyio
OTHER = "the-token-of-another"


async def test_more_sessions_than_there_may_be_are_refused_until_one_ends(tmp_path: Path) -> None:
    async with serving(tmp_path, max_sessions=3) as server:
        first, *_ = [await server.open([{"text": "x"}]) for _ in range(3)]
        refused = await server.client.post("/v1/sessions", json=server.body(streamingInput=True))
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (429, TooManySessionsError.code)
        assert error["details"] == {"active": 3, "max": 3}
        assert int(refused.headers["retry-after"]) > 0
        chat = server.body(messages=[{"role": "user", "content": "x"}])
        assert (await server.client.post("/v1/chat", json=chat)).status_code == 429
        await server.client.post(f"/v1/sessions/{first}/cancel")  # over, and still there to be read
        assert await server.open()
        assert (await server.client.get(f"/v1/sessions/{first}")).json()["status"] == "cancelled"


async def test_of_many_that_come_at_once_no_more_are_taken_than_there_may_be(tmp_path: Path) -> None:
    async with serving(tmp_path, max_sessions=5) as server:
        body = server.body(streamingInput=True)
        answers = await asyncio.gather(*(server.client.post("/v1/sessions", json=body) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [201] * 5 + [429] * 15
        assert len((await server.client.get("/v1/sessions")).json()["sessions"]) == 5


async def test_an_opening_that_fails_leaves_no_files_and_takes_none_away(tmp_path: Path, state_folder: Path) -> None:
    async with serving(tmp_path) as server:
        wrong = server.body(attachments=[{"path": "../x", "content": ""}], streamingInput=True, sessionId="s")
        assert (await server.client.post("/v1/sessions", json=wrong)).status_code == 400
        assert not folders(state_folder, "s")
        await server.open(sessionId="s")
        await server.client.put("/v1/sessions/s/fs/file?path=kept.txt", content=b"kept")
        await server.client.post("/v1/sessions/s/cancel")
        assert (await server.client.post("/v1/sessions", json=wrong)).status_code == 400
        assert (await server.client.get("/v1/sessions/s/fs/file?path=kept.txt")).content == b"kept"


async def test_an_opening_that_fails_takes_no_place(tmp_path: Path) -> None:
    async with serving(tmp_path, max_sessions=1) as server:
        for _ in range(3):
            wrong = server.body(attachments=[{"path": "../x", "content": ""}], streamingInput=True)
            assert (await server.client.post("/v1/sessions", json=wrong)).status_code == 400
        assert await server.open()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_finished_session_expires_with_its_folder_and_events(
    kind: str, tmp_path: Path, state_folder: Path
) -> None:
    log = MemoryEventLog() if kind == "memory" else SharedSqliteEventLog(tmp_path / "log.db")
    async with serving(tmp_path, session_ttl=0.2, log=log) as server:
        session = await server.open([{"text": "x"}])
        await server.say(session, "go")
        await server.client.post(f"/v1/sessions/{session}/end-input")
        await server.events(session)
        while folders(state_folder, session):
            await asyncio.sleep(0.05)
        if kind == "memory":
            while (await server.client.get(f"/v1/sessions/{session}/events")).status_code != 404:
                await asyncio.sleep(0.25)  # each look makes it younger


async def test_deleting_a_session_under_way_ends_it_and_frees_its_folder(server: Server, state_folder: Path) -> None:
    session = await server.open([{"text": "x"}, {"delay": 60}])
    await server.say(session, "go")
    connected = asyncio.Event()
    reading = asyncio.create_task(server.events(session, lambda _: bool(connected.set())))
    await connected.wait()
    assert folders(state_folder, session)
    assert (await server.client.delete(f"/v1/sessions/{session}")).json() == {"ok": True}
    assert (await reading)[-1]["kind"] == "ca_session_ended"
    assert not folders(state_folder, session)
    for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/fs/tree")):
        gone = await server.client.request(method, f"/v1/sessions/{session}{path}")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "NOT_FOUND")


async def test_what_a_deleted_session_said_is_not_kept_in_memory(server: Server) -> None:
    transcripts = plugins.resolve_session_store("memory")
    session = await server.open([{"text": "x"}])
    await server.say(session, "something to remember")
    await server.events(session, lambda event: event.get("endsTurn"))
    principal = await bearer([TOKEN])(TOKEN)
    assert principal is not None
    key = {"project_key": f"computeragent:{principal.id}", "session_id": session}
    assert "something to remember" in str(await transcripts.load(key))
    await server.client.delete(f"/v1/sessions/{session}")
    assert await transcripts.load(key) is None


async def test_every_page_together_is_the_list(server: Server) -> None:
    made = [await server.open() for _ in range(7)]
    listed: list[str] = []
    offset: int | None = 0
    while offset is not None:
        page = (await server.client.get("/v1/sessions", params={"limit": 3, "offset": offset})).json()
        listed += [one["sessionId"] for one in page["sessions"]]
        offset = page.get("next")
    assert listed == made[::-1]
    beyond = (await server.client.get("/v1/sessions", params={"offset": 100})).json()
    assert beyond == {"sessions": []}
    for wrong in ({"limit": 501}, {"offset": -1}, {"limit": "1e3"}):
        assert (await server.client.get("/v1/sessions", params=wrong)).status_code == 400


async def test_a_key_is_of_one_caller_and_one_purpose(tmp_path: Path) -> None:
    both = bearer([TOKEN, OTHER])
    async with serving(tmp_path, auth=both) as server:
        headers = {"authorization": f"Bearer {OTHER}"}
        async with httpx2.AsyncClient(base_url=server.url, headers=headers) as stranger:
            body, key = server.body([{"text": "x"}], [{"text": "y"}], streamingInput=True), {"idempotency-key": "same"}
            mine = (await server.client.post("/v1/sessions", json=body, headers=key)).json()["sessionId"]
            theirs = (await stranger.post("/v1/sessions", json=body, headers=key)).json()["sessionId"]
            assert mine != theirs
            other = (await server.client.post("/v1/sessions", json=body)).json()["sessionId"]
            said = {"message": {"role": "user", "content": "x"}}
            for session in (mine, other):  # the same key means another message in another session
                for _ in range(2):
                    answer = await server.client.post(f"/v1/sessions/{session}/messages", json=said, headers=key)
                    assert answer.json()["turnIndex"] == 0
            again = await server.client.post(
                f"/v1/sessions/{mine}/messages", json=said, headers={"idempotency-key": "b"}
            )
            assert again.json()["turnIndex"] == 1


async def test_what_failed_under_a_key_may_be_tried_again(server: Server) -> None:
    key = {"idempotency-key": "k"}
    body = server.body(streamingInput=True)
    wrong = body | {"attachments": [{"path": "../x", "content": ""}]}
    assert (await server.client.post("/v1/sessions", json=wrong, headers=key)).status_code == 400
    assert (await server.client.post("/v1/sessions", json=body, headers=key)).status_code == 201


async def test_a_client_that_leaves_while_its_session_is_opened_may_ask_again(server: Server) -> None:
    key, body = {"idempotency-key": "left"}, server.body(streamingInput=True)
    with pytest.raises(httpx2.TimeoutException):
        await server.client.post("/v1/sessions", json=body, headers=key, timeout=0.001)
    answers = [await server.client.post("/v1/sessions", json=body, headers=key) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["sessionId"] for answer in answers}) == 1
    assert len((await server.client.get("/v1/sessions")).json()["sessions"]) == 1


LOGS = pytest.mark.parametrize("kind", ["memory", "sqlite"])


def _log(kind: str, folder: Path) -> MemoryEventLog | SharedSqliteEventLog:
    return MemoryEventLog() if kind == "memory" else SharedSqliteEventLog(folder / "log.db")


@LOGS
async def test_one_request_under_a_key_is_one_session_also_as_a_stream(kind: str, tmp_path: Path) -> None:
    source = {"type": "inline", "manifest": {"name": "a", "version": "1"}}
    body = {"source": source, "harness": "scripted", "message": "x", "options": {"script": [[{"text": "once"}]]}}
    async with serving(tmp_path, log=_log(kind, tmp_path)) as server:
        key = {"idempotency-key": "k"}
        reads = [server.read("POST", "/v1/sessions", json=body, headers=key) for _ in range(3)]
        first, *others = [
            *await asyncio.gather(*reads),
            await server.read("POST", "/v1/sessions", json=body, headers=key),
        ]
        assert all(other == first for other in others)
        assert [event["id"] for event in first] == list(range(len(first)))
        assert len((await server.client.get("/v1/sessions")).json()["sessions"]) == 1
        await server.client.delete(f"/v1/sessions/{first[0]['sessionId']}")
        gone = await server.client.post("/v1/sessions", json=body, headers=key)
        assert gone.status_code == 404


class _FailsAtOnce(ScriptedEngine):
    name = "fails-at-once"

    async def start_session(self, ctx: EngineContext) -> AsyncIterator[EngineEvent]:
        raise EngineError("there is no CLI")
        yield


@LOGS
@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/chat"])
async def test_an_engine_that_fails_at_once_is_told_in_the_stream(
    path: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plugins.engines._registered, "fails-at-once", _FailsAtOnce)
    async with serving(tmp_path, log=_log(kind, tmp_path)) as server:
        body = server.body(engine="fails-at-once", messages=[{"role": "user", "content": "x"}])
        found = await server.read("POST", path, json=body, headers={"accept": "text/event-stream"})
        assert [found[0]["kind"], found[-1]["kind"]] == ["ca_session_started", "ca_session_ended"]
        assert (found[-1]["reason"], found[-1]["errorMessage"]) == ("error", "there is no CLI")


@LOGS
async def test_deleting_and_opening_the_same_session_at_once_leaves_all_of_it_or_nothing(
    kind: str, tmp_path: Path
) -> None:
    async with serving(tmp_path, log=_log(kind, tmp_path)) as server:
        opening = server.body([{"text": "x"}], streamingInput=True, sessionId="s")
        for number in range(12):
            await server.open(sessionId="s")

            async def opened(after: float) -> httpx2.Response:
                await asyncio.sleep(after)
                return await server.client.post("/v1/sessions", json=opening)

            gone, again = await asyncio.gather(server.client.delete("/v1/sessions/s"), opened(number * 0.002))
            assert gone.status_code == 200
            assert again.status_code in {201, 409}, again.text  # 409 where it came before the deletion
            if again.status_code == 201:
                assert (await server.client.get("/v1/sessions/s/fs/tree")).status_code == 200
                await server.say("s", "go")
                await server.client.post("/v1/sessions/s/end-input")
                assert (await server.events("s"))[-1]["reason"] == "complete"
                assert (await server.client.delete("/v1/sessions/s")).status_code == 200
