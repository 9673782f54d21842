"""Every call goes through the one permission chain; what the protocol cannot say is denied."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from computeragent.clis import AcpTerms
from computeragent.protocol_types import PermissionRequest, PolicyVerdict
from computeragent.testing.conformance.probe import Probe
from computeragent.wire.events import CaSessionEnded, SdkMessage
from computeragent.wire.requests import PermissionDecision

from .agents import as_row, session_of, write_plan

pytestmark = pytest.mark.anyio
WRITE = [{"write": ["a.txt", "one"]}, {"say": "Done."}]


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    return Probe(None, tmp_path)  # type: ignore[arg-type]


@pytest.fixture
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bin")


async def allowing(_: PermissionRequest) -> PolicyVerdict:
    return PolicyVerdict("allow")


async def test_a_changed_input_is_denied_for_the_protocol_has_no_word_for_it(tmp_path: Path, probe: Probe) -> None:
    def change(request: PermissionRequest) -> PermissionDecision:
        return PermissionDecision(decision="modify", input={**request.input, "content": "two"})

    async with session_of(tmp_path, write_plan(tmp_path, WRITE)) as session:
        events = await probe.turn(session, "go on", answer=change)
    assert not (tmp_path / "a.txt").exists()
    assert "takes no changed input" in str([e.payload for e in events if isinstance(e, SdkMessage)])


async def test_nothing_is_allowed_for_ever(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, WRITE, options=["allow_always", "reject_once"])
    async with session_of(tmp_path, plan) as session:
        await probe.turn(session, "go on")
    assert not (tmp_path / "a.txt").exists()


async def test_an_agent_that_offers_no_way_to_refuse_gets_its_question_back(tmp_path: Path, probe: Probe) -> None:
    plan = write_plan(tmp_path, WRITE, options=["allow_once"])
    async with session_of(tmp_path, plan) as session:
        await probe.turn(session, "go on", answer=lambda _: PermissionDecision(decision="deny"))
    assert not (tmp_path / "a.txt").exists()


async def test_under_a_policy_a_call_that_was_not_asked_ends_the_run(
    tmp_path: Path, probe: Probe, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_row(monkeypatch, bin_folder)
    plan = write_plan(tmp_path, [{"write": ["a.txt", "one"], "unasked": True}, {"wait": 30}])
    async with session_of(tmp_path, plan, options={"cli": "stand_in"}, policy=allowing) as session:
        end = (await probe.turn(session, "go on"))[-1]
    assert isinstance(end, CaSessionEnded)
    assert end.reason == "error"
    assert "ran Edit without asking" in str(end.error_message)


async def test_under_a_policy_a_call_that_ran_though_it_was_denied_ends_the_run(
    tmp_path: Path, probe: Probe, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def denying(_: PermissionRequest) -> PolicyVerdict:
        return PolicyVerdict("deny", reason="not today")

    as_row(monkeypatch, bin_folder)
    plan = write_plan(tmp_path, [{"write": ["a.txt", "one"], "anyhow": True}, {"wait": 30}])
    async with session_of(tmp_path, plan, options={"cli": "stand_in"}, policy=denying) as session:
        end = (await probe.turn(session, "go on"))[-1]
    assert isinstance(end, CaSessionEnded)
    assert "ran Edit without being allowed to" in str(end.error_message)


async def test_under_a_policy_what_is_told_late_of_a_call_that_was_judged_is_no_breach(
    tmp_path: Path, probe: Probe, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_row(monkeypatch, bin_folder)
    late = {"call": {"toolCallId": "call-1-0", "status": "completed"}}
    plan = write_plan(tmp_path, WRITE, [late, {"say": "Next."}])
    async with session_of(tmp_path, plan, options={"cli": "stand_in"}, policy=allowing) as session:
        await probe.turn(session, "go on")
        last = (await probe.turn(session, "go on"))[-1]
    assert isinstance(last, SdkMessage)
    assert last.payload["result"] == "Next."


async def test_a_call_that_is_asked_for_again_and_allowed_is_told_as_it_ended(tmp_path: Path, probe: Probe) -> None:
    answers = iter(["deny", "allow"])
    plan = write_plan(tmp_path, [{"write": ["a.txt", "one"], "twice": True}])

    async with session_of(tmp_path, plan) as session:
        events = await probe.turn(session, "go on", answer=lambda _: PermissionDecision(decision=next(answers)))
    told = str([event.payload for event in events if isinstance(event, SdkMessage)])
    assert (tmp_path / "a.txt").exists()
    assert "wrote a.txt" in told


async def test_under_a_policy_a_command_of_unknown_manners_is_not_run(tmp_path: Path, probe: Probe) -> None:
    async with session_of(tmp_path, write_plan(tmp_path, WRITE), policy=allowing) as session:
        end = await probe.until(session, "ca_session_ended")
    assert isinstance(end, CaSessionEnded)
    assert end.error_code == "ENGINE_UNAVAILABLE"
    assert "no policy can hold it" in str(end.error_message)


async def test_under_a_policy_an_agent_that_cannot_ask_for_all_is_not_run(
    tmp_path: Path, probe: Probe, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_row(monkeypatch, bin_folder, asks=None)
    options = {"cli": "stand_in"}
    async with session_of(tmp_path, write_plan(tmp_path, WRITE), options=options, policy=allowing) as session:
        end = await probe.until(session, "ca_session_ended")
    assert "without asking" in str(end.error_message)  # type: ignore[union-attr]


async def test_bypass_bypasses_no_policy(
    tmp_path: Path, probe: Probe, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def denying(_: PermissionRequest) -> PolicyVerdict:
        return PolicyVerdict("deny", reason="not today")

    as_row(monkeypatch, bin_folder, mode="free")
    plan = write_plan(tmp_path, WRITE, modes=["default", "free"])
    options = {"cli": "stand_in", "permission_mode": "bypassPermissions"}
    async with session_of(tmp_path, plan, options=options, policy=denying) as session:
        await probe.turn(session, "go on")
    assert not (tmp_path / "a.txt").exists()
    assert not modes_set(session)


async def test_the_mode_that_does_not_ask_is_set_where_the_owner_says_so(
    tmp_path: Path, probe: Probe, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_row(monkeypatch, bin_folder, mode="free")
    plan = write_plan(tmp_path, [{"say": "Free."}], modes=["default", "free"])
    options = {"cli": "stand_in", "permission_mode": "bypassPermissions"}
    async with session_of(tmp_path, plan, options=options) as session:
        await probe.turn(session, "go on")
        assert modes_set(session) == ["free"]


async def test_an_agent_without_the_mode_is_not_run(
    tmp_path: Path, probe: Probe, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_row(monkeypatch, bin_folder, asking_mode="careful")
    plan = write_plan(tmp_path, WRITE, modes=["default", "free"])
    async with session_of(tmp_path, plan, options={"cli": "stand_in"}) as session:
        end = await probe.until(session, "ca_session_ended")
    assert "does not offer the mode 'careful'" in str(end.error_message)  # type: ignore[union-attr]


async def test_terms_are_set_and_gone_when_they_hold_no_more(
    tmp_path: Path, probe: Probe, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_row(monkeypatch, bin_folder, asks=AcpTerms(files={".stand-in/ask": "all"}, meta={"own": {"ask": True}}))
    plan = write_plan(tmp_path, [{"say": "Hello."}])
    memory = {"session_id": "acp-terms", "session_store": "memory"}
    async with session_of(tmp_path, plan, options={"cli": "stand_in"}, **memory) as session:
        await probe.turn(session, "go on")
        (home,) = homes(session)
        assert (home / ".stand-in/ask").read_text() == "all"
        assert '"_meta": {"own": {"ask": true}}' in next(home.glob("*.new")).read_text()
    free = {"cli": "stand_in", "permission_mode": "bypassPermissions"}
    async with session_of(tmp_path, plan, options=free, **memory) as session:
        await probe.turn(session, "go on")
    assert not (home / ".stand-in/ask").exists()


def homes(session: Any) -> list[Path]:
    folder = Path(os.environ["COMPUTERAGENT_HOME"], "work", session.id, "state", "acp")
    return list(folder.iterdir())


def modes_set(session: Any) -> list[str]:
    return [path.read_text() for home in homes(session) for path in home.glob("mode")] if homes_there(session) else []


def homes_there(session: Any) -> bool:
    return Path(os.environ["COMPUTERAGENT_HOME"], "work", session.id, "state", "acp").is_dir()
