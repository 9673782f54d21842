"""Where an agent runs × where it comes from × how it thinks: every combination that exists here fires."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from harness_placements import require_bwrap

from computeragent import ComputerAgent, plugins
from computeragent.engines.scripted import ScriptedEngine
from computeragent.harness import LocalHarness
from computeragent.protocol_types import EngineContext, EngineEvent, InlineSource, SessionRequest
from computeragent.stores.sqlite import SqliteSessionStore
from computeragent.substrates import LocalSubstrate
from computeragent.substrates.bwrap import BwrapSubstrate
from computeragent.testing.models import ModelSimulator, parse_script
from computeragent.wire.events import CaPermissionRequest
from computeragent.wire.requests import PermissionDecision, UserInput
from identity.conftest import GitServer, Repo, git, make_repo
from identity.conftest import server as git_server_fixture
from puppets import Puppet
from substrates import docker_engine

pytestmark = pytest.mark.anyio
SUBSTRATES = ["local", "local-process", "bwrap", "docker"]
ELSEWHERE = {"e2b", "vz"}  # on machines of others: held to the wire of a stand-in in tests/substrates
SOURCES = ["git", "local", "inline"]
ENGINES = ["scripted", "claude-agent-sdk"]
git_server = git_server_fixture


@pytest.fixture(scope="module")
def docker() -> Iterator[str]:
    """A Docker engine; where none can be started, its cells say so and are skipped, also in CI."""
    try:
        with docker_engine.running() as address:
            yield address
    except docker_engine.NoEngineError as error:
        pytest.skip(str(error))


@pytest.fixture
def canary() -> str:
    return f"canary-{secrets.token_hex(8)}"


@pytest.fixture(name="repo")
def _repo(tmp_path: Path, canary: str) -> Repo:
    made = make_repo(tmp_path / "origin")
    (made.path / "canary.txt").write_text(canary)
    git("add", "-A", cwd=made.path)
    git("commit", "-q", "-m", "canary", cwd=made.path)
    return made


def substrate_of(name: str, request: pytest.FixtureRequest) -> Any:
    if name == "bwrap":
        require_bwrap()
    if name == "docker":
        from computeragent.substrates.docker import DockerSubstrate

        return DockerSubstrate(docker_host=request.getfixturevalue("docker"))
    return plugins.resolve_substrate(name)


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path, canary: str) -> Any:
    if request.param == "git":
        server: GitServer = request.getfixturevalue("git_server")
        return {"type": "git", "url": server.url("public/agent.git"), "ref": "main"}
    if request.param == "inline":
        return {"type": "inline", "manifest": {"name": "inline", "version": "1"}, "files": {"canary.txt": canary}}
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / "canary.txt").write_text(canary)
    return folder


@pytest.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[dict[str, Any]]:
    """Arguments of an agent that reads the file of its source, writes one and says so."""
    if request.param == "scripted":
        steps = [
            {"tool": "Read", "input": {"file_path": "canary.txt"}},
            {"tool": "Write", "input": {"file_path": "made.txt", "content": "made"}},
            {"text": "done"},
        ]
        yield {"engine": "scripted", "options": {"script": [steps]}}
        return
    script = """
- match: go
  turns:
    - tools: [{name: Bash, input: {command: "cat canary.txt; printf made > made.txt"}}]
    - text: done
