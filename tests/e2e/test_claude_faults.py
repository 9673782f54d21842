"""A real Claude Code agent that is killed, interrupted and starved at odd moments: nothing hangs, nothing stays."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from computeragent import ComputerAgent, EngineError
from computeragent.testing.models import ModelSimulator, parse_script

from .conftest import tool_results

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

HELLO = "  - {match: hello, turns: [{text: Hello from the model.}]}\n"
WORK = (
    """rules:
  - match: work
    turns:
      - {thinking: hmm, text: I will look., tool: Read, input: {file_path: WORK/README.md}, chunk_size: 6}
      - {tool: Bash, input: {command: "echo a > WORK/x"}}
      - text: Done.
"""
    + HELLO
)


async def greets(agent: ComputerAgent) -> bool:
    return (await agent.chat("hello")).text == "Hello from the model."


async def wait_for(condition: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("moment", [0.0, 0.2])
async def test_a_cli_that_is_killed_while_it_starts(start: Any, alive: Any, moment: float) -> None:
    async with start(WORK) as (agent, _):
        turn = asyncio.ensure_future(agent.chat("hello").result())
        assert await wait_for(alive, 30)
        await asyncio.sleep(moment)
        kill_all(alive())
        with pytest.raises(EngineError, match=r"could not start: (it was killed by signal 9|its process ended)"):
            await turn
        assert await greets(agent)
    assert alive() == []


async def test_a_cli_that_is_killed_while_a_person_decides(start: Any, alive: Any) -> None:
    decided = []

    async def decide(_: Any) -> bool:
        kill_all(alive())
        await asyncio.sleep(0.5)
        decided.append(True)
        return True

    async with start(WORK, on_tool_call=decide) as (agent, _):
        with pytest.raises(EngineError, match="ended unexpectedly: it was killed by signal 9"):
            await agent.chat("work")
        assert await greets(agent)
    assert decided == []  # the question was taken back
    assert alive() == []


async def test_a_cli_that_is_killed_between_turns_is_started_again_and_remembers(start: Any, alive: Any) -> None:
    async with start(WORK) as (agent, sim):
        await agent.chat("hello, my name is Ada")
        kill_all(alive())
        assert await wait_for(lambda: agent._session.ended is not None, 30)  # it was noticed
        assert await greets(agent)
        assert "my name is Ada" in json.dumps(sim.calls[-1].json)


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.25, 0.45])
async def test_cancelling_a_run_that_starts_is_quick(start: Any, alive: Any, moment: float) -> None:
    async with start(WORK) as (agent, _):
        turn = asyncio.ensure_future(agent.chat("hello").result())
        await wait_for(lambda: agent.session_id is not None, 30)
        await asyncio.sleep(moment)
        await agent.cancel()
        assert (await turn).ended.reason in {"cancelled", "complete"}
        assert alive() == []
        assert await greets(agent)


async def test_an_interrupt_is_taken_at_every_moment_of_a_turn(start: Any, alive: Any) -> None:
    async with start(WORK) as (agent, _):
        moment, ended = 0, "cancelled"
        while ended == "cancelled":
            handle, seen = agent.chat("work"), 0
            async for _event in handle:
                if seen == moment:
                    await handle.cancel()
                seen += 1
            result = await handle
            ended = result.ended.reason if moment < seen else "done"
            moment += 4
        assert moment > 20
        assert await greets(agent)
    assert alive() == []


async def test_three_turns_asked_for_at_once_run_one_after_another(start: Any) -> None:
    async with start(WORK) as (agent, _):
        handles = [agent.chat(text) for text in ("hello one", "work", "hello two")]
        results = await asyncio.gather(*(handle.result() for handle in handles))
    assert [result.text for result in results] == ["Hello from the model.", "Done.", "Hello from the model."]


async def test_huge_outputs_and_malformed_inputs_do_no_harm(start: Any, workdir: Path) -> None:
    (workdir / "big.txt").write_text(("y" * 200 + "\n") * 1000)
    script = """rules:
  - match: work
    turns:
      - {tool: Bash, input: {command: "python3 -c 'print(\\"x\\" * 5000000)'"}}
      - {tool: Read, input: {file_path: WORK/big.txt}}
      - {tool: Bash, input: {cmd: 3}}
      - {tool: Write, input: {file_path: [1], content: {a: 1}}}
      - text: Done.
