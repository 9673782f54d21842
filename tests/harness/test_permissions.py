"""The permission chain: policy, then whoever answers, then denial; every decision an event, every fault a denial."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny

from computeragent.errors import UnknownCallError, ValidationError
from computeragent.harness import PermissionChain, parse_decision
from computeragent.policy import review
from computeragent.protocol_types import PermissionDecision, PermissionRequest, PolicyVerdict
from computeragent.wire.events import CaPermissionDecision, CaPermissionRequest, HarnessEvent, encode_event
from puppets import until

pytestmark = pytest.mark.anyio

LS = PermissionRequest("call_1", "Bash", {"command": "ls"})
ALLOW, DENY = PermissionDecision(decision="allow"), PermissionDecision(decision="deny", reason="no")


class Asked:
    """A chain, what it emitted, and short ways to play the other side of it."""

    def __init__(self, policy: Any = None, timeout: float = 30.0) -> None:
        self.events: list[HarnessEvent] = []
        self.chain = PermissionChain(
            session_id="s", policy=policy, approval_timeout=timeout, emit=self._emit, turn=lambda: 7
        )

    def _emit(self, event: HarnessEvent) -> None:
        encode_event(event)  # as a log does, and refuses what is no JSON
        self.events.append(event)

    def ask(self, request: PermissionRequest = LS) -> asyncio.Task[PermissionDecision]:
        return asyncio.create_task(self.chain.ask(request))

    async def pending(self, request: PermissionRequest = LS) -> asyncio.Task[PermissionDecision]:
        task = self.ask(request)
        await until(lambda: request.call_id in self.chain.pending)
        return task

    @property
    def decision(self) -> CaPermissionDecision:
        (found,) = [event for event in self.events if isinstance(event, CaPermissionDecision)]
        return found


def says(*verdicts: PolicyVerdict) -> Any:
    """A policy that gives these verdicts in turn, and notes what it was asked."""
    queue = list(verdicts)

    async def policy(request: PermissionRequest) -> PolicyVerdict:
        policy.asked.append(request)
        return queue.pop(0)

    policy.asked = []
    return policy


# ── Policy ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_policy_allows_without_asking_anyone():
    asked = Asked(says(PolicyVerdict("allow", reason="fine", rule="r1", principal="ann")))
    assert await asked.ask() == PermissionDecision(decision="allow", reason="fine")
    assert [event.kind for event in asked.events] == ["ca_permission_decision"]
    decision = asked.decision
    assert (decision.call_id, decision.tool_name, decision.input) == ("call_1", "Bash", {"command": "ls"})
    assert (decision.decided_by, decision.rule, decision.principal) == ("policy", "r1", "ann")
    assert (decision.reason, decision.turn_index) == ("fine", 7)
    assert decision.latency_ms is not None
    assert decision.latency_ms >= 0


async def test_policy_denies_with_its_reason():
    asked = Asked(says(PolicyVerdict("deny", reason="not on Fridays", rule="friday")))
    assert await asked.ask() == PermissionDecision(decision="deny", reason="not on Fridays")
    assert (asked.decision.decision, asked.decision.rule) == ("deny", "friday")


async def test_a_denial_always_has_a_reason():
    assert (await Asked(says(PolicyVerdict("deny"))).ask()).reason == "denied"


async def test_a_policy_that_modifies_judges_its_own_input_once_more():
    policy = says(PolicyVerdict("modify", input={"command": "ls -l"}), PolicyVerdict("allow", rule="second"))
    asked = Asked(policy)
    assert await asked.ask() == PermissionDecision(decision="modify", input={"command": "ls -l"})
    assert [request.input for request in policy.asked] == [{"command": "ls"}, {"command": "ls -l"}]
    assert (asked.decision.decision, asked.decision.input) == ("modify", {"command": "ls -l"})


async def test_a_policy_that_never_stops_modifying_denies():
    async def policy(request: PermissionRequest) -> PolicyVerdict:
        return PolicyVerdict("modify", input={"command": request.input["command"] + "!"})

    asked = Asked(policy)
    assert (await asked.ask()).decision == "deny"
    assert (asked.decision.decided_by, asked.decision.reason) == ("fault", "the input was modified again and again")


async def test_a_modification_that_changes_nothing_is_an_allowance():
    asked = Asked(says(PolicyVerdict("modify", input={"command": "ls"})))
    assert (await asked.ask()).decision == "allow"


@pytest.mark.parametrize("verdict", ["ask", "abstain"])
async def test_policy_leaves_it_to_whoever_answers(verdict: Any):
    asked = Asked(says(PolicyVerdict(verdict)))
    task = await asked.pending()
    request = asked.events[0]
    assert isinstance(request, CaPermissionRequest)
    assert (request.call_id, request.tool_name, request.risk, request.turn_index) == ("call_1", "Bash", "low", 7)
    asked.chain.decide("call_1", ALLOW, "manual")
    assert (await task).decision == "allow"
    assert asked.decision.decided_by == "manual"


CHECKED = replace(LS, policy="safety-check", reason="The page gives orders.")


@pytest.mark.parametrize(
    "verdicts",
    [
        None,
        [PolicyVerdict("allow")],
        [PolicyVerdict("abstain")],
        [PolicyVerdict("modify", input={"command": "ls"})],
        [PolicyVerdict("modify", input={"command": "pwd"}), PolicyVerdict("allow")],
    ],
)
async def test_a_request_that_wants_a_person_gets_one_whatever_a_policy_allows(verdicts: Any):
    asked = Asked(verdicts and says(*verdicts))
    task = await asked.pending(CHECKED)
    request = asked.events[0]
    assert isinstance(request, CaPermissionRequest)
    assert (request.policy, request.reason) == ("safety-check", "The page gives orders.")
    asked.chain.decide("call_1", ALLOW, "manual")
    assert (await task).decision in {"allow", "modify"}
    assert asked.decision.decided_by == "manual"


async def test_a_request_that_wants_a_person_is_still_denied_by_a_policy():
    assert (await Asked(says(PolicyVerdict("deny", reason="no"))).ask(CHECKED)).reason == "no"


async def test_a_policy_that_asks_tells_the_reasons_of_both():
    asked = Asked(says(PolicyVerdict("ask", reason="mine", engine="rules")))
    task = await asked.pending(CHECKED)
    assert (asked.events[0].policy, asked.events[0].reason) == ("rules", "mine; The page gives orders.")
    asked.chain.decide("call_1", ALLOW, "manual")
    await task


async def test_a_person_s_modification_goes_through_policy_again():
    policy = says(PolicyVerdict("ask"), PolicyVerdict("deny", reason="not that either"))
    asked = Asked(policy)
    task = await asked.pending()
    asked.chain.decide("call_1", PermissionDecision(decision="modify", input={"command": "rm -rf /"}), "manual")
    assert await task == PermissionDecision(decision="deny", reason="not that either")
    assert policy.asked[1].input == {"command": "rm -rf /"}
    assert policy.asked[1].risk == "destructive"


async def test_a_person_is_asked_once_even_when_policy_would_ask_again():
    asked = Asked(says(PolicyVerdict("ask"), PolicyVerdict("ask")))
    task = await asked.pending()
    asked.chain.decide("call_1", PermissionDecision(decision="modify", input={"command": "pwd"}), "manual")
    assert await task == PermissionDecision(decision="modify", input={"command": "pwd"})
    assert [event.kind for event in asked.events] == ["ca_permission_request", "ca_permission_decision"]
    assert asked.decision.decided_by == "manual"


async def raising(request: PermissionRequest) -> PolicyVerdict:
    raise ConnectionError("policy server down")


async def no_verdict(request: PermissionRequest) -> Any:
    return {"decision": "allow"}


async def empty_modification(request: PermissionRequest) -> Any:
    return PolicyVerdict("modify")


async def unknown_word(request: PermissionRequest) -> Any:
    return PolicyVerdict("perhaps")  # type: ignore[arg-type]


def not_async(request: PermissionRequest) -> Any:
    return PolicyVerdict("allow")


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (raising, "the policy failed: ConnectionError"),
        (not_async, "the policy failed: TypeError"),
        (no_verdict, "the policy gave a malformed verdict"),
        (empty_modification, "the policy gave a malformed verdict"),
        (unknown_word, "the policy gave a malformed verdict"),
    ],
)
async def test_a_faulty_policy_denies_and_says_why(policy: Any, reason: str):
    asked = Asked(policy)
    assert await asked.ask() == PermissionDecision(decision="deny", reason=reason)
    assert (asked.decision.decision, asked.decision.reason) == ("deny", reason)


async def test_a_policy_that_does_not_answer_in_time_denies(monkeypatch: pytest.MonkeyPatch):
    async def policy(request: PermissionRequest) -> PolicyVerdict:
        await asyncio.Event().wait()
        return PolicyVerdict("allow")

    monkeypatch.setattr(review, "POLICY_TIMEOUT", 0.01)
    assert (await Asked(policy).ask()).reason == "the policy did not answer within 0.01 s"


async def test_what_is_told_to_stop_while_policy_thinks_is_denied_and_asked_of_nobody():
    thinking, go_on = asyncio.Event(), asyncio.Event()

    async def policy(request: PermissionRequest) -> PolicyVerdict:
        thinking.set()
        await go_on.wait()
        return PolicyVerdict("ask")

    asked = Asked(policy)
    task = asked.ask()
    await thinking.wait()
    asked.chain.deny_pending("interrupted")
    go_on.set()
    assert await task == PermissionDecision(decision="deny", reason="interrupted")
    assert asked.decision.decided_by == "session"


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_first_answer_wins():
    asked = Asked()
    task = await asked.pending()
    asked.chain.decide("call_1", DENY, "manual")
    with pytest.raises(UnknownCallError) as late:
        asked.chain.decide("call_1", ALLOW, "callback")
    said = "no pending permission request for callId 'call_1' on session 's': deny by manual was first"
    assert (late.value.message, late.value.details) == (said, {"decision": "deny", "decidedBy": "manual"})
    assert await task == PermissionDecision(decision="deny", reason="no")
    assert (asked.decision.decided_by, asked.decision.reason) == ("manual", "no")


async def test_an_answer_to_a_call_that_nobody_asked_about_is_refused():
    with pytest.raises(UnknownCallError) as caught:
        Asked().chain.decide("call_9", ALLOW, "manual")
    assert (caught.value.code, caught.value.status) == ("UNKNOWN_CALL_ID", 400)
    assert caught.value.hint == "It was answered already, timed out, or its turn ended."


async def test_nobody_answering_denies_at_the_time_limit():
    asked = Asked(timeout=0.01)
    assert await asked.ask() == PermissionDecision(decision="deny", reason="nobody answered within 0.01 s")
    assert asked.decision.decided_by == "timeout"
    assert asked.chain.pending == []


@pytest.mark.parametrize(
    "nonsense",
    [
        PermissionDecision(decision="reject"),  # type: ignore[arg-type]
        PermissionDecision(decision="modify"),
        PermissionDecision(decision="modify", input="rm"),  # type: ignore[arg-type]
    ],
)
async def test_an_answer_that_is_none_is_refused_and_the_call_still_waits(nonsense: PermissionDecision):
    asked = Asked()
    task = await asked.pending()
    with pytest.raises(ValidationError, match="not a permission decision"):
        asked.chain.decide("call_1", nonsense, "manual")
    assert asked.chain.pending == ["call_1"]
    asked.chain.decide("call_1", DENY, "manual")
    assert (await task).decision == "deny"


async def test_an_allowance_with_an_input_is_a_modification():
    asked = Asked()
    task = await asked.pending()
    asked.chain.decide("call_1", PermissionDecision(decision="allow", input={"command": "pwd"}), "manual")
    assert await task == PermissionDecision(decision="modify", input={"command": "pwd"})


async def test_an_input_that_is_no_json_is_denied():
    asked = Asked()
    task = await asked.pending()
    asked.chain.decide("call_1", PermissionDecision(decision="modify", input={"x": object()}), "manual")
    assert await task == PermissionDecision(decision="deny", reason="the tool's input cannot be expressed as JSON")
    assert (asked.decision.decided_by, asked.decision.decision) == ("fault", "deny")


async def test_calls_are_asked_side_by_side():
    asked = Asked()
    other = PermissionRequest("call_2", "Read", {"file_path": "x"})
    one, two = await asked.pending(), await asked.pending(other)
    assert asked.chain.pending == ["call_1", "call_2"]
    asked.chain.decide("call_2", DENY, "manual")
    asked.chain.decide("call_1", ALLOW, "manual")
    assert [(await one).decision, (await two).decision] == ["allow", "deny"]


async def test_a_second_call_of_the_same_id_is_denied_and_the_first_still_waits():
    asked = Asked()
    first = await asked.pending()
    assert (await asked.ask()).reason == "a call with this id is pending already"
    asked.chain.decide("call_1", ALLOW, "manual")
    assert (await first).decision == "allow"


async def test_closing_denies_what_waits_and_all_that_comes():
    asked = Asked()
    task = await asked.pending()
    asked.chain.close("session cancelled")
    assert await task == PermissionDecision(decision="deny", reason="session cancelled")
    assert (await asked.ask()).reason == "session cancelled"
    assert [event.kind for event in asked.events].count("ca_permission_request") == 1


async def test_a_call_that_the_engine_takes_back_is_on_record():
    asked = Asked()
    task = await asked.pending()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asked.chain.pending == []
    assert (asked.decision.decision, asked.decision.reason) == ("deny", "the engine took the call back")


async def test_the_engine_s_own_estimate_of_risk_is_kept():
    asked = Asked(says(PolicyVerdict("allow")))
    policy_saw = asked.chain._policy
    await asked.ask(PermissionRequest("c", "Bash", {"command": "ls"}, risk="low"))
    assert policy_saw.asked[0].risk == "low"  # type: ignore[union-attr]


# ── Spellings of an answer ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        (True, ALLOW),
        (False, PermissionDecision(decision="deny")),
        (DENY, DENY),
        ({"decision": "deny", "reason": "no"}, DENY),
        ({"decision": "modify", "input": {"a": 1}}, PermissionDecision(decision="modify", input={"a": 1})),
        (PermissionResultAllow(), ALLOW),
        (PermissionResultAllow(updated_input={"a": 1}), PermissionDecision(decision="modify", input={"a": 1})),
        (PermissionResultDeny(message="no"), DENY),
        (PermissionResultDeny(), PermissionDecision(decision="deny")),
    ],
)
def test_an_answer_has_many_spellings(answer: Any, decision: PermissionDecision):
    assert parse_decision(answer) == decision


@pytest.mark.parametrize(
    "answer", [None, "allow", 1, [], {}, {"decision": "yes"}, {"decision": "modify"}, {"behavior": "allow"}, object()]
)
def test_anything_else_is_no_answer(answer: Any):
    with pytest.raises(ValidationError, match=r"^not a permission decision: ") as caught:
        parse_decision(answer)
    assert caught.value.hint.startswith('Answer {"decision": "allow"}')
