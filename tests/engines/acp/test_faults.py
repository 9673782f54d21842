"""What goes wrong with an agent's program, and that nothing of it outlives its run."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from computeragent.processes import marks
from computeragent.testing.conformance.probe import Probe
from computeragent.wire.events import CaSessionEnded, SdkMessage
from computeragent.wire.requests import UserInput

from .agents import KEY, as_row, session_of, write_plan

pytestmark = pytest.mark.anyio


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    return Probe(None, tmp_path)  # type: ignore[arg-type]


async def ended(probe: Probe, tmp_path: Path, plan: Path, **more: Any) -> CaSessionEnded:
    async with session_of(tmp_path, plan, **more) as session:
        end = await probe.until(session, "ca_session_ended")
    assert isinstance(end, CaSessionEnded)
    return end


def living(plan: Path) -> set[int]:
    """The stand-ins that follow this plan, and what they started."""
    return {pid for pid, followed in marks("PLAN").items() if followed == str(plan)}


async def test_a_program_that_is_not_there(tmp_path: Path, probe: Probe) -> None:
    end = await ended(probe, tmp_path, write_plan(tmp_path), options={"command": ["no-such-agent"]})
    assert end.error_code == "ENGINE_UNAVAILABLE"
    assert "'no-such-agent' is not an executable file" in str(end.error_message)


async def test_a_program_that_does_not_answer_is_named_within_the_limit(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, faults={"mute": ["initialize"]})
    end = await ended(probe, tmp_path, plan, options={"start_timeout": 0.5})
    assert end.error_code == "ENGINE_UNAVAILABLE"
    assert "did not answer initialize within 0.5 s" in str(end.error_message)
    assert "stand-in is up" in str(end.error_message)
    assert "start_timeout" in str(end.error_hint)


async def test_a_program_that_speaks_something_else(tmp_path: Path, probe: Probe) -> None:
    options = {"command": ["cat"], "start_timeout": 0.5}  # it sends our own request back
    end = await ended(probe, tmp_path, write_plan(tmp_path), options=options)
    assert end.error_code in {"ENGINE_UNAVAILABLE", "ENGINE_FAILED"}


async def test_a_program_that_ends_at_once(tmp_path: Path, probe: Probe) -> None:
    end = await ended(probe, tmp_path, write_plan(tmp_path), options={"command": ["false"]})
    assert end.error_code == "ENGINE_UNAVAILABLE"
    assert "exited with status 1" in str(end.error_message)


@pytest.mark.parametrize("method", ["initialize", "session/new"])
async def test_a_program_that_dies_on_the_way_is_quoted_without_its_secrets(
    tmp_path: Path, probe: Probe, method: str
) -> None:
    end = await ended(probe, tmp_path, write_plan(tmp_path, faults={"die": [method]}))
    assert end.error_code == "ENGINE_UNAVAILABLE"
    assert f"cannot {method}: the key *** is of no use" in str(end.error_message)
    assert KEY not in str(end)


async def test_an_agent_that_wants_a_login_says_so(tmp_path: Path, probe: Probe) -> None:
    refusal = {"session/new": {"code": -32000, "message": "Authentication required"}}
    end = await ended(probe, tmp_path, write_plan(tmp_path, faults={"refuse": refusal}))
    assert end.error_code == "ENGINE_UNAVAILABLE"
    assert "logged in" in str(end.error_message)


async def test_another_version_of_the_protocol(tmp_path: Path, probe: Probe) -> None:
    end = await ended(probe, tmp_path, write_plan(tmp_path, version=9))
    assert "version 9 of the Agent Client Protocol" in str(end.error_message)


async def test_an_end_in_the_middle_of_a_turn_tells_status_and_last_words(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"say": "So far"}, {"die": f"fatal: out of memory with {KEY}"}])
    async with session_of(tmp_path, plan) as session:
        events = await probe.turn(session, "go on")
    end = events[-1]
    assert isinstance(end, CaSessionEnded)
    assert (end.reason, end.error_code) == ("error", "ENGINE_FAILED")
    assert "exited with status 3" in str(end.error_message)
    assert "fatal: out of memory with ***" in str(end.error_message)
    assert "So far" in str([event.payload for event in events if isinstance(event, SdkMessage)])


async def test_last_words_are_bounded(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"die": "x" * 400_000 + "the end"}])
    async with session_of(tmp_path, plan) as session:
        end = (await probe.turn(session, "go on"))[-1]
    assert isinstance(end, CaSessionEnded)
    assert str(end.error_message).endswith("the end")
    assert len(str(end.error_message)) < 9_000


async def test_children_that_left_the_group_end_with_the_run(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"child": 1}, {"say": "It runs."}])
    async with session_of(tmp_path, plan) as session:
        await probe.turn(session, "go on")
        assert len(living(plan)) == 2
    assert living(plan) == set()


async def test_an_agent_that_does_not_leave_is_ended(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"say": "I stay."}], faults={"stays": True})
    async with session_of(tmp_path, plan) as session:
        await probe.turn(session, "go on")
    assert living(plan) == set()


async def test_a_cancelled_run_ends_an_agent_that_is_deaf(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"say": "Deaf."}, {"deaf": 600}])
    async with session_of(tmp_path, plan) as session:
        stream = session.events()
        await session.send(UserInput(content="go on"))
        await probe.until(session, "sdk_message")
        await session.cancel()
        end = [recorded async for recorded in stream][-1].event
    assert isinstance(end, CaSessionEnded)
    assert end.reason == "cancelled"
    assert living(plan) == set()


async def test_a_run_that_is_cancelled_while_the_agent_gets_ready(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, faults={"mute": ["session/new"]})
    async with session_of(tmp_path, plan) as session:
        while not living(plan):
            await asyncio.sleep(0.01)
        await session.cancel()
        assert session.ended is not None
        assert session.ended.reason == "cancelled"
    assert living(plan) == set()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({}, "VALIDATION", "cli or command"),
        ({"cli": "gemini_cli", "command": ["x"]}, "VALIDATION", "cli or command"),
        ({"cli": "gemni_cli"}, "UNKNOWN_CLI", "gemni_cli"),
        ({"cli": "mini_swe_agent"}, "VALIDATION", "does not speak the Agent Client Protocol"),
        ({"cli": "pi", "permission_mode": "yolo"}, "VALIDATION", "permission_mode"),
        ({"comand": ["x"]}, "UNKNOWN_OPTION", "comand"),
        ({"command": []}, "VALIDATION", "command is empty"),
        ({"command": ["x"], "mcp_servers": {"a": {}}}, "VALIDATION", "a command or a url"),
        ({"command": ["x"], "start_timeout": 0}, "VALIDATION", "start_timeout"),
    ],
)
async def test_options_that_are_none(
    tmp_path: Path, probe: Probe, options: dict[str, Any], code: str, said: str
) -> None:
    from computeragent.engines.acp import AcpEngine
    from computeragent.harness import LocalHarness
    from computeragent.protocol_types import LocalSource, SessionRequest

    harness = LocalHarness()
    request = SessionRequest(source=LocalSource(path=str(tmp_path)), engine=AcpEngine(), options=options)
    session = await harness.open(request)
    end = await probe.until(session, "ca_session_ended")
    await harness.close()
    assert isinstance(end, CaSessionEnded)
    assert end.error_code == code
    assert said in str(end.error_message)


async def test_without_a_key_the_variable_is_named(
    tmp_path: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    as_row(monkeypatch, tmp_path_factory.mktemp("bin"))
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    end = await ended(
        probe, tmp_path, write_plan(tmp_path), options={"cli": "stand_in"}, envs={"ANTHROPIC_API_KEY": ""}
    )
    assert end.error_code == "ENGINE_UNAVAILABLE"
    assert "ANTHROPIC_API_KEY" in str(end.error_message)


async def test_children_that_have_the_pipes_open_end_with_a_run_that_is_cancelled(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"child": 1}, {"say": "It runs."}, {"deaf": 600}])
    async with session_of(tmp_path, plan) as session:
        await session.send(UserInput(content="go on"))
        await probe.until(session, "sdk_message")
        while len(living(plan)) < 2:
            await asyncio.sleep(0.01)
        await session.cancel()
    assert living(plan) == set()


async def test_an_end_is_noticed_though_a_child_has_the_pipes_open(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"child": 1}, {"die": "gone"}])
    async with session_of(tmp_path, plan) as session:
        end = (await probe.turn(session, "go on"))[-1]
    assert isinstance(end, CaSessionEnded)
    assert "exited with status 3" in str(end.error_message)
    assert living(plan) == set()


async def test_a_stranger_with_its_stderr_does_not_hold_the_run_up(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, [{"stranger": 1}, {"say": "It runs."}])
    async with session_of(tmp_path, plan) as session:
        await probe.turn(session, "go on")
    os.kill(int((tmp_path / "stranger").read_text()), signal.SIGKILL)  # which fails where it was waited for
    assert session.ended is not None
    assert session.ended.reason == "complete"


@pytest.mark.parametrize(
    "answer",
    [
        {"error": "overloaded"},
        {"error": {"message": ["overloaded"]}},
        {"error": {"message": "overloaded"}, "result": None},
        {"result": {"stopReason": ["?"]}},
        {"result": "overloaded"},
    ],
)
async def test_an_answer_of_another_shape_fails_its_turn_alone(
    tmp_path: Path, probe: Probe, answer: dict[str, Any]
) -> None:
    plan = write_plan(tmp_path, [{"answer": answer}], [{"say": "Better now."}])
    async with session_of(tmp_path, plan) as session:
        first = (await probe.turn(session, "go on"))[-1]
        second = (await probe.turn(session, "go on"))[-1]
    assert isinstance(first, SdkMessage)
    assert isinstance(second, SdkMessage)
    assert (first.payload["is_error"], second.payload["result"]) == (True, "Better now.")


async def test_a_refusal_is_quoted_without_secrets(tmp_path: Path, probe: Probe) -> None:
    refusal = {"session/new": {"code": -32603, "message": f"the key {KEY} is of no use"}}
    end = await ended(probe, tmp_path, write_plan(tmp_path, faults={"refuse": refusal}))
    assert "the key *** is of no use" in str(end.error_message)
    assert KEY not in str(end)


async def test_a_refusal_is_short_and_tells_no_password_of_a_proxy(tmp_path: Path, probe: Probe) -> None:
    message = "no way through http://ada:pa55-word@proxy:3128\n" + "and so on " * 5_000
    plan = write_plan(tmp_path, faults={"refuse": {"session/new": {"code": -32603, "message": message}}})
    end = await ended(probe, tmp_path, plan, envs={"HTTPS_PROXY": "http://ada:pa55-word@proxy:3128"})
    said = str(end.error_message)
    assert "no way through http://***@proxy:3128 and so on" in said
    assert len(said) < 2_500


async def test_a_secret_that_the_bound_of_a_refusal_cuts_is_taken_out_before(tmp_path: Path, probe: Probe) -> None:
    message = "x" * 1_985 + f" {KEY} " + "y" * 100
    plan = write_plan(tmp_path, faults={"refuse": {"session/new": {"code": -32603, "message": message}}})
    said = str((await ended(probe, tmp_path, plan)).error_message)
    assert "xxx ***" in said
    assert KEY[:6] not in said
