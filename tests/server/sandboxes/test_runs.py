"""``/run``: one message, streamed, and nothing left of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest

from .conftest import ALICE, ASK, WRITE, Server, agent, eventually, folders, kinds, serving

pytestmark = pytest.mark.anyio
USAGE = {"usage": {"input_tokens": 3, "output_tokens": 2, "cost_usd": 0.01}}


async def test_health_is_public_and_says_what_is_here(server: Server) -> None:
    async with httpx2.AsyncClient(base_url=server.url) as nobody:
        health = (await nobody.get("/health")).json()
        assert (await nobody.get("/sandboxes")).status_code == 401
    assert health["ok"] is True
    assert (health["activeRuns"], health["max"], health["defaultRuntime"]) == (0, 4, "local")
    assert "local" in health["runtimes"]
    assert "scripted" in health["engines"]


async def test_a_run_streams_its_events_and_one_last_frame(server: Server, state_folder: Path) -> None:
    events = await server.stream("/run", agent([{"text": "Hello {message}"}, USAGE], message="you"))
    assert events[0]["kind"] == "ca_session_started"
    assert events[-2]["kind"] == "ca_session_ended"
    assert [event["id"] for event in events[:-1]] == list(range(len(events) - 1))
    done = events[-1]
    assert (done["kind"], done["sessionId"]) == ("ca_done", events[0]["sessionId"])
    assert done["usage"] == {
        "inputTokens": 3,
        "outputTokens": 2,
        "cacheCreationInputTokens": 0,
        "cacheReadInputTokens": 0,
        "costUsd": 0.01,
    }
    assert folders(state_folder) == []


async def test_messages_may_be_a_list(server: Server) -> None:
    said = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    events = await server.stream("/run", agent(message=said))
    assert any("You said: one\ntwo" in str(event.get("payload", {}).get("result")) for event in events)


async def test_a_failing_run_says_so_in_its_last_frame(server: Server) -> None:
    events = await server.stream("/run", agent([{"raise": "the engine broke"}], message="go"))
    assert events[-1]["kind"] == "ca_error"
    assert (events[-1]["code"], "the engine broke" in events[-1]["message"]) == ("ENGINE_FAILED", True)


async def test_a_source_that_cannot_be_fetched_is_told_in_the_stream(server: Server, tmp_path: Path) -> None:
    body = agent(message="go") | {"source": str(tmp_path / "nothing-here")}
    events = await server.stream("/run", body)
    assert kinds(events) == ["ca_error"]
    assert events[0]["code"] == "SOURCE_UNAVAILABLE"
    assert (await server.get("/health"))["activeRuns"] == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"source": None}, "MISSING_SOURCE"),
        ({"harness": None}, "MISSING_HARNESS"),
        ({"message": None}, "MISSING_MESSAGE"),
        ({"message": []}, "MISSING_MESSAGE"),
        ({"runtime": "moon"}, "UNKNOWN_RUNTIME"),
        ({"harness": "nonsense"}, "UNKNOWN_ENGINE"),
        ({"envs": {"A": 1}}, "INVALID_BODY"),
        ({"sessionId": "../up"}, "INVALID_SESSION_ID"),
        ({"sessionStore": {"kind": "stone"}}, "UNKNOWN_STORE"),
        ({"sessionStore": {"kind": "file", "options": {"root": "/etc"}}}, "VALIDATION"),
        ({"sessionStore": {"kind": "file", "options": {"root": "a/../../b"}}}, "PATH_ESCAPE"),
        ({"attachments": [{"path": "../x", "content": ""}]}, "PATH_ESCAPE"),
        ({"attachments": [{"path": "x", "content": "%", "encoding": "base64"}]}, "VALIDATION"),
        ({"baseUrl": "file:///etc"}, "VALIDATION"),
        ({"policy": {"kind": "srs", "endpoint": "http://x", "apiKey": "k"}}, "INVALID_BODY"),
    ],
)
async def test_a_wrong_request_is_refused_before_anything_starts(
    server: Server, change: dict[str, object], code: str
) -> None:
    for path in ("/run", "/tasks", "/sandboxes"):
        if path == "/sandboxes" and "message" in change:
            continue
        error = await server.error("POST", path, 400, json=agent(message="go") | change)
        assert (error["code"], bool(error["message"])) == (code, True)
        if code == "UNKNOWN_RUNTIME":
            assert "local" in error["available"]


async def test_what_is_no_json_has_a_code_of_its_own(server: Server) -> None:
    for path in ("/run", "/tasks", "/sandboxes", "/sandboxes/restore"):
        error = await server.error("POST", path, 400, content=b"{nope")
        assert error["code"] == "INVALID_JSON"


async def test_no_more_runs_than_the_cap(state_folder: Path) -> None:
    async with serving(limits={"max_runs": 2}) as server:
        waits = [asyncio.create_task(server.stream("/run", agent([{"delay": 30}], message="go"))) for _ in range(2)]

        async def both() -> bool:
            return (await server.get("/health"))["activeRuns"] == 2

        await eventually(both)
        error = await server.error("POST", "/run", 429, json=agent(message="go"))
        assert (error["code"], error["active"], error["max"]) == ("TOO_MANY_RUNS", 2, 2)
        assert (await server.error("POST", "/run", 400, json=agent()))["code"] == "MISSING_MESSAGE"
        for wait in waits:
            wait.cancel()

        async def none() -> bool:
            return (await server.get("/health"))["activeRuns"] == 0

        await eventually(none)  # a client that leaves takes its run with it
        assert folders(state_folder) == []
        assert (await server.stream("/run", agent(message="go")))[-1]["kind"] == "ca_done"


async def test_files_of_a_run_are_there_while_it_lasts(server: Server) -> None:
    body = agent(
        [WRITE, {"delay": 30}], message="go", sessionId="mine", attachments=[{"path": "in/a.txt", "content": "A"}]
    )
    running = asyncio.create_task(server.stream("/run", body))

    async def written() -> bool:
        answer = await server.client.get("/artifact", params={"sessionId": "mine", "path": "notes.txt"})
        return answer.status_code == 200 and answer.content == b"hello"

    await eventually(written)
    entries = (await server.get("/workdir", params={"sessionId": "mine"}))["entries"]
    assert {"notes.txt", "in/a.txt"} <= {entry["path"] for entry in entries}
    missing = await server.error("GET", "/artifact", 404, params={"sessionId": "mine", "path": "other.txt"})
    assert (missing["code"], missing["path"]) == ("NOT_FOUND", "other.txt")
    escape = await server.error("GET", "/artifact", 400, params={"sessionId": "mine", "path": "../../x"})
    assert escape["code"] == "PATH_ESCAPE"
    live = await server.error("POST", "/run", 409, json=body)
    assert live["code"] == "SESSION_LIVE"
    running.cancel()

    async def gone() -> bool:
        answer = await server.client.get("/artifact", params={"sessionId": "mine", "path": "notes.txt"})
        return answer.status_code == 404 and "sessionId" in answer.json()["error"]  # the run, not just its file

    await eventually(gone)
    error = await server.error("GET", "/artifact", 404, params={"sessionId": "mine", "path": "notes.txt"})
    assert (error["code"], error["sessionId"]) == ("NOT_FOUND", "mine")
    assert (await server.error("GET", "/artifact", 400, params={"path": "x"}))["code"] == "MISSING_PARAM"
    assert (await server.error("GET", "/workdir", 400))["code"] == "MISSING_PARAM"


async def test_a_tool_call_waits_for_its_answer_and_is_denied_without_one(server: Server) -> None:
    body = agent([ASK, {"text": "Done."}], message="go", sessionId="asking", options={"permissionMode": "default"})
    running = asyncio.create_task(server.stream("/run", body))
    events: list[dict[str, str]] = []

    async def answered() -> bool:
        reply = await server.client.post("/run/asking/permission/none", json={"decision": "allow"})
        return reply.json()["error"]["code"] == "UNKNOWN_CALL_ID"

    await eventually(answered)
    running.cancel()
    async with serving(limits={"approval_timeout": 0.05}) as impatient:
        events = await impatient.stream("/run", body)
    (decision,) = [event for event in events if event["kind"] == "ca_permission_decision"]
    assert decision["decision"] == "deny"


async def test_a_tool_call_of_a_run_is_answered_over_the_wire(server: Server) -> None:
    body = agent([ASK, {"text": "Done."}], message="go", sessionId="asked", options={"permissionMode": "default"})
    asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def note(event: dict[str, str]) -> bool:
        if event["kind"] == "ca_permission_request":
            asked.set_result(event["callId"])
        return False

    running = asyncio.create_task(server.stream("/run", body, note))
    await server.post(f"/run/asked/permission/{await asked}", {"decision": "allow"})
    events = await running
    (decision,) = [event for event in events if event["kind"] == "ca_permission_decision"]
    assert decision["decision"] == "allow"
    assert decision["decidedBy"].startswith("token-")


async def test_provider_keys_are_forwarded_only_when_the_operator_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    from computeragent import plugins
    from puppets import RESULT, Puppet

    async def play(context):
        seen.append(dict(context.envs))
        async for _ in context.user_message_queue:
            yield RESULT

    plugins.register_engine("seer", Puppet(play))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-the-server")
    monkeypatch.setenv("MONGO_URL", "mongodb://secret")
    body = agent(message="go", envs={"MINE": "1"}) | {"harness": "seer"}
    try:
        async with serving() as server:
            await server.stream("/run", body)
        async with serving(forward_env=["ANTHROPIC_API_KEY"]) as server:
            await server.stream("/run", body)
            await server.stream("/run", body | {"envs": {"ANTHROPIC_API_KEY": "own"}})
            await server.stream("/run", body | {"baseUrl": "http://127.0.0.1:1/elsewhere"})
    finally:
        plugins.engines._registered.pop("seer")
        plugins.engines._made.pop("seer", None)
    assert seen[0] == {"MINE": "1"}
    assert seen[1] == {"MINE": "1", "ANTHROPIC_API_KEY": "sk-of-the-server"}
    assert seen[2] == {"ANTHROPIC_API_KEY": "own"}
    assert "ANTHROPIC_API_KEY" not in seen[3], "the server's key must not go to a caller's endpoint"


async def test_other_hosts_and_other_tokens_are_refused(server: Server) -> None:
    assert (await server.client.get("/sandboxes", headers={"host": "evil.example"})).status_code == 403
    wrong = await server.client.get("/sandboxes", headers={"authorization": f"Bearer {ALICE}x"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "UNAUTHORIZED")


async def test_the_openapi_document_lists_the_routes(server: Server) -> None:
    document = await server.get("/openapi.json")
    assert document["info"]["title"] == "computeragent sandboxes"
    assert {"/run", "/tasks", "/sandboxes", "/sandboxes/{sandbox_id}/chat", "/snapshots"} <= set(document["paths"])
