"""The harness protocol over a real socket: every route, its shapes, its refusals."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from .conftest import Server, serving

pytestmark = pytest.mark.anyio

ASKED: list[dict[str, Any]] = [{"tool": "Bash", "input": {"command": "ls"}, "result": "a.txt"}, {"text": "Done."}]


def kinds(events: list[Any]) -> list[str]:
    return [event["kind"] for event in events]


async def test_health_is_public_and_says_what_is_here(server: Server) -> None:
    async with httpx2.AsyncClient(base_url=server.url) as nobody:
        for path in ("/health", "/v1/health"):
            health = (await nobody.get(path)).json()
            assert health["ok"] is True
            assert health["protocolVersion"] == "1"
            assert health["engines"]["scripted"]["streamingInput"] is True
            assert "gap" in health["loaders"]


async def test_a_session_in_one_request_streams_and_ends(server: Server) -> None:
    body = {"source": server.body()["identity"]["source"], "harness": "scripted", "message": "hello"}
    events = await server.read("POST", "/v1/sessions", json=body)
    assert events[0]["kind"] == "ca_session_started"
    assert events[-1]["kind"] == "ca_session_ended"
    assert [event["id"] for event in events] == list(range(len(events)))
    assert {event["sessionId"] for event in events} == {events[0]["sessionId"]}


async def test_a_session_in_several_requests(server: Server) -> None:
    session = await server.open([{"text": "One."}], [{"text": "Two."}])
    assert await server.say(session, "first") == 0
    first = await server.events(session, lambda event: event.get("endsTurn"))
    assert await server.say(session, "second") == 1
    rest = await server.events(session, lambda event: event.get("endsTurn"), **{"last-event-id": str(first[-1]["id"])})
    assert [event["id"] for event in [*first, *rest]] == list(range(len(first) + len(rest)))
    assert (await server.client.post(f"/v1/sessions/{session}/end-input")).json() == {"ok": True}
    whole = await server.events(session)
    assert whole[: len(first)] == first
    assert whole[-1]["reason"] == "complete"
    state = (await server.client.get(f"/v1/sessions/{session}")).json()
    assert (state["status"], state["engine"], state["identity"]["name"]) == ("completed", "scripted", "tester")
    late = await server.client.post(
        f"/v1/sessions/{session}/messages", json={"message": {"role": "user", "content": "x"}}
    )
    assert (late.status_code, late.json()["error"]["code"]) == (409, "SESSION_ENDED")
    assert (await server.client.delete(f"/v1/sessions/{session}")).json() == {"ok": True}
    gone = await server.client.get(f"/v1/sessions/{session}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "NOT_FOUND")


async def test_a_permission_is_asked_over_the_wire(server: Server) -> None:
    session = await server.open(ASKED)
    await server.say(session, "go")
    asked = (await server.events(session, lambda event: event["kind"] == "ca_permission_request"))[-1]
    path = f"/v1/sessions/{session}/permission/{asked['callId']}"
    assert (await server.client.post(path, json={"decision": "maybe"})).status_code == 400
    assert (await server.client.post(path, json={"decision": "deny", "reason": "not today"})).json() == {"ok": True}
    second = await server.client.post(path, json={"decision": "allow"})
    assert (second.status_code, second.json()["error"]["code"]) == (400, "UNKNOWN_CALL_ID")
    events = await server.events(session, lambda event: event.get("endsTurn"))
    (decision,) = [event for event in events if event["kind"] == "ca_permission_decision"]
    assert (decision["decision"], decision["reason"]) == ("deny", "not today")


async def test_a_call_id_may_have_slashes(server: Server) -> None:
    session = await server.open()
    answer = await server.client.post(f"/v1/sessions/{session}/permission/a/b%2Fc", json={"decision": "allow"})
    assert answer.json()["error"]["code"] == "UNKNOWN_CALL_ID"
    assert "a/b/c" in answer.json()["error"]["message"]


async def test_cancel_ends_the_turn_or_the_run(server: Server) -> None:
    session = await server.open([{"delay": 60}], [{"delay": 60}])
    await server.say(session, "one")
    await server.events(session, lambda event: event["kind"] == "ca_turn_started")
    assert (await server.client.post(f"/v1/sessions/{session}/cancel", json={"scope": "turn"})).json()["ok"]
    assert (await server.client.get(f"/v1/sessions/{session}")).json()["status"] == "running"
    await server.say(session, "two")
    assert (await server.client.post(f"/v1/sessions/{session}/cancel")).json()["ok"]
    events = await server.events(session)
    assert events[-1]["reason"] == "cancelled"
    assert (await server.client.post(f"/v1/sessions/{session}/cancel")).json()["ok"]


async def test_the_workspace_over_the_wire(server: Server) -> None:
    session = await server.open(attachments=[{"path": "notes/a.txt", "content": "one two one"}])
    fs = f"/v1/sessions/{session}/fs"
    client = server.client
    assert (await client.get(f"{fs}/file", params={"path": "notes/a.txt"})).content == b"one two one"
    assert (await client.put(f"{fs}/file", params={"path": "b.bin"}, content=b"\0\1")).json() == {"ok": True, "size": 2}
    edit = {"path": "notes/a.txt", "oldString": "one", "newString": "1", "replaceAll": True}
    assert (await client.post(f"{fs}/edit", json=edit)).json() == {"ok": True, "replacements": 2}
    assert (await client.post(f"{fs}/mkdir", json={"path": "x/y", "recursive": True})).json() == {"ok": True}
    assert (await client.post(f"{fs}/move", json={"from": "b.bin", "to": "x/c.bin"})).json() == {"ok": True}
    tree = (await client.get(f"{fs}/tree")).json()["entries"]
    assert {"notes/a.txt", "x", "x/y", "x/c.bin"} <= {entry["path"] for entry in tree}
    assert (await client.delete(f"{fs}/file", params={"path": "x", "recursive": "true"})).json() == {"ok": True}
    for path, code in (("", "MISSING_PATH"), ("../etc/passwd", "PATH_ESCAPE"), ("/etc/passwd", "PATH_ESCAPE")):
        refused = await client.get(f"{fs}/file", params={"path": path})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, code)
    missing = await client.get(f"{fs}/file", params={"path": "nope"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ("{", "VALIDATION", "not JSON"),
        ("[]", "VALIDATION", "object"),
        ('{"engine": 5}', "VALIDATION", "at `engine`"),
        ('{"engine": "scripted"}', "VALIDATION", "names no agent"),
        ('{"source": {"type": "inline", "manifest": {}}, "harness": "scripted"}', "VALIDATION", "no message"),
        ('{"source": {"type": "inline", "manifest": {}}, "harness": "nope", "message": "x"}', "UNKNOWN_ENGINE", "nope"),
        (
            '{"identity": {"loader": "no", "source": {"type": "inline", "manifest": {}}}, "streamingInput": true}',
            "UNKNOWN_LOADER",
            "no",
        ),
        (
            '{"source": {"type": "inline", "manifest": {}}, "harness": "scripted", "message": "x", "sessionId": "/"}',
            "INVALID_SESSION_ID",
            "session id",
        ),
    ],
)
async def test_bad_bodies_are_told_what_is_wrong(server: Server, body: str, code: str, told: str) -> None:
    answer = await server.client.post("/v1/sessions", content=body, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, code)
    assert told.replace("at `engine`", "engine") in f"{error['message']} {error.get('hint')} {error.get('details')}"


async def test_resuming_from_ids_that_cannot_be(server: Server) -> None:
    session = await server.open([{"text": "One."}])
    await server.say(session, "first")
    await server.events(session, lambda event: event.get("endsTurn"))
    path = f"/v1/sessions/{session}/events"
    for given, status, code in (("junk", 400, "VALIDATION"), ("-1", 400, "VALIDATION"), ("999", 409, "EVENT_ID_AHEAD")):
        answer = await server.client.get(path, headers={"last-event-id": given})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert (await server.client.get(path, params={"lastEventId": given})).status_code == status


async def test_who_has_no_token_gets_nothing(server: Server) -> None:
    session = await server.open()
    async with httpx2.AsyncClient(base_url=server.url) as nobody:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}):
            for method, path in (("GET", f"/v1/sessions/{session}"), ("POST", "/v1/sessions"), ("GET", "/v1/nowhere")):
                answer = await nobody.request(method, path, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHORIZED")
                assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_session_is_its_owners_alone(tmp_path: Path) -> None:
    from computeragent.server import bearer

    async with serving(tmp_path, auth=bearer(["a-token-of-the-tests", "another"])) as server:
        session = await server.open(sessionId="mine")
        other = {"authorization": "Bearer another"}
        for method, path in (
            ("GET", ""),
            ("GET", "/events"),
            ("DELETE", ""),
            ("POST", "/end-input"),
            ("GET", "/fs/tree"),
        ):
            answer = await server.client.request(method, f"/v1/sessions/{session}{path}", headers=other)
            assert answer.status_code == 404, path
        listed = await server.client.get("/v1/sessions", headers=other)
        assert listed.json() == {"sessions": []}
        taken = await server.client.post(
            "/v1/sessions", json=server.body(sessionId="mine", streamingInput=True), headers=other
        )
        assert taken.status_code == 404


async def test_a_foreign_host_is_refused(server: Server) -> None:
    answer = await server.client.get("/health", headers={"host": "evil.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN_HOST")


async def test_a_live_id_is_taken_and_a_finished_one_goes_on(server: Server) -> None:
    session = await server.open(sessionId="again", sessionStore={"kind": "memory"})
    live = await server.client.post("/v1/sessions", json=server.body(sessionId="again", streamingInput=True))
    assert (live.status_code, live.json()["error"]["code"]) == (409, "SESSION_LIVE")
    await server.client.post(f"/v1/sessions/{session}/cancel")
    newest = (await server.client.get(f"/v1/sessions/{session}")).json()["newest"]
    await server.open(sessionId="again", sessionStore={"kind": "memory"})
    events = await server.events(session, lambda _: True)
    assert events[0]["id"] == newest + 1  # ids never begin anew; a stream begins at the current run


async def test_the_same_key_does_a_thing_once(server: Server) -> None:
    body = server.body([{"text": "One."}], streamingInput=True)
    key = {"idempotency-key": "k1"}
    answers = await asyncio.gather(*(server.client.post("/v1/sessions", json=body, headers=key) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["sessionId"] for answer in answers}) == 1
    session = answers[0].json()["sessionId"]
    message = {"message": {"role": "user", "content": "x"}}
    sent = await asyncio.gather(
        *(server.client.post(f"/v1/sessions/{session}/messages", json=message, headers=key) for _ in range(5))
    )
    assert {answer.json()["turnIndex"] for answer in sent} == {0}
    assert len((await server.client.get("/v1/sessions")).json()["sessions"]) == 1


async def test_a_chat_is_gone_when_it_ends_or_its_client_leaves(server: Server) -> None:
    await server.read(
        "POST", "/v1/chat", json=server.body([{"text": "Hi."}], messages=[{"role": "user", "content": "x"}])
    )
    assert (await server.client.get("/v1/sessions")).json() == {"sessions": []}
    body = server.body([{"delay": 60}], messages=[{"role": "user", "content": "x"}])
    await server.read("POST", "/v1/chat", lambda event: event["kind"] == "ca_turn_started", json=body)
    async with asyncio.timeout(20):
        while (await server.client.get("/v1/sessions")).json()["sessions"]:
            await asyncio.sleep(0.05)


async def test_leaving_a_stream_leaves_the_run_alone(server: Server) -> None:
    session = await server.open([{"delay": 0.3}, {"text": "Still here."}])
    await server.say(session, "go")
    await server.events(session, lambda event: event["kind"] == "ca_turn_started")
    events = await server.events(session, lambda event: event.get("endsTurn"))
    assert "Still here." in str(events)


async def test_pages_of_a_list(server: Server) -> None:
    made = [await server.open() for _ in range(5)]
    first = (await server.client.get("/v1/sessions", params={"limit": 2})).json()
    assert [one["sessionId"] for one in first["sessions"]] == made[:2:-1]
    last = (await server.client.get("/v1/sessions", params={"limit": 2, "offset": 4})).json()
    assert [one["sessionId"] for one in last["sessions"]] == made[:1]
    assert "next" not in last
    assert (await server.client.get("/v1/sessions", params={"limit": 0})).status_code == 400
    assert (await server.client.get("/v1/sessions", params={"limit": "x"})).status_code == 400


async def test_an_unknown_version_of_the_protocol_is_refused(server: Server) -> None:
    session = await server.open()
    other = {"x-protocol-version": "99"}
    place = f"/v1/sessions/{session}"
    for method, path in (
        ("POST", "/v1/sessions"),
        ("POST", "/v1/chat"),
        ("GET", f"{place}/events"),
        ("POST", f"{place}/messages"),
        ("DELETE", place),
    ):
        answer = await server.client.request(method, path, json=server.body(), headers=other)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "PROTOCOL_VERSION"), path
    assert (await server.client.get(place, headers={"x-protocol-version": "1"})).status_code == 200
    for path in ("/health", "/v1/health", "/v1/capabilities"):  # where it is said which one is spoken
        assert (await server.client.get(path, headers=other)).json()["protocolVersion"] == "1"


async def test_the_head_of_a_stream_does_not_keep_its_connection(server: Server) -> None:
    session = await server.open()
    for _ in range(2):
        head = await server.client.head(f"/v1/sessions/{session}/events", timeout=5)
        assert head.status_code == 405
        assert (await server.client.get("/health", timeout=5)).status_code == 200


async def test_routes_that_are_not_there_and_methods_that_are_not(server: Server) -> None:
    nowhere = await server.client.get("/v1/nowhere")
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "NOT_FOUND")
    wrong = await server.client.put("/v1/sessions")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "HTTP_EXCEPTION")


async def test_bodies_have_a_limit(server: Server) -> None:
    answer = await server.client.post("/v1/sessions", content=b" " * (17 * 1024 * 1024))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "TOO_LARGE")


async def test_the_document_has_every_route(server: Server) -> None:
    document = (await server.client.get("/v1/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]["/v1/sessions/{session_id}/fs/file"]) == {"get", "put", "delete"}
    assert "OpenSession" in document["components"]["schemas"]


async def test_the_routes_are_a_page_for_people(server: Server) -> None:
    page = await server.client.get("/docs", headers={"authorization": ""})
    assert page.headers["content-type"].startswith("text/html")
    for expected in ("/v1/sessions/{session_id}/events", 'href="#OpenSession"', 'id="OpenSession"', "Last-Event-ID"):
        assert expected in page.text
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert "https://" not in page.text


async def test_what_is_not_offered_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, engines=["scripted"], loaders=["passthrough"], stores=["memory"]) as server:
        health = (await server.client.get("/v1/health")).json()
        assert (list(health["engines"]), health["loaders"], health["stores"]) == (
            ["scripted"],
            ["passthrough"],
            ["memory"],
        )
        gap = {"loader": "gap", "source": {"type": "inline", "manifest": {"name": "a"}}}
        for fields in ({"engine": "claude-agent-sdk"}, {"identity": gap}, {"sessionStore": {"kind": "sqlite"}}):
            answer = await server.client.post("/v1/sessions", json=server.body(streamingInput=True) | fields)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION")
            assert "not offered" in answer.json()["error"]["message"]
