"""What goes wrong with an interactive agent. Its program is the stand-in of the engine's tests, in the sandbox."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.agent import AgentState, BridgedToolsSpec
from inspect_ai.log import EvalSample
from inspect_ai.tool import MCPServerConfigHTTP, MCPServerConfigStdio
from inspect_ai.util import LimitExceededError, sandbox

from computeragent.clis import McpServer
from computeragent.errors import CliFailedError, ValidationError
from computeragent.processes import marks
from computeragent.swe import (
    ACPAgent,
    acp_connection,
    bridge_mcp_to_acp,
    interactive_claude_code,
    interactive_codex_cli,
    interactive_opencode,
)
from computeragent.swe.agents.launching import LocalProcess, start
from computeragent.swe.interactive import Program
from engines.acp.agents import STAND_IN
from swe.agents.scenes import only, say, secret_word

from .leading import Lead, Talk, play

SECRET = "sk-a-secret-of-the-run"
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*MemoryObject"),  # streams of Inspect itself
]


class StandIn(ACPAgent):
    """The stand-in, from the sample's files."""

    title = "Stand-in"

    async def _start_agent(self, bridge: Any, place: Any, system: str) -> Program:
        return Program(
            command=(sys.executable, "-I", "-S", "stand_in.py"),
            env={"HOME": place.home, "PLAN": "plan.json"},
            mode="free",
        )


def lead_it(lead: Lead, folder: Path, *turns: list[dict[str, Any]], params: Any = None, **plan: Any) -> EvalSample:
    """One sample in which the stand-in follows a plan and is led."""
    given = {"stand_in.py": STAND_IN.read_text(), "plan.json": json.dumps({"turns": turns, **plan})}
    return only(play(lambda: StandIn(**(params or {})), lead, Talk(x=[say("x")]), folder, given=given))


async def nothing(agent: ACPAgent, _state: AgentState) -> None:
    await agent.ready.wait()


def failure(sample: EvalSample) -> str:
    assert sample.error is not None, "the sample is a success"
    return sample.error.message


def test_a_program_that_never_gets_ready_is_an_error_that_names_the_remedy(tmp_path: Path):
    sample = lead_it(nothing, tmp_path, params={"start_timeout": 0.5}, faults={"mute": ["initialize"]})
    assert "Stand-in is not ready: it did not answer initialize within 0.5 s" in failure(sample)
    assert "stand-in is up" in failure(sample)
    assert "CliFailedError" in sample.error.traceback


def test_whoever_waits_for_ready_hears_what_went_wrong(tmp_path: Path):
    heard: list[str] = []

    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        with pytest.raises(CliFailedError, match="no session yet"):
            agent.conn  # noqa: B018
        await agent.ready.wait()
        with pytest.raises(CliFailedError) as raised:
            agent.conn  # noqa: B018
        heard.append(raised.value.message)

    sample = lead_it(lead, tmp_path, faults={"die": ["session/new"]})
    assert "ended before it answered session/new: status 7; it said on stderr:" in heard[0]
    assert heard[0] in failure(sample)


def test_a_program_that_dies_in_a_turn_ends_the_sample_with_its_last_words(tmp_path: Path):
    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        await agent.prompt("go on")

    words = {"die": "x" * 20_000 + f"the end, and {SECRET}"}
    sample = lead_it(lead, tmp_path, [words], params={"env": {"OPENAI_API_KEY": SECRET}})
    said = failure(sample)
    assert "Stand-in ended by itself: status 3" in said
    assert "the end, and" in said
    assert SECRET not in said
    assert len(said) < 9_000


def test_a_refused_prompt_is_an_error_and_the_session_goes_on(tmp_path: Path):
    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        with pytest.raises(CliFailedError, match="the model is overloaded"):
            await agent.prompt("go on")
        assert (await agent.prompt("and now?")).stop_reason == "end_turn"

    assert lead_it(lead, tmp_path, [{"refuse": "the model is overloaded"}], [{"say": "Better."}]).error is None


def test_an_interrupt_ends_a_turn_and_the_session_goes_on(tmp_path: Path):
    stops: list[str] = []

    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        await agent.ready.wait()
        first = asyncio.create_task(agent.prompt("go on"))
        await asyncio.sleep(0)
        await agent.interrupt()
        stops.append((await first).stop_reason)
        stops.append((await agent.prompt("and now?")).stop_reason)

    assert lead_it(lead, tmp_path, [{"wait": 60}], [{"say": "Next."}]).error is None
    assert stops == ["cancelled", "end_turn"]


