"""Agents by reference, private repositories, and where the key goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from starlette.responses import JSONResponse, PlainTextResponse

from computeragent import ComputerAgent, configure, discovery
from computeragent.client import HarnessClient
from computeragent.client.probing import kind_of
from computeragent.errors import (
    ControlPlaneError,
    HarnessProtocolError,
    InsufficientPermissionError,
    NotRemotableError,
    SourceError,
    UnauthorizedError,
    UnknownAgentError,
    ValidationError,
)
from computeragent.harness.git_credential_client import resolve_git_credential
from computeragent.telemetry.config import get_pipeline, shutdown
from computeragent.telemetry.pipeline import Pipeline
from control_plane_standin import KEY, ControlPlane
from identity.conftest import TOKEN as GIT_TOKEN
from identity.conftest import GitServer, Repo, make_repo
from identity.conftest import server as git_server_fixture
from loopback import loopback

from .conftest import SOURCE, TOKEN, scripted

pytestmark = pytest.mark.anyio
Plane = tuple[ControlPlane, str]
git_server = git_server_fixture


@pytest.fixture(name="repo")
def _repo(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "origin")


@pytest.fixture(autouse=True)
async def no_pipeline() -> AsyncIterator[None]:
    yield
    await shutdown(0.1)


async def test_an_agent_runs_by_its_id_alone(plane: Plane) -> None:
    made, _ = plane
    made.agents["triage"] = {"source": SOURCE, "name": "triage", "model": "model-of-the-registry"}
    async with ComputerAgent(agent_id="triage") as agent:
        kinds = [event async for event in agent.chat("hi")]
    assert kinds[0].identity.name == "tester"
    _, header, body = next(asked for asked in made.asked if asked[0].endswith("/agents/resolve"))
    assert (header, body) == (f"Bearer {KEY}", {"agentId": "triage"})


async def test_it_is_looked_up_once(plane: Plane) -> None:
    made, _ = plane
    made.agents["triage"] = {"source": SOURCE}
    async with ComputerAgent(agent_id="triage") as agent:
        await asyncio.gather(*(agent.chat("hi") for _ in range(3)))
    assert made.paths().count("/v1/agents/resolve") == 1


async def test_the_environment_may_name_the_agent(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    plane[0].agents["triage"] = {"source": SOURCE}
    monkeypatch.setenv("COMPUTERAGENT_AGENT_ID", "triage")
    async with ComputerAgent() as agent:
        assert (await agent.chat("hi")).text == "You said: hi"


async def test_what_the_caller_says_wins(plane: Plane, tmp_path: Path) -> None:
    made, _ = plane
    told: list[Any] = []

    class Hooks:
        def on_agent_constructed(self, info: Any) -> None:
            told.append(info)

    made.agents["triage"] = {"source": SOURCE, "harness": "not-registered-here", "model": "theirs"}
    async with ComputerAgent(agent_id="triage", engine="scripted", model="mine", telemetry=Hooks()) as agent:
        await agent.chat("hi")
    async with ComputerAgent(agent_id="triage", source=tmp_path, engine="scripted", telemetry=Hooks()) as agent:
        await agent.chat("hi")
    assert [(info["engine"], info["model"]) for info in told] == [("scripted", "mine"), ("scripted", None)]
    assert told[1]["source"]["path"] == str(tmp_path)
    assert made.paths().count("/v1/agents/resolve") == 1  # with a source nothing need be looked up


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (None, UnknownAgentError, "no agent 'nobody' is registered"),
        (JSONResponse({}, 401), UnauthorizedError, "does not know this key"),
        (JSONResponse({"error": {"code": "X", "message": "needs more"}}, 403), InsufficientPermissionError, "more"),
        (PlainTextResponse("oops", 500), ControlPlaneError, "HTTP 500"),
        (PlainTextResponse("hello"), UnknownAgentError, "without a source"),
        (JSONResponse({"source": ""}), UnknownAgentError, "without a source"),
        (JSONResponse({"source": {"type": "cloud"}}), ControlPlaneError, "cannot be read"),
        (JSONResponse({"source": 5}), ControlPlaneError, "cannot be read"),
    ],
)  # fmt: skip
async def test_what_cannot_be_looked_up_is_told_clearly(plane: Plane, answer: Any, error: Any, told: str) -> None:
    plane[0].answer = answer
    async with ComputerAgent(agent_id="nobody") as agent:
        with pytest.raises(error, match=told) as caught:
            await agent.chat("hi")
    assert caught.value.hint
    assert KEY not in f"{caught.value.message} {caught.value.hint}"


async def test_without_anybody_who_hears_of_its_runs_an_agent_with_an_id_is_refused(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, url = plane
    made.names = {"api": f"{url}/agentos/api/v1"}  # no ingest: seen at once where no loop runs, else at the first chat
    with pytest.raises(ValidationError, match="no AgentOS that hears"):
        await to_thread.run_sync(lambda: ComputerAgent(agent_id="a", source=tmp_path))
    async with ComputerAgent(agent_id="a", source=tmp_path) as agent:
        with pytest.raises(ValidationError, match="no AgentOS that hears"):
            await agent.chat("hi")
    monkeypatch.delenv("AGENTOS_DISCOVERY_URL")
    discovery.forget()
    with pytest.raises(ValidationError, match="no AgentOS that hears"):
        ComputerAgent(agent_id="a", source=tmp_path)
    with pytest.raises(ValidationError, match="source or an agent_id"):
        ComputerAgent()
    ComputerAgent(source=tmp_path)


async def test_whoever_hears_of_its_runs_will_do(plane: Plane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AGENTOS_DISCOVERY_URL")
    pipeline = Pipeline(sinks=[])
    ComputerAgent(agent_id="a", source=tmp_path, telemetry_pipeline=pipeline)
    configure(sinks=["console"])
    ComputerAgent(agent_id="a", source=tmp_path)
    await shutdown(0.1)
    monkeypatch.setenv("AGENTOS_INGEST_URL", f"{plane[1]}/agentos/api/ingest/events")
    ComputerAgent(agent_id="a", source=tmp_path)


async def test_the_id_rides_telemetry(plane: Plane) -> None:
    made, _ = plane
    async with ComputerAgent(**scripted(agent_id="triage", agent_name="Triage", agent_description="sorts")) as agent:
        await agent.chat("hi")
    await get_pipeline().flush(20)
    started = next(event for event in made.events if event["kind"] == "session_started")
    assert (started["agent_id"], started["agent_name"], started["agent_description"]) == ("triage", "Triage", "sorts")


async def test_the_id_never_goes_over_the_harness_protocol(
    harness_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from computeragent.client.harness_client import HarnessClient

    bodies: list[Any] = []
    create = HarnessClient.create_session

    async def listening(self: HarnessClient, body: Any) -> Any:
        bodies.append(body)
        return await create(self, body)

    monkeypatch.setattr(HarnessClient, "create_session", listening)
    where = {"harness_url": harness_server, "harness_token": TOKEN, "harness_kind": "protocol"}
    async with ComputerAgent(**scripted(agent_id="secret-id", agent_name="Secret Name", **where)) as agent:
        await agent.chat("hi")
    assert len(bodies) == 1
    assert "secret-id" not in str(bodies)
    assert "Secret Name" not in str(bodies)


async def test_an_agent_by_reference_runs_on_a_server(plane: Plane, sandbox_server: str, harness_server: str) -> None:
    plane[0].agents["triage"] = {"source": SOURCE}
    plane[0].keys[TOKEN] = {}
    for url in (sandbox_server, harness_server):
        async with ComputerAgent(agent_id="triage", harness_url=url, harness_token=TOKEN) as agent:
            assert (await agent.chat("hi")).text == "You said: hi"
    resolving = [header for path, header, _ in plane[0].asked if path.endswith("/agents/resolve")]
    assert resolving == [f"Bearer {TOKEN}"] * 2


# ── Which kind of server ──


async def test_the_kind_of_a_server_is_found_out_once(sandbox_server: str, harness_server: str) -> None:
    assert await kind_of(sandbox_server) == "server"
    assert await kind_of(harness_server) == "protocol"


async def test_what_is_neither_is_told(plane: Plane) -> None:
    _, url = plane
    for place, told in (
        (url, "neither a harness server nor a sandbox server"),
        ("http://127.0.0.1:1", "cannot be reached"),
    ):
        async with ComputerAgent(**scripted(harness_url=place)) as agent:
            with pytest.raises(HarnessProtocolError, match=told):
                await agent.chat("hi")


async def test_kinds_and_runtimes_that_cannot_be(
    harness_server: str, sandbox_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError, match="harness_kind 'x'"):
        ComputerAgent(**scripted(harness_url=harness_server, harness_kind="x"))
    monkeypatch.setenv("COMPUTERAGENT_HARNESS_KIND", "y")
    with pytest.raises(ValidationError, match="harness_kind 'y'"):
        ComputerAgent(**scripted(harness_url=harness_server))
    monkeypatch.setenv("COMPUTERAGENT_HARNESS_KIND", "protocol")
    with pytest.raises(NotRemotableError, match="chooses where agents run"):
        ComputerAgent(**scripted(harness_url=harness_server, runtime="bwrap"))
    async with ComputerAgent(**scripted(harness_url=sandbox_server, harness_token=TOKEN)) as agent:
        with pytest.raises(Exception, match="there is no /v1/sessions"):  # a sandbox server, asked as the other kind
            await agent.chat("hi")


async def test_the_token_of_this_machine_is_found(harness_server: str, state_folder: Path) -> None:
    keys = state_folder / "keys"
    keys.mkdir(mode=0o700)
    (keys / "harness-token").write_text(f"{TOKEN}\n")
    async with ComputerAgent(**scripted(harness_url=harness_server)) as agent:
        assert (await agent.chat("hi")).text == "You said: hi"


# ── Git credentials ──


@pytest.fixture
def private(git_http: GitServer) -> str:
    return git_http.url("private/agent.git")


@pytest.fixture
def git_http(tmp_path: Path, repo: Repo) -> Any:
    yield from git_server.__wrapped__(tmp_path, repo)  # the real `git http-backend` of the tests of identity


async def test_a_private_repository_is_cloned_with_a_credential_of_the_control_plane(
    plane: Plane, private: str, git_http: GitServer, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    made, _ = plane
    made.credentials["127.0.0.1"] = {"token": GIT_TOKEN}
    caplog.set_level(logging.DEBUG)
    async with ComputerAgent(source=private, engine="scripted") as agent:
        await agent.chat("hi")
        assert await agent.fetch_artifact_text("number.txt") == "3"
    assert ("/agentos/api/v1/git-credentials/resolve", f"Bearer {KEY}", {"repoUrl": private}) in made.asked
    assert not any(GIT_TOKEN in line for line in git_http.command_lines)
    assert GIT_TOKEN not in caplog.text + str(capsys.readouterr())


async def test_the_key_that_is_given_is_the_key_that_is_used(plane: Plane, private: str) -> None:
    made, _ = plane
    made.keys = {"cak_other": {}}
    made.credentials["127.0.0.1"] = {"token": GIT_TOKEN}
    with pytest.raises(SourceError):
        async with ComputerAgent(source=private, engine="scripted") as agent:
            await agent.chat("hi")
    async with ComputerAgent(source=private, engine="scripted", harness_token="cak_other") as agent:
        await agent.chat("hi")


async def test_a_resolver_of_the_caller_comes_first(plane: Plane, private: str) -> None:
    made, _ = plane
    async with ComputerAgent(
        source=private, engine="scripted", git_credentials=lambda _: {"token": GIT_TOKEN}
    ) as agent:
        await agent.chat("hi")
    assert "/v1/git-credentials/resolve" not in made.paths()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        JSONResponse({}, 401),
        JSONResponse({}, 403),
        JSONResponse({}, 500),
        PlainTextResponse("oops"),
        JSONResponse({"host": "127.0.0.1", "token": ""}),
        JSONResponse({"host": "elsewhere.example", "token": "of-another-host"}),
    ],
)
async def test_without_a_credential_public_repositories_still_work(
    plane: Plane, git_http: GitServer, answer: Any
) -> None:
    plane[0].answer = answer
    public = git_http.url("public/agent.git")
    assert await resolve_git_credential(public) is None
    async with ComputerAgent(source=public, engine="scripted") as agent:
        await agent.chat("hi")
        assert await agent.fetch_artifact_text("number.txt") == "3"
    assert git_http.authorizations() == {None}


async def test_a_credential_is_a_mapping_with_the_host(plane: Plane) -> None:
    made, url = plane
    made.credentials["git.example"] = {"token": "t", "username": "robot"}
    assert await resolve_git_credential("https://git.example:8443/org/repo") == {
        "host": "git.example",
        "username": "robot",
        "token": "t",
    }
    assert await resolve_git_credential("https://git.example/x", api_base="http://127.0.0.1:1") is None
    assert await resolve_git_credential("https://git.example/x", api_base=f"{url}/agentos/api/v1", token="no") is None


async def test_no_key_follows_a_redirect(plane: Plane) -> None:
    made, _ = plane
    elsewhere = ControlPlane()
    async with loopback(elsewhere.app()) as other:
        made.redirect = f"{other}/agentos/api/v1/agents/resolve"
        async with ComputerAgent(agent_id="a") as agent:
            with pytest.raises(ControlPlaneError, match="HTTP 307"):
                await agent.chat("hi")
        assert await resolve_git_credential("https://h/x") is None
    assert elsewhere.asked == []
