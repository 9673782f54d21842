"""Calls that wait for an answer: listed for whoever may answer them, on whichever server; and who was first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from computeragent.client import HarnessClient
from computeragent.errors import UnknownCallError
from computeragent.eventlog import RedisEventLog, SharedEventLog, SharedSqliteEventLog
from computeragent.server import bearer

from .conftest import TOKEN, Server, serving
from .test_replicas import replica

pytestmark = pytest.mark.anyio
OTHER = "the-token-of-another"
ASKED = [{"tool": "Bash", "input": {"command": "make deploy"}}, {"text": "done"}]
RULES = """\
version: 1
rules:
  - name: deploys
    match: {tool: Bash}
    effect: ask
    reason: deploys need a person
"""


def is_decided(event: Any) -> bool:
    return event["kind"] == "ca_permission_decision"


async def waiting(server: Server, count: int = 1, **headers: str) -> list[Any]:
    """What waits, once so many do."""
    while True:
        answer = await server.client.get("/v1/approvals", headers=headers)
        assert answer.status_code == 200, answer.text
        found = answer.json()["approvals"]
        if len(found) == count:
            return found
        await asyncio.sleep(0.02)


async def asking(server: Server, **fields: Any) -> str:
    session = await server.open(ASKED, **fields)
    await server.say(session, "go")
    return session


def place(approval: Any) -> str:
    return f"/v1/sessions/{approval['sessionId']}/permission/{approval['callId']}"


async def answered(server: Server, session: str) -> Any:
    return (await server.events(session, is_decided))[-1]


async def test_what_waits_is_listed_with_what_one_must_know_to_answer(server: Server) -> None:
    session = await asking(server, approvalTimeout=90)
    (approval,) = await waiting(server)
    assert approval["sessionId"] == session
    assert (approval["toolName"], approval["input"]) == ("Bash", {"command": "make deploy"})
    assert (approval["agent"], approval["risk"], approval["turnIndex"]) == ("tester", "medium", 0)
    asked, expires = (datetime.fromisoformat(approval[name]) for name in ("askedAt", "expiresAt"))
    assert (expires - asked).total_seconds() == pytest.approx(90, abs=0.01)
    state = (await server.client.get(f"/v1/sessions/{session}")).json()
    assert state["pendingCalls"] == [approval["callId"]]
    assert (await server.client.post(place(approval), json={"decision": "deny", "reason": "no"})).json() == {"ok": True}
    decision = await answered(server, session)
    assert (decision["callId"], decision["decision"], decision["reason"]) == (approval["callId"], "deny", "no")
    assert await waiting(server, 0) == []


async def test_a_policy_that_asks_says_why(server: Server) -> None:
    await asking(server, policy={"kind": "rules", "text": RULES})
    (approval,) = await waiting(server)
    assert (approval["policy"], approval["reason"]) == ("rules", "deploys need a person")


async def test_calls_are_listed_oldest_first(server: Server) -> None:
    first = await asking(server)
    await waiting(server)
    second = await asking(server)
    assert [approval["sessionId"] for approval in await waiting(server, 2)] == [first, second]


async def test_nobody_sees_or_answers_the_calls_of_somebody_else(tmp_path: Path) -> None:
    async with serving(tmp_path, auth=bearer([TOKEN, OTHER])) as server:
        await asking(server)
        (approval,) = await waiting(server)
        other = {"authorization": f"Bearer {OTHER}"}
        assert await waiting(server, 0, **other) == []
        refused = await server.client.post(place(approval), json={"decision": "allow"}, headers=other)
        assert refused.status_code == 404
        assert await waiting(server) == [approval]


async def test_of_two_who_answer_at_once_one_wins_and_the_other_hears_who(server: Server) -> None:
    session = await asking(server)
    (approval,) = await waiting(server)
    async with (
        HarnessClient(base_url=server.url, token=TOKEN) as ann,
        HarnessClient(base_url=server.url, token=TOKEN) as bob,
    ):
        assert (await ann.approvals())["approvals"] == [approval]
        outcomes = await asyncio.gather(
            ann.decide_permission(session, approval["callId"], "allow", by="ann"),
            bob.decide_permission(session, approval["callId"], "deny", by="bob"),
            return_exceptions=True,
        )
    (late,) = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(late, UnknownCallError)
    decision = await answered(server, session)
    winner = ("allow", "(ann)") if outcomes[0] is None else ("deny", "(bob)")
    assert decision["decision"] == winner[0]
    assert decision["decidedBy"].startswith("token-")
    assert decision["decidedBy"].endswith(winner[1])
    assert f"{decision['decision']} by {decision['decidedBy']} was first" in late.message
    assert late.details == {"decision": decision["decision"], "decidedBy": decision["decidedBy"]}


async def test_an_answer_after_the_time_limit_hears_so(server: Server) -> None:
    session = await asking(server, approvalTimeout=0.2)
    decision = await answered(server, session)
    assert decision["decidedBy"] == "timeout"
    late = await server.client.post(place(decision), json={"decision": "allow"})
    assert (late.status_code, late.json()["error"]["code"]) == (400, "UNKNOWN_CALL_ID")
    assert "deny by timeout was first" in late.text


@pytest.mark.parametrize("by", ["a" * 101, "root (really)", "ann\nroot", "\u202eann", " ", 7])
async def test_a_name_that_could_mislead_is_refused_and_the_call_waits_on(server: Server, by: Any) -> None:
    await asking(server)
    (approval,) = await waiting(server)
    refused = await server.client.post(place(approval), json={"decision": "allow", "by": by})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "VALIDATION")
    assert await waiting(server) == [approval]


async def test_another_input_runs_in_place_of_the_call_s_own(server: Server) -> None:
    session = await asking(server)
    (approval,) = await waiting(server)
    changed = {"decision": "modify", "input": {"command": "make check"}}
    assert (await server.client.post(place(approval), json=changed)).status_code == 200
    decision = await answered(server, session)
    assert (decision["decision"], decision["input"]) == ("modify", {"command": "make check"})


# ── Several servers ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["redis", "sqlite"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Makes servers on one log."""

    def log() -> SharedEventLog:
        if request.param == "sqlite":
            return SharedSqliteEventLog(tmp_path / "log.db")
        return RedisEventLog(request.getfixturevalue("redis").url, prefix=tmp_path.name)

    async with AsyncExitStack() as stack:

        async def made(name: str, advertise: str | None = None) -> Server:
            return await stack.enter_async_context(replica(log(), tmp_path, name, advertise))

        yield made