def test_a_prompt_that_nobody_waits_for_any_more_is_ended(tmp_path: Path):
    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        await agent.ready.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(agent.prompt("go on"), 0.3)
        assert (await agent.prompt("and now?")).stop_reason == "end_turn"

    sample = lead_it(lead, tmp_path, [{"wait": 1.5}, {"write": ["a.txt", "one"]}], [{"wait": 0.1}, {"deaf": 2}])
    assert sample.error is None, sample.error
    assert "a.txt" not in sample.scores["files"].metadata["files"]


def test_an_answer_of_another_shape_is_an_error_and_the_session_goes_on(tmp_path: Path):
    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        for said in ("overloaded", "protocol does not know"):
            with pytest.raises(CliFailedError, match=said):
                await agent.prompt("go on")
        assert (await agent.prompt("and now?")).stop_reason == "end_turn"

    odd = [{"answer": {"error": "overloaded"}}], [{"answer": {"result": "x"}}]
    assert lead_it(lead, tmp_path, *odd, [{"say": "Better."}]).error is None


def test_secrets_stay_out_of_errors_where_they_are_cut_or_refused_with(tmp_path: Path):
    env = {"env": {"OPENAI_API_KEY": SECRET}}

    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        await agent.prompt("go on")

    cut = [{"die": SECRET + "x" * (8_000 - len(SECRET) // 2)}]
    said = failure(lead_it(lead, tmp_path, cut, params=env))
    assert SECRET[-len(SECRET) // 2 :] not in said
    refusal = {"refuse": {"session/new": {"code": -32603, "message": f"the key {SECRET} is of no use"}}}
    said = failure(lead_it(nothing, tmp_path, params=env, faults=refusal))
    assert "is of no use" in said
    assert SECRET not in said


def test_a_connection_that_is_cancelled_again_and_again_ends_its_program_all_the_same(tmp_path: Path):
    from acp import text_block

    plan = tmp_path / "plan"
    plan.write_text('{"turns": [[{"child": 1}]]}')

    def living() -> set[int]:
        return {pid for pid, followed in marks("PLAN").items() if followed == str(plan)}

    async def connected(ready: asyncio.Event) -> None:
        command = [sys.executable, "-I", "-S", str(STAND_IN)]
        env = {"HOME": str(tmp_path), "PLAN": str(plan)}
        async with acp_connection(await LocalProcess.start(command, cwd=str(tmp_path), env=env, stdin=True)) as opened:
            connection = opened[0]
            await connection.initialize(1)
            session = await connection.new_session(str(tmp_path), mcp_servers=[])
            await connection.prompt(session.session_id, [text_block("go on")])
            ready.set()
            await asyncio.Event().wait()

    async def cancel_it() -> set[int]:
        ready = asyncio.Event()
        task = asyncio.create_task(connected(ready))
        await ready.wait()
        assert len(living()) == 2
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        return living()

    assert asyncio.run(cancel_it()) == set()


def test_its_calls_are_allowed_and_its_mode_is_set_where_it_is_offered(tmp_path: Path):
    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        await agent.prompt("go on")
        home = (await sandbox().exec(["sh", "-c", "echo $HOME"])).stdout.strip()
        assert await sandbox().read_file(f"{home}/mode") == "free"

    sample = lead_it(lead, tmp_path, [{"write": ["a.txt", "one"]}], modes=["careful", "free"])
    assert sample.error is None, sample.error
    assert "a.txt" in sample.scores["files"].metadata["files"]


def test_tools_that_the_model_never_saw_end_the_sample(tmp_path: Path):
    params = {"bridged_tools": [BridgedToolsSpec(name="host", tools=[secret_word()])]}

    class Asking(StandIn):
        async def _start_agent(self, bridge: Any, place: Any, system: str) -> Program:
            bridge.requests += 1  # as if it had asked the model without them
            return await super()._start_agent(bridge, place, system)

    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        await agent.prompt("go on")

    given = {"stand_in.py": STAND_IN.read_text(), "plan.json": '{"urls": true}'}
    log = play(lambda: Asking(**params), lead, Talk(x=[say("x")]), tmp_path, given=given)
    assert "did not offer the model host/secret_word" in failure(only(log))


def test_once_more_is_another_session_and_twice_at_once_is_refused(tmp_path: Path):
    sessions: list[str] = []

    async def lead(agent: ACPAgent, state: AgentState) -> None:
        await agent.ready.wait()
        with pytest.raises(ValidationError, match="runs already"):
            await agent(state)
        sessions.append(agent.session_id)

    async def twice(agent: ACPAgent, state: AgentState) -> None:
        other = StandIn()
        for _ in range(2):
            running = asyncio.create_task(other(state))
            await asyncio.sleep(0)
            await other.prompt("hello")
            sessions.append(other.session_id)
            running.cancel()
            assert await running is state
            with pytest.raises(CliFailedError, match="has ended"):
                other.conn  # noqa: B018
        await lead(agent, state)

    assert lead_it(twice, tmp_path).error is None
    assert len(set(sessions)) == 3


def test_a_limit_of_the_sample_reaches_whoever_leads(tmp_path: Path):
    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        await agent.ready.wait()
        agent._bridge.fail(LimitExceededError("message", value=5, limit=4))  # as a request over the limit does
        await agent.prompt("go on")

    sample = lead_it(lead, tmp_path, [{"wait": 60}])
    assert sample.limit is not None
    assert sample.limit.type == "message"


def test_a_connection_by_hand(tmp_path: Path):
    told: list[dict[str, Any]] = []

    async def lead(agent: ACPAgent, _state: AgentState) -> None:
        from acp import text_block

        await agent.ready.wait()
        command = [sys.executable, "-I", "-S", "stand_in.py"]
        cwd = (await sandbox().exec(["pwd"])).stdout.strip()
        env = {"HOME": "/tmp", "PLAN": "plan.json"}
        proc = await start(sandbox(), command, cwd=cwd, env=env, stdin=True)

        async def on_update(update: dict[str, Any]) -> None:
            told.append(update)

        async with acp_connection(proc, on_update=on_update) as (conn, feeder, info):
            await conn.initialize(1)
            session = await conn.new_session(cwd, mcp_servers=[])
            await conn.prompt(session.session_id, [text_block("hello")])
            assert not feeder.done()
            with pytest.raises(ConnectionError):
                await conn.prompt(session.session_id, [text_block("die")])
            await feeder
        assert (info.exit_code, info.stderr.endswith("gone")) == (3, True)

    sample = lead_it(lead, tmp_path, [{"say": "Hello."}], [{"die": "gone"}])
    assert sample.error is None, sample.error
    assert {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "Hello."}} in told


def test_tool_servers_of_a_bridge_in_the_words_of_the_protocol():
    url = "http://127.0.0.1:1/mcp"
    config = MCPServerConfigHTTP(type="http", name="host", url=url, headers={"x-key": "k"}, tools="all")
    ours = McpServer(name="host", url="http://127.0.0.1:1/mcp", headers={"x-key": "k"})
    for each in bridge_mcp_to_acp([config]) + bridge_mcp_to_acp([ours]):
        sent = each.model_dump(by_alias=True, exclude_none=True)
        header = {"name": "x-key", "value": "k"}
        assert sent == {"type": "http", "name": "host", "url": "http://127.0.0.1:1/mcp", "headers": [header]}
    with pytest.raises(ValidationError, match="no address"):
        bridge_mcp_to_acp([McpServer(name="x", command="y")])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: interactive_codex_cli(web_search="always"), "web_search"),
        (lambda: interactive_codex_cli(config_overrides={"model_provider": "x"}), "config_overrides"),
        (lambda: interactive_codex_cli(disallowed_tools=["shell"]), "cannot do without"),
        (lambda: interactive_opencode(opencode_model="gpt"), "provider/model"),
        (lambda: interactive_claude_code(disallowed_tools="Bash"), "disallowed_tools"),
        (lambda: interactive_claude_code(start_timeout=0), "start_timeout"),
        (lambda: interactive_claude_code(skills=["/no/such/folder"]), "skill"),
        (
            lambda: interactive_claude_code(mcp_servers=[MCPServerConfigStdio(name="a", command="b", tools=["c"])]),
            "no word for it",
        ),
    ],
)
def test_options_that_cannot_work_are_refused_when_the_agent_is_made(make: Any, said: str):
    with pytest.raises(ValidationError) as raised:
        make()
    assert said in f"{raised.value.message} {raised.value.hint}"
