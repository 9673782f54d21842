"""Nothing that a policy forbids is done, whichever way Claude Code comes to do it: proved by what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import ClaudeAgentOptions, ResultMessage
from tests.telemetry.listening import Listener

from computeragent import ClaudeSDKClient, ComputerAgent, configure, get_pipeline, query
from computeragent.policy import (
    PolicyDecision,
    PolicyInput,
    PolicyPrincipal,
    PolicyResult,
    PolicyToolAuthorizer,
    RulesPolicyEngine,
)
from computeragent.testing.models import ModelSimulator, parse_script
from e2e.gate_cases import BASH, CASES, Case, calling

pytestmark = pytest.mark.anyio

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


class Forbids:
    """A policy engine that lets everything pass but the deed, and notes what it was asked."""

    name = "forbids"

    def __init__(self) -> None:
        self.asked: list[PolicyInput] = []
        self.denied = 0

    async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002
        self.asked.append(input)
        text = str(input.action.tool_input)
        forbidden = "forbidden" in text or "secret" in text or input.action.tool_name == "mcp__doer__do"
        self.denied += forbidden
        decision = PolicyDecision.DENY if forbidden else PolicyDecision.ALLOW
        return PolicyResult(decision, reason="forbidden" if forbidden else "", rule="the-deed", engine=self.name)

    async def aclose(self) -> None:
        return None


class Scene:
    """A workspace, a secret beside it, and a model that plays a case."""

    def __init__(self, folder: Path, case: Case, model: ModelSimulator) -> None:
        self.case, self.model, self.folder = case, model, folder
        self.work = folder / "work"
        for name in ("work", "config", "home"):
            (folder / name).mkdir()
        (folder / "secret.txt").write_text("THE-SECRET-ITSELF")
        case.prepare(self.work)
        self.env = model.claude_environment(folder / "config") | {"HOME": str(folder / "home"), "IS_SANDBOX": "1"}

    @property
    def prompt(self) -> str:
        return self.case.prompt.replace("SECRET", str(self.folder / "secret.txt"))

    def fields(self, **more: Any) -> dict[str, Any]:
        return self.case.fields(self.work) | more

    async def done(self) -> bool:
        """Whether the deed was done; what runs in the background has its time."""
        if self.case.effect == "secret":
            return any("THE-SECRET-ITSELF" in str(call.json) for call in self.model.calls)
        for _ in range(10 if "background" in self.case.name else 1):
            if (self.work / "forbidden").exists():
                return True
            await asyncio.sleep(0.1)
        return False


@asynccontextmanager
async def scene(tmp_path: Path, case: Case) -> AsyncIterator[Scene]:
    places = {"WORK": str(tmp_path / "work"), "SECRET": str(tmp_path / "secret.txt")}
    script = case.script
    for name, place in places.items():
        script = script.replace(name, place)
    with ModelSimulator.start_in_thread(parse_script(script)) as model:
        yield Scene(tmp_path, case, model)


async def drop_in(there: Scene, **more: Any) -> None:
    """The case by `query`; a background task is given its time to end."""
    session: dict[str, Any] = {}
    prompts = ["hello", "again"] if there.case.twice else [there.prompt]
    for prompt in prompts:
        options = ClaudeAgentOptions(cwd=str(there.work), env=there.env, **there.fields(**more, **session))
        async for message in query(prompt=prompt, options=options):
            if isinstance(message, ResultMessage):
                session = {"resume": message.session_id}


@pytest.mark.soak  # shows that the other two tests can fail; it takes as long as they do
@each_case
async def test_without_a_policy_the_deed_is_done(case: Case, tmp_path: Path) -> None:
    async with scene(tmp_path, case) as there:
        await drop_in(there)
        assert await there.done()


@each_case
async def test_in_the_drop_in_a_forbidden_deed_leaves_no_trace(case: Case, tmp_path: Path) -> None:
    forbids = Forbids()
    authorizer = PolicyToolAuthorizer(engine=forbids, principal_resolver=lambda context: PolicyPrincipal("ann"))
    async with scene(tmp_path, case) as there:
        await drop_in(there, can_use_tool=authorizer)
        assert not await there.done()
    assert forbids.denied or "disable" in case.closed.lower()


@each_case
async def test_in_the_harness_a_forbidden_deed_leaves_no_trace(case: Case, tmp_path: Path) -> None:
    forbids = Forbids()
    async with scene(tmp_path, case) as there:
        agent: dict[str, Any] = {
            "source": there.work, "envs": there.env, "options": there.fields(), "policy": forbids,
            "session_id": "s", "session_store": "file",
        }  # fmt: skip
        events: list[Any] = []
        for prompt in ["hello", "again"] if case.twice else [there.prompt]:
            async with ComputerAgent(**agent) as made:
                events += [event async for event in made.chat(prompt)]
        assert not await there.done()
    assert [e.payload["subtype"] for e in events if e.kind == "sdk_message" and e.payload["type"] == "result"]
    assert forbids.denied or case.harness or "disable" in case.closed.lower()
    denials = [e for e in events if e.kind == "ca_permission_decision" and e.decision == "deny"]
    assert len(denials) == forbids.denied
    assert {(e.engine, e.rule, e.reason) for e in denials} <= {("forbids", "the-deed", "forbidden")}


HARMLESS = Case("harmless", "", calling("{tool: Bash, input: {command: 'echo mail ann@example.com'}}"))


@pytest.fixture
def sink() -> Iterator[Listener]:
    listener = Listener()
    configure(sinks=[listener])
    yield listener
    get_pipeline().close(5)
    configure(sinks=[])


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_every_decision_is_told_with_its_session_tool_and_redacted_input(tmp_path: Path, sink: Listener) -> None:
    authorizer = PolicyToolAuthorizer(engine=Forbids(), principal_resolver=lambda context: PolicyPrincipal("ann"))
    async with scene(tmp_path, HARMLESS) as there:
        await drop_in(there, can_use_tool=authorizer)
    await get_pipeline().flush()
    (decision,) = [event for event in sink.events if event.kind == "policy_decision"]
    (used,) = [event for event in sink.events if event.kind == "tool_use"]
    assert decision.session_id == used.session_id
    assert decision.payload["tool_use_id"] == used.payload["tool_use_id"]
    told = {name: decision.payload[name] for name in ("decision", "engine", "principal_id", "rule", "tool_name")}
    assert told == {
        "decision": "allow", "engine": "forbids", "principal_id": "ann", "rule": "the-deed", "tool_name": "Bash",
    }  # fmt: skip
    assert "ann@example.com" not in str(decision.payload)
    assert decision.payload["tool_input"]["command"].startswith("echo mail ")


async def test_the_client_is_gated_in_every_turn_and_a_denial_may_end_the_turn(tmp_path: Path) -> None:
    forbids = Forbids()
    authorizer = PolicyToolAuthorizer(
        engine=forbids, principal_resolver=lambda context: PolicyPrincipal("ann"), on_deny="interrupt"
    )
    async with scene(tmp_path, CASES[0]) as there:
        options = ClaudeAgentOptions(cwd=str(there.work), env=there.env, **there.fields(can_use_tool=authorizer))
        async with ClaudeSDKClient(options) as client:
            assert client.options is options
            for _ in range(2):
                await client.query("go")
                result = [message async for message in client.receive_response()][-1]
                assert isinstance(result, ResultMessage)
                assert result.is_error
        assert not await there.done()
    assert forbids.denied == 2


async def test_where_the_policy_has_no_opinion_the_modes_and_lists_of_the_cli_hold(tmp_path: Path) -> None:
    class Silent(Forbids):
        async def evaluate(self, input: PolicyInput) -> PolicyResult:  # noqa: A002
            return PolicyResult(PolicyDecision.ABSTAIN)

    authorizer = PolicyToolAuthorizer(engine=Silent(), principal_resolver=lambda context: PolicyPrincipal("ann"))
    for number, (more, runs) in enumerate(
        [({}, False), ({"allowed_tools": ["Bash"]}, True), ({"permission_mode": "bypassPermissions"}, True)]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with scene(folder, Case("a deed", "", calling(BASH), options=more)) as there:
            await drop_in(there, can_use_tool=authorizer)
            assert await there.done() is runs


ENTERING = Case(
    "a line in a folder that an earlier one entered",
    "",
    calling("{tool: Bash, input: {command: cd sub}}, {tool: Bash, input: {command: cat key.txt}}"),
    effect="secret",
)
NO_KEY = "version: 1\ndefault: allow\nrules:\n- {name: key, effect: deny, match: {paths: [sub/key.txt]}}\n"


@pytest.mark.parametrize("way", ["no policy", "drop-in", "harness"])
async def test_a_path_means_what_was_judged_whatever_folder_an_earlier_call_entered(way: str, tmp_path: Path) -> None:
    async with scene(tmp_path, ENTERING) as there:
        (there.work / "sub").mkdir()
        (there.work / "sub" / "key.txt").write_text("THE-SECRET-ITSELF")
        if way == "harness":
            agent: dict[str, Any] = {"source": there.work, "envs": there.env, "options": there.fields()}
            async with ComputerAgent(**agent, policy={"kind": "rules", "text": NO_KEY}) as made:
                await made.chat("go")
        else:
            authorizer = PolicyToolAuthorizer(
                engine=RulesPolicyEngine(text=NO_KEY), principal_resolver=lambda context: PolicyPrincipal("ann")
            )
            unasked = {"permission_mode": "bypassPermissions"}
            await drop_in(there, **({"can_use_tool": authorizer} if way == "drop-in" else unasked))
        assert len(there.model.calls) >= 3  # both lines were tried
        assert await there.done() is (way == "no policy")


async def test_the_drop_in_tells_a_policy_the_session_s_folder(tmp_path: Path) -> None:
    forbids = Forbids()
    authorizer = PolicyToolAuthorizer(engine=forbids, principal_resolver=lambda context: PolicyPrincipal("ann"))
    async with scene(tmp_path, HARMLESS) as there:
        await drop_in(there, can_use_tool=authorizer)
        assert [asked.context["cwd"] for asked in forbids.asked] == [str(there.work)]