"""
    async with ModelSimulator(parse_script(script)) as model:
        envs = {"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "sk-of-the-tests"}
        yield {"engine": "claude-agent-sdk", "envs": envs}


@pytest.mark.e2e
@pytest.mark.parametrize("substrate", SUBSTRATES)
async def test_every_cell_fires(
    substrate: str, source: Any, engine: dict[str, Any], canary: str, request: pytest.FixtureRequest
) -> None:
    runtime = substrate_of(substrate, request)
    async with ComputerAgent(source=source, runtime=runtime, on_tool_call=lambda _: True, **engine) as agent:
        result = await agent.chat("go")
        assert result.text == "done"
        assert canary in str(result.messages)
        assert await agent.fetch_artifact_text("made.txt") == "made"
        assert await agent.fetch_artifact_text("canary.txt") == canary


def test_no_axis_has_a_name_that_the_matrix_has_not() -> None:
    assert set(SUBSTRATES) | ELSEWHERE == set(plugins.substrates.names())
    # what uses a computer has no files to be seen at work with: tests/engines/computer_use/
    assert set(ENGINES) | {"acp", "computer-use"} == set(plugins.engines.names())


# ── Many at once ──

BUSY = 40
SCRIPT = [
    [{"tool": "Read", "input": {"file_path": "own.txt"}}, {"text": "{message}"}, {"delay": 0.01}],
    [{"tool": "Write", "input": {"file_path": "made.txt", "content": "x"}}, {"text": "{user} {message}"}],
]
_CANARY = re.compile(r"canary-(\d+)-[0-9a-f]{16}")


async def _tells_its_environment(ctx: EngineContext) -> AsyncIterator[EngineEvent]:
    """The scripted engine, which also shows what it was given and what is in its folders."""
    shown = {
        "envs": dict(ctx.envs),
        "state": [str(path.relative_to(ctx.state_dir)) for path in ctx.state_dir.rglob("*")],
        "work": [path.name for path in ctx.workspace_path.iterdir()],
    }
    yield EngineEvent("sdk_message", {"type": "system", "shown": shown})
    async for event in ScriptedEngine().start_session(ctx):
        yield event


async def _one(harness: LocalHarness, number: int, engine: Any, store: Any, gate: asyncio.Semaphore) -> set[str]:
    """Two runs of one session; the numbers of all canaries that it came to see."""
    own = f"canary-{number}-{secrets.token_hex(8)}"
    said: list[bytes] = []
    request = SessionRequest(
        source=InlineSource(manifest={"name": f"agent-{own}"}, files={"own.txt": own}),
        engine=engine,
        identity_loader="passthrough",
        envs={"CANARY": own},
        options={"script": SCRIPT},
        session_id=f"session-{number}",
        session_store=store,
    )
    for turn in range(2):
        async with gate:
            session = await harness.open(request)
            await session.send(UserInput(content=own if turn == 0 else f"again {own}"))
            await session.end_input()
            async for recorded in session.events():
                said.append(recorded.data)
                if isinstance(recorded.event, CaPermissionRequest):
                    await session.decide(recorded.event.call_id, PermissionDecision(decision="allow"))
                    await asyncio.sleep(0)
            await session.wait()
            assert session.ended is not None
            assert session.ended.reason == "complete"
    assert await session.files.read("own.txt") == own.encode()
    assert await session.files.read("made.txt") == b"x"
    told = b"".join(said).decode()
    assert f"{own} again {own}" in told  # the second run remembers its own first
    return set(_CANARY.findall(told))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("sessions", [60, pytest.param(200, marks=pytest.mark.soak)])
async def test_of_many_sessions_none_sees_another(sessions: int, tmp_path: Path) -> None:
    require_bwrap()
    store = SqliteSessionStore(tmp_path / "memory.db")
    shows: Any = Puppet(_tells_its_environment)
    jails = BwrapSubstrate(pool=4)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(jails)
        here, jailed = LocalHarness(substrate=LocalSubstrate()), LocalHarness(substrate=jails)
        for harness in (here, jailed):
            stack.push_async_callback(harness.close)
        many, few = asyncio.Semaphore(BUSY), asyncio.Semaphore(4)
        numbers = list(range(sessions))
        seen = await asyncio.gather(
            *(
                _one(jailed, number, "scripted", store, few)
                if number % 10 == 0
                else _one(here, number, shows, store, many)
                for number in numbers
            )
        )
    assert [found for number, found in enumerate(seen) if found != {str(number)}] == []
