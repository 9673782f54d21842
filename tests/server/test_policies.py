"""Policies on a server: what a caller may bring along, what it may not loosen, and who acts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from computeragent.protocol_types import PermissionRequest, PolicyVerdict
from computeragent.server import Principal

from .conftest import Server, serving

pytestmark = pytest.mark.anyio
BASH = {"tool": "Bash", "input": {"command": "ls"}}
DENY = "version: 1\nrules: []\n"
ALLOW = "version: 1\ndefault: allow\nrules: []\n"


async def decision(server: Server, **fields: Any) -> dict[str, Any]:
    """What is decided of one call."""
    body = server.body([BASH], messages=[{"role": "user", "content": "go"}], **fields)
    events = await server.read("POST", "/v1/chat", json=body)
    (found,) = [event for event in events if event["kind"] == "ca_permission_decision"]
    return found


async def test_a_request_brings_its_policy_and_the_credential_says_who_acts(server: Server) -> None:
    denied = await decision(server, policy={"kind": "rules", "text": DENY})
    assert (denied["decision"], denied["engine"], denied["decidedBy"]) == ("deny", "rules", "policy")
    assert denied["principal"].startswith("token-")
    assert (await decision(server, policy={"kind": "rules", "text": ALLOW}))["decision"] == "allow"


async def test_the_servers_own_policy_cannot_be_loosened(tmp_path: Path) -> None:
    async def house(request: PermissionRequest) -> PolicyVerdict:
        return PolicyVerdict("deny", reason="not in this house", engine="house")

    async with serving(tmp_path, policy=house) as server:
        for more in ({}, {"policy": {"kind": "rules", "text": ALLOW}}):
            told = await decision(server, **more)
            assert (told["decision"], told["engine"], told["reason"]) == ("deny", "house", "not in this house")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"kind": "nonsense"}, "policy"),
        ({"kind": "rules", "text": "version: 1\nrules: 5"}, "rules must be a list"),
        ({"kind": "rules"}, "either text or path"),
        ({"kind": "rules", "text": DENY, "path": "/x"}, "either text or path"),
        ({"kind": "rules", "txt": DENY}, "txt"),
        ({"kind": "srs", "endpoint": "http://srs"}, "policyId"),
        ({"kind": "opa", "policyPath": "a"}, "either url or socket"),
        ({"kind": "cedar", "text": "permit("}, "unexpected end of input"),
    ],
    ids=str,
)
async def test_a_policy_that_cannot_be_read_is_refused(server: Server, policy: dict[str, Any], said: str) -> None:
    answer = await server.client.post("/v1/sessions", json=server.body(streamingInput=True, policy=policy))
    assert answer.status_code == 400
    assert said.lower() in answer.text.lower()


async def test_files_of_the_server_are_its_own_to_name(tmp_path: Path) -> None:
    async def vouched(token: str) -> Principal | None:
        return Principal(f"user-{token}", local=token == "owner")

    file = tmp_path / "policy.yaml"
    file.write_text(DENY)
    policy = {"kind": "rules", "path": str(file)}
    async with serving(tmp_path, auth=vouched) as server:
        server.client.headers["authorization"] = "Bearer owner"
        assert (await decision(server, policy=policy))["decision"] == "deny"
        guest = {"authorization": "Bearer guest"}
        for bad in (policy, {"kind": "opa", "socket": "/run/x", "policyPath": "a"}):
            body = server.body(streamingInput=True, policy=bad)
            answer = await server.client.post("/v1/sessions", json=body, headers=guest)
            assert (answer.status_code, "its own to name" in answer.text) == (400, True)


@pytest.mark.parametrize("name", ["cliPath", "cli_path", "extraArgs", "settings", "plugins", "hooks"])
async def test_what_goes_past_every_policy_is_for_whoever_runs_the_server(tmp_path: Path, name: str) -> None:
    async def vouched(token: str) -> Principal | None:
        return Principal(f"user-{token}")

    async with serving(tmp_path, auth=vouched) as server:
        body = server.body(streamingInput=True) | {"options": {name: "{}"}}
        answer = await server.client.post("/v1/sessions", json=body)
        assert (answer.status_code, "for whoever runs this server" in answer.text) == (400, True)
