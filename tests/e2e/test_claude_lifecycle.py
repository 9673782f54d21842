"""A real Claude Code agent when things go wrong, end, or come back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent, EngineError
from computeragent.errors import EngineUnavailableError
from computeragent.testing.models import ModelSimulator, parse_script

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

HELLO = "  - {match: hello, turns: [{text: Hello from the model.}]}\n"
SLOW = "rules:\n  - {match: slow, turns: [{text: '" + "word " * 200 + "', chunk_size: 5, chunk_delay: 0.05}]}\n" + HELLO
SLEEP = 'python3 -c "import time; time.sleep(600)"'  # the CLI starts no bare `sleep`
BUSY = f"rules:\n  - {{match: busy, turns: [{{tool: Bash, input: {{command: '{SLEEP}'}}}}]}}\n"


async def first_delta(handle: Any) -> None:
    async for event in handle:
        if event.kind == "sdk_message" and event.payload["type"] == "stream_event":
            return


async def working(alive: Any) -> list[int]:
    """The processes of the CLI and of the tool that it runs, once there are both."""
    async with asyncio.timeout(30):
        while len(running := alive()) < 2:
            await asyncio.sleep(0.02)
    return running


async def gone(alive: Any) -> None:
    async with asyncio.timeout(30):
        while alive():
            await asyncio.sleep(0.02)


async def test_an_interrupt_in_mid_stream_ends_the_turn_and_the_session_goes_on(start: Any) -> None:
    async with start(SLOW) as (agent, _):
        handle = agent.chat("slow please")
        await first_delta(handle)
        await handle.cancel()
        result = await handle
        assert result.ended.reason == "cancelled"
        assert (await agent.chat("hello")).text == "Hello from the model."


async def test_a_turn_that_was_broken_off_leaks_nothing_into_the_next(start: Any) -> None:
    async with start(SLOW) as (agent, _):
        async for event in agent.chat("slow please"):
            if event.kind == "sdk_message" and event.payload["type"] == "stream_event":
                break
        events = [event async for event in agent.chat("hello")]
        texts = [str(event.payload) for event in events if event.kind == "sdk_message"]
        assert not any("word word" in text for text in texts)
        assert texts[-1].find("Hello from the model.") > 0


async def test_an_interrupt_stops_a_running_tool(start: Any, alive: Any) -> None:
    async with start(BUSY + HELLO) as (agent, _):
        handle = agent.chat("busy")
        async for event in handle:
            if event.kind == "ca_permission_decision":
                break
        await working(alive)
        await handle.cancel()
        assert (await handle).ended.reason == "cancelled"
        assert (await agent.chat("hello")).text == "Hello from the model."


async def test_an_overloaded_model_is_tried_again(start: Any) -> None:
    script = "rules: [{match: hello, turns: [{text: At last., error: {status: 529, times: 1}}]}]"
    async with start(script) as (agent, sim):
        assert (await agent.chat("hello")).text == "At last."
        assert [call.status for call in sim.calls] == [529, 200]


async def test_a_broken_stream_is_recovered(start: Any) -> None:
    script = (
        "rules: [{match: hello, turns: [{text: Whole after all., drop_after: {events: 3, times: 1}, chunk_size: 4}]}]"
    )
    async with start(script) as (agent, _):
        assert (await agent.chat("hello")).text == "Whole after all."


async def test_an_api_that_always_fails_fails_the_turn_and_not_the_session(start: Any) -> None:
    script = "rules:\n  - {match: bad, turns: [{error: {status: 400, message: no such thing}}]}\n" + HELLO
    async with start(script) as (agent, _):
        with pytest.raises(EngineError, match="no such thing") as failure:
            await agent.chat("bad")
        assert failure.value.code == "TURN_FAILED"
        assert (await agent.chat("hello")).text == "Hello from the model."


async def test_a_budget_that_is_spent_ends_the_run(start: Any) -> None:
    script = (
        "rules: [{match: work, turns: [{tool: Bash, input: {command: 'ls'}}, {tool: Bash, input: {command: 'ls'}}]}]"
    )
    async with start(script, budget_max_usd=0.0001) as (agent, _):
        result = await agent.chat("work")
    assert result.ended.reason == "budget_exceeded"
    assert result.usage.cost_usd is not None
    assert result.usage.cost_usd > 0.0001


async def test_killing_the_cli_ends_the_run_honestly_and_leaves_no_process(start: Any, alive: Any) -> None:
    async with start(BUSY + HELLO) as (agent, _):
        handle = agent.chat("busy")
        async for event in handle:
            if event.kind == "ca_permission_decision":
                break
        running = await working(alive)
        os.kill(min(running), signal.SIGKILL)
        with pytest.raises(EngineError) as failure:
            await handle
        assert failure.value.result.ended.reason == "error"
        assert failure.value.hint
        await gone(alive)
        # the next turn starts the session's next run, which remembers
        assert (await agent.chat("hello")).text == "Hello from the model."


async def test_cancelling_the_run_is_quick_and_leaves_no_process(start: Any, alive: Any) -> None:
    async with start(BUSY + HELLO) as (agent, _):
        handle = agent.chat("busy")
        async for event in handle:
            if event.kind == "ca_permission_decision":
                break
        await working(alive)
        await agent.cancel()
        assert (await handle).ended.reason == "cancelled"
        assert alive() == []


RESUME = """
import asyncio, sys
from computeragent import ComputerAgent
async def main():
    async with ComputerAgent(source=sys.argv[1], session_id="sess_resume", session_store=sys.argv[2],
                             envs={"ANTHROPIC_BASE_URL": sys.argv[3], "ANTHROPIC_API_KEY": "k"}) as agent:
        result = await agent.chat(sys.argv[4])
        print(result.text)
