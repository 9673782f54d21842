"""What a server's sessions are when it is killed and started again, and to whom they belong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from computeragent.eventlog import MemoryEventLog, SharedSqliteEventLog
from computeragent.server import bearer
from computeragent.server.auth import Principal

from .conftest import TOKEN, Server, folders, serving

pytestmark = pytest.mark.anyio
OTHER = "the-token-of-another"
LONG = [{"text": "one"}, {"text": "two"}, {"delay": 60}]


@contextmanager
def process(home: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`computeragent serve` as it is by default, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {"PATH": os.environ["PATH"], "COMPUTERAGENT_HOME": str(home), "COMPUTERAGENT_SERVER_TOKEN": TOKEN}
    command = [sys.executable, "-m", "computeragent", "serve", "--port", str(port)]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as running:
        while True:
            assert running.poll() is None
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        try:
            yield f"http://127.0.0.1:{port}", running
        finally:
            running.kill()


def client(url: str, token: str = TOKEN) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30)


async def test_a_killed_server_loses_nothing_that_was_told(tmp_path: Path) -> None:
    with process(tmp_path) as (url, running):
        async with client(url) as http:
            server = Server(http, url, tmp_path)
            session = await server.open(LONG, [{"text": "three"}], sessionId="survivor")
            await server.say(session, "go")
            before = await server.events(session, lambda event: "two" in str(event))
            running.send_signal(signal.SIGKILL)
            running.wait()
    with process(tmp_path) as (url, running):
        async with client(url) as http:
            server = Server(http, url, tmp_path)
            after = await server.events(session)
            assert after[: len(before)] == before
            assert [event["id"] for event in after] == list(range(len(after)))
            assert (after[-1]["kind"], after[-1]["errorCode"]) == ("ca_session_ended", "INTERRUPTED")
            assert (await http.get(f"/v1/sessions/{session}")).json()["status"] == "errored"
            assert [each["sessionId"] for each in (await http.get("/v1/sessions")).json()["sessions"]] == [session]
            late = await http.post(
                f"/v1/sessions/{session}/messages", json={"message": {"role": "user", "content": "x"}}
            )
            assert late.status_code == 409
            await server.open([{"text": "four"}], sessionId=session)
            await server.say(session, "once more")
            resumed = await server.events(session, lambda event: "four" in str(event))
            assert resumed[0]["id"] == len(after)
            assert (await http.delete(f"/v1/sessions/{session}")).status_code == 200
            assert (await http.get(f"/v1/sessions/{session}/events")).status_code == 404


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_nobody_sees_or_reopens_a_session_of_somebody_else(kind: str, tmp_path: Path) -> None:
    def log() -> MemoryEventLog | SharedSqliteEventLog:
        return MemoryEventLog() if kind == "memory" else SharedSqliteEventLog(tmp_path / "log.db")

    both, name = bearer([TOKEN, OTHER]), f"mine-{kind}"
    for _ in range(1 if kind == "memory" else 2):  # the second time on what the first server left
        async with serving(tmp_path, auth=both, log=log()) as server, client(server.url, OTHER) as stranger:
            mine = await server.open([{"text": "secret"}], sessionId=name, sessionStore={"kind": "memory"})
            await server.say(mine, "go")
            await server.client.post(f"/v1/sessions/{mine}/end-input")
            await server.events(mine)
            for path in (f"/v1/sessions/{mine}", f"/v1/sessions/{mine}/events", f"/v1/sessions/{mine}/fs/tree"):
                assert (await stranger.get(path)).status_code == 404
            assert (await stranger.get("/v1/sessions")).json()["sessions"] == []
            taken = await stranger.post("/v1/sessions", json=server.body(sessionId=mine, streamingInput=True))
            assert taken.status_code == 404
    async with serving(tmp_path, auth=both, log=log()) as server, client(server.url, OTHER) as stranger:
        if kind == "memory":
            await server.open([{"text": "secret"}], sessionId=name)
        await server.client.delete(f"/v1/sessions/{name}")
        theirs = Server(stranger, server.url, tmp_path)
        await theirs.open([{"text": "mine now"}], sessionId=name, sessionStore={"kind": "memory"})
        await theirs.say(name, "go")
        found = await theirs.events(name, lambda event: "mine now" in str(event), **{"last-event-id": ""})
        assert "secret" not in str(found)
        assert found[0]["id"] == 0


async def test_a_deleted_session_leaves_no_folder(tmp_path: Path, state_folder: Path) -> None:
    async with serving(tmp_path) as server:
        session = await server.open([{"text": "x"}])
        assert folders(state_folder, session)
        await server.client.delete(f"/v1/sessions/{session}")
        assert not folders(state_folder, session)


async def test_deleting_a_session_of_an_earlier_server_frees_its_folder(tmp_path: Path, state_folder: Path) -> None:
    database = tmp_path / "log.db"
    async with serving(tmp_path, log=SharedSqliteEventLog(database)) as server:
        session = await server.open([{"text": "x"}])
    assert folders(state_folder, session)
    async with serving(tmp_path, log=SharedSqliteEventLog(database)) as server:
        assert (await server.client.delete(f"/v1/sessions/{session}")).json() == {"ok": True}
        assert not folders(state_folder, session)
        assert (await server.client.get(f"/v1/sessions/{session}")).status_code == 404


async def test_folders_and_databases_of_the_server_are_for_whoever_runs_it(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()

    async def anyone(token: str) -> Principal | None:
        return Principal(f"user-{token}")

    async with serving(tmp_path, auth=anyone) as server:
        local = {"loader": "passthrough", "source": {"type": "local", "path": str(tmp_path / "agent")}}
        refused = await server.client.post("/v1/sessions", json=server.body(identity=local, streamingInput=True))
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "VALIDATION")
        store = {"kind": "file", "options": {"root": str(tmp_path / "anywhere")}}
        refused = await server.client.post("/v1/sessions", json=server.body(sessionStore=store, streamingInput=True))
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "VALIDATION")
        assert not (tmp_path / "anywhere").exists()
        assert await server.open(sessionStore={"kind": "memory"})


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_files_that_a_deleted_session_left_are_not_for_the_next_owner_of_its_id(
    kind: str, tmp_path: Path, state_folder: Path
) -> None:
    log = MemoryEventLog() if kind == "memory" else SharedSqliteEventLog(tmp_path / "log.db")
    async with serving(tmp_path, auth=bearer([TOKEN, OTHER]), log=log) as server, client(server.url, OTHER) as stranger:
        place, store = "/v1/sessions/support-42", {"kind": "sqlite"}  # what a store remembers may come back
        await server.open(sessionId="support-42", sessionStore=store)
        await server.client.put(f"{place}/fs/file?path=secret.txt", content=b"mine")
        await server.client.delete(place)
        await Server(stranger, server.url, tmp_path).open(sessionId="support-42", sessionStore=store)
        assert (await stranger.get(f"{place}/fs/file?path=secret.txt")).status_code == 404
        await stranger.delete(place)
        await server.open(sessionId="support-42", sessionStore=store)
        assert (await server.client.get(f"{place}/fs/file?path=secret.txt")).content == b"mine"
