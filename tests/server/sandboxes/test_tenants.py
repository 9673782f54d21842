"""Two principals on one server: what is one's does not exist for the other, and no secret is ever echoed."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from computeragent.protocol_types import PermissionRequest, PolicyVerdict

from .conftest import BOB, WRITE, Server, agent, eventually, folders, serving

pytestmark = pytest.mark.anyio


async def test_nothing_of_one_exists_for_the_other(server: Server, bob: Server) -> None:
    sandbox = (await server.open([WRITE], sessionId="shared"))["sandboxId"]
    await server.chat(sandbox)
    snapshot = (await server.post(f"/sandboxes/{sandbox}/snapshot"))["snapshotId"]
    task = (await server.post("/tasks", agent([{"delay": 60}], message="x"), 202))["taskId"]
    run = asyncio.create_task(server.stream("/run", agent([{"delay": 60}], message="x", sessionId="running")))

    async def live() -> bool:
        answer = await server.client.get("/workdir", params={"sessionId": "running"})
        return answer.status_code == 200

    await eventually(live)
    for path in ("", "/workdir", "/artifact?path=notes.txt", "/events"):
        await bob.get(f"/sandboxes/{sandbox}{path}", 404)
    for path in ("/chat", "/snapshot", "/heartbeat", "/cancel", "/permission/x"):
        body = {"message": "x", "decision": "allow"}
        await bob.post(f"/sandboxes/{sandbox}{path}", body, 404)
    await bob.delete(f"/sandboxes/{sandbox}", 404)
    await bob.get("/sandboxes/by-session/shared", 404)
    for path in ("", "/events", "/artifact?path=x"):
        await bob.get(f"/tasks/{task}{path}", 404)
    await bob.delete(f"/tasks/{task}", 404)
    await bob.post(f"/tasks/{task}/permission/x", {"decision": "allow"}, 404)
    await bob.get("/workdir?sessionId=running", 404)
    await bob.get("/artifact?sessionId=running&path=x", 404)
    await bob.post("/run/running/permission/x", {"decision": "allow"}, 404)
    await bob.post("/sandboxes/restore", {"snapshotId": snapshot}, 404)
    await bob.delete(f"/snapshots/{snapshot}")
    assert (await bob.get("/sandboxes"))["sandboxes"] == []
    assert (await bob.get("/tasks"))["tasks"] == []
    assert (await bob.get("/snapshots"))["snapshots"] == []
    assert len((await server.get("/snapshots"))["snapshots"]) == 1, "deleting another's snapshot deletes nothing"
    run.cancel()


async def test_a_guessed_session_id_gives_nothing_of_the_other(server: Server, bob: Server) -> None:
    memory = {"sessionId": "guessable", "sessionStore": {"kind": "memory"}}
    turns = ([WRITE, {"text": "first: {user}"}], [{"text": "again: {user}"}])
    sandbox = (await server.open(*turns, **memory))["sandboxId"]
    await server.chat(sandbox, "my secret")
    theirs = await bob.open(*turns, **memory)
    assert theirs["sandboxId"] != sandbox
    assert "reused" not in theirs
    workdir = (await bob.get(f"/sandboxes/{theirs['sandboxId']}/workdir"))["entries"]
    assert "notes.txt" not in [entry["path"] for entry in workdir]
    assert "my secret" not in str(await bob.chat(theirs["sandboxId"], "hello"))
    await server.delete(f"/sandboxes/{sandbox}")
    assert (await bob.chat(theirs["sandboxId"], "still here?"))[-1]["kind"] == "ca_done"


async def test_the_servers_own_state_is_no_source(server: Server, state_folder: Path, tmp_path: Path) -> None:
    for path in (state_folder, state_folder / "keys", state_folder.parent):
        error = await server.error("POST", "/run", 400, json=agent(message="x") | {"source": str(path)})
        assert error["code"] == "VALIDATION"
    inside, outside = tmp_path / "agents", tmp_path / "other"
    (inside / "one").mkdir(parents=True)
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    async with serving(source_roots=[inside]) as confined:
        for path, status in (
            (inside / "one", 200),
            (outside, 400),
            (inside / "link", 400),
            (inside / ".." / "other", 400),
        ):
            body = agent(message="x") | {"source": str(path)}
            answer = await confined.client.post("/run", json=body)
            assert answer.status_code == status, path


CANARY = "canary-7f3a91c2"


def full_of_secrets(**fields: Any) -> dict[str, Any]:
    return agent(
        envs={"ANTHROPIC_API_KEY": f"{CANARY}-env", "SHORT": "x"},
        gitToken=f"{CANARY}-git",
        sessionStore={"kind": "memory"},
        attachments=[{"path": "a.txt", "content": f"{CANARY}-attachment"}],
        policy={"kind": "srs", "endpoint": f"http://u:{CANARY}-end@host/x", "apiKey": f"{CANARY}-api", "policyId": "p"},
        baseUrl=f"http://user:{CANARY}-base@127.0.0.1:1/v1?key={CANARY}-query",
        options={
            "mcp_servers": {"s": {"env": {"TOKEN": f"{CANARY}-mcp"}, "headers": {"X-Other": f"{CANARY}-header"}}},
            "note": f"the value {CANARY}-env in the middle",
            "dsn": f"postgres://u:{CANARY}-dsn@host/db",
        },
        **fields,
    )


async def test_no_secret_comes_back_in_any_answer_or_file(state_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []

    async with serving() as server:

        async def note(answer: Any) -> Any:
            seen.append(json.dumps(answer))
            return answer

        sandbox = (await note(await server.post("/sandboxes", full_of_secrets(), 201)))["sandboxId"]
        task = (await note(await server.post("/tasks", full_of_secrets(message="x"), 202)))["taskId"]
        chat = await note(await server.chat(sandbox))
        assert chat[-1]["kind"] == "ca_done"
        for path in ("/sandboxes", f"/sandboxes/{sandbox}", "/tasks", f"/tasks/{task}", f"/tasks/{task}/events"):
            await note(await server.get(path))
        taken = await note(await server.post(f"/sandboxes/{sandbox}/snapshot", {"stateStore": {"kind": "file"}}))
        await note(await server.get("/snapshots", params={"stateStore": "file"}))
        body = {"snapshotId": taken["snapshotId"], "stateStore": {"kind": "file"}}
        await note(await server.post("/sandboxes/restore", body, 201))
        await note(await server.delete(f"/sandboxes/{sandbox}"))
        config = (await server.get(f"/tasks/{task}"))["config"]
        assert config["envsKeys"] == ["ANTHROPIC_API_KEY", "SHORT"]
        assert config["hasGitToken"] is True
        assert config["attachments"] == [{"path": "a.txt", "bytes": 26, "encoding": "utf8"}]
        assert config["policy"] == {"kind": "srs", "endpoint": "http://host/x", "policyId": "p", "hasSecrets": True}
        assert config["sessionStore"] == {"kind": "memory", "optionsKeys": []}
    assert CANARY not in "\n".join(seen)
    assert CANARY not in caplog.text
    on_disk = [path for path in state_folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert on_disk == [], "the state on disk has no secret, but for snapshots' tars, which are compressed"


async def test_tokens_in_addresses_are_not_echoed(server: Server) -> None:
    url = f"https://x-access-token:{CANARY}@github.com/org/repo?ref=main"
    for source in (url, {"type": "git", "url": url}):
        opened = await server.post("/sandboxes", agent() | {"source": source}, 201)
        config = (await server.get(f"/sandboxes/{opened['sandboxId']}"))["config"]
        assert config["source"]["url"] == "https://github.com/org/repo"
        assert CANARY not in json.dumps(config)


def decisions(events: list[Any]) -> list[str]:
    found = [event.get("payload", event) for event in events if event["kind"] == "ca_permission_decision"]
    return [each["decision"] for each in found]


async def test_a_policy_holds_in_runs_tasks_chats_and_restores() -> None:
    # A service that nobody reaches: every call is denied, which shows that it is asked about each.
    policy = {"kind": "srs", "endpoint": "http://127.0.0.1:9", "apiKey": "a-key-of-mine", "policyId": "p1"}
    async with serving() as server:
        body = agent([WRITE], [WRITE], policy=policy)
        assert decisions(await server.stream("/run", body | {"message": "x"})) == ["deny"]
        task = (await server.post("/tasks", body | {"message": "x"}, 202))["taskId"]
        await server.stream(f"/tasks/{task}/events", headers={"accept": "text/event-stream"})
        assert decisions((await server.get(f"/tasks/{task}/events"))["events"]) == ["deny"]
        opened = await server.post("/sandboxes", body | {"sessionId": "governed"}, 201)
        chat = await server.chat(opened["sandboxId"])
        (decision,) = [event for event in chat if event["kind"] == "ca_permission_decision"]
        assert (decision["engine"], decision["code"]) == ("srs", "POLICY_UNBOUND")
        assert decision["principal"].startswith("token-")
        unbound = await server.error("POST", "/sandboxes", 409, json=agent(sessionId="governed"))
        assert "policy" in unbound["message"]
        snapshot = (await server.post(f"/sandboxes/{opened['sandboxId']}/snapshot"))["snapshotId"]
        restore = {"snapshotId": snapshot}
        inherited = await server.post("/sandboxes/restore", restore, 201)
        assert decisions(await server.chat(inherited["sandboxId"])) == ["deny"]
        free = await server.open()
        refused = await server.error("POST", "/sandboxes/restore", 400, json=restore | {"target": free["sandboxId"]})
        assert "policy" in refused["message"]
        await server.delete(f"/sandboxes/{opened['sandboxId']}")
        later = await server.post("/sandboxes/restore", restore, 201)
        assert "policy.apiKey" in later["missing"]
        assert decisions(await server.chat(later["sandboxId"])) == ["deny"]


async def test_a_servers_own_policy_holds_whatever_a_request_brings_along() -> None:
    async def never(request: PermissionRequest) -> PolicyVerdict:
        return PolicyVerdict("deny", reason="not here", engine="house")

    allow = {"kind": "rules", "text": "version: 1\ndefault: allow\nrules: []\n"}
    async with serving(policy=never) as server:
        for more in ({}, {"policy": allow}, {"options": {"permissionMode": "bypassPermissions"}}):
            body = agent([WRITE], message="x")
            body["options"] |= more.pop("options", {})
            assert decisions(await server.stream("/run", body | more)) == ["deny"]


async def test_a_policy_that_cannot_be_read_refuses_the_request() -> None:
    async with serving() as server:
        for policy in (
            {"kind": "srs", "apiKey": "a-key-of-mine"},
            {"kind": "nonsense"},
            {"kind": "rules", "text": "version: 1\nrules: 5\n"},
            {"kind": "rules", "text": "version: 1", "more": 1},
        ):
            error = await server.error("POST", "/run", 400, json=agent(message="x", policy=policy))
            assert "a-key-of-mine" not in json.dumps(error)


async def test_another_token_is_another_tenant_on_disk(server: Server, bob: Server, state_folder: Path) -> None:
    del bob
    async with serving(auth=None) as open_to_all:
        await open_to_all.open()
    other = server.other(BOB)
    await server.chat((await server.open([WRITE]))["sandboxId"])
    await other.chat((await other.open([WRITE]))["sandboxId"])
    await other.client.aclose()
    assert len(folders(state_folder)) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in state_folder.glob("sandboxes/*"))


async def test_a_secret_that_begins_with_another_is_hidden_whole(server: Server) -> None:
    envs = {"SHORT": "a-secret-value", "LONG": "a-secret-value-and-its-tail"}
    sandbox = await server.open(envs=envs, agentName="runs with a-secret-value-and-its-tail")
    config = (await server.get(f"/sandboxes/{sandbox['sandboxId']}"))["config"]
    assert config["agentName"] == "runs with [redacted]"
