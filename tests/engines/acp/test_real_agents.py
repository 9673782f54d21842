"""The real agents, driven by the engine against the model simulator."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from clis.running import PROOF, script_for
from computeragent import ComputerAgent
from computeragent.clis import cli
from computeragent.engines.acp import AcpEngine
from computeragent.eventlog import MemoryEventLog
from computeragent.harness import LocalHarness, LocalSession
from computeragent.processes import marks
from computeragent.protocol_types import LocalSource, PermissionRequest, PolicyVerdict, SessionRequest
from computeragent.testing.conformance.probe import Probe
from computeragent.testing.models import ModelSimulator, Reply, Rule, Script, ToolUse
from computeragent.wire.events import CaPermissionDecision, CaPermissionRequest, CaSessionEnded, SdkMessage
from computeragent.wire.requests import PermissionDecision, UserInput

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.usefixtures("prefetched"), pytest.mark.timeout(180)]
SOAK = pytest.mark.soak
AGENTS = [
    pytest.param("gemini_cli"),
    pytest.param("codex_cli", marks=SOAK),
    pytest.param("claude_code", marks=SOAK),
    pytest.param("opencode", marks=SOAK),
]
KEY = "sk-simulated-key"


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    return Probe(None, tmp_path)  # type: ignore[arg-type]


@pytest.fixture
def outside_tmp(monkeypatch: pytest.MonkeyPatch, programs: Path) -> Iterator[Path]:
    """A state folder outside of /tmp, where Codex sandboxes nothing."""
    with tempfile.TemporaryDirectory(prefix=".acp-test-", dir=Path.home()) as folder:
        monkeypatch.setenv("COMPUTERAGENT_HOME", folder)
        (Path(folder) / "cache").mkdir()
        (Path(folder) / "cache" / "artifacts").symlink_to(programs)
        yield Path(folder)


def script_of(name: str) -> Script:
    echo = Rule(match=r"still there\?|yes\?|and now\?", turns=(Reply(text="You said: $0"),))
    slow = Rule(match="take your time", turns=(Reply(text="never said", delay=120.0),))
    return Script(rules=(echo, *script_for(cli(name)).rules, slow))


@asynccontextmanager
async def session_with(
    name: str, simulator: ModelSimulator, workspace: Path, options: dict[str, Any] | None = None, **request: Any
) -> AsyncIterator[LocalSession]:
    harness = LocalHarness(log=MemoryEventLog())
    envs = {
        "ANTHROPIC_BASE_URL": simulator.url,
        "ANTHROPIC_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{simulator.url}/v1",
        "OPENAI_API_KEY": KEY,
        "GOOGLE_GEMINI_BASE_URL": simulator.url,
        "GEMINI_API_KEY": KEY,
    }
    source = LocalSource(path=str(workspace))
    chosen = {"cli": name, **(options or {})}
    session = await harness.open(
        SessionRequest(source=source, engine=AcpEngine(), options=chosen, envs=envs, **request)
    )
    try:
        yield session
    finally:
        await harness.close()


def living(state_folder: Path) -> set[int]:
    """The processes of agents whose home is in this folder."""
    return {pid for pid, home in marks("HOME").items() if home.startswith(str(state_folder))}


def result_of(events: list[Any]) -> dict[str, Any]:
    assert isinstance(events[-1], SdkMessage), events[-1]
    return events[-1].payload


@pytest.mark.parametrize("name", AGENTS)
async def test_a_call_is_asked_an_interrupt_ends_a_turn_and_a_session_resumes(
    name: str, tmp_path: Path, probe: Probe, state_folder: Path
) -> None:
    memory = {"session_id": f"acp-{name}", "session_store": "memory"}
    # Codex asks for what its own sandbox forbids, and has none here: see the test of its asking.
    options = {"permission_mode": "bypassPermissions"} if name == "codex_cli" else {}
    async with ModelSimulator(script_of(name)) as simulator:
        async with session_with(name, simulator, tmp_path, options, **memory) as session:
            events = await probe.turn(session, "Please write the proof")
            assert result_of(events)["result"] == "all-is-written"
            assert (tmp_path / PROOF).read_text() == "simulated-proof\n"
            asked = [event for event in events if isinstance(event, CaPermissionRequest)]
            if name != "codex_cli":
                assert [each.tool_name for each in asked] == ["Bash"]
                assert asked[0].input["command"] == f"echo simulated-proof > {PROOF}"
            assert "usage_snapshot" in str([event.kind for event in events])

            calls = len(simulator.calls)
            await session.send(UserInput(content="take your time"))
            while len(simulator.calls) == calls:
                await asyncio.sleep(0.01)
            await session.interrupt()
            assert session.ended is None
            assert "You said: still there?" in result_of(await probe.turn(session, "still there?"))["result"]
            own = result_of(await probe.turn(session, "yes?"))["session_id"]
        assert living(state_folder) == set()

        async with session_with(name, simulator, tmp_path, options, **memory) as session:
            events = await probe.turn(session, "and now?")
            if name != "gemini_cli":  # which announces that it loads sessions, and finds none: it is told the story
                assert result_of(events)["session_id"] == own
            assert "You said: and now?" in result_of(events)["result"]
            assert b"write the proof" in simulator.calls[-1].http.body
    assert living(state_folder) == set()


@pytest.mark.parametrize(
    "name", ["claude_code", pytest.param("gemini_cli", marks=SOAK), pytest.param("opencode", marks=SOAK)]
)
async def test_under_a_policy_even_reading_is_judged_and_a_denial_leaves_no_trace(
    name: str, tmp_path: Path, probe: Probe
) -> None:
    seen: list[PermissionRequest] = []

    async def denying(request: PermissionRequest) -> PolicyVerdict:
        seen.append(request)
        return PolicyVerdict("deny", reason="not today")

    (tmp_path / "secret.txt").write_text("the-heron-flies-at-dawn")
    reading = {
        "claude_code": ToolUse(name="Read", input={"file_path": str(tmp_path / "secret.txt")}),
        "gemini_cli": ToolUse(name="read_file", input={"file_path": str(tmp_path / "secret.txt")}),
        "opencode": ToolUse(name="read", input={"filePath": str(tmp_path / "secret.txt")}),
    }[name]
    rule = Rule(match="read it", turns=(Reply(tools=(reading,)), Reply(text="I may not.")))
    async with ModelSimulator(Script(rules=(rule,))) as simulator:
        async with session_with(name, simulator, tmp_path, policy=denying) as session:
            events = await probe.turn(session, "Please read it")
        assert [request.tool_name for request in seen] == ["Read"]
        assert "secret.txt" in str(seen[0].input)
        assert all(b"heron" not in call.http.body for call in simulator.calls)
    decisions = [event for event in events if isinstance(event, CaPermissionDecision)]
    assert [each.decision for each in decisions] == ["deny"]
    assert not isinstance(events[-1], CaSessionEnded)


@pytest.mark.parametrize(
    "name", ["gemini_cli", pytest.param("claude_code", marks=SOAK), pytest.param("opencode", marks=SOAK)]
)
async def test_in_a_jail_it_has_its_program_and_no_key(name: str, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    shell = cli(name).shell_tool
    looks = ToolUse(name=shell, input={"command": "uname -n > seen.txt; env >> seen.txt", "description": "look"})
    script = Script(rules=(Rule(match="look around", turns=(Reply(tools=(looks,)), Reply(text="I have looked."))),))
    async with ModelSimulator(script) as simulator:
        envs = {"ANTHROPIC_BASE_URL": simulator.url, "ANTHROPIC_API_KEY": KEY}
        envs |= {"OPENAI_BASE_URL": f"{simulator.url}/v1", "OPENAI_API_KEY": KEY}
        envs |= {"GOOGLE_GEMINI_BASE_URL": simulator.url, "GEMINI_API_KEY": KEY}
        async with ComputerAgent(
            source=tmp_path / "work",
            engine="acp",
            options={"cli": name},
            runtime="bwrap",
            envs=envs,
            on_tool_call=lambda _: True,
        ) as agent:
            assert (await agent.chat("Please look around")).text == "I have looked."
        assert KEY in str(simulator.calls[-1].http.headers)
    seen = (tmp_path / "work" / "seen.txt").read_text()
    assert seen.startswith("sandbox\n")
    assert KEY not in seen


@pytest.mark.soak
async def test_codex_asks_for_what_its_sandbox_forbids(outside_tmp: Path, tmp_path: Path, probe: Probe) -> None:
    command = {"cmd": f"echo asked > {tmp_path / 'asked.txt'}", "sandbox_permissions": "require_escalated"}
    call = ToolUse(name="exec_command", input={**command, "justification": "may I write it?"})
    rule = Rule(match="please", turns=(Reply(tools=(call,)), Reply(text="done")))
    script = Script(rules=(rule,))
    async with ModelSimulator(script) as simulator, session_with("codex_cli", simulator, tmp_path) as session:
        denied = await probe.turn(session, "please", answer=lambda _: PermissionDecision(decision="deny"))
        assert not (tmp_path / "asked.txt").exists()
        allowed = await probe.turn(session, "once more, please")
    for events in (denied, allowed):
        assert [event.tool_name for event in events if isinstance(event, CaPermissionRequest)] == ["Bash"]
    assert (tmp_path / "asked.txt").read_text() == "asked\n"


async def test_codex_is_not_run_under_a_policy(tmp_path: Path, probe: Probe) -> None:
    async def allowing(_: PermissionRequest) -> PolicyVerdict:
        return PolicyVerdict("allow")

    async with (
        ModelSimulator() as simulator,
        session_with("codex_cli", simulator, tmp_path, policy=allowing) as session,
    ):
        end = await probe.until(session, "ca_session_ended")
    assert isinstance(end, CaSessionEnded)
    assert "no policy can hold it" in str(end.error_message)