"""
    async with start(script) as (agent, sim):
        assert (await agent.chat("work")).text == "Done."
    assert [failed for failed, _ in tool_results(sim.calls[-1])] == [False, False, True, True]


async def test_an_answer_that_comes_too_late_is_a_denial(start: Any, workdir: Path) -> None:
    async def late(_: Any) -> bool:
        await asyncio.Event().wait()
        return True

    async with start(WORK, approval_timeout=0.5, on_tool_call=late) as (agent, _):
        events = [event async for event in agent.chat("work")]
    decisions = [event for event in events if event.kind == "ca_permission_decision"]
    assert [(d.decision, d.decided_by) for d in decisions] == [("deny", "timeout")] * 2
    assert not (workdir / "x").exists()


SUBAGENT = (
    """rules:
  - match: "count the files"
    turns:
      - {tool: Bash, input: {command: "touch WORK/by-subagent"}}
      - text: There is one file.
  - match: delegate
    turns:
      - tool: Agent
        input: {description: count, prompt: "count the files", subagent_type: general-purpose}
      - text: The sub-agent answered.
"""
    + HELLO
)


@pytest.mark.parametrize("store", ["file", "sqlite"])
async def test_a_session_with_sub_agents_is_resumed(start: Any, tmp_path: Path, store: str) -> None:
    async with start(SUBAGENT, session_store=store, session_id="delegated") as (agent, _):
        await agent.chat("delegate this")
    elsewhere = {"CLAUDE_CONFIG_DIR": str(tmp_path / "elsewhere")}
    async with start(SUBAGENT, session_store=store, session_id="delegated", envs=elsewhere) as (agent, sim):
        assert await greets(agent)
    remembered = json.dumps(sim.calls[-1].json["messages"])
    assert "delegate this" in remembered
    assert "The sub-agent answered." in remembered


async def test_what_the_cli_complains_about_is_told_without_its_secrets(
    workdir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPUTERAGENT_LOG_FORMAT", "pretty")
    cli = tmp_path / "claude"
    cli.write_text('#!/bin/sh\necho "no luck with $ANTHROPIC_API_KEY and $MY_PASS" >&2\nexit 3\n')
    cli.chmod(0o755)
    envs = {"ANTHROPIC_API_KEY": "canary-one", "MY_PASS": "canary-two", "HOME": str(tmp_path)}
    async with ComputerAgent(source=workdir, envs=envs, options={"cli_path": str(cli)}, debug=True) as agent:
        with pytest.raises(EngineError) as failure:
            await agent.chat("hello")
        assert "canary" not in repr(agent._request)
    assert failure.value.message == "the Claude CLI could not start: no luck with *** and ***"
    shown = capfd.readouterr().err
    assert "engine.claude.stderr  line=no luck with *** and ***" in shown
    assert "canary" not in shown


async def test_sessions_leave_nothing_behind(start: Any, alive: Any) -> None:
    async with start(WORK) as (agent, _):
        await greets(agent)

    def held() -> tuple[int, int, int]:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(asyncio.all_tasks())

    async with ModelSimulator(parse_script("rules:\n" + HELLO)):  # the loop's own first-time costs
        before = held()
    for store in ("memory", "file", "sqlite", "memory", "file", "sqlite"):
        async with start(WORK, session_store=store, session_id=f"s-{store}") as (agent, _):
            await greets(agent)
    await asyncio.sleep(0.1)
    after = held()
    assert after[0] <= before[0] + 3  # the database of the sqlite store, opened once
    assert after[1] <= before[1] + 2
    assert after[2] <= before[2]
    assert alive() == []


ORPHAN = """
import asyncio, json, sys
from computeragent import ComputerAgent
async def main():
    async with ComputerAgent(source=sys.argv[1], envs=json.loads(sys.argv[2])) as agent:
        async for event in agent.chat("busy"):
            print(event.kind, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
async def test_when_the_program_is_killed_the_cli_and_its_tools_go_too(
    workdir: Path, config_dir: Path, tmp_path: Path, alive: Any, sent: signal.Signals
) -> None:
    command = 'python3 -c "import time; time.sleep(60)"'
    script = f"rules:\n  - {{match: busy, turns: [{{tool: Bash, input: {{command: '{command}'}}}}]}}\n"
    async with ModelSimulator(parse_script(script)) as sim:
        (tmp_path / "home").mkdir()
        envs = sim.claude_environment(config_dir) | {"HOME": str(tmp_path / "home")}
        arguments = [sys.executable, "-c", ORPHAN, str(workdir), json.dumps(envs)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            while "ca_permission_decision" not in await asyncio.to_thread(program.stdout.readline):
                pass
            assert await wait_for(lambda: len(alive()) >= 2, 30)
            program.send_signal(sent)
        assert await wait_for(lambda: not alive(), 30)