async def test_each_server_lists_and_answers_what_waits_on_all_of_them(shared: Any) -> None:
    a, b = await shared("a"), await shared("b")
    of_a, of_b = await asking(a), await asking(b)
    listed = await waiting(b, 2)
    assert [approval["sessionId"] for approval in listed] == [of_a, of_b]
    assert await waiting(a, 2) == listed
    assert await waiting(b, 0, authorization=f"Bearer {OTHER}") == []
    done = await b.client.post(place(listed[0]), json={"decision": "deny", "by": "ann"})
    assert done.json() == {"ok": True}
    assert (await answered(a, of_a))["decidedBy"].endswith(" (ann)")
    late = await b.client.post(place(listed[0]), json={"decision": "allow"})
    assert (late.status_code, late.json()["error"]["code"]) == (400, "UNKNOWN_CALL_ID")
    assert "(ann) was first" in late.json()["error"]["message"]
    assert await waiting(b) == listed[1:]


async def test_a_server_that_cannot_be_asked_is_told_of(shared: Any) -> None:
    a, b = await shared("a", "http://127.0.0.1:9"), await shared("b")
    session = await asking(a)
    await waiting(a)
    while (answer := (await b.client.get("/v1/approvals")).json()) == {"approvals": []}:
        await asyncio.sleep(0.02)
    assert answer == {"approvals": [], "unreachable": [session]}


async def test_what_is_not_signed_as_a_server_s_is_no_server_s(shared: Any) -> None:
    a = await shared("a")
    await asking(a)
    async with httpx2.AsyncClient(base_url=a.url) as stranger:
        forged = {"x-computeragent-peer": "0" * 64, "x-computeragent-principal": "anonymous"}
        assert (await stranger.get("/v1/approvals", headers=forged)).status_code == 401
        assert (await stranger.get("/v1/approvals")).status_code == 401
