"""Private repositories: the token reaches the host and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.identity.conftest import TOKEN, GitServer, basic, repo  # noqa: F401 - a fixture
from tests.identity.conftest import server as git_server  # noqa: F401 - a fixture

from .conftest import agent, serving

pytestmark = pytest.mark.anyio


async def test_a_git_token_is_seen_by_git_alone(git_server: GitServer, state_folder: Path) -> None:  # noqa: F811
    host = f"http://{git_server.host}"
    private = agent(gitToken=TOKEN, envs={"GITHUB_SERVER_URL": host}) | {"source": git_server.url("private/agent.git")}
    async with serving() as server:
        sandbox = (await server.post("/sandboxes", private, 201))["sandboxId"]
        said = json.dumps(await server.chat(sandbox))
        assert await server.get(f"/sandboxes/{sandbox}/artifact", params={"path": "number.txt"}) == b"3"
        said += json.dumps(await server.get("/sandboxes"))
        assert basic(TOKEN) in git_server.authorizations()
        taken = await server.post(f"/sandboxes/{sandbox}/snapshot")
        files = b"".join(path.read_bytes() for path in state_folder.rglob("*") if path.is_file())
        restored = await server.post("/sandboxes/restore", {"snapshotId": taken["snapshotId"]}, 201)
        path = f"/sandboxes/{restored['sandboxId']}/artifact"
        assert await server.get(path, params={"path": "number.txt"}) == b"3"
        assert (await server.client.get(path, params={"path": ".git/HEAD"})).status_code == 200
        await server.delete(f"/sandboxes/{sandbox}")
        await server.delete(f"/sandboxes/{restored['sandboxId']}")
        later = {"snapshotId": taken["snapshotId"], "envs": {"GITHUB_SERVER_URL": host}}
        assert (await server.error("POST", "/sandboxes/restore", 500, json=later))["code"] == "RESTORE_FAILED"
        assert (await server.post("/sandboxes/restore", later | {"gitToken": TOKEN}, 201)).get("missing") is None
    for secret in (TOKEN, basic(TOKEN).split()[1]):
        assert secret.encode() not in files
        assert secret not in said
        assert not any(secret in line for line in git_server.command_lines)


async def test_a_git_token_is_not_sent_to_other_hosts(git_server: GitServer) -> None:  # noqa: F811
    body = agent(message="x", gitToken=TOKEN) | {"source": git_server.url("private/agent.git")}
    async with serving() as server:
        events = await server.stream("/run", body)
    assert events[-1]["code"] == "SOURCE_UNAVAILABLE"
    assert git_server.authorizations() == {None}