asyncio.run(main())
"""


@pytest.mark.parametrize("store", ["sqlite", "file"])
async def test_a_new_process_in_another_folder_gives_the_model_its_history(tmp_path: Path, store: str) -> None:
    async with ModelSimulator(parse_script("rules:\n" + HELLO)) as sim:
        for folder, message in (("one", "hello, the password is swordfish"), ("two", "hello, what was it?")):
            (tmp_path / folder).mkdir()
            env = {**os.environ, "HOME": str(tmp_path / f"home-{folder}")}
            command = [sys.executable, "-c", RESUME, str(tmp_path / folder), store, sim.url, message]
            done = await asyncio.to_thread(
                subprocess.run, command, env=env, capture_output=True, text=True, timeout=50, check=False
            )
            assert done.stdout == "Hello from the model.\n", done.stderr
        last = json.dumps(sim.calls[-1].json["messages"])
    assert "the password is swordfish" in last
    assert "Hello from the model." in last
    assert "what was it?" in last


async def test_two_sessions_at_once_do_not_mix(start: Any, workdir: Path, config_dir: Path, tmp_path: Path) -> None:
    script = "rules: [{match: 'say (\\w+)', turns: [{text: 'I say $1', delay: 0.2}]}]"
    async with start(script) as (one, sim):
        envs = sim.claude_environment(config_dir) | {"HOME": str(tmp_path / "home")}
        async with ComputerAgent(source=workdir, envs=envs) as two:
            results = await asyncio.gather(one.chat("say red"), two.chat("say blue"))
            assert [result.text for result in results] == ["I say red", "I say blue"]
            await asyncio.gather(one.chat("say green"), two.chat("say yellow"))
        for call in sim.calls:
            body = json.dumps(call.json["messages"])
            assert not ("say red" in body and "say blue" in body)


async def test_nothing_of_the_hosts_environment_reaches_the_cli_but_what_is_stated(
    start: Any, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CANARY_SECRET", "AWS_SECRET_ACCESS_KEY", "CLAUDE_CODE_CANARY", "OPENAI_API_KEY", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, f"canary-{name}")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("LC_MONETARY", "C")
    script = "rules: [{match: env, turns: [{tool: Bash, input: {command: 'env > WORK/env.txt'}}, {text: ok}]}]"
    async with start(script, envs={"MINE": "given", "GIT_TOKEN": "canary-git"}) as (agent, _):
        await agent.chat("show env")
    seen = dict(line.split("=", 1) for line in (workdir / "env.txt").read_text().splitlines() if "=" in line)
    assert "canary" not in str(seen)
    assert seen["MINE"] == "given"
    assert seen["AWS_REGION"] == "eu-central-1"
    assert seen["LC_MONETARY"] == "C"


async def test_bedrock_settings_reach_the_cli_and_a_turn_runs(workdir: Path, config_dir: Path) -> None:
    async with ModelSimulator(parse_script("rules:\n" + HELLO)) as sim:
        envs = {
            "CLAUDE_CODE_USE_BEDROCK": "1",
            "ANTHROPIC_BEDROCK_BASE_URL": sim.url,
            "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1",
            "AWS_REGION": "us-east-2",
            "CLAUDE_CONFIG_DIR": str(config_dir),
        }
        model = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
        async with ComputerAgent(source=workdir, envs=envs, model=model) as agent:
            assert (await agent.chat("hello")).text == "Hello from the model."
        assert any("invoke-with-response-stream" in call.path and "haiku" in call.path for call in sim.requests)


async def test_a_session_id_that_the_clis_own_folder_knows_is_no_obstacle(start: Any) -> None:
    script = "rules:\n" + HELLO
    from computeragent.stores.memory import MemorySessionStore

    for _ in range(2):  # each with a store that knows nothing, over one CLAUDE_CONFIG_DIR
        async with start(script, session_id="demo", session_store=MemorySessionStore()) as (agent, _sim):
            assert (await agent.chat("hello")).text == "Hello from the model."


async def test_a_missing_key_is_said_at_once(workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    async with ComputerAgent(source=workdir, envs={"HOME": str(tmp_path)}) as agent:
        with pytest.raises(EngineError) as failure:
            await agent.chat("hello")
    assert failure.value.message == "no credentials for Claude: neither a provider key nor a login was found"
    assert failure.value.hint == (
        "Set ANTHROPIC_API_KEY, or pass it in envs=; to try things out without a key, run `computeragent demo`."
    )


async def test_a_wrong_key_is_said_soon(start: Any, alive: Any) -> None:
    async with start("require_key: right\nrules:\n" + HELLO, envs={"ANTHROPIC_API_KEY": "wrong"}) as (agent, sim):
        with pytest.raises(EngineUnavailableError) as failure:
            await agent.chat("hello")
        assert failure.value.message == "the model's provider refuses the credentials (HTTP 401)"
        assert failure.value.hint == "Check ANTHROPIC_API_KEY (or the login), and that it belongs to the base URL."
        assert len(sim.calls) == 3  # the CLI alone would try for three minutes
    assert alive() == []


async def test_a_missing_cli_is_said_at_once(start: Any) -> None:
    async with start("rules:\n" + HELLO, options={"cli_path": "/nowhere/claude"}) as (agent, _):
        with pytest.raises(EngineError, match="the Claude CLI '/nowhere/claude' is not an executable file"):
            await agent.chat("hello")


async def test_an_unknown_option_is_said_with_the_one_that_was_meant(start: Any) -> None:
    async with start("rules:\n" + HELLO, options={"max_turn": 3}) as (agent, _):
        with pytest.raises(EngineError, match="has no option 'max_turn'") as failure:
            await agent.chat("hello")
        assert failure.value.hint == 'Did you mean "max_turns"?'
